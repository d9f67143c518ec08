"""Markdown: pipe tables, tables drawn with spaces, lists of `key: value`, and the text between."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from tracelens.audit.document import Document, Grid, Line
from tracelens.audit.reading import drawn

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_LONGEST_LINE: Final = 20_000
_CONTEXT_LINES: Final = 12
_HEADING: Final = re.compile(r"(#{1,6})\s+(.*?)\s*#*\s*$")
_FENCE: Final = re.compile(r"\s{0,3}(```+|~~~+)")
_RULE: Final = re.compile(r"\|?(?:[ \t]*:?-+:?[ \t]*\|)*(?:[ \t]*:?-+:?[ \t]*\|?)?")
_PIPE: Final = re.compile(r"(?<!\\)\|")
_KEY: Final = re.compile(
    r"\s*(?:[-*+]\s+)?(?:\*\*)?([^\W\d][^:|`]{0,60}?)(?:\*\*)?\s*:(?:\*\*)?\s+(\S.*)$"
)
_FEWEST_KEYS: Final = 2
_FIGURE: Final = re.compile(r"[~≈<>*]*[-+]?[\d.]*\d")


def parse(path: str, text: str) -> Document:
    """Return the tables and the text of a Markdown file, or of any text with tables in it."""
    lines = [line[:_LONGEST_LINE] for line in text.replace("\r\n", "\n").split("\n")]
    grids: list[Grid] = []
    rest: list[Line] = []
    for section in _sections(lines):
        inside, outside = _section(section)
        grids += inside
        rest += outside
    return Document(path, "markdown", tuple(grids), tuple(rest))


class _Section:
    """The lines below one heading, and the text `above` it, below the headings that enclose it."""

    def __init__(self, title: tuple[str, ...], above: tuple[str, ...] = ()) -> None:
        self.title = title
        self.above = above
        self.lines: list[Line] = []
        self.text: list[str] = []


def _sections(lines: Sequence[str]) -> Iterator[_Section]:
    trail: dict[int, str] = {}
    texts: dict[int, list[str]] = {}
    section = _Section(())
    fence = ""
    for number, line in enumerate(lines, 1):
        mark = _FENCE.match(line)
        if mark and (not fence or line.strip().startswith(fence)):
            fence = "" if fence else mark[1][:3]
            section.lines.append(Line(number, ("",)))
            continue
        heading = None if fence else _HEADING.match(line)
        if heading:
            yield section
            level = len(heading[1])
            trail = {depth: said for depth, said in trail.items() if depth < level}
            trail[level] = heading[2]
            texts = {depth: lines for depth, lines in texts.items() if depth < level}
            above = tuple(line for one in texts.values() for line in one)
            section = _Section(tuple(trail.values()), above)
            texts[level] = section.text
            continue
        section.lines.append(Line(number, (line,)))
        if "|" not in line and line.strip():
            section.text.append(line.strip())
    yield section


def _section(section: _Section) -> tuple[list[Grid], list[Line]]:
    """Return the tables of a section in their order, and its text, of which lists are a part."""
    found: list[Grid] = []
    used: set[int] = set()
    for finder in (_pipes, _lists, drawn.tables):
        for grid in finder(_unused(section.lines, used)):
            found.append(grid)
            used |= set(range(grid.line, _end(grid)))
    found.sort(key=lambda grid: grid.line)
    tables = {n for grid in found if not grid.is_list for n in range(grid.line, _end(grid))}
    text = [line for line in section.lines if line.line not in tables and line.cells[0].strip()]
    return [_with_context(grid, section, used) for grid in found], text


def _unused(lines: Sequence[Line], used: set[int]) -> list[Line]:
    """Return the lines with an empty one in place of each that a table has."""
    return [Line(line.line, ("",)) if line.line in used else line for line in lines]


def _end(grid: Grid) -> int:
    """Return the line after a table; the lines of a list follow one another."""
    return grid.line + len(grid.headings) if grid.is_list else grid.rows[-1].line + 1


def _with_context(grid: Grid, section: _Section, used: set[int]) -> Grid:
    before = [
        line.cells[0].strip()
        for line in section.lines
        if line.line < grid.line and line.line not in used and line.cells[0].strip()
    ]
    above = section.above[:_CONTEXT_LINES]
    return replace(grid, title=section.title, before=(*above, *before[-_CONTEXT_LINES:]))


def _pipes(lines: Sequence[Line]) -> Iterator[Grid]:
    at = 0
    while at + 1 < len(lines):
        head, rule = lines[at].cells[0], lines[at + 1].cells[0]
        if "|" not in head or not {"|", "-"} <= set(rule) or not _RULE.fullmatch(rule.strip()):
            at += 1
            continue
        headings = _cells(head)
        rows: list[Line] = []
        start, at = at, at + 2
        while at < len(lines) and "|" in lines[at].cells[0]:
            cells = [*_cells(lines[at].cells[0]), *[""] * len(headings)]
            rows.append(Line(lines[at].line, tuple(cells[: len(headings)])))
            at += 1
        if rows:
            yield Grid(tuple(headings), tuple(rows), lines[start].line)


def _cells(line: str) -> list[str]:
    inner = line.strip().removeprefix("|")
    if inner.endswith("|") and not inner.endswith("\\|"):
        inner = inner[:-1]
    return [cell.strip().replace("\\|", "|") for cell in _PIPE.split(inner)]


def _lists(lines: Sequence[Line]) -> Iterator[Grid]:
    """Give lists of `key: value` lines as tables of one row each."""
    block: list[tuple[int, str, str]] = []
    for line in (*lines, Line(0, ("",))):
        found = _KEY.match(line.cells[0])
        if found:
            block.append((line.line, found[1].strip(), found[2].strip()))
            continue
        if len(block) >= _FEWEST_KEYS and any(_FIGURE.match(value) for _, _, value in block):
            yield Grid(
                tuple(key for _, key, _ in block),
                (Line(block[0][0], tuple(value for _, _, value in block)),),
                block[0][0],
                is_list=True,
            )
        block = []
