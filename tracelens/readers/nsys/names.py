"""Strings of an export: each distinct text gets one name_id.

A text stored in StringIds keeps its id there; texts that stand elsewhere get negative ids.
"""

from __future__ import annotations

from threading import RLock
from typing import TYPE_CHECKING

import polars as pl

from tracelens.readers.nsys.storage import decoded
from tracelens.trace.schema import NAMES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tracelens.readers.nsys.gather import Gather


def own_id(column: str) -> pl.Expr:
    """Return ids that StringIds can have; null for others, which may be those of made names."""
    return pl.when(pl.col(column).is_between(0, 2**31 - 1)).then(pl.col(column))


class Names:
    """The names of one export, looked up as tables need them."""

    def __init__(self, gather: Gather) -> None:
        self._gather = gather
        self._lock = RLock()
        self._ids: dict[str, int] = {}
        self._texts: dict[int, str] = {}

    def id_of(self, text: str) -> int:
        """Return the name_id of a text, making one where it has none."""
        with self._lock:
            if text not in self._ids:
                name_id = -1 - len(self._texts)
                self._ids[text] = name_id
                self._texts[name_id] = text
            return self._ids[text]

    def resolve(self, ids: Iterable[int]) -> dict[int, int]:
        """Look ids of StringIds up; return name_ids for those that are not their own.

        Two ids with the same text become one; an id that StringIds lacks gets a name saying so.
        """
        wanted = set(ids)
        found = self._gather.storage.strings(wanted)
        aliases: dict[int, int] = {}
        with self._lock:
            for i in sorted(wanted):
                text = found.get(i, f"(string {i} is missing)")
                name_id = self._ids.setdefault(text, i)
                self._texts.setdefault(name_id, text)
                if name_id != i:
                    aliases[i] = name_id
        if lacking := len(wanted) - len(found):
            self._gather.note("damaged", f"StringIds lacks {lacking:,} names that events refer to.")
        return aliases

    def resolved(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        """Return the frame with `name_id` looked up."""
        ids = frame.select(pl.col("name_id").unique()).collect()["name_id"]
        aliases = self.resolve(i for i in ids if i is not None and i >= 0)
        return frame.with_columns(pl.col("name_id").replace(aliases)) if aliases else frame

    def of_texts(self, texts: pl.Series) -> pl.DataFrame:
        """Return distinct texts (bytes as recorded) with their name_id, joined on the text."""
        distinct = texts.unique()
        ids = [self.id_of(decoded(text)) for text in distinct]
        return pl.DataFrame({"text": distinct, "text_name_id": pl.Series(ids, dtype=pl.Int32)})

    def text(self, name_id: int) -> str:
        """Return the text of a name_id."""
        return self._texts[name_id]

    def frame(self) -> pl.LazyFrame:
        """Return the `names` table of everything looked up so far."""
        rows = sorted(self._texts.items())
        return pl.LazyFrame(rows, schema=dict(NAMES.schema()), orient="row")
