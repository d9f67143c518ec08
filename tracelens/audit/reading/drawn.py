"""Tables drawn with spaces or lines, as programs print them: a row of headings, then even rows."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from tracelens.audit.document import Grid, Line

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_RULE: Final = re.compile(r"[\s+|:=\-_─━═┌┬┐├┼┤└┴┘│╞╪╡╔╦╗╠╬╣╚╩╝║┃┏┳┓┡╇┩]+")
_BARS: Final = re.compile("[|│┆║┃]")
_SPACES: Final = re.compile(r"\t+| {2,}")
_TREE: Final = re.compile("[├└]")
_FIGURE: Final = re.compile(r"[~<>≈]?[-+]?\.?\d")
_FEWEST_ROWS: Final = 2


def tables(lines: Sequence[Line]) -> Iterator[Grid]:
    """Give the tables among some lines that follow one another (one cell each)."""
    block: list[tuple[int, list[str]]] = []
    for line in (*lines, Line(0, ("",))):
        text = line.cells[0]
        if text.strip() and _RULE.fullmatch(text):
            continue
        fields = _fields(text)
        if block and not _fits(block, fields):
            yield from _table(block)
            block = []
        if len(fields) > 1:
            block.append((line.line, fields))


def _fields(text: str) -> list[str]:
    inner = text.strip()
    if _TREE.search(inner):
        return []
    if len(_BARS.findall(inner)) > 1:
        return [cell.strip() for cell in _BARS.split(inner.strip("|│┆║┃"))]
    return [cell.strip() for cell in _SPACES.split(inner)] if inner else []


def _fits(block: list[tuple[int, list[str]]], fields: list[str]) -> bool:
    width = len(block[0][1])
    if len(block) == 1:
        return len(fields) in {width, width + 1}  # rows may have a name that the headings lack
    return len(fields) == len(block[1][1])


def _table(block: list[tuple[int, list[str]]]) -> Iterator[Grid]:
    (at, head), *body = block
    if len(body) < _FEWEST_ROWS or any(re.fullmatch(r"[\d.,%]+", cell) for cell in head):
        return
    width = len(body[0][1])
    headings = tuple(head) if len(head) == width else ("", *head)
    rows = tuple(Line(number, tuple(cells)) for number, cells in body)
    if any(all(_FIGURE.match(row.cells[i]) for row in rows) for i in range(width)):
        yield Grid(headings, rows, at)
