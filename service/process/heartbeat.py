"""Heartbeats: how the supervisor knows that a worker still runs its event loop.

A worker counts in a byte of shared memory, which costs neither side a system call. The supervisor, which has no thread and no
event loop, reads the byte whenever it looks at its workers.
"""

import mmap
from enum import Enum
from typing import NamedTuple

#: Seconds between two beats of a worker, and between two looks of the supervisor.
INTERVAL = 1.0


class Limits(NamedTuple):
    """Seconds without a beat: until SIGABRT, and from there to SIGKILL. A worker that starts has `start` for its first beat."""

    abort: float = 10.0
    kill: float = 2.0
    start: float = 60.0


class Verdict(Enum):
    """What to do with a worker."""

    ALIVE = "alive"
    ABORT = "abort"
    KILL = "kill"


class Heartbeat:
    """A counter of one byte that a process shares with those it forks later: 0 before the first beat, then 1 to 255 in turn."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 1)

    def beat(self) -> None:
        """Count on. One byte is written in one piece."""
        self._memory[0] = self._memory[0] % 255 + 1

    @property
    def count(self) -> int:
        """The counter."""
        return self._memory[0]

    def close(self) -> None:
        """Give the memory back."""
        self._memory.close()


class Watchdog:
    """Decides whether a worker hangs, from its counter and the supervisor's clock.

    Only time that the supervisor saw pass counts: between two looks `2 * INTERVAL` at most. Where the whole machine was
    suspended, or all processes of the service were stopped, the supervisor was, too, and the worker gets its time to go on.
    """

    def __init__(self, limits: Limits, now: float) -> None:
        self._limits = limits
        self._looked = now
        self._count = 0
        self._silence = 0.0
        self._aborted = False

    def look(self, count: int, now: float) -> Verdict:
        """The verdict at `now` (seconds, monotonic). Each signal is asked for once; SIGABRT always comes before SIGKILL."""
        passed, self._looked = min(now - self._looked, 2 * INTERVAL), now
        if count != self._count and not self._aborted:
            self._count, self._silence = count, 0.0
            return Verdict.ALIVE
        self._silence += passed
        if not self._aborted and self._silence >= (self._limits.abort if self._count else self._limits.start):
            self._aborted, self._silence = True, 0.0
            return Verdict.ABORT
        if self._aborted and self._silence >= self._limits.kill:
            self._silence = 0.0
            return Verdict.KILL
        return Verdict.ALIVE
