"""The Markdown table: pure."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from scripts.benchmark.statistics import Cell, Hold, Result, Side, spread
from scripts.benchmark.targets import Row

FOOT = """\
Each comparison alternates its sides round by round; figures are the median of {rounds} rounds (least–most), and a ratio is the
median of the rounds' own ratios. Load comes from wrk, one thread, the same requests for all sides; lists are asked for on one
connection, one request at a time. Postgres: Acontext's table and indexes without its foreign keys, `shared_buffers=1GB`,
`synchronous_commit=off` (as `appendfsync everysec`), `jit=off`, `work_mem=64MB`, `random_page_cost=1.1`, plans made for the
filter's value, statements prepared, jsonb passed through as text, row comparison instead of Acontext's OR in the cursor.
1 KB is 1,024 bytes. Redis holds are wall-clock times of SLOWLOG: where load generator, workers and Redis share the cores they
include what the scheduler takes away. "Any other command" (HMGET, or an SADD within a script, a few µs each) shows how much.
"""


def number(value: float) -> str:
    """Three significant digits, thousands separated."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def target(row: Row) -> str:
    """The bound in words."""
    if row.at_least is not None:
        return f"≥ {_with_unit(row.at_least, row.unit)}"
    if row.at_most is not None:
        return f"≤ {_with_unit(row.at_most, row.unit)}"
    return ""


def verdict(result: Result) -> str:
    """Whether the target is met."""
    return {True: "met", False: "missed", None: ""}[result.met]


def result_line(result: Result) -> str:
    """A result in one line, for the screen."""
    row = result.row
    against = f" / {row.against}" if row.against else ""
    bound = f" ({target(row)}: {verdict(result)})" if result.met is not None else ""
    note = f"; {result.note}" if result.note else ""
    return f"{_with_unit(result.value, row.unit)}{bound} — {row.what}{against}{note}"


def markdown(results: Sequence[Result], details: Mapping[str, Any], holds: Sequence[Hold], about: Mapping[str, str]) -> str:
    """The whole report; `about` is what the run was made on, and its rounds."""
    parts = [_table(results)]
    if details.get("lists"):
        parts += ["### Filtered lists, ms (ours / Postgres)", _lists(details["lists"])]
    if details.get("growth"):
        parts += ["### p50 of the first page by sessions in the store, ms", _growth(details["growth"])]
    if details.get("partitions"):
        parts += ["### What partitions cost, and how they spread", _partitions(details["partitions"])]
    if holds:
        parts += ["### What held Redis longest in each phase, ms (from 0.5)", _holds(holds)]
    told = ", ".join(f"{name} {value}" for name, value in about.items() if name != "rounds")
    return "\n\n".join([*parts, FOOT.format(rounds=about["rounds"]) + f"\n{told}."]) + "\n"


def _with_unit(value: float, unit: str) -> str:
    return f"{number(value)} {unit}"


def _lines(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    ruled = ["|".join(["", *("---" if index == 0 else "---:" for index in range(len(head))), ""])]
    return "\n".join([f"| {' | '.join(head)} |", *ruled, *(f"| {' | '.join(row)} |" for row in rows)])


def _table(results: Sequence[Result]) -> str:
    head = ("row", "ours", "other", "result", "target", "")
    return _lines(head, [_row(result) for result in results])


def _row(result: Result) -> tuple[str, ...]:
    row = result.row
    what = f"{row.what}, against {row.against}" if row.against else row.what
    least, most = spread(result.values)
    around = f" ({number(least)}–{number(most)})" if least != most else ""
    note = f"<br>{result.note}" if result.note else ""
    shown = f"**{_with_unit(result.value, row.unit)}**{around}"
    return (what + note, _side(result.ours), _side(result.other), shown, target(row), verdict(result))


def _side(side: Side | None) -> str:
    if side is None:
        return ""
    least, most = spread(side.values)
    return f"{number(side.median)} {side.unit} ({number(least)}–{number(most)})"


def _lists(cells: Sequence[Cell]) -> str:
    """A line a filter; a cell is a page in one order."""
    lines: dict[str, dict[tuple[bool, bool], Cell]] = {}
    for cell in cells:
        lines.setdefault(cell.filter, {})[cell.descending, cell.page > 1] = cell
    head = ("filter", "matches", "oldest first", "oldest first, 10th page", "newest first", "newest first, 10th page")
    order = ((False, False), (False, True), (True, False), (True, True))
    return _lines(
        head,
        [
            (name, f"{next(iter(line.values())).matches:,}", *(_cell(line.get(key)) for key in order))
            for name, line in lines.items()
        ],
    )


def _cell(cell: Cell | None) -> str:
    if cell is None:
        return "one page"
    ours, theirs = median(cell.ours) / 1000, median(cell.theirs) / 1000
    # A shorter list's last page stands in for the tenth.
    page = f"page {cell.page}: " if 1 < cell.page < 10 else ""
    return f"{page}{number(ours)} / {number(theirs)} (**{number(cell.ratio)} ×**)"


def _growth(rows: Sequence[Mapping[str, Any]]) -> str:
    sizes = list(rows[0]["p50"])
    head = ("filter", *(f"{size:,}" for size in sizes), "")
    return _lines(
        head,
        [
            (
                f"{row['filter']}, {'newest' if row['descending'] else 'oldest'} first",
                *(number(median(row["p50"][size]) / 1000) for size in sizes),
                "fills the page" if row["fills the page"] else "",
            )
            for row in rows
        ],
    )


def _partitions(rows: Sequence[Mapping[str, Any]]) -> str:
    head = ("store", *(f"{what}" for what in rows[0] if what != "store"))
    return _lines(head, [(row["store"], *(number(row[name]) for name in head[1:])) for row in rows])


def _holds(holds: Sequence[Hold]) -> str:
    """A line a phase: its scripts, and for comparison the longest of the commands that take microseconds by themselves."""
    phases: dict[str, dict[str, int]] = {}
    for hold in holds:
        phase = phases.setdefault(hold.phase, {})
        name = hold.command if hold.is_script else "any other command"
        phase[name] = max(hold.micros, phase.get(name, 0))
    return _lines(
        ("phase", "command", "ms"),
        [(name, command, number(micros / 1000)) for name, phase in phases.items() for command, micros in sorted(phase.items())],
    )
