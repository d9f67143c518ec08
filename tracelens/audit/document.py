"""A file of claims as it was read: tables with what stands around them, and sentences."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from tracelens.errors import UnreadableError

if TYPE_CHECKING:
    from collections.abc import Mapping


MOST_CELLS: Final = 1_000_000
"""An audit takes half a minute for so many."""


def too_many_cells(path: str) -> UnreadableError:
    """Return the error that a document is larger than anybody reads."""
    return UnreadableError(f"{path} has more than {MOST_CELLS:,} cells. Audit a part of it.")


@dataclass(frozen=True)
class Line:
    """One row of a table, or one line of text, and the line of the file it stands on (from 1)."""

    line: int
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Grid:
    """One table.

    Attributes:
        headings: one for each column.
        rows: with as many cells as there are headings.
        line: of the headings.
        title: the heading of the section it stands in, and those above it.
        before: the lines between that heading and the table.
        settings: what the file itself says of the whole table, as JSON around a list does.
        is_list: it is a list of `key: value` lines, read as one row.
    """

    headings: tuple[str, ...]
    rows: tuple[Line, ...]
    line: int
    title: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    is_list: bool = False


@dataclass(frozen=True)
class Document:
    """A file of claims; `text` are the lines that stand in no table."""

    path: str
    form: str
    grids: tuple[Grid, ...]
    text: tuple[Line, ...] = ()
    warnings: tuple[str, ...] = ()
