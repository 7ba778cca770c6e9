"""What a soak prints: a line of progress from time to time, and the results at the end."""

from collections.abc import Iterator, Mapping, Sequence

from tests.soak.context import Stats
from tests.soak.memory import Series


def progress(seconds: float, stats: Stats, sessions: int) -> str:
    """One line of progress."""
    done, faults, unanswered = (sum(counts.values()) for counts in (stats.done, stats.faults, stats.unanswered))
    return (
        f"[{seconds:4.0f} s] {done:,} operations, {sessions} sessions, {faults} faults, "
        f"{unanswered} requests without a response, {stats.uncertain} uncertain writes, "
        f"slowest response {stats.slowest[0]:.2f} s"
    )


def summary(stats: Stats, series: Sequence[Series]) -> str:
    """The results."""
    slowest, without_fault = stats.slowest, stats.slowest_without_fault
    lines = [
        f"operations             {sum(stats.done.values()):,}: {_counts(stats.done)}",
        f"faults                 {sum(stats.faults.values())}: {_counts(stats.faults)}",
        f"without a response     {sum(stats.unanswered.values()):,}: {_counts(stats.unanswered)}",
        f"  outside fault windows {sum(stats.unexcused.values())}: {_counts(stats.unexcused)}",
        f"uncertain writes       {stats.uncertain:,}",
        f"slowest response       {slowest[0]:.2f} s ({slowest[1]})",
        f"  outside fault windows {without_fault[0]:.2f} s ({without_fault[1]})",
        *_memory(series),
    ]
    return "\n".join(lines)


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items())) or "none"


def _memory(series: Sequence[Series]) -> Iterator[str]:
    """The series that are long enough for a verdict, and the maxima of the others."""
    yield "memory in MB, the medians of a series' thirds:"
    for one in series:
        if (flat := one.is_flat()) is not None:
            thirds = " ".join(f"{third:8.2f}" for third in one.thirds())
            yield f"  {one.name:20}{thirds}   {'flat' if flat else 'GROWS'} ({len(one.values)} samples)"
    short = [one for one in series if one.values and one.is_flat() is None]
    if short:
        yield f"  too short to tell: {', '.join(f'{one.name} {max(one.values):.0f}' for one in short)} at most"
