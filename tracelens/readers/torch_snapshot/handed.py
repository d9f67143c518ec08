"""What the child process hands over, piece by piece: columns of 64-bit integers, and texts.

A piece is a file per column and a line of JSON that tells of them, so that the parent works on
it while the child goes on. The child writes with the standard library alone: it starts in 30 ms,
and its memory limit need not count a data frame library. Nothing in the files can run code.
"""

from __future__ import annotations

import json
import struct
from itertools import islice
from typing import IO, TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping
    from pathlib import Path

    import polars as pl

    from tracelens.trace.scratch import Scratch

NULL: Final = -(2**63) + 1
"""Stands for what was not recorded: no address is odd, no size or time so far below zero."""
BAD: Final = -(2**63) + 3
"""Stands for what was recorded and cannot be true."""
Column: TypeAlias = bytes | int
"""The numbers of a column, 64 bits each, or the one number that stands in every row."""

STATUS_REFUSED: Final = 3
STATUS_MEMORY: Final = 4
REFUSED: Final = "refused"
"""The file with the reason, where the child ended with STATUS_REFUSED."""
PIECE_ROWS: Final = 1 << 17
_MOST_CHARACTERS: Final = 1 << 14
_SHOWN_CHARACTERS: Final = 60


class RefusedError(Exception):
    """The file is not to be read; the text goes on after the file's name."""


class Texts:
    """Distinct texts, each with a number; long ones are cut."""

    def __init__(self) -> None:
        self.ids: dict[str, int] = {}
        self._mended: dict[str, int] = {}
        self.cut = 0

    def id_of(self, text: str) -> int:
        """Return the text's number."""
        known = self.ids.get(text)
        if known is None:
            known = self._mended.get(text)
        if known is not None:
            return known
        kept = text[:_MOST_CHARACTERS]
        if kept != text:
            self.cut += 1
            kept += "…"
        kept = mended(kept)
        number = self.ids.setdefault(kept, len(self.ids))
        if kept != text:
            self._mended[text] = number
        return number


def mended(text: str) -> str:
    """Return a text with a question mark for every half of a character: no file can hold one."""
    return text.encode("utf-8", "replace").decode()


def shown(text: str) -> str:
    """Return a text of the file that is short and safe to print in a sentence."""
    cut = text[:_SHOWN_CHARACTERS] + "…" * (len(text) > _SHOWN_CHARACTERS)
    return "".join(c if c.isprintable() else "?" for c in cut)


def packed(values: Collection[int]) -> bytes:
    """Return the numbers of a column, 64 bits each; raises struct.error if one is none."""
    return struct.pack(f"{len(values)}q", *values)


class Hand:
    """The child's side: writes tables into a folder, and says so line by line.

    Rows gather until a piece of a table is large enough to be worth a file per column.
    ``most_rows`` bounds what a small file can claim by naming one list again and again.
    """

    def __init__(self, folder: Path, lines: IO[str], most_rows: int) -> None:
        self.texts = Texts()
        self._folder = folder
        self._lines = lines
        self._room = most_rows
        self._pieces = 0
        self._told_texts = 0
        self._table = ""
        self._rows = 0
        self._columns: dict[str, list[bytes] | int] = {}

    def begin(self, kind: str) -> None:
        """Say what kind of file it is, before anything else."""
        self._say({"kind": kind})

    def part(self, table: str, rows: int, columns: Mapping[str, Column]) -> None:
        """Hand some more rows of a table over."""
        self.check(rows)
        self._room -= rows
        if table != self._table:
            self.flush()
            self._table = table
        for name, values in columns.items():
            have = self._columns.setdefault(name, values if isinstance(values, int) else [])
            if isinstance(values, int) and values == have:
                continue
            if isinstance(have, int):
                have = self._columns[name] = [_spread(have, self._rows)]
            have.append(_spread(values, rows))
        self._rows += rows
        if self._rows >= PIECE_ROWS:
            self.flush()

    def check(self, rows: int) -> None:
        """Raise RefusedError if so many more rows are more than the file can hold."""
        if rows > self._room:
            raise RefusedError("names the same lists again and again, which no recorder does.")

    def flush(self) -> None:
        """Write the rows that wait; those of a table that come later are another piece."""
        if not self._table:
            return
        written: dict[str, int | str] = {}
        for name, values in self._columns.items():
            if isinstance(values, int):
                written[name] = values
                continue
            file = written[name] = f"{self._pieces}-{name}"
            with (self._folder / file).open("wb") as out:
                out.writelines(values)
        self._say({"table": self._table, "rows": self._rows, "columns": written})
        self._pieces += 1
        self._table, self._rows, self._columns = "", 0, {}

    def close(self, facts: Mapping[str, Any]) -> None:
        """Hand over what is no table: facts in the types of JSON. Nothing comes after them."""
        self.flush()
        self._say({"facts": facts})

    def _say(self, what: dict[str, Any]) -> None:
        new = list(islice(self.texts.ids, self._told_texts, None))
        self._told_texts += len(new)
        self._lines.write(json.dumps({**what, "texts": new}) + "\n")
        self._lines.flush()


def _spread(values: Column, rows: int) -> bytes:
    return packed((values,)) * rows if isinstance(values, int) else values


class Handed:
    """The parent's side: the tables as frames, without NULL but with BAD, as the child goes on.

    ``lines`` are what the child says. Tables are asked for in the order in which they come;
    ``texts`` are those that were handed over until now, and ``facts`` are there at the end.
    """

    def __init__(self, scratch: Scratch, lines: Iterable[str]) -> None:
        self.scratch = scratch
        self.texts: list[str] = []
        self._lines = iter(lines)
        self._next: dict[str, Any] = {}
        self.kind: str = self._turned()["kind"]
        self._turned()

    @property
    def facts(self) -> Mapping[str, Any]:
        """What is no table."""
        facts: Mapping[str, Any] = self._next["facts"]
        return facts

    def pieces(self, table: str) -> Iterator[pl.DataFrame]:
        """Return the next table in pieces, all columns Int64, null where it was not recorded."""
        while self._next.get("table") == table:
            yield self._piece(self._next)
            self._turned()

    def whole(self, table: str) -> pl.DataFrame | None:
        """Return the next table in one piece, or None if it is another."""
        import polars as pl

        pieces = list(self.pieces(table))
        return pl.concat(pieces, rechunk=True) if pieces else None

    def _turned(self) -> dict[str, Any]:
        """Wait for the next line."""
        self._next = json.loads(next(self._lines))
        self.texts += self._next["texts"]
        return self._next

    def _piece(self, part: Mapping[str, Any]) -> pl.DataFrame:
        import polars as pl

        columns = {}
        for name, values in part["columns"].items():
            if isinstance(values, int):
                value = None if values == NULL else values
                columns[name] = pl.repeat(value, part["rows"], dtype=pl.Int64, eager=True)
                continue
            file = self.scratch.path / values
            columns[name] = pl.Series(name, memoryview(file.read_bytes()).cast("q"), dtype=pl.Int64)
            file.unlink()
        known = pl.all()
        return pl.DataFrame(columns).select(pl.when(known != NULL).then(known).name.keep())
