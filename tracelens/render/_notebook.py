"""HTML of reports and tables for the cells of a notebook: its style acts on nothing around it."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Final

from tracelens.render import _bars_svg, _course_svg
from tracelens.render._shape import one_line, reasons, shown, with_rows
from tracelens.render.html import TABLES, grid
from tracelens.tables.bars import bars_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tracelens.tables import Filled, Report

# Colours follow the notebook's theme, which a page's preferred scheme does not tell.
_STYLE: Final = f"""\
<style>
div.tracelens {{
--ink: currentColor; --faint: color-mix(in srgb, currentColor 65%, transparent);
--line: color-mix(in srgb, currentColor 18%, transparent);
--bar: color-mix(in srgb, #4a90d9 32%, transparent);
max-width: 80rem; line-height: 1.5;
p, ul {{ margin: .3rem 0; }} ul {{ padding-left: 1.2rem; }}
.title {{ font-weight: 600; margin-top: 1rem; }} .note {{ color: var(--faint); }}
.warning {{ color: color-mix(in srgb, #d98200 75%, currentColor); }}
table {{ margin: 0; }}
{TABLES}{_bars_svg.STYLE}{_course_svg.STYLE}}}
</style>
"""


def of_report(report: Report, top: int | None) -> str:
    """Return a report as one element."""
    return _whole(_report(report, top))


def of_table(filled: Filled, top: int | None) -> str:
    """Return a table as one element."""
    return _whole(_table(filled, top))


def of_points(title: str, points: Iterable[str]) -> str:
    """Return sentences as one element."""
    return _whole(_points(title, points))


def _whole(lines: Iterable[str]) -> str:
    return f'{_STYLE}<div class="tracelens">\n' + "\n".join(lines) + "\n</div>\n"


def _report(report: Report, top: int | None) -> Iterator[str]:
    yield _paragraph(report.headline, "title")
    yield from _points("", report.trust)
    yield from (_paragraph(f"Warning: {warning}", "warning") for warning in report.warnings)
    for course in report.courses:
        yield from _course_svg.drawn(course)
        yield _paragraph(course.note, "note")
    for filled in with_rows(report):
        yield from _table(filled, top)
    yield from _points("What stands out", report.findings)
    yield from _points("Not shown", reasons(report))
    if report.hints:
        yield _paragraph(f"More: {' · '.join(report.hints)}", "note")


def _table(filled: Filled, top: int | None) -> Iterator[str]:
    table = shown(filled, top)
    yield _paragraph(table.title, "title")
    yield from _bars_svg.drawn(table.title, bars_of(filled))
    yield from grid(table, filled)
    yield from (_paragraph(remark, "note") for remark in (table.cut, table.note) if remark)


def _points(title: str, points: Iterable[str]) -> Iterator[str]:
    items = [f"<li>{_text(point)}</li>" for point in points]
    if items and title:
        yield _paragraph(title, "title")
    if items:
        yield f"<ul>{''.join(items)}</ul>"


def _paragraph(text: str, kind: str) -> str:
    return f'<p class="{kind}">{_text(text)}</p>'


def _text(text: str) -> str:
    return escape(one_line(text))
