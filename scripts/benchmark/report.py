"""The report in Markdown, and a result in one line. No I/O."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from scripts.benchmark.statistics import PageTimes, Result, Row, Side, SlowCommand

_FOOT = """\
The sides of a comparison take turns, round by round. Figures are the median of {rounds} rounds (least–most); a ratio is the
median of the rounds' own ratios. wrk sends the load with one thread, the same requests to all sides; lists are requested on one
connection, one at a time. Postgres: Acontext's table and indexes without its foreign keys, `shared_buffers=1GB`,
`synchronous_commit=off` (as `appendfsync everysec`), `jit=off`, `work_mem=64MB`, `random_page_cost=1.1`, plans made for the
filter's value, statements prepared, jsonb passed through as text, row comparison instead of Acontext's OR in the cursor.
1 KB is 1,024 bytes. The times of commands are wall-clock times from SLOWLOG. Load generator, workers and Redis share the cores,
so these times include waiting for a core. "Any other command" (HMGET, or an SADD in a script, a few µs each) shows how much.
"""


def number(value: float) -> str:
    """Three significant digits, with thousands separators."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def target(row: Row) -> str:
    """The target as printed; empty if there is none."""
    if row.at_least is not None:
        return f"≥ {number(row.at_least)} {row.unit}"
    if row.at_most is not None:
        return f"≤ {number(row.at_most)} {row.unit}"
    return ""


def verdict(result: Result) -> str:
    """`met` or `missed`; empty without a target."""
    return {True: "met", False: "missed", None: ""}[result.met]


def result_line(result: Result) -> str:
    """A result in one line, for the terminal."""
    row, measurement = result.row, result.measurement
    against = f" / {row.against}" if row.against else ""
    bound = f" ({target(row)}: {verdict(result)})" if result.met is not None else ""
    note = f"; {measurement.note}" if measurement.note else ""
    return f"{number(measurement.value)} {row.unit}{bound} — {row.what}{against}{note}"


def markdown(
    results: Sequence[Result], details: Mapping[str, Any], commands: Sequence[SlowCommand], about: Mapping[str, str]
) -> str:
    """The whole report; `about` describes the host and the run, and has its number of rounds."""
    head = ("row", "ours", "other", "result", "target", "")
    parts = [_table(head, map(_result, results))]
    for name, (title, render) in _DETAILS.items():
        if details.get(name):
            parts += [f"### {title}", render(details[name])]
    if commands:
        parts += ["### Longest commands in Redis by phase, ms", _slow_commands(commands)]
    run = ", ".join(f"{name} {value}" for name, value in about.items() if name != "rounds")
    return "\n\n".join([*parts, _FOOT.format(rounds=about["rounds"]) + f"\n{run}."]) + "\n"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    rule = "|".join(["", "---", *["---:"] * (len(head) - 1), ""])
    return "\n".join([f"| {' | '.join(head)} |", rule, *(f"| {' | '.join(row)} |" for row in rows)])


def _result(result: Result) -> tuple[str, ...]:
    row, measurement = result.row, result.measurement
    what = f"{row.what}, against {row.against}" if row.against else row.what
    values = measurement.values
    spread = f" ({_spread(values)})" if min(values) != max(values) else ""
    note = f"<br>{measurement.note}" if measurement.note else ""
    value = f"**{number(measurement.value)} {row.unit}**{spread}"
    return what + note, _side(measurement.ours), _side(measurement.other), value, target(row), verdict(result)


def _side(side: Side | None) -> str:
    return f"{number(side.median)} {side.unit} ({_spread(side.values)})" if side else ""


def _spread(values: Sequence[float]) -> str:
    return f"{number(min(values))}–{number(max(values))}"


def _lists(times: Sequence[PageTimes]) -> str:
    """A line a filter, a column for each page and order."""
    lines: dict[str, dict[tuple[bool, bool], PageTimes]] = {}
    for one in times:
        lines.setdefault(one.filter, {})[one.descending, one.page > 1] = one
    head = ("filter", "matches", "oldest first", "oldest first, 10th page", "newest first", "newest first, 10th page")
    columns = ((False, False), (False, True), (True, False), (True, True))
    return _table(
        head,
        [
            (name, f"{next(iter(line.values())).matches:,}", *(_page(line.get(column)) for column in columns))
            for name, line in lines.items()
        ],
    )


def _page(times: PageTimes | None) -> str:
    if times is None:
        return "one page"
    ours, theirs = median(times.ours) / 1000, median(times.theirs) / 1000
    # Of a shorter list the last page was measured instead of the tenth.
    page = f"page {times.page}: " if 1 < times.page < 10 else ""
    return f"{page}{number(ours)} / {number(theirs)} (**{number(times.ratio)} ×**)"


def _growth(lists: Sequence[Mapping[str, Any]]) -> str:
    head = ("filter", *(f"{size:,}" for size in lists[0]["p50"]), "")
    return _table(
        head,
        [
            (
                f"{each['filter']}, {'newest' if each['descending'] else 'oldest'} first",
                *(number(median(latencies) / 1000) for latencies in each["p50"].values()),
                "fills the page" if each["fills the page"] else "",
            )
            for each in lists
        ],
    )


def _stores(stores: Sequence[Mapping[str, Any]]) -> str:
    """A line a store; its first column is the name."""
    return _table(list(stores[0]), [(name, *map(number, figures)) for name, *figures in (each.values() for each in stores)])


def _slow_commands(commands: Sequence[SlowCommand]) -> str:
    """A line for each script of a phase, and one for the longest of all other commands, which take microseconds."""
    phases: dict[str, dict[str, int]] = {}
    for one in commands:
        times = phases.setdefault(one.phase, {})
        name = one.command if one.is_script else "any other command"
        times[name] = max(one.micros, times.get(name, 0))
    return _table(
        ("phase", "command", "ms"),
        [(phase, name, number(micros / 1000)) for phase, times in phases.items() for name, micros in sorted(times.items())],
    )


#: Tables of what a group noted in `Bench.details`.
_DETAILS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "lists": ("Filtered lists, ms (ours / Postgres)", _lists),
    "growth": ("p50 of the first page by sessions in the store, ms", _growth),
    "embedded": ("Embedded servers, one worker, 64 connections", _stores),
    "partitions": ("What partitions cost, and how they spread", _stores),
}
