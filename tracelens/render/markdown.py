"""Markdown tables as GitHub shows them, to paste into an issue or a report."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tracelens.render import Options, Renderer
from tracelens.render._course import drawn
from tracelens.render._shape import cells, one_line, pad, path_of, shown, with_rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from tracelens.render._shape import Shown, Strip
    from tracelens.tables import Report

_SPECIAL = re.compile(r"[\\`*_<>\[\]|~&$#]")
_OPENS_A_LIST = re.compile(r"^(\d*)([-+=.)])")
_DRAWING_WIDTH = 88
_TICKS = re.compile("`+")
_LINKED = re.compile(r"(?i)(@|\bGH-(?=\d)|#(?=\d)|:(?=//)|\bwww(?=\.)|:(?=[a-z0-9+_-]+:))")
_APART = "<!-- -->"  # a backslash keeps GitHub from none of these: it links what the page shows


def render(reports: Sequence[Report], options: Options) -> str:
    """Return the reports as Markdown; of a report with one table, that table alone."""
    blocks: list[str] = []
    for report in reports:
        if len(reports) > 1:
            blocks.append(f"## {code(path_of(report))}")
        blocks += _report(report, options.top)
    return "\n\n".join(blocks) + "\n"


def _report(report: Report, top: int | None) -> Iterator[str]:
    alone = len(report.tables) == 1
    if not alone:
        yield f"**{plain(report.headline)}**"
        yield from _points("", (*report.trust, *(f"Warning: {w}" for w in report.warnings)))
        for course in report.courses[:1]:
            yield "\n".join(["```text", *drawn(course, _DRAWING_WIDTH, colour=False), "```"])
    for filled in with_rows(report):
        yield from _table(shown(filled, top))
    if not alone:
        yield from _points("### What stands out", report.findings)
        missing = (f"{name}: {why}" for name, why in report.left_out.items())
        yield from _points("### Not shown", missing)


def _points(title: str, points: Iterable[str]) -> Iterator[str]:
    lines = [f"- {sentence(point)}" for point in points]
    if lines and title:
        yield title
    if lines:
        yield "\n".join(lines)


def _table(table: Shown) -> Iterator[str]:
    yield f"### {plain(table.title)}"
    yield from grid(table)


def grid(table: Shown) -> Iterator[str]:
    """Give a table without its title, and what stands below it."""
    columns = [_column(strip) for strip in table.strips]
    yield "\n".join(f"| {' | '.join(row)} |" for row in zip(*columns, strict=True))
    for remark in (table.cut, table.note):
        if remark:
            yield f"*{plain(remark)}*"


def _column(strip: Strip) -> list[str]:
    """Return the heading, the rule and the cells of one column, all equally wide."""
    texts = [code(cell) if strip.is_name else plain(cell) for cell in strip.cells]
    texts.insert(0, plain(strip.heading))
    width = max(3, *map(cells, texts))
    texts = [pad(text, width, right=strip.is_number) for text in texts]
    texts.insert(1, "-" * (width - 1) + (":" if strip.is_number else "-"))
    return texts


def sentence(text: str) -> str:
    """Return a text that can begin a line: it opens no list."""
    return _OPENS_A_LIST.sub(r"\1\\\2", plain(text))


def plain(text: str) -> str:
    """Return a text that Markdown shows as it is; GitHub links no user, issue or address in it."""
    return _LINKED.sub(rf"\g<0>{_APART}", _SPECIAL.sub(r"\\\g<0>", one_line(text)))


def code(text: str) -> str:
    r"""Return a name as a code span; in a table ``|`` needs a backslash, which it gets."""
    if not text:
        return ""
    fence = "`" * (1 + max(map(len, _TICKS.findall(text)), default=0))
    if text[0] in "` " or text[-1] in "` ":
        text = f" {text} "
    escaped = text.replace("|", r"\|")
    return f"{fence}{escaped}{fence}"


RENDERER = Renderer(render=render)
