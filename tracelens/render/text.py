"""Plain text for a terminal: the answer first, numbers aligned, every caveat beside its number."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracelens.render import Options, Renderer
from tracelens.render._course import drawn
from tracelens.render._shape import (
    cells,
    first,
    fit,
    one_line,
    pad,
    path_of,
    reasons,
    shown,
    with_rows,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from tracelens.render._shape import Shown
    from tracelens.tables import Report

    Style = Callable[[str], str]

LEAST_WIDTH = 80
"""Narrower terminals get lines of this width, since narrower tables could not be read."""

_INDENT = "  "
_GAP = 2


def render(reports: Sequence[Report], options: Options) -> str:
    """Return the reports as text whose lines fit the terminal."""
    page = _Page(max(options.width, LEAST_WIDTH), options.top, colour=options.colour)
    blocks: list[list[str]] = []
    for report in reports:
        if len(reports) > 1:
            blocks.append(page.paragraph(path_of(report), style=page.strong))
        blocks += page.report(report)
    return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"


class _Page:
    """What every block of the text needs to know: how wide, how many rows, whether in colour."""

    def __init__(self, width: int, top: int | None, *, colour: bool) -> None:
        self.width = width
        self.top = top
        self.colour = colour
        self.strong = _ansi("1") if colour else str
        self.faint = _ansi("2") if colour else str
        self.alarm = _ansi("33") if colour else str

    def report(self, report: Report) -> Iterator[list[str]]:
        """Return one report as blocks, which blank lines will part."""
        yield [
            *self.paragraph(report.headline, style=self.strong),
            *self.labelled("Trust", report.trust),
            *self.labelled("Warning", report.warnings, style=self.alarm),
        ]
        for course in report.courses[:1]:
            yield drawn(course, self.width, colour=self.colour)
        for filled in with_rows(report):
            yield self.table(shown(filled, self.top))
        yield self.bullets("What stands out", report.findings)
        yield self.bullets("Not shown", reasons(report))
        yield self.paragraph(" · ".join(report.hints), label="More: ", style=self.faint)

    def table(self, table: Shown) -> list[str]:
        """Return the title, the rows and under them whatever limits them."""
        lines = self.paragraph(table.title, style=self.strong)
        fitted = fit(table, self.width - len(_INDENT), _GAP)
        lines += _rows(fitted, self.faint)
        for remark in (_cut(fitted), table.note, fitted.dropped):
            lines += self.paragraph(remark, label=_INDENT, style=self.faint)
        return lines

    def bullets(self, title: str, points: Iterable[str]) -> list[str]:
        """Return points under a title, or nothing if there are none."""
        lines = [line for point in points for line in self.paragraph(point, label=f"{_INDENT}• ")]
        return [self.strong(title), *lines] if lines else []

    def labelled(self, label: str, points: Iterable[str], style: Style = str) -> Iterator[str]:
        """Return points beside a label that stands before the first alone."""
        for i, point in enumerate(points):
            yield from self.paragraph(point, label=f"{label if i == 0 else '':9}", style=style)

    def paragraph(self, text: str, *, label: str = "", style: Style = str) -> list[str]:
        """Return a text broken into lines that hang under its label; no line if it is empty."""
        lines = _wrapped(one_line(text), self.width - cells(label))
        blank = " " * cells(label)
        return [style((blank if i else label) + line) for i, line in enumerate(lines)]


def _ansi(code: str) -> Style:
    return lambda text: f"\x1b[{code}m{text}\x1b[0m"


def _rows(table: Shown, style: Style) -> list[str]:
    """Return the heading row and the rows."""
    columns = [
        [pad(cell, strip.width, right=strip.is_number) for cell in (strip.heading, *strip.cells)]
        for strip in table.strips
    ]
    head, *rows = (_INDENT + (" " * _GAP).join(row) for row in zip(*columns, strict=True))
    return [style(head.rstrip()), *(row.rstrip() for row in rows)]


def _cut(table: Shown) -> str:
    can_be_shown = table.cut and table.strips[0].cells
    return f"{table.cut} — --top 0 shows all" if can_be_shown else table.cut


def _wrapped(text: str, width: int) -> list[str]:
    """Return a text as lines of at most `width` columns, broken at spaces where there are any."""
    lines: list[str] = []
    for word in text.split():
        rest = word
        if lines and cells(lines[-1]) + 1 + cells(rest) <= width:
            lines[-1] += f" {rest}"
            continue
        while cells(rest) > width:
            lines.append(first(rest, width))
            rest = rest[len(lines[-1]) :]
        lines.append(rest)
    return lines


RENDERER = Renderer(render=render)
