"""The workers of a server: restarted when they exit or hang, and replaced one at a time when the settings change."""

import logging
import math
import signal
from collections.abc import Callable

from service.process.slots import Slots
from service.process.workers import Watched, WorkerProcess
from service.settings import Settings

logger = logging.getLogger(__name__)

#: Seconds after the shutdown timeout before workers that are still running are killed.
DRAIN_GRACE = 5.0
#: Seconds between two looks at a replacement that is starting.
_START_INTERVAL = 0.02
#: Processes for each listening socket, those that drain included. A reload waits until there are fewer.
MAX_PROCESSES = 4


class WorkerPool:
    """One worker for each listening socket, by number.

    A replacement starts on the socket of its predecessor, which drains and exits once the replacement runs. So the socket is
    always served, and connections in its queue are never lost.
    """

    def __init__(
        self,
        make: Callable[[int, Settings], WorkerProcess],
        count: int,
        settings: Settings,
        slots: Slots | None = None,
        configure_logs: Callable[[Settings], object] = lambda _: None,
    ) -> None:
        """`slots` counts the restarts. `configure_logs` is called when the settings change; new workers log as it says."""
        self.settings = settings
        self._before = settings
        self._configure_logs = configure_logs
        self._slots = slots
        self._make = make
        self._workers = [make(number, settings) for number in range(count)]
        self._watched: list[Watched] = []
        self._to_replace: list[int] = []
        self._replacement: WorkerProcess | None = None
        self._is_replacing = False
        #: Predecessors that drain, and when they are killed (seconds, monotonic).
        self._draining: list[tuple[WorkerProcess, float]] = []

    @property
    def processes(self) -> list[WorkerProcess]:
        """All workers, with those that a replacement has just started or is ending."""
        started = [self._replacement] if self._replacement is not None else []
        return [*self._workers, *started, *(worker for worker, _ in self._draining)]

    @property
    def is_replacing(self) -> bool:
        """Whether some workers with the old settings have not exited yet."""
        return self._is_replacing

    def start(self, now: float) -> None:
        """Start the workers at `now` (seconds, monotonic)."""
        for worker in self._workers:
            worker.start()
        self._watched = [self._watch(worker, now) for worker in self._workers]

    def replace(self, settings: Settings, now: float) -> None:
        """Begin to replace every worker by one with `settings`; `poll` does it."""
        if self._replacement is not None:
            self._drain(self._replacement, now)
            self._replacement = None
        if not self._to_replace:
            # Else the reload that this one ends is not complete, and the settings before it are still in force.
            self._before = self.settings
        self._use(settings)
        self._to_replace = list(range(len(self._workers)))
        self._is_replacing = True

    def poll(self, now: float) -> float:
        """Restart and replace workers as far as that is due at `now`; returns the seconds until the next call."""
        for worker in self.processes:
            worker.kill_if_hung(now)
        for worker, deadline in self._draining:
            if now >= deadline:
                worker.send(signal.SIGKILL)
        self._draining = [(worker, deadline) for worker, deadline in self._draining if worker.exit_reason() is None]
        pause = min(self._replace_next(now), *(child.poll(now) for child in self._watched))
        if self._is_replacing and not self._to_replace and not self._draining:
            # Not earlier: while a predecessor drains, it still accepts connections.
            self._is_replacing = False
            logger.info("every worker has the new settings")
        return pause

    def _replace_next(self, now: float) -> float:
        if not self._to_replace:
            return math.inf
        number = self._to_replace[0]
        if self._replacement is None:
            if len(self.processes) >= MAX_PROCESSES * len(self._workers):
                return _START_INTERVAL
            self._replacement = self._make(number, self.settings)
            self._replacement.start()
        elif end := self._replacement.exit_reason():
            logger.error("a worker with the new settings exited (%s); the remaining workers keep the old ones", end)
            self._to_replace, self._replacement, self._is_replacing = [], None, False
            self._use(self._before)
        elif self._replacement.runs:
            self._drain(self._workers[number], now)
            self._workers[number] = self._replacement
            self._watched[number] = self._watch(self._replacement, now)
            self._replacement = None
            del self._to_replace[0]
        return _START_INTERVAL

    def _use(self, settings: Settings) -> None:
        self.settings = settings
        self._configure_logs(settings)

    def _drain(self, worker: WorkerProcess, now: float) -> None:
        worker.send(signal.SIGTERM)
        self._draining.append((worker, now + self.settings.shutdown_timeout + DRAIN_GRACE))

    def _watch(self, worker: WorkerProcess, now: float) -> Watched:
        def restart() -> None:
            if self._slots is not None:
                self._slots.count_restart()
            worker.start()

        return Watched(worker.name, restart, worker.exit_reason, now)
