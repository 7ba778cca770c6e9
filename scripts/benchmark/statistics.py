"""Rows, what was measured for them, and the arithmetic on it. No I/O."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import median

#: No script should block Redis for longer; in milliseconds.
LONGEST_SCRIPT = 3.0


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table: what is measured, against what, and the target; without a bound there is none."""

    name: str
    what: str
    against: str = ""
    unit: str = "×"
    at_least: float | None = None
    at_most: float | None = None

    def is_met(self, value: float) -> bool | None:
        """Whether `value` meets the target; None if there is none."""
        if self.at_least is not None:
            return value >= self.at_least
        if self.at_most is not None:
            return value <= self.at_most
        return None


def ratios(ours: Sequence[float], other: Sequence[float]) -> list[float]:
    """Ratios round by round: whatever slows down a whole round (another process, a hot processor) cancels out."""
    return [one / another for one, another in zip(ours, other, strict=True)]


@dataclass(frozen=True, slots=True)
class Side:
    """The figures of one side of a comparison, one a round."""

    values: tuple[float, ...]
    unit: str

    @property
    def median(self) -> float:
        """The median of the rounds."""
        return median(self.values)


@dataclass(frozen=True, slots=True)
class Measurement:
    """The figures of a row, one a round, and `value`, to which the target applies."""

    values: tuple[float, ...]
    value: float
    ours: Side | None = None
    other: Side | None = None
    note: str = ""

    @classmethod
    def compared(cls, ours: Sequence[float], other: Sequence[float], unit: str, note: str = "") -> "Measurement":
        """A comparison; its value is the median of the rounds' ratios."""
        values = tuple(ratios(ours, other))
        return cls(values, median(values), Side(tuple(ours), unit), Side(tuple(other), unit), note)

    @classmethod
    def figure(cls, values: Sequence[float], value: float | None = None, note: str = "") -> "Measurement":
        """A figure without another side; its value is the median unless given."""
        return cls(tuple(values), median(values) if value is None else value, note=note)


@dataclass(frozen=True, slots=True)
class Result:
    """A row with its measurement."""

    row: Row
    measurement: Measurement

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None if there is none."""
        return self.row.is_met(self.measurement.value)


@dataclass(frozen=True, slots=True)
class PageTimes:
    """Latencies of one page of one filtered list on both sides, in microseconds, one a round."""

    filter: str
    descending: bool
    page: int
    matches: int
    ours: tuple[float, ...]
    theirs: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """How many times faster ours is."""
        return median(ratios(self.theirs, self.ours))


def slower_first_pages(pages: Iterable[PageTimes]) -> list[PageTimes]:
    """The first page of each filter, in the order in which ours compares worse."""
    slower: dict[str, PageTimes] = {}
    for one in pages:
        if one.page == 1 and (one.filter not in slower or one.ratio < slower[one.filter].ratio):
            slower[one.filter] = one
    return list(slower.values())


@dataclass(frozen=True, slots=True)
class SlowCommand:
    """A command in Redis's SLOWLOG: its longest time in one phase, in microseconds, and how many calls were over the target.

    A command that is no script takes microseconds. Where one took long, Redis was not scheduled.
    """

    phase: str
    command: str
    micros: int
    over: int
    is_script: bool


def merge(commands: Iterable[SlowCommand]) -> list[SlowCommand]:
    """One entry for each command in each phase."""
    merged: dict[tuple[str, str], SlowCommand] = {}
    for one in commands:
        key = (one.phase, one.command)
        same = merged.get(key, replace(one, over=0))
        merged[key] = replace(one, micros=max(one.micros, same.micros), over=one.over + same.over)
    return list(merged.values())
