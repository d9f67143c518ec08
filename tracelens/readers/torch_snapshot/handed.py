"""What the child process hands over: columns of 64-bit integers as plain files, and texts.

The child writes with the standard library alone: it starts in 30 ms, and its memory limit need
not count a data frame library. Nothing in the files can run code.
"""

from __future__ import annotations

import json
from array import array
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import polars as pl

NULL: Final = -(2**63) + 1
"""Stands for what was not recorded: no address is odd, no size or time so far below zero."""
BAD: Final = -(2**63) + 3
"""Stands for what was recorded and cannot be true."""

STATUS_REFUSED: Final = 3
STATUS_MEMORY: Final = 4
REFUSED: Final = "refused"
"""The file with the reason, where the child ended with STATUS_REFUSED."""
_MANIFEST: Final = "handed.json"
_WIDTH: Final = 8
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


class Growing:
    """Columns of one table, put together from those of its parts."""

    def __init__(self) -> None:
        self.rows = 0
        self.columns: dict[str, array[int] | int] = {}

    def add(self, rows: int, columns: Mapping[str, array[int] | int]) -> None:
        """Put rows behind those there are; a column that is one number stands for every row."""
        for name, values in columns.items():
            have = self.columns.get(name, values)
            if self.rows and not (isinstance(values, int) and values == have):
                have = _spread(have, self.rows)
                have.extend(_spread(values, rows))
            self.columns[name] = have
        self.rows += rows


def _spread(values: array[int] | int, rows: int) -> array[int]:
    return array("q", (values,)) * rows if isinstance(values, int) else values


class Hand:
    """The child's side: writes parts of tables into a folder.

    ``most_rows`` bounds what a small file can claim by naming one list again and again.
    """

    def __init__(self, folder: Path, most_rows: int) -> None:
        self.texts = Texts()
        self._folder = folder
        self._room = most_rows
        self._parts: list[dict[str, Any]] = []

    def part(self, table: str, rows: int, columns: Mapping[str, array[int] | int]) -> None:
        """Write some rows of a table; a column that is one number stands for it in every row."""
        self.check(rows)
        self._room -= rows
        written: dict[str, int | str] = {}
        for name, values in columns.items():
            if isinstance(values, int):
                written[name] = values
                continue
            file = f"{len(self._parts)}-{name}"
            with (self._folder / file).open("wb") as out:
                values.tofile(out)
            written[name] = file
        self._parts.append({"table": table, "rows": rows, "columns": written})

    def check(self, rows: int) -> None:
        """Raise RefusedError if so many more rows are more than the file can hold."""
        if rows > self._room:
            raise RefusedError("names the same lists again and again, which no recorder does.")

    def close(self, facts: Mapping[str, Any]) -> None:
        """Write what is no table: facts in the types of JSON."""
        manifest = {"parts": self._parts, "texts": list(self.texts.ids), "facts": facts}
        with (self._folder / _MANIFEST).open("w", encoding="utf-8") as out:
            json.dump(manifest, out)


class Handed:
    """The parent's side: the parts of the tables as frames, without NULL but with BAD."""

    def __init__(self, folder: Path, *kept: object) -> None:
        manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        self.facts: Mapping[str, Any] = manifest["facts"]
        self.texts: list[str] = manifest["texts"]
        self._parts: list[dict[str, Any]] = manifest["parts"]
        self.folder = folder
        self._kept = kept

    @property
    def is_timeline(self) -> bool:
        """Tell whether the file was a timeline of the profiler."""
        return "timeline" in self.facts

    def rows(self, table: str) -> int:
        """Return how many rows a table has in all."""
        return sum(part["rows"] for part in self._parts if part["table"] == table)

    def parts(self, table: str, most_rows: int = 1 << 20) -> Iterator[pl.DataFrame]:
        """Return a table in pieces, all columns Int64, null where it was not recorded."""
        for part in self._parts:
            if part["table"] == table:
                for first in range(0, part["rows"], most_rows):
                    yield self._piece(part, first, min(part["rows"] - first, most_rows))

    def whole(self, table: str) -> pl.DataFrame | None:
        """Return a table in one piece, or None where there is none."""
        import polars as pl

        pieces = list(self.parts(table))
        return pl.concat(pieces, rechunk=True) if pieces else None

    def _piece(self, part: Mapping[str, Any], first: int, rows: int) -> pl.DataFrame:
        import polars as pl

        columns = {}
        for name, values in part["columns"].items():
            if isinstance(values, int):
                value = None if values == NULL else values
                columns[name] = pl.repeat(value, rows, dtype=pl.Int64, eager=True)
                continue
            with (self.folder / values).open("rb") as file:
                file.seek(first * _WIDTH)
                numbers = memoryview(file.read(rows * _WIDTH)).cast("q")
            columns[name] = pl.Series(name, numbers, dtype=pl.Int64)
        known = pl.all()
        return pl.DataFrame(columns).select(pl.when(known != NULL).then(known).name.keep())
