"""The processes that serve: restarted when they exit or hang, and replaced one at a time when the settings change."""

import logging
import math
import signal
from collections.abc import Callable, Sequence

from service.process.workers import IDLE_GRACE, MAX_DELAY, RETIRE, Watched, WorkerProcess
from service.settings import Settings

logger = logging.getLogger(__name__)

#: Seconds after the shutdown timeout before workers that are still running are killed.
DRAIN_GRACE = 5.0
#: Seconds between two checks of a replacement that is starting.
_START_INTERVAL = 0.02
#: Processes for each listening socket, those that drain included. A reload waits until there are fewer.
MAX_PROCESSES = 4


class WorkerPool:
    """One process for each listening socket, by number: the workers, then the admin server if there is one.

    A replacement starts on the socket of its predecessor, which drains and exits once the replacement runs. So the socket is
    always served, and connections in its queue are never lost. If a replacement cannot run, the processes that have the new
    settings already are replaced again, by some with the settings before.
    """

    def __init__(
        self,
        makes: Sequence[Callable[[Settings], WorkerProcess]],
        settings: Settings,
        configure_logs: Callable[[Settings], object] = lambda _: None,
    ) -> None:
        """`makes` has a function for each number. `configure_logs` is called when the settings change, before a fork."""
        self.settings = settings
        self._before = settings
        self._configure_logs = configure_logs
        self._makes = makes
        self._workers = [make(settings) for make in makes]
        self._watched: list[Watched] = []
        self._to_replace: list[int] = []
        self._replacement: WorkerProcess | None = None
        self._is_replacing = False
        #: Whether a reload has failed, and the settings before it are being restored.
        self._is_restoring = False
        #: When the next replacement may start (seconds, monotonic).
        self._replace_at = -math.inf
        #: Predecessors that drain, and when they are killed (seconds, monotonic).
        self._draining: list[tuple[WorkerProcess, float]] = []

    @property
    def processes(self) -> list[WorkerProcess]:
        """All processes, with those that a replacement has just started or is ending."""
        started = [self._replacement] if self._replacement is not None else []
        return [*self._workers, *started, *(worker for worker, _ in self._draining)]

    @property
    def is_replacing(self) -> bool:
        """Whether some processes do not have the settings in force, or have not exited yet."""
        return self._is_replacing

    def start(self, now: float) -> None:
        """Start the processes at `now` (seconds, monotonic)."""
        for worker in self._workers:
            worker.start()
        self._watched = [_watch(worker, now) for worker in self._workers]

    def replace(self, settings: Settings, now: float) -> None:
        """Begin to replace every process by one with `settings`; `poll` does it."""
        if self._replacement is not None:
            self._drain(self._replacement, now)
            self._replacement = None
        if not self._to_replace:
            # Else the reload that this one ends is not complete, and the settings before it are still in force.
            self._before = self.settings
        self._use(settings)
        self._to_replace = list(range(len(self._workers)))
        self._is_replacing, self._is_restoring = True, False
        self._replace_at = now

    def poll(self, now: float) -> float:
        """Restart and replace processes as far as that is due at `now`; returns the seconds until the next call."""
        for worker in self.processes:
            worker.kill_if_hung(now)
        self._draining = [_killed_when_due(*draining, now) for draining in self._draining if draining[0].exit_reason() is None]
        pause = min(self._replace_next(now), *(child.poll(now) for child in self._watched))
        if self._is_replacing and not self._to_replace and not self._draining:
            # Not earlier: while a predecessor drains, it still answers requests.
            self._is_replacing = False
            logger.info("every worker has the %s settings", "old" if self._is_restoring else "new")
        return pause

    def _replace_next(self, now: float) -> float:
        if not self._to_replace:
            return math.inf
        if now < self._replace_at:
            return self._replace_at - now
        number = self._to_replace[0]
        if self._replacement is None:
            if len(self.processes) < MAX_PROCESSES * len(self._workers):
                self._start_replacement(number, now)
        elif end := self._replacement.exit_reason():
            self._replacement = None
            self._give_up(f"exited ({end})", now)
        elif self._replacement.runs:
            self._drain(self._workers[number], now)
            self._workers[number] = self._replacement
            self._watched[number] = _watch(self._replacement, now)
            self._replacement = None
            del self._to_replace[0]
        return _START_INTERVAL

    def _start_replacement(self, number: int, now: float) -> None:
        try:
            replacement = self._makes[number](self.settings)
            replacement.start()
        except OSError as error:
            # Such as too many processes, or too little memory.
            self._give_up(f"cannot be started ({error})", now)
        else:
            self._replacement = replacement

    def _give_up(self, problem: str, now: float) -> None:
        """End the reload, and begin to restore the settings before it. If it is that which fails, try again later."""
        if self._is_restoring:
            logger.error("a worker with the old settings %s; trying again in %.0f s", problem, MAX_DELAY)
            self._replace_at = now + MAX_DELAY
            return
        logger.error("a worker with the new settings %s; the server keeps the old ones", problem)
        self._use(self._before)
        self._is_restoring = True
        self._to_replace = [number for number, worker in enumerate(self._workers) if worker.settings != self._before]

    def _use(self, settings: Settings) -> None:
        self.settings = settings
        self._configure_logs(settings)

    def _drain(self, worker: WorkerProcess, now: float) -> None:
        worker.send(RETIRE)
        # By its own settings: the new ones may allow less.
        timeout = worker.settings.shutdown_timeout
        self._draining.append((worker, now + min(IDLE_GRACE, timeout) + timeout + DRAIN_GRACE))


def _watch(worker: WorkerProcess, now: float) -> Watched:
    return Watched(worker.name, worker.restart, worker.exit_reason, now)


def _killed_when_due(worker: WorkerProcess, deadline: float, now: float) -> tuple[WorkerProcess, float]:
    """Kill the worker if its deadline is over; returns it with its deadline, which is infinite then."""
    if now < deadline:
        return worker, deadline
    logger.warning("killing %s, which has been replaced; requests in flight are lost", worker.name)
    worker.send(signal.SIGKILL)
    return worker, math.inf
