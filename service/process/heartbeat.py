"""Heartbeats: how the supervisor knows that a worker still runs its event loop.

A worker increments a byte of shared memory, which costs neither side a system call. The supervisor, which has no threads and
no event loop, reads the byte whenever it checks its workers.
"""

import mmap
from enum import Enum
from typing import NamedTuple

#: Seconds between two beats of a worker, and between two checks of the supervisor.
INTERVAL = 1.0


class Limits(NamedTuple):
    """Seconds without a beat: `abort` until SIGABRT, then `kill` until SIGKILL. The first beat may take `start` seconds."""

    abort: float = 10.0
    kill: float = 2.0
    start: float = 60.0


class Verdict(Enum):
    """What to do with a worker."""

    ALIVE = "alive"
    ABORT = "abort"
    KILL = "kill"


class Heartbeat:
    """A one-byte counter shared with processes forked later: 0 before the first beat, then 1 to 255, then 1 again."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 1)

    def beat(self) -> None:
        """Increment the counter. A write of one byte is atomic."""
        self._memory[0] = self._memory[0] % 255 + 1

    @property
    def count(self) -> int:
        """The counter's value: 0 before the first beat."""
        return self._memory[0]

    def close(self) -> None:
        """Unmap the shared memory."""
        self._memory.close()


class Watchdog:
    """Decides whether a worker hangs, from its counter and the supervisor's clock.

    At most `2 * INTERVAL` counts between two checks. If the machine was suspended, or all processes of the service were
    stopped, the supervisor was stopped too, and the worker gets its full time again.
    """

    def __init__(self, limits: Limits, now: float) -> None:
        self._limits = limits
        self._checked_at = now
        self._count = 0
        self._silence = 0.0
        self._aborted = False

    def check(self, count: int, now: float) -> Verdict:
        """The verdict at `now` (seconds, monotonic): ABORT once, then KILL after every further `limits.kill` seconds."""
        passed, self._checked_at = min(now - self._checked_at, 2 * INTERVAL), now
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
