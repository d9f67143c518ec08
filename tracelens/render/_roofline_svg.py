"""The roofline as an SVG inside of a page: no script, and the page's own colours."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING, Final

from tracelens import units
from tracelens.render._bars_svg import legend
from tracelens.render._shape import clean, shorten
from tracelens.tables.roofline_plot import COLOURS, decades, plot, rate_said
from tracelens.tables.roofline_report import ceilings_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracelens.tables import Filled, Report
    from tracelens.tables.roofline_plot import Plot, Point

_DRAWN: Final = "roofline"
_UNKNOWN: Final = "bound not known"
_WIDTH: Final = 1000
_HEIGHT: Final = 520
_LEFT, _RIGHT, _TOP, _BOTTOM = 110, 20, 20, 50
_LARGEST: Final = 22  # radius of a point that takes all the time
_SMALLEST: Final = 2.5
_LABEL: Final = 60
_APART: Final = 16  # pixels between the labels of lines
STYLE: Final = """\
.roofline { width: 100%; height: auto; margin: .5rem 0 0; font: 13px system-ui, sans-serif; }
.roofline text { fill: var(--ink, #1c2126); } .roofline .grid { stroke: #8a9099; opacity: .25; }
.roofline .roof { stroke: var(--ink, #1c2126); stroke-width: 1.5; fill: none; }
.roofline circle { fill-opacity: .55; }
"""


def of_table(filled: Filled, report: Report) -> Iterator[str]:
    """Give the lines of the drawing of a table: of `roofline` alone, with a legend and a note."""
    title = filled.table.title
    found = plot(filled, ceilings_of(report), title) if filled.name == _DRAWN else None
    if found is None:
        return
    yield from drawn(found)
    used = {point.bound for point in found.points}
    yield legend([(name or _UNKNOWN, colour) for name, colour in COLOURS.items() if name in used])
    yield f'<p class="note">{_text(found.note)}</p>'


def drawn(found: Plot) -> Iterator[str]:
    """Give the lines of a drawing: axes, ceilings, and a point for each op and shape."""
    yield f'<svg class="roofline" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">'
    yield f"<title>{_text(found.title)}</title>"
    page = _Page(found)
    yield from page.axes()
    yield from page.roofs()
    for point in sorted(found.points, key=lambda point: -point.share):
        yield page.point(point)
    yield "</svg>"


def standalone(found: Plot) -> str:
    """Return the drawing as a file of its own, with its style."""
    first, *rest = drawn(found)
    opened = first.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    return "\n".join([opened, f"<style>{STYLE}</style>", *rest, ""])


class _Page:
    """Where things stand."""

    def __init__(self, found: Plot) -> None:
        self._plot = found

    def x(self, value: float) -> float:
        return _LEFT + _part(value, self._plot.x) * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        return _HEIGHT - _BOTTOM - _part(value, self._plot.y) * (_HEIGHT - _TOP - _BOTTOM)

    def axes(self) -> Iterator[str]:
        bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
        for value in decades(self._plot.x):
            x = f"{self.x(value):.1f}"
            yield f'<line class="grid" x1="{x}" x2="{x}" y1="{_TOP}" y2="{bottom}"/>'
            yield f'<text x="{x}" y="{bottom + 18}" text-anchor="middle">{value:,g}</text>'
        for value in decades(self._plot.y):
            y = self.y(value)
            said = _text(rate_said(value))
            yield f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>'
            yield f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{said}</text>'
        middle = (_LEFT + right) / 2
        yield f'<text x="{middle}" y="{_HEIGHT - 8}" text-anchor="middle">FLOP per byte</text>'

    def roofs(self) -> Iterator[str]:
        found = self._plot
        if not found.roofs or not found.bandwidth_bytes_per_s:
            return
        rate = found.bandwidth_bytes_per_s
        start = max(found.x[0], found.y[0] / rate)
        end = max(roof.ridge for roof in found.roofs)
        x1, y1, x2, y2 = self.x(start), self.y(start * rate), self.x(end), self.y(end * rate)
        yield _line(x1, y1, x2, y2)
        angle = math.degrees(math.atan2(y2 - y1, x2 - x1))
        x, y = x1 + (x2 - x1) * 0.3, y1 + (y2 - y1) * 0.3 - 6
        turned = f'transform="rotate({angle:.1f} {x:.1f} {y:.1f})"'
        yield f'<text x="{x:.1f}" y="{y:.1f}" {turned}>memory, {_text(units.rate(rate))}</text>'
        above = -math.inf
        for roof in found.roofs:
            x, y = self.x(roof.ridge), self.y(roof.flops_per_s)
            yield _line(x, y, _WIDTH - _RIGHT, y)
            above = max(y - 5, above + _APART)
            said = _text(f"{roof.name}, {roof.said}")
            yield f'<text x="{_WIDTH - _RIGHT}" y="{above:.1f}" text-anchor="end">{said}</text>'

    def point(self, point: Point) -> str:
        x, y = self.x(point.intensity), self.y(point.flops_per_s)
        radius = max(_LARGEST * math.sqrt(point.share), _SMALLEST)
        said = _text(shorten(clean(point.said), 4 * _LABEL))
        return (
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" fill="{COLOURS[point.bound]}">'
            f"<title>{said}</title></circle>"
        )


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="roof" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _part(value: float, ends: tuple[float, float]) -> float:
    """Return where a value stands between the ends of a logarithmic axis, 0 to 1."""
    first, last = map(math.log, ends)
    return (math.log(value) - first) / (last - first)


def _text(text: str) -> str:
    return escape(clean(text))
