"""What the clients of a soak share: the server's address, the faults that are on, and the tally."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

#: Seconds after which a request without an answer has happened or never will: a worker that still has it gives up after three
#: commands of a second each. Counted from the end of the last fault, since a frozen Redis goes on with what it was sent.
SETTLED = 4.0
#: The project's default lifetimes that come and go, in seconds, 0 for none.
DEFAULT_TTLS = (0, 3600, 7200)
#: The only lifetime, in seconds, that ends while a soak is on or is being ended.
SHORT_TTL = 2


class Weather:
    """The faults that are on."""

    def __init__(self) -> None:
        self._on = 0
        self._last_end = 0.0

    @contextmanager
    def foul(self) -> Iterator[None]:
        """A fault is on in the block."""
        self._on += 1
        try:
            yield
        finally:
            self._on -= 1
            self._last_end = time.monotonic()

    @property
    def is_fair(self) -> bool:
        """Whether no fault excuses a request that gets no answer."""
        return self.has_settled(0.0)

    def has_settled(self, doubted: float) -> bool:
        """Whether what was without an answer at `doubted` (monotonic seconds) has happened or never will."""
        return self._on == 0 and time.monotonic() - max(doubted, self._last_end) > SETTLED


@dataclass
class Tally:
    """What was done, and how it went."""

    done: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    #: Requests without an answer, by what came instead, and writes among them that may have happened.
    missing: Counter[str] = field(default_factory=Counter)
    uncertain: int = 0
    #: Those that no fault excuses.
    unexcused: Counter[str] = field(default_factory=Counter)
    #: Seconds and request of the slowest answer: of all, and of those in fair weather.
    slowest: tuple[float, str] = (0.0, "none")
    slowest_in_fair_weather: tuple[float, str] = (0.0, "none")

    def count_missing(self, how: str, *, uncertain: bool, fair: bool) -> None:
        """A request got no answer."""
        self.missing[how] += 1
        self.uncertain += uncertain
        if fair and how in ("503", "cut", "no connection"):
            self.unexcused[how] += 1

    def count_time(self, seconds: float, request: str, *, fair: bool) -> None:
        """A request was answered, or not."""
        self.slowest = max(self.slowest, (seconds, request))
        if fair:
            self.slowest_in_fair_weather = max(self.slowest_in_fair_weather, (seconds, request))


class Defaults:
    """The lifetimes in seconds that a session gets when its request names none, 0 for none: the project's `session_ttl`."""

    def __init__(self) -> None:
        self._ever = [0]
        self.mark = 0

    def since(self, mark: int) -> list[int]:
        """All that may have been in force since `self.mark` was `mark`."""
        return self._ever[mark:]

    def change(self, ttl: int) -> None:
        """A change begins; until `settle`, what was before may be in force as well."""
        self._ever.append(ttl)

    def settle(self) -> None:
        """The last change was acknowledged."""
        self.mark = len(self._ever) - 1


@dataclass
class World:
    """All of it."""

    port: int
    key: str
    weather: Weather = field(default_factory=Weather)
    tally: Tally = field(default_factory=Tally)
    defaults: Defaults = field(default_factory=Defaults)
