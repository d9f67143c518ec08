"""nsys exports of `--type sqlite`: rowid ranges read in parallel, never written to.

Numbers go through ADBC (four times as fast as `sqlite3`, and it releases the GIL). Text comes
as bytes and is decoded here: ADBC hands text to polars unchecked, and text that is not UTF-8
is undefined behaviour there.
"""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens.errors import UnreadableError
from tracelens.readers.nsys.storage import decoded
from tracelens.trace.scratch import Scratch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

MAGIC: Final = b"SQLite format 3\x00"
PIECE_ROWS: Final = 250_000
SMALLEST_PIECE: Final = 256
_BATCH_ROWS: Final = "65536"
_IDS_PER_QUERY: Final = 500
_HEADER_BYTES: Final = 100


class SqliteStorage:
    """One SQLite file, opened read-only; nothing is ever written beside it."""

    format = "nsys-sqlite"

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lost = 0
        self._copy: Scratch | None = None
        self._uri = self._readable(path).absolute().as_uri() + "?mode=ro&immutable=1"

    def tables(self) -> Mapping[str, frozenset[str]]:
        """Return the columns of every table; raises UnreadableError for damaged schemas."""
        return self._tables

    def pieces(
        self, table: str, integers: Sequence[str], texts: Sequence[str] = ()
    ) -> list[Callable[[], pl.DataFrame]]:
        """Return readers of `PIECE_ROWS` rowids each."""
        schema = dict.fromkeys(integers, pl.Int64) | dict.fromkeys(texts, pl.Binary)
        select = _Select(table, schema)
        bounds = self._rowids(table)
        if bounds is None:
            return [partial(self._whole, select)]
        first, last = bounds
        starts = range(first, last + 1, PIECE_ROWS)
        return [
            partial(self._piece, select, start, min(start + PIECE_ROWS - 1, last))
            for start in starts
        ]

    def strings(self, ids: Iterable[int]) -> Mapping[int, str]:
        """Look strings up by id, some hundreds a query, so that unused ones are never read."""
        wanted = sorted(set(ids))
        found: dict[int, str] = {}
        if not {"id", "value"} <= self._tables.get("StringIds", frozenset()):
            return found
        with closing(self._connect()) as db:
            for start in range(0, len(wanted), _IDS_PER_QUERY):
                some = wanted[start : start + _IDS_PER_QUERY]
                sql = f"SELECT id, value FROM StringIds WHERE id IN ({','.join('?' * len(some))})"
                try:
                    found.update((i, v) for i, v in db.execute(sql, some) if isinstance(v, str))
                except sqlite3.Error:
                    self._lost += len(some)
        return found

    def records(self, table: str) -> list[Mapping[str, object]]:
        """Return a small table as dictionaries, as far as it can be read."""
        rows: list[Mapping[str, object]] = []
        columns = sorted(self._tables.get(table, ()))
        if not columns:
            return rows
        select = f"SELECT {', '.join(map(_quoted, columns))} FROM {_quoted(table)}"
        with closing(self._connect()) as db:
            try:
                rows.extend(dict(zip(columns, row, strict=True)) for row in db.execute(select))
            except sqlite3.Error:
                self._lost += 1
        return rows

    def lost_rows(self) -> int:
        """Return how many rows stood on pages that SQLite cannot read."""
        return self._lost

    @cached_property
    def _tables(self) -> Mapping[str, frozenset[str]]:
        sql = (
            "SELECT m.name, c.name FROM sqlite_master AS m, pragma_table_info(m.name) AS c"
            " WHERE m.type = 'table'"
        )
        columns: dict[str, set[str]] = {}
        try:
            with closing(self._connect()) as db:
                for table, column in db.execute(sql):
                    columns.setdefault(table, set()).add(column)
        except sqlite3.Error as error:
            raise UnreadableError(
                f"{self.path.name} is an SQLite file, but it cannot be read: {error}. "
                "Export it again: nsys export --type sqlite FILE.nsys-rep"
            ) from error
        return {table: frozenset(names) for table, names in columns.items()}

    def _readable(self, path: Path) -> Path:
        """Return the file, or a private copy where a journal holds part of its content.

        SQLite would need to write beside the file to read those.
        """
        journals = [path.with_name(path.name + end) for end in ("-wal", "-journal")]
        journals = [j for j in journals if j.is_file() and j.stat().st_size]
        if not journals:
            return path
        self._copy = Scratch()
        folder = self._copy.path
        for file in (path, *journals):
            shutil.copyfile(file, folder / f"export{file.name.removeprefix(path.name)}")
        copy = folder / "export"
        try:
            with closing(sqlite3.connect(copy)) as db:
                db.execute("PRAGMA journal_mode=DELETE")
        except sqlite3.Error:
            return path
        return copy

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._uri, uri=True)
        db.text_factory = decoded
        return db

    def _rowids(self, table: str) -> tuple[int, int] | None:
        """Return the first and last rowid; None where the table is empty or has no rowids."""
        try:
            with closing(self._connect()) as db:
                # Two queries: SQLite answers min and max from the tree's edges only one by one.
                (first,) = db.execute(f"SELECT min(rowid) FROM {_quoted(table)}").fetchone()
                (last,) = db.execute(f"SELECT max(rowid) FROM {_quoted(table)}").fetchone()
                if first is None:
                    return None
                (dense,) = db.execute(
                    f"SELECT count(*) FROM (SELECT 1 FROM {_quoted(table)} LIMIT ?)",
                    ((last - first) // PIECE_ROWS + 1,),
                ).fetchone()
        except sqlite3.Error:
            return None
        # Rowids scattered over more pieces than there are rows would cost a query each.
        return (first, last) if dense * PIECE_ROWS > last - first else None

    def _whole(self, select: _Select) -> pl.DataFrame:
        try:
            return self._query(select, "")
        except _DAMAGE:
            self._lost += 1
            return pl.DataFrame(schema=dict(select.schema))

    def _piece(self, select: _Select, first: int, last: int) -> pl.DataFrame:
        """Read rows first..last; around a damaged page, read what lies before and after it."""
        try:
            return self._query(select, f" WHERE rowid BETWEEN {first} AND {last}")
        except _DAMAGE:
            if last - first < SMALLEST_PIECE:
                self._lost += last - first + 1
                return pl.DataFrame(schema=dict(select.schema))
            middle = (first + last) // 2
            halves = (self._piece(select, first, middle), self._piece(select, middle + 1, last))
            return pl.concat(halves)

    def _query(self, select: _Select, where: str) -> pl.DataFrame:
        """Read integers as they stand; only where one is none, test every value (a third slower).

        ADBC takes a column's type from its first rows and fails at a later row that differs.
        """
        with suppress(*_DAMAGE):
            frame = self._fetch(select.sql(guarded=False) + where, select.schema)
            if all(frame.schema[name] == dtype for name, dtype in select.schema.items()):
                return frame
        return self._fetch(select.sql(guarded=True) + where, select.schema).cast(
            dict(select.schema)
        )

    def _fetch(self, sql: str, schema: Mapping[str, type[pl.DataType]]) -> pl.DataFrame:
        from adbc_driver_sqlite import dbapi

        with dbapi.connect(self._uri) as db, db.cursor() as cursor:
            cursor.adbc_statement.set_options(**{"adbc.sqlite.query.batch_rows": _BATCH_ROWS})
            cursor.execute(sql)
            return pl.DataFrame(cursor.fetch_arrow(), schema=list(schema))


@dataclass(frozen=True)
class _Select:
    """Columns of a table as Int64 or Binary."""

    table: str
    schema: Mapping[str, type[pl.DataType]]

    def sql(self, *, guarded: bool) -> str:
        columns = []
        for column, dtype in self.schema.items():
            name = _quoted(column)
            if dtype == pl.Binary:
                # COALESCE: the first rows, which decide on the type, may all be NULL.
                columns.append(f"COALESCE(CAST({name} AS BLOB), x'') AS {name}")
            elif guarded:
                columns.append(f"CASE WHEN typeof({name}) = 'integer' THEN {name} END AS {name}")
            else:
                columns.append(name)
        return f"SELECT {', '.join(columns)} FROM {_quoted(self.table)}"


def looks_like(head: bytes) -> bool:
    """Tell whether a file that begins with these bytes is SQLite."""
    return head.startswith(MAGIC)


def missing_bytes(path: Path) -> int:
    """Return how many bytes the file lacks by its own header; 0 for a whole one."""
    with path.open("rb") as file:
        head = file.read(_HEADER_BYTES)
    page = int.from_bytes(head[16:18], "big")
    pages = int.from_bytes(head[28:32], "big")
    valid_for = head[24:28] == head[92:96]
    whole = (65536 if page == 1 else page) * pages
    return max(0, whole - path.stat().st_size) if valid_for else 0


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _damage() -> tuple[type[Exception], ...]:
    from adbc_driver_manager import Error

    return (Error, pl.exceptions.PolarsError, OSError)


_DAMAGE: Final = _damage()
