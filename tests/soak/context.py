"""What the clients of a soak share: the server's address, the fault windows, and the statistics."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

#: Seconds after which a request without a response has happened or never will: a worker that still has it gives up after three
#: commands of a second each. CountRange from the end of the last fault, since a frozen Redis later runs what it was sent.
SETTLED = 4.0
#: The default lifetimes that the project gets, in seconds, 0 for none.
DEFAULT_TTLS = (0, 3600, 7200)
#: The only lifetime, in seconds, that ends during a soak or its verification.
SHORT_TTL = 2


class FaultWindows:
    """When faults are active: a request that then gets no response is excused."""

    def __init__(self) -> None:
        self._active = 0
        self._last_end = 0.0

    @contextmanager
    def open_window(self) -> Iterator[None]:
        """A fault is active in the block."""
        self._active += 1
        try:
            yield
        finally:
            self._active -= 1
            self._last_end = time.monotonic()

    @property
    def is_clear(self) -> bool:
        """Whether no fault excuses a request that gets no response."""
        return self.has_settled(0.0)

    def has_settled(self, indeterminate_since: float) -> bool:
        """Whether a write without a response since `indeterminate_since` (monotonic seconds) has happened or never will."""
        return self._active == 0 and time.monotonic() - max(indeterminate_since, self._last_end) > SETTLED


@dataclass
class Stats:
    """What the clients did, and what came of it."""

    done: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    #: Requests without a response, by what came instead, and the writes among them that may have happened.
    unanswered: Counter[str] = field(default_factory=Counter)
    uncertain: int = 0
    #: Those that no fault excuses.
    unexcused: Counter[str] = field(default_factory=Counter)
    #: Seconds and request of the slowest response: of all, and of those outside fault windows.
    slowest: tuple[float, str] = (0.0, "none")
    slowest_without_fault: tuple[float, str] = (0.0, "none")

    def count_unanswered(self, how: str, *, uncertain: bool, is_clear: bool) -> None:
        """A request got no response."""
        self.unanswered[how] += 1
        self.uncertain += uncertain
        if is_clear and how in ("503", "cut", "no connection"):
            self.unexcused[how] += 1

    def count_time(self, seconds: float, request: str, *, is_clear: bool) -> None:
        """A request got its response, or failed."""
        self.slowest = max(self.slowest, (seconds, request))
        if is_clear:
            self.slowest_without_fault = max(self.slowest_without_fault, (seconds, request))


class Defaults:
    """The lifetimes in seconds that a session gets when its request names none, 0 for none: the project's `session_ttl`."""

    def __init__(self) -> None:
        self._ever = [0]
        self.mark = 0

    def since(self, mark: int) -> list[int]:
        """All that may have applied since `self.mark` was `mark`."""
        return self._ever[mark:]

    def change(self, ttl: int) -> None:
        """A change begins; until `settle`, what was before may apply too."""
        self._ever.append(ttl)

    def settle(self) -> None:
        """The last change was acknowledged."""
        self.mark = len(self._ever) - 1


@dataclass
class Context:
    """What is shared."""

    origin: str
    api_key: str
    fault_windows: FaultWindows = field(default_factory=FaultWindows)
    stats: Stats = field(default_factory=Stats)
    defaults: Defaults = field(default_factory=Defaults)
