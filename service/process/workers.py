"""Child processes of the supervisor: workers by fork, what watches and replaces them, and the signals that wake it."""

import faulthandler
import logging
import math
import os
import select
import signal
import socket
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import NamedTuple, NoReturn

from service.errors import ServiceError
from service.process.heartbeat import Heartbeat, Limits, Verdict, Watchdog
from service.process.parent_death import ParentPipe, end_with

logger = logging.getLogger(__name__)

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

#: Seconds. A child that lived shorter than STEADY makes the next wait before a replacement twice as long.
FIRST_DELAY, LONGEST_DELAY, STEADY = 0.1, 10.0, 10.0

#: Seconds within which several signals that ask for the end are one: service managers and terminals send two.
SAME_STOP = 1.0


class Signals:
    """Counts the signals that ask for the end, and makes every signal, a child's death included, end a `wait`.

    Those that come within `SAME_STOP` of one that was counted belong to it.
    """

    def __init__(self) -> None:
        self.stops = 0
        self._last_stop = -math.inf
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)  # noqa: FBT003 - positional only
        self._writer.setblocking(False)  # noqa: FBT003 - positional only

    def __enter__(self) -> "Signals":
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in STOP_SIGNALS:
            # nohup leaves SIGHUP ignored, and means it.
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._count)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._reset()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def wait(self, seconds: float) -> None:
        """Return at the next signal, or after `seconds`, which may be infinite."""
        select.select([self._reader], [], [], None if math.isinf(seconds) else max(0.0, seconds))
        try:
            self._reader.recv(4096)
        except BlockingIOError:
            return

    def leave_to_parent(self) -> None:
        """In a forked child: SIGTERM acts again; a terminal's Ctrl-C and hang-up are the supervisor's business."""
        self._reset()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def _reset(self) -> None:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGCHLD, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        self._reader.close()
        self._writer.close()

    def _count(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - a signal handler's signature
        now = time.monotonic()
        if now - self._last_stop >= SAME_STOP:
            self.stops += 1
            self._last_stop = now


class Supervision(NamedTuple):
    """What a worker needs of its supervisor: `beat`, to be called every `heartbeat.INTERVAL`, and the pipe to it.

    `parent_pipe` is a file descriptor that becomes readable when the supervisor is dead.
    """

    beat: Callable[[], None]
    parent_pipe: int


class Worker:
    """One forked process that calls `run`, and ends when that returns.

    It ends together with its supervisor, however that ends: another server may own the store by then.
    """

    def __init__(
        self,
        name: str,
        run: Callable[[Supervision], object],
        signals: Signals,
        parent_pipe: ParentPipe,
        limits: Limits = Limits(),  # noqa: B008 - immutable
    ) -> None:
        self.name = name
        self._run = run
        self._signals = signals
        self._parent_pipe = parent_pipe
        self._limits = limits
        self._heartbeat = Heartbeat()
        self._watchdog = Watchdog(limits, 0.0)
        self._pid: int | None = None
        self._end = "not started"

    def start(self) -> None:
        """Fork. The supervisor calls this for a replacement too, once `ended` told the end of the one before."""
        parent = os.getpid()
        self._heartbeat.close()
        self._heartbeat = Heartbeat()
        self._watchdog = Watchdog(self._limits, time.monotonic())
        # A signal that met the child before its handlers are its own would be counted there, and lost.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        try:
            pid = os.fork()
            if pid == 0:
                self._live(parent)
            self._pid = pid
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def ended(self) -> str | None:
        """How the process ended, None while it runs."""
        if self._pid is not None:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            if pid == 0:
                return None
            code = os.waitstatus_to_exitcode(status)
            self._end = f"signal {-code}" if code < 0 else f"exit status {code}"
            self._pid = None
        return self._end

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process, if it is there."""
        if self.ended() is None and self._pid is not None:
            os.kill(self._pid, number)

    def end_if_hung(self, now: float) -> None:
        """Kill the process if it has missed its heartbeats at `now` (seconds, monotonic); `ended` tells of it later.

        SIGABRT first: where its handler still runs, it prints the stacks.
        """
        verdict = self._watchdog.look(self._heartbeat.count, now)
        if verdict is Verdict.ABORT and self.ended() is None:
            logger.error("%s (process %d) hangs: it missed its heartbeat and is aborted", self.name, self._pid)
            self.send(signal.SIGABRT)
        elif verdict is Verdict.KILL:
            self.send(signal.SIGKILL)

    def _live(self, parent: int) -> NoReturn:
        """The child's whole life. It never returns into the supervisor's code, whatever happens.

        The signals that ask for the end stay blocked until `run` can meet them and lets them in: however early it comes, the
        connections in its queue must not be lost with it.
        """
        status = 1
        try:
            self._signals.leave_to_parent()
            parent_pipe = self._parent_pipe.enter_child()
            end_with(parent, signal.SIGKILL)
            faulthandler.enable(2)
            self._run(Supervision(self._heartbeat.beat, parent_pipe))
            status = 0
        except ServiceError as error:
            logger.error("a worker cannot run: %s", error)
        except BaseException:
            logger.exception("a worker failed")
        finally:
            os._exit(status)


class Watched:
    """A child that is to live: replaced when it ended, after a wait that grows while it keeps ending early."""

    def __init__(self, name: str, start: Callable[[], None], ended: Callable[[], str | None], now: float) -> None:
        self.name = name
        self._start = start
        self._ended = ended
        self._started = now
        self._early = 0  # ends in a row that came before STEADY
        self._due: float | None = None

    def look(self, now: float) -> float:
        """Do what is due at `now` (seconds, monotonic); return the seconds until something may be due again."""
        if self._due is None:
            end = self._ended()
            if end is None:
                return math.inf
            self._plan(now, end)
        due = self._due or now
        if now < due:
            return due - now
        self._replace(now)
        return 0.0 if self._due is None else self._due - now

    def _plan(self, now: float, end: str) -> None:
        if now - self._started >= STEADY:
            self._early = 0
        delay = min(FIRST_DELAY * 2 ** min(self._early, 20), LONGEST_DELAY)
        self._early += 1
        self._due = now + delay
        logger.warning("%s ended (%s), starting another in %.1f s", self.name, end, delay)

    def _replace(self, now: float) -> None:
        self._due = None
        self._started = now
        try:
            self._start()
        except (OSError, ServiceError) as error:
            self._plan(now, str(error))
