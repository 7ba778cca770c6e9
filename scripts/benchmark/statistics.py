"""Results of measurements, and the little arithmetic there is on them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from statistics import median

from scripts.benchmark.targets import BY_NAME, Row

__all__ = ["Cell", "Hold", "Result", "Side", "median", "merged", "ratios", "spread"]


def spread(values: Sequence[float]) -> tuple[float, float]:
    """Least and greatest."""
    return min(values), max(values)


def ratios(ours: Sequence[float], others: Sequence[float]) -> list[float]:
    """Round by round, so that what slows a whole round down (another process, a warm machine) cancels out."""
    return [one / other for one, other in zip(ours, others, strict=True)]


@dataclass(frozen=True, slots=True)
class Side:
    """What one side did, a figure a round."""

    values: tuple[float, ...]
    unit: str

    @property
    def median(self) -> float:
        """The middle round."""
        return median(self.values)


@dataclass(frozen=True, slots=True)
class Result:
    """A row as measured: `values` are what the target bounds, a figure a round; `value` is the one that counts."""

    name: str
    values: tuple[float, ...]
    value: float
    ours: Side | None = None
    other: Side | None = None
    note: str = field(default="")

    @property
    def row(self) -> Row:
        """The row that this is a result of."""
        return BY_NAME[self.name]

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None where there is none."""
        return self.row.met(self.value)

    @classmethod
    def compared(cls, name: str, ours: Sequence[float], other: Sequence[float], unit: str, note: str = "") -> "Result":
        """The median of the rounds' ratios."""
        values = tuple(ratios(ours, other))
        return cls(name, values, median(values), Side(tuple(ours), unit), Side(tuple(other), unit), note)

    @classmethod
    def figure(cls, name: str, values: Sequence[float], value: float | None = None, note: str = "") -> "Result":
        """A figure without another side; the median unless `value` says which."""
        return cls(name, tuple(values), median(values) if value is None else value, note=note)


@dataclass(frozen=True, slots=True)
class Cell:
    """What a page took, in microseconds a round."""

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


@dataclass(frozen=True, slots=True)
class Hold:
    """How long one command held Redis in one phase, in microseconds: the longest time, and how many were over the target.

    What is no script takes microseconds; where it took long, the scheduler had stopped Redis.
    """

    phase: str
    command: str
    micros: int
    over: int
    is_script: bool


def merged(holds: Iterable[Hold]) -> list[Hold]:
    """One for each command in each phase."""
    found: dict[tuple[str, str], Hold] = {}
    for hold in holds:
        known = found.get((hold.phase, hold.command), hold)
        over = hold.over if known is hold else hold.over + known.over
        found[hold.phase, hold.command] = replace(hold, micros=max(hold.micros, known.micros), over=over)
    return list(found.values())
