"""The plot, as SVG by hand: each row against its target, and the filtered lists on both sides. Pure."""

from collections.abc import Sequence
from html import escape
from math import log10
from statistics import median

from scripts.benchmark.report import number, target
from scripts.benchmark.statistics import Cell, Result

_WIDTH, _LEFT, _RIGHT, _LINE = 900, 300, 130, 24
_MET, _MISSED, _OURS, _THEIRS = "#2e7d4f", "#c0392b", "#2e7d4f", "#8a94a6"
_STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#24292f}.head{font-weight:600;font-size:15px}.small{font-size:11px;fill:#57606a}"
)


def svg(results: Sequence[Result], cells: Sequence[Cell]) -> str:
    """The picture of a run."""
    bound = [result for result in results if result.met is not None]
    first = [cell for cell in cells if cell.page == 1 and not cell.descending]
    body: list[str] = []
    top = 10
    if bound:
        top = _targets(body, bound, top)
    if first:
        top = _lists(body, first, top)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {top + 10}" width="{_WIDTH}" height="{top + 10}">'
        f'<style>{_STYLE}</style><rect width="100%" height="100%" fill="#ffffff"/>{"".join(body)}</svg>\n'
    )


class _Scale:
    """A logarithmic axis between two values."""

    def __init__(self, least: float, most: float) -> None:
        self.least, self.most = log10(least), log10(most)

    def __call__(self, value: float) -> float:
        share = (log10(value) - self.least) / (self.most - self.least)
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * min(1.0, max(0.0, share))

    def ticks(self) -> list[float]:
        """Powers of ten on the axis."""
        return [10.0**power for power in range(-9, 10) if self.least <= power <= self.most]


def headroom(result: Result) -> float:
    """How far a result is on the good side of its target: 1 is just met, 2 is twice as good."""
    row = result.row
    if row.at_least is not None:
        return max(result.value, 1e-3) / row.at_least
    return (row.at_most or 1.0) / max(result.value, 1e-3)


def _targets(body: list[str], results: Sequence[Result], top: int) -> int:
    scale = _Scale(0.1, 100)
    body.append(_text(10, top + 16, "Targets: how many times better than asked for", "head"))
    top += 30
    bottom = top + _LINE * len(results)
    for tick in scale.ticks():
        body.append(_line(scale(tick), top, bottom, "#57606a" if tick == 1 else "#e3e6ea"))
        body.append(_text(scale(tick), bottom + 14, f"{tick:g} ×", "small", anchor="middle"))
    for index, result in enumerate(results):
        y = top + _LINE * index
        value, edge = scale(headroom(result)), scale(1)
        left, right = min(value, edge), max(value, edge)
        colour = _MET if result.met else _MISSED
        body.append(_text(10, y + 16, result.row.label))
        body.append(f'<rect x="{left:.1f}" y="{y + 5}" width="{max(right - left, 2):.1f}" height="14" fill="{colour}"/>')
        body.append(_text(_WIDTH - _RIGHT + 8, y + 16, f"{number(result.value)} ({target(result.row)})", "small"))
    return bottom + 34


def _lists(body: list[str], cells: Sequence[Cell], top: int) -> int:
    values = [median(side) / 1000 for cell in cells for side in (cell.ours, cell.theirs)]
    scale = _Scale(10 ** int(log10(min(values)) - 1), 10 ** int(log10(max(values)) + 1))
    title = "Filtered list, first page, p50 in ms: this service (green) and Postgres (grey)"
    body.append(_text(10, top + 16, title, "head"))
    top += 30
    bottom = top + _LINE * len(cells)
    for tick in scale.ticks():
        body.append(_line(scale(tick), top, bottom, "#e3e6ea"))
        body.append(_text(scale(tick), bottom + 14, f"{tick:g}", "small", anchor="middle"))
    for index, cell in enumerate(cells):
        y = top + _LINE * index + 12
        ours, theirs = scale(median(cell.ours) / 1000), scale(median(cell.theirs) / 1000)
        body.append(_text(10, y + 4, f"{cell.filter} ({cell.matches:,} matches)"))
        body.append(f'<line x1="{ours:.1f}" x2="{theirs:.1f}" y1="{y}" y2="{y}" stroke="#c5cbd3" stroke-width="2"/>')
        for x, colour in ((theirs, _THEIRS), (ours, _OURS)):
            body.append(f'<circle cx="{x:.1f}" cy="{y}" r="5" fill="{colour}"/>')
        body.append(_text(_WIDTH - _RIGHT + 8, y + 4, f"{number(cell.ratio)} ×", "small"))
    return bottom + 24


def _text(x: float, y: float, text: str, kind: str = "", *, anchor: str = "start") -> str:
    named = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y}"{named} text-anchor="{anchor}">{escape(text)}</text>'


def _line(x: float, top: int, bottom: int, colour: str) -> str:
    return f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}" stroke="{colour}"/>'
