"""CSV and TSV: one table with a row of headings; lines that begin with # are what is said of it."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Final

from tracelens.audit.document import MOST_CELLS, Document, Grid, Line, too_many_cells
from tracelens.errors import UnreadableError

if TYPE_CHECKING:
    from collections.abc import Iterator

_LONGEST_FIELD: Final = 1 << 20
_MARKS: Final = (",", "\t", ";", "|")


def parse(path: str, text: str) -> Document:
    """Return the table of a CSV file.

    Raises:
        UnreadableError: a field is longer than 1 MiB, say.
    """
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    said = [line.lstrip("# ") for line in lines if line.startswith("#")]
    first = next((i for i, line in enumerate(lines) if line.strip() and line[0] != "#"), None)
    if first is None:
        return Document(path, "csv", ())
    mark = max(_MARKS, key=lines[first].count)
    body = list(_rows(path, lines[first:], mark, first + 1))
    if not body:
        return Document(path, "csv", ())
    head, *rows = body
    width = len(head.cells)
    warnings = _odd(rows, width)
    even = tuple(Line(row.line, (*row.cells, *[""] * width)[:width]) for row in rows)
    grid = Grid(head.cells, even, head.line, before=tuple(said))
    return Document(path, "csv", (grid,), warnings=warnings)


def _rows(path: str, lines: list[str], mark: str, at: int) -> Iterator[Line]:
    csv.field_size_limit(_LONGEST_FIELD)
    reader = csv.reader((f"{line}\n" for line in lines), delimiter=mark)
    begin, cells = at, 0
    try:
        for row in reader:
            cells += len(row)
            if cells > MOST_CELLS:
                raise too_many_cells(path)
            if any(cell.strip() for cell in row) and not row[0].startswith("#"):
                yield Line(begin, tuple(cell.strip() for cell in row))
            begin = at + reader.line_num
    except csv.Error as error:
        raise UnreadableError(f"{path}, line {at + reader.line_num}: {error}.") from error


def _odd(rows: list[Line], width: int) -> tuple[str, ...]:
    odd = [row.line for row in rows if len(row.cells) != width]
    if not odd:
        return ()
    said = f"{len(odd):,} rows have more or fewer cells than the {width} headings"
    return (f"{said}, the first in line {odd[0]}.",)
