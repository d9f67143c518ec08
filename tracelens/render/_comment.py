"""A comparison as a comment on a pull request: the verdict, what explains it, the rest folded."""

from __future__ import annotations

from dataclasses import replace
from html import escape
from typing import TYPE_CHECKING, Final

from tracelens.render._shape import one_line, reasons, shown, with_rows
from tracelens.render.markdown import grid, plain, sentence

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tracelens.render import Options
    from tracelens.tables import Filled, Report

_OPEN: Final = ("compare_gates", "compare_explained")
"""Tables that are seen before anything is unfolded."""

_MOST_OPEN: Final = 5


def render(report: Report, options: Options) -> str:
    """Return a report as Markdown with its verdict first and its details folded."""
    tables = with_rows(report)
    blocks = [f"**{plain(report.headline)}**"]
    blocks += _points((*report.trust, *(f"Warning: {text}" for text in report.warnings)))
    blocks += _points(report.findings)
    for table in tables:
        if table.name in _OPEN:
            blocks += [f"**{plain(table.table.title)}**", *_open(table, options.top)]
    for table in tables:
        if table.name != "compare_gates" and not _is_all_shown(table):
            blocks += _folded(table.table.title, grid(shown(table, options.top)))
    if missing := _points(reasons(report)):
        blocks += _folded("Not shown", missing)
    return "\n\n".join(blocks) + "\n"


def _is_all_shown(table: Filled) -> bool:
    return table.name in _OPEN and table.frame.height <= _MOST_OPEN


def _open(table: Filled, top: int | None) -> Iterator[str]:
    """Give the first rows of a table; its note comes with the folded whole."""
    most = min(_MOST_OPEN, top or _MOST_OPEN)
    short = shown(table, most if table.name != "compare_gates" else None)
    yield from grid(replace(short, note=short.note if _is_all_shown(table) else ""))


def _points(points: Iterable[str]) -> list[str]:
    lines = [f"- {sentence(point)}" for point in points]
    return ["\n".join(lines)] if lines else []


def _folded(title: str, blocks: Iterable[str]) -> Iterator[str]:
    """Give blocks that are seen when the title is clicked on; GitHub wants the empty lines."""
    yield f"<details><summary>{escape(one_line(title))}</summary>"
    yield from blocks
    yield "</details>"
