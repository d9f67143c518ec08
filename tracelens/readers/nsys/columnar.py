"""nsys exports of `--type parquetdir` and `--type arrowdir`: one file per table."""

from __future__ import annotations

from functools import cached_property, partial
from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens.errors import UnreadableError
from tracelens.readers.nsys.storage import decoded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

_SUFFIXES: Final = {".parquet": "nsys-parquet", ".arrow": "nsys-arrow", ".arrows": "nsys-arrow"}
_MOST_RECORDS: Final = 100_000
_ID, _VALUE = pl.col("id"), pl.col("value")


class ColumnarStorage:
    """One folder of Parquet files or of Arrow IPC streams."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._files = {f.stem: f for f in _files(path)}
        suffixes = {f.suffix for f in self._files.values()}
        self.format = _SUFFIXES[min(suffixes)] if suffixes else "nsys-parquet"
        self._unreadable: set[str] = set()

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

        def asked(frame: pl.LazyFrame) -> pl.LazyFrame:
            schema = frame.collect_schema()
            if schema["value"] not in (pl.String, pl.Binary):
                raise pl.exceptions.SchemaError("StringIds holds no text")
            strings = frame.select(_as_integer("id", schema["id"]), _VALUE.cast(pl.Binary))
            return strings.filter(_ID.is_in(wanted.implode()), _VALUE.is_not_null())

        rows = self._collected("StringIds", asked)
        return {} if rows is None else {i: decoded(text) for i, text in rows.iter_rows()}

    def records(self, table: str) -> list[Mapping[str, object]]:
        """Return a small table as dictionaries."""
        if table not in self._tables:
            return []
        frame = self._collected(table, lambda frame: frame.head(_MOST_RECORDS))
        return [] if frame is None else list(frame.iter_rows(named=True))

    def losses(self) -> list[str]:
        """Return which files could not be read."""
        tables = ", ".join(sorted(self._unreadable))
        return [f"{tables} could not be read: the files are damaged."] if tables else []

    @cached_property
    def _tables(self) -> Mapping[str, frozenset[str]]:
        columns: dict[str, frozenset[str]] = {}
        for table in self._files:
            try:
                columns[table] = frozenset(self._scan(table).collect_schema().names())
            except _DAMAGE:
                self._unreadable.add(table)
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

    def _collected(
        self, table: str, change: Callable[[pl.LazyFrame], pl.LazyFrame]
    ) -> pl.DataFrame | None:
        try:
            return change(self._scan(table)).collect()
        except _DAMAGE:
            self._unreadable.add(table)
            return None

    def _read(self, table: str, integers: Sequence[str], texts: Sequence[str]) -> pl.DataFrame:
        def columns(frame: pl.LazyFrame) -> pl.LazyFrame:
            schema = frame.collect_schema()
            return frame.select(
                *(_as_integer(name, schema[name]) for name in integers),
                *(_as_text(name, schema[name]) for name in texts),
            )

        empty = dict.fromkeys(integers, pl.Int64) | dict.fromkeys(texts, pl.Binary)
        read = self._collected(table, columns)
        return pl.DataFrame(schema=empty) if read is None else read


def holds_export(folder: Path) -> bool:
    """Tell whether a folder holds nsys tables as Parquet or Arrow files."""
    stems = {f.stem for f in _files(folder)}
    return "StringIds" in stems or any(s.startswith("CUPTI_ACTIVITY_KIND_") for s in stems)


def _files(folder: Path) -> list[Path]:
    """Return the files that hold tables; a pipe would wait for a writer for ever."""
    return sorted(f for f in folder.iterdir() if f.suffix in _SUFFIXES and f.is_file())


def _as_integer(name: str, dtype: pl.DataType) -> pl.Expr:
    column = pl.col(name)
    if dtype == pl.UInt64:
        # SQLite stores the same 64 bits as signed numbers.
        return column.reinterpret(signed=True)
    if dtype.is_integer() or dtype == pl.Boolean:
        return column.cast(pl.Int64, strict=False)
    return pl.lit(None, dtype=pl.Int64).alias(name)


def _as_text(name: str, dtype: pl.DataType) -> pl.Expr:
    if dtype in (pl.String, pl.Binary):
        return pl.col(name).cast(pl.Binary).fill_null(b"")
    return pl.lit(b"", dtype=pl.Binary).alias(name)


_DAMAGE: Final = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError)
