"""What a soak prints: a line now and then, and at the end the figures."""

from collections.abc import Iterator, Mapping, Sequence

from tests.soak.memory import Series
from tests.soak.world import Tally


def progress(seconds: float, tally: Tally, sessions: int) -> str:
    """One line while it runs."""
    done, faults, missing = (sum(counts.values()) for counts in (tally.done, tally.faults, tally.missing))
    return (
        f"[{seconds:4.0f} s] {done:,} operations, {sessions} sessions, {faults} faults, {missing} requests without an answer, "
        f"{tally.uncertain} uncertain writes, slowest answer {tally.slowest[0]:.2f} s"
    )


def summary(tally: Tally, series: Sequence[Series]) -> str:
    """The figures."""
    slowest, in_fair = tally.slowest, tally.slowest_in_fair_weather
    lines = [
        f"operations            {sum(tally.done.values()):,}: {_counts(tally.done)}",
        f"faults                {sum(tally.faults.values())}: {_counts(tally.faults)}",
        f"without an answer     {sum(tally.missing.values()):,}: {_counts(tally.missing)}",
        f"  with no fault near  {sum(tally.unexcused.values())}: {_counts(tally.unexcused)}",
        f"uncertain writes      {tally.uncertain:,}",
        f"slowest answer        {slowest[0]:.2f} s ({slowest[1]}); with no fault near {in_fair[0]:.2f} s ({in_fair[1]})",
        *_memory(series),
    ]
    return "\n".join(lines)


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items())) or "none"


def _memory(series: Sequence[Series]) -> Iterator[str]:
    """Each series that is long enough to be judged, and of the others how much they came to."""
    yield "memory in MB, the medians of a series' thirds:"
    for one in series:
        if (flat := one.is_flat()) is not None:
            thirds = " ".join(f"{third:8.2f}" for third in one.thirds())
            yield f"  {one.name:20}{thirds}   {'flat' if flat else 'GROWS'} ({len(one.values)} samples)"
    short = [one for one in series if one.values and one.is_flat() is None]
    if short:
        yield f"  too short to tell: {', '.join(f'{one.name} {max(one.values):.0f}' for one in short)} at most"
