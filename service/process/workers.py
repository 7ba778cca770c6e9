"""Child processes of the supervisor: forked workers, their replacement, and the signals that wake the supervisor."""

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
from service.process.parent_death import ParentPipe, set_parent_death_signal
from service.process.slots import Slots, Words
from service.settings import Settings

logger = logging.getLogger(__name__)

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

#: What a process gets when its successor runs: it accepts no more connections, and ends without hurry. SIGTERM, also after this
#: signal, ends it soon.
RETIRE = signal.SIGUSR2
#: What a child process takes; blocked until it has its handlers.
CHILD_SIGNALS = (*STOP_SIGNALS, RETIRE)
#: Seconds that a process keeps idle connections open after RETIRE, for their next requests; the shutdown timeout at most.
IDLE_GRACE = 5.0

#: Seconds before a replacement. The delay doubles with each exit in a row within STABLE_AFTER seconds of the start.
MIN_DELAY, MAX_DELAY, STABLE_AFTER = 0.1, 10.0, 10.0

#: Seconds within which several stop signals count as one: service managers and terminals may send two.
STOP_DEBOUNCE = 1.0


class Signals:
    """Counts the stop signals in `stop_requests`; every signal, SIGCHLD included, ends a `wait`.

    Stop signals within `STOP_DEBOUNCE` of one that was counted are not counted. With `reloads`, SIGHUP is no stop signal, but
    requests a reload.
    """

    def __init__(self, *, reloads: bool = False) -> None:
        self.stop_requests = 0
        self._reload_requested = False
        self._reloads = reloads
        self._last_request = -math.inf
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)  # noqa: FBT003 - positional only
        self._writer.setblocking(False)  # noqa: FBT003 - positional only

    def __enter__(self) -> "Signals":
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in STOP_SIGNALS:
            # Under nohup, SIGHUP stays ignored, unless it means something else than the end of a terminal.
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._count)
        if self._reloads:
            signal.signal(signal.SIGHUP, self._request_reload)
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

    def take_reload_request(self) -> bool:
        """Whether a reload was requested since the last call."""
        requested, self._reload_requested = self._reload_requested, False
        return requested

    def reset_in_child(self) -> None:
        """In a forked child: SIGTERM gets its default action; SIGINT and SIGHUP are ignored, as the supervisor handles them."""
        self._reset()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def _reset(self) -> None:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGCHLD, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        self._reader.close()
        self._writer.close()

    def _request_reload(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - a signal handler's signature
        self._reload_requested = True

    def _count(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - a signal handler's signature
        now = time.monotonic()
        if now - self._last_request >= STOP_DEBOUNCE:
            self.stop_requests += 1
            self._last_request = now


class Supervision(NamedTuple):
    """A worker's connection to its supervisor: call `beat` every `heartbeat.INTERVAL` seconds, once it accepts connections.

    `parent_pipe` is a file descriptor that becomes readable when the supervisor dies. `slot` is where the worker counts, None
    if nobody reads that.
    """

    beat: Callable[[], None]
    parent_pipe: int
    slot: Words | None = None


class WorkerProcess:
    """One forked process that calls `run`, which has `settings`, and exits when that returns.

    It dies with its supervisor: after that, another server may own the store.
    """

    def __init__(
        self,
        name: str,
        run: Callable[[Supervision], object],
        settings: Settings,
        signals: Signals,
        parent_pipe: ParentPipe,
        limits: Limits = Limits(),  # noqa: B008 - immutable
        slots: Slots | None = None,
    ) -> None:
        self.name = name
        self.settings = settings
        self._run = run
        self._signals = signals
        self._parent_pipe = parent_pipe
        self._limits = limits
        self._slots = slots
        self._slot: Words | None = None
        self._heartbeat = Heartbeat()
        self._watchdog = Watchdog(limits, 0.0)
        self._pid: int | None = None
        self._exit_reason = "not started"

    def start(self) -> None:
        """Fork.

        Raises:
            OSError: the system has not enough memory, or too many processes. It can be called again.
        """
        parent = os.getpid()
        heartbeat = Heartbeat()
        self._heartbeat.close()
        self._heartbeat = heartbeat
        self._watchdog = Watchdog(self._limits, time.monotonic())
        if self._slots is not None and self._slot is None:
            self._slot = self._slots.take()
        # Until the child has its own handlers, it would count a signal in its copy of `stop_requests`, and lose it.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, CHILD_SIGNALS)
        try:
            pid = os.fork()
            if pid == 0:
                self._run_child(parent)
            self._pid = pid
        except OSError:
            self._give_back_slot()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def restart(self) -> None:
        """Fork again, after `exit_reason` has returned a reason that nobody asked for. Raises as `start` does."""
        self.start()
        if self._slots is not None:
            self._slots.count_restart()

    def exit_reason(self) -> str | None:
        """How the process ended; None while it is running."""
        if self._pid is not None:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            if pid == 0:
                return None
            code = os.waitstatus_to_exitcode(status)
            self._exit_reason = f"signal {-code}" if code < 0 else f"exit status {code}"
            self._pid = None
            self._give_back_slot()
        return self._exit_reason

    def _give_back_slot(self) -> None:
        if self._slots is not None and self._slot is not None:
            self._slots.give_back(self._slot)
            self._slot = None

    @property
    def runs(self) -> bool:
        """Whether it accepts connections: it beats from then on."""
        return self._heartbeat.count > 0

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process if it is running."""
        if self.exit_reason() is None and self._pid is not None:
            os.kill(self._pid, number)

    def kill_if_hung(self, now: float) -> None:
        """Kill the process if it has missed its heartbeats at `now` (seconds, monotonic), without waiting for its end.

        SIGABRT comes first: faulthandler then prints the stacks.
        """
        verdict = self._watchdog.check(self._heartbeat.count, now)
        if verdict is Verdict.ABORT and self.exit_reason() is None:
            logger.error("%s (process %d) hangs: it missed its heartbeat; aborting it", self.name, self._pid)
            self.send(signal.SIGABRT)
        elif verdict is Verdict.KILL:
            self.send(signal.SIGKILL)

    def _run_child(self, parent: int) -> NoReturn:
        """Run the child until it exits. It never returns into the supervisor's code.

        The signals stay blocked until `run` has its handlers and unblocks them: even an early signal must not lose the
        connections in the accept queue.
        """
        status = 1
        try:
            self._signals.reset_in_child()
            parent_pipe = self._parent_pipe.enter_child()
            set_parent_death_signal(parent, signal.SIGKILL)
            faulthandler.enable(2)
            self._run(Supervision(self._heartbeat.beat, parent_pipe, self._slot))
            status = 0
        except ServiceError as error:
            logger.error("a worker cannot start: %s", error)
        except BaseException:
            logger.exception("a worker failed")
        finally:
            os._exit(status)


class Watched:
    """A child process that is restarted whenever it exits, after a delay that doubles while it keeps exiting early."""

    def __init__(self, name: str, start: Callable[[], None], exit_reason: Callable[[], str | None], now: float) -> None:
        self.name = name
        self._start = start
        self._child_exit_reason = exit_reason
        self._started_at = now
        self._early_exits = 0  # in a row, each within STABLE_AFTER of its start
        self._restart_at: float | None = None

    def poll(self, now: float) -> float:
        """Restart the child if that is due at `now` (seconds, monotonic); returns the seconds until the next restart."""
        if self._restart_at is None:
            end = self._child_exit_reason()
            if end is None:
                return math.inf
            self._schedule_restart(now, end)
        restart_at = self._restart_at or now
        if now < restart_at:
            return restart_at - now
        self._restart(now)
        return 0.0 if self._restart_at is None else self._restart_at - now

    def _schedule_restart(self, now: float, end: str) -> None:
        if now - self._started_at >= STABLE_AFTER:
            self._early_exits = 0
        delay = min(MIN_DELAY * 2 ** min(self._early_exits, 20), MAX_DELAY)
        self._early_exits += 1
        self._restart_at = now + delay
        logger.warning("%s exited (%s); restarting in %.1f s", self.name, end, delay)

    def _restart(self, now: float) -> None:
        self._restart_at = None
        self._started_at = now
        try:
            self._start()
        except (OSError, ServiceError) as error:
            self._schedule_restart(now, str(error))
