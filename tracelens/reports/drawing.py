"""Drawings as SVG: what the renderers draw for a page, made whole, and a legend inside of it."""

from __future__ import annotations

import re
from html import escape
from typing import TYPE_CHECKING, Final

from tracelens.render import _bars_svg, _course_svg
from tracelens.render._shape import cells, clean
from tracelens.reports import Figure
from tracelens.tables.bars import Bar, bars_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tracelens.tables import Course, Filled

LIGHT: Final = {
    "ink": "#1d2329",
    "paper": "#ffffff",
    "faint": "#5c6873",
    "line": "#d9dee3",
    "bar": "#cfe3f7",
    "alarm": "#9a5b00",
}
"""Colours of a page in the light, by the names of the variables that drawings use."""

STYLE: Final = ".legend-of text { fill: var(--ink); font: 13px system-ui, sans-serif; }\n"
_SHAPE: Final = re.compile(r'viewBox="0 0 (\S+) (\S+)"')
_ENTRY: Final = re.compile(r'<span style="--of:(#[0-9a-f]{6})">([^<]*)</span>')
_BESIDE: Final = re.compile(r"\.legend [^}]*}\n?|\.legend\b[^{]*{[^}]*}\n?")
_VARIABLE: Final = re.compile(r"var\(--([a-z]+)(?:,[^)]*)?\)")
_ROW: Final = 24
_LETTER: Final = 7.2
_MARK: Final = 42  # a square, and the space around an entry


def of_table(name: str, filled: Filled, note: str = "") -> Figure | None:
    """Return the drawing of a table that has one."""
    return of_bars(name, filled.table.title, bars_of(filled), note)


def of_bars(name: str, title: str, bars: Sequence[Bar], note: str = "") -> Figure | None:
    """Return bars as a drawing; None if there is nothing to draw."""
    lines = list(_bars_svg.drawn(title, bars))
    return Figure(name, title, whole(lines), rules(_bars_svg.STYLE), note) if lines else None


def of_course(name: str, course: Course) -> Figure:
    """Return memory over time as a drawing."""
    title = course.title.replace(" █ reserved ╌", " and reserved").replace(" █", "")
    reserved = "" if course.frame["reserved_bytes"].is_null().all() else "; dashed: reserved"
    said = f"Filled: what was active{reserved}. {course.note}"
    style = rules(_bars_svg.STYLE + _course_svg.STYLE)
    return Figure(name, f"{title}, over time", whole(_course_svg.drawn(course)), style, said)


def whole(lines: Iterable[str]) -> str:
    """Return the lines of a drawing as one element, with the legend that follows it inside."""
    drawn = list(lines)
    end = drawn.index("</svg>")
    entries = [entry for line in drawn[end + 1 :] for entry in _ENTRY.findall(line)]
    shape = _SHAPE.search(drawn[0])
    if not entries or shape is None:
        return "\n".join(drawn[: end + 1])
    width, height = float(shape[1]), float(shape[2])
    legend = list(_legend(entries, width, height + _ROW))
    grown = height + _ROW * (1.5 + max(row for row, _ in legend))
    head = _SHAPE.sub(f'viewBox="0 0 {width:g} {grown:g}"', drawn[0])
    below = (line for _, line in legend)
    return "\n".join([head, *drawn[1:end], '<g class="legend-of">', *below, "</g>", "</svg>"])


def as_file(figure: Figure) -> str:
    """Return a drawing as a file of its own, in the light and on white."""
    style = f"svg {{ background: var(--paper); }}\n{figure.style}"
    head, rest = in_the_light(figure.svg).split(">", 1)
    if "xmlns=" not in head:
        head = head.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1)
    return f"{head}>\n<style>\n{escape(in_the_light(style), quote=False)}</style>{rest}\n"


def in_the_light(text: str) -> str:
    """Return SVG or its rules with colours in place of the page's variables."""
    return _VARIABLE.sub(lambda found: LIGHT.get(found[1], LIGHT["ink"]), text)


def _legend(
    entries: Sequence[tuple[str, str]], width: float, top: float
) -> Iterable[tuple[int, str]]:
    """Give each entry with its row; texts are escaped already."""
    x, row = 0.0, 0
    for colour, text in entries:
        wide = _MARK + _LETTER * cells(text)
        if x and x + wide > width:
            x, row = 0.0, row + 1
        y = top + row * _ROW
        yield row, f'<rect x="{x:.1f}" y="{y - 10:.1f}" width="11" height="11" fill="{colour}"/>'
        yield row, f'<text x="{x + 18:.1f}" y="{y:.1f}">{text}</text>'
        x += wide


def rules(style: str) -> str:
    """Return the rules of a drawing, less those of a legend beside it, with ours for one inside."""
    return _BESIDE.sub("", style) + STYLE


def text(said: str) -> str:
    """Return a text for a drawing."""
    return escape(clean(said))
