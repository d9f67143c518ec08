"""One HTML file without scripts, to attach to a mail or an issue, in light or dark."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Final

from tracelens.render import Options, Renderer, _bars_svg, _course_svg, _roofline_svg
from tracelens.render._shape import clean, one_line, path_of, shorten, shown, with_rows
from tracelens.tables.bars import bars_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from tracelens.render._shape import Shown, Strip
    from tracelens.tables import Filled, Report

NAME_CELLS: Final = 80
"""Longer names are shortened; the attribute `title` has the whole, and the full name of a short."""

TABLES: Final = """\
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .75rem; border-bottom: 1px solid var(--line); text-align: left;
  white-space: nowrap; }
th { color: var(--faint); font-weight: 600; }
.number { text-align: right; }
.bar { min-width: 4.5rem;
  background: linear-gradient(to right, var(--bar) var(--share), transparent 0); }
tbody tr:hover { background: color-mix(in srgb, var(--line) 40%, transparent); }
code { font: .9em ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere; }
"""
"""How tables look, on any page that says what --ink, --faint, --line and --bar are."""

_PAGE: Final = """\
:root { color-scheme: light dark; --ink: #1d2329; --paper: #fff; --faint: #5c6873;
  --line: #d9dee3; --bar: #cfe3f7; --alarm: #9a5b00; }
@media (prefers-color-scheme: dark) { :root { --ink: #e3e7eb; --paper: #15191d; --faint: #98a4b0;
  --line: #333b43; --bar: #23425f; --alarm: #f0b354; } }
body { margin: 2rem auto; padding: 0 1.5rem; max-width: 80rem; color: var(--ink);
  background: var(--paper); font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.25rem; } h2 { margin: 2rem 0 .4rem; font-size: 1.05rem; }
p, ul { margin: .3rem 0; } ul { padding-left: 1.2rem; }
.path { color: var(--faint); overflow-wrap: anywhere; } .note { color: var(--faint); }
.warning { color: var(--alarm); }
"""

_PRINT: Final = """\
@media print { body { margin: 0; max-width: none; font-size: 9pt; } .wide { overflow: visible; }
  section { break-inside: avoid; } .bar { print-color-adjust: exact; } }
"""

STYLE: Final = _PAGE + TABLES + _PRINT

HEAD: Final = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
"""


def render(reports: Sequence[Report], options: Options) -> str:
    """Return the reports as one page that loads nothing and runs nothing."""
    title = " · ".join(path_of(report) for report in reports)
    style = STYLE + _bars_svg.STYLE + _roofline_svg.STYLE
    if any(report.courses for report in reports):
        style += _course_svg.STYLE
    head = HEAD.format(title=escape(f"tracelens: {title}"), style=style)
    lines = (line for report in reports for line in _report(report, options.top))
    return head + "\n".join(lines) + "\n</body>\n</html>\n"


def _report(report: Report, top: int | None) -> Iterator[str]:
    yield f"<h1>{text(report.headline)}</h1>"
    yield paragraph(path_of(report), "path")
    yield from _points("", report.trust)
    yield from (paragraph(f"Warning: {warning}", "warning") for warning in report.warnings)
    for course in report.courses:
        yield from _course_svg.drawn(course)
        reserved = "" if course.frame["reserved_bytes"].is_null().all() else "; dashed: reserved"
        yield paragraph(f"Filled: what was active{reserved}. {course.note}", "note")
    for filled in with_rows(report):
        yield from _section(shown(filled, top), filled, report)
    yield from _points("What stands out", report.findings)
    missing = (f"{name}: {why}" for name, why in report.left_out.items())
    yield from _points("Not shown", missing)


def _points(title: str, points: Iterable[str]) -> Iterator[str]:
    items = [f"<li>{text(point)}</li>" for point in points]
    if items and title:
        yield f"<h2>{title}</h2>"
    if items:
        yield f"<ul>{''.join(items)}</ul>"


def _section(table: Shown, filled: Filled, report: Report) -> Iterator[str]:
    yield "<section>"
    yield f"<h2>{text(table.title)}</h2>"
    yield from _bars_svg.drawn(table.title, bars_of(filled))
    yield from _roofline_svg.of_table(filled, report)
    yield from grid(table, filled)
    yield from (paragraph(remark, "note") for remark in (table.cut, table.note) if remark)
    yield "</section>"


def grid(table: Shown, filled: Filled) -> Iterator[str]:
    """Give the lines of a table: its headings and its rows."""
    columns = [_column(strip, filled) for strip in table.strips]
    yield '<div class="wide"><table>'
    yield f"<thead><tr>{''.join(map(_heading, table.strips))}</tr></thead>"
    yield "<tbody>"
    yield from (f"<tr>{''.join(row)}</tr>" for row in zip(*columns, strict=True))
    yield "</tbody></table></div>"


def _heading(strip: Strip) -> str:
    kind = ' class="number"' if strip.is_number else ""
    return f'<th scope="col"{kind}>{escape(strip.heading)}</th>'


def _column(strip: Strip, filled: Filled) -> list[str]:
    """Return the cells of one column as elements."""
    if strip.is_name:
        return list(map(_name, strip.cells, _full_names(strip, filled)))
    if strip.column.unit == "share":
        return list(map(_bar, strip.cells, strip.values))
    kind = ' class="number"' if strip.is_number else ""
    return [f"<td{kind}>{escape(cell)}</td>" for cell in strip.cells]


def _full_names(strip: Strip, filled: Filled) -> Sequence[str]:
    """Return what the names of a column are short for."""
    if strip.column.name != "short_name" or "name" not in filled.frame.columns:
        return strip.cells
    return [clean(str(name)) for name in filled.frame["name"].head(len(strip.cells))]


def _name(name: str, full: str) -> str:
    short = shorten(name, NAME_CELLS)
    title = "" if short == full else f' title="{escape(full)}"'
    return f"<td><code{title}>{escape(short)}</code></td>"


def _bar(text: str, fraction: object) -> str:
    """Return a share with a bar behind it, as long as the share is large."""
    if not isinstance(fraction, int | float) or not fraction > 0:
        return f'<td class="number">{escape(text)}</td>'
    percent = 100 * min(fraction, 1)
    return f'<td class="number bar" style="--share:{percent:.1f}%">{escape(text)}</td>'


def paragraph(said: str, kind: str) -> str:
    """Return a paragraph of a class."""
    return f'<p class="{kind}">{text(said)}</p>'


def text(said: str) -> str:
    """Return a sentence that holds nothing but its own letters."""
    return escape(one_line(said))


RENDERER = Renderer(render=render)
