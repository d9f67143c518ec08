"""nsys exports of `--type parquetdir` and `--type arrowdir`: one file per table."""

from __future__ import annotations

from functools import cached_property, partial
from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens.errors import UnreadableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

_SUFFIXES: Final = {".parquet": "nsys-parquet", ".arrow": "nsys-arrow", ".arrows": "nsys-arrow"}
_ID, _VALUE = pl.col("id"), pl.col("value")


class ColumnarStorage:
    """One folder of Parquet files or of Arrow IPC streams."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._files = {f.stem: f for f in sorted(path.iterdir()) if f.suffix in _SUFFIXES}
        suffixes = {f.suffix for f in self._files.values()}
        self.format = _SUFFIXES[min(suffixes)] if suffixes else "nsys-parquet"
        self._unreadable: list[str] = []

    def tables(self) -> Mapping[str, frozenset[str]]:
        """Return the columns of every table; a file that cannot be read is left out."""
        return self._tables

    def pieces(
        self, table: str, integers: Sequence[str], texts: Sequence[str] = ()
    ) -> list[Callable[[], pl.DataFrame]]:
        """Return one reader of the whole table: polars reads it in parallel by itself."""
        return [partial(self._read, table, integers, texts)]

    def strings(self, ids: Iterable[int]) -> Mapping[int, str]:
        """Look strings up by id."""
        if not {"id", "value"} <= self._tables.get("StringIds", frozenset()):
            return {}
        wanted = pl.Series("id", sorted(set(ids)), dtype=pl.Int64)
        rows = (
            self._scan("StringIds")
            .select(_ID.cast(pl.Int64), _VALUE.cast(pl.String))
            .filter(_ID.is_in(wanted.implode()), _VALUE.is_not_null())
            .collect()
        )
        return dict(rows.iter_rows())

    def records(self, table: str) -> list[Mapping[str, object]]:
        """Return a small table as dictionaries."""
        if table not in self._tables:
            return []
        return list(self._scan(table).collect().iter_rows(named=True))

    def lost_rows(self) -> int:
        """Return how many files could not be read."""
        return len(self._unreadable)

    @cached_property
    def _tables(self) -> Mapping[str, frozenset[str]]:
        columns: dict[str, frozenset[str]] = {}
        for table in self._files:
            try:
                columns[table] = frozenset(self._scan(table).collect_schema().names())
            except (pl.exceptions.PolarsError, OSError):
                self._unreadable.append(table)
        if not columns:
            raise UnreadableError(
                f"No table in {self.path.name} can be read. "
                "Export it again: nsys export --type parquetdir FILE.nsys-rep"
            )
        return columns

    def _scan(self, table: str) -> pl.LazyFrame:
        file = self._files[table]
        if file.suffix == ".parquet":
            return pl.scan_parquet(file, glob=False)
        with file.open("rb") as stream:
            return pl.read_ipc_stream(stream).lazy()

    def _read(self, table: str, integers: Sequence[str], texts: Sequence[str]) -> pl.DataFrame:
        frame = self._scan(table)
        schema = frame.collect_schema()
        try:
            return frame.select(
                *(_as_integer(name, schema[name]) for name in integers),
                *(pl.col(t).cast(pl.Binary).fill_null(b"") for t in texts),
            ).collect()
        except (pl.exceptions.PolarsError, OSError):
            self._unreadable.append(table)
            empty = dict.fromkeys(integers, pl.Int64) | dict.fromkeys(texts, pl.Binary)
            return pl.DataFrame(schema=empty)


def holds_export(folder: Path) -> bool:
    """Tell whether a folder holds nsys tables as Parquet or Arrow files."""
    stems = {f.stem for f in folder.iterdir() if f.suffix in _SUFFIXES}
    return "StringIds" in stems or any(s.startswith("CUPTI_ACTIVITY_KIND_") for s in stems)


def _as_integer(name: str, dtype: pl.DataType) -> pl.Expr:
    column = pl.col(name)
    if dtype == pl.UInt64:
        # SQLite stores the same 64 bits as signed numbers.
        return column.reinterpret(signed=True)
    if dtype.is_integer() or dtype == pl.Boolean:
        return column.cast(pl.Int64)
    return pl.lit(None, dtype=pl.Int64).alias(name)
