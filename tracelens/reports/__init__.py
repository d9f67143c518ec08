"""Reports: from recordings to a document with its sections, figures and provenance.

One file of `sections` is one section of the document, and one file of `writers` one format. A
document says in words, tables and figures what is known; names out of traces stay plain text in
it, and whoever writes it escapes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from tracelens.reports.subject import Subject
    from tracelens.tables import Filled


@dataclass(frozen=True)
class Heading:
    """The name of a run, above what is said of it."""

    text: str


@dataclass(frozen=True)
class Paragraph:
    """Sentences; a ``note`` stands back, a ``warning`` does not."""

    text: str
    kind: Literal["plain", "note", "warning"] = "plain"


@dataclass(frozen=True)
class Point:
    """One point of a list, and what stands below it."""

    text: str
    below: tuple[str, ...] = ()


@dataclass(frozen=True)
class Points:
    """A list of points."""

    points: tuple[Point, ...]


@dataclass(frozen=True)
class Facts:
    """What is known by name: rows of a name and a text, which may be long."""

    name: str
    title: str
    rows: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Grid:
    """A table; ``name`` is unique in the document."""

    name: str
    filled: Filled


@dataclass(frozen=True)
class Figure:
    """A drawing as SVG: one element without a style of its own.

    ``style`` has the rules of its classes, and ``note`` says how to read it. Colours of text and
    lines are the variables of `drawing.LIGHT`.
    """

    name: str
    title: str
    svg: str
    style: str
    note: str = ""


Block = Heading | Paragraph | Points | Facts | Grid | Figure


@dataclass(frozen=True)
class Section:
    """One section; ``make`` raises NothingToShowError where it has nothing to say."""

    title: str
    make: Callable[[Subject], Iterable[Block]]


@dataclass(frozen=True)
class Made:
    """A section with what it says."""

    name: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Document:
    """A whole report; ``left_out`` are the sections that could not be made, and why."""

    title: str
    date: str
    sections: tuple[Made, ...]
    left_out: Mapping[str, str]
    top: int | None = 20
    """Rows that are shown of each table."""

    def blocks(self) -> list[Block]:
        """Return everything, in order."""
        return [block for section in self.sections for block in section.blocks]
