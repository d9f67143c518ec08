"""What the nsys reader asks of an export, however it is stored: tables by column name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    import polars as pl


class Storage(Protocol):
    """An export's tables. Column names are matched exactly; positions never matter."""

    path: Path
    format: str

    def tables(self) -> Mapping[str, frozenset[str]]:
        """Return the columns of every table."""
        ...

    def pieces(
        self, table: str, integers: Sequence[str], texts: Sequence[str] = ()
    ) -> list[Callable[[], pl.DataFrame]]:
        """Return functions that each read a part of a table, safe to call from threads.

        Integer columns come as Int64 (null where the value is no integer), texts as Binary
        (empty where null). The parts in order are the rows in the file's order.
        """
        ...

    def strings(self, ids: Iterable[int]) -> Mapping[int, str]:
        """Return StringIds: id -> text for those of the ids that exist."""
        ...

    def records(self, table: str) -> list[Mapping[str, object]]:
        """Return a small table as dictionaries; an absent one is empty."""
        ...

    def losses(self) -> list[str]:
        """Return what could not be read so far, in sentences."""
        ...


def decoded(text: bytes) -> str:
    """Return text as recorded, with bytes that are not UTF-8 replaced."""
    return text.decode("utf-8", "replace")
