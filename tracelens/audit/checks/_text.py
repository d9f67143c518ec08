"""Every text of a document with the row or line it stands in, for what is claimed in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tracelens.audit.printed import plain
from tracelens.audit.repair import repaired
from tracelens.audit.sheets import Row, plain_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracelens.audit.sheets import Audited

_LONGEST_LABEL: Final = 60


def passages(audited: Audited) -> Iterator[tuple[Row, str]]:
    """Give each line of text and each cell that holds more than a number, marks left out."""
    for sheet, row in audited.rows():
        if sheet.grid.is_list:
            continue  # its lines are text, too
        for cell in row.cells:
            if any(c.isdigit() for c in cell) and any(c in cell for c in "(=%"):
                yield row, plain(cell)
    for line in audited.text:
        text = repaired(plain_line(line.cells[0])).strip()
        if any(c.isdigit() for c in text):
            yield of_line(line.line, text), text


def of_line(line: int, text: str, number: int = 0) -> Row:
    """Return a line of text as a row of no table; what is said in it is told apart by a number."""
    label = text if len(text) <= _LONGEST_LABEL else text[: _LONGEST_LABEL - 1] + "…"
    return Row(0, number, line, label)
