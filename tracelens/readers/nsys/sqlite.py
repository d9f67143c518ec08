"""nsys exports of `--type sqlite`: rowid ranges read in parallel, never written to.

Numbers go through ADBC (four times as fast as `sqlite3`, and it releases the GIL). Text comes
as bytes and is decoded here: ADBC hands text to polars unchecked, and text that is not UTF-8
is undefined behaviour there.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from bisect import bisect_left
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Final, cast

import polars as pl

from tracelens.errors import UnreadableError
from tracelens.readers.nsys.storage import decoded
from tracelens.trace.scratch import Scratch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

MAGIC: Final = b"SQLite format 3\x00"
PIECE_ROWS: Final = 250_000
SMALLEST_PIECE: Final = 256
_BATCH_ROWS: Final = "65536"
_IDS_PER_QUERY: Final = 500
_HEADER_BYTES: Final = 100
_LEAST_ROWS_PER_PIECE: Final = 1000
_LEAST_BYTES_PER_ROW: Final = 4
_MOST_RECORDS: Final = 100_000
_LARGEST_ROWID_BITS: Final = 48
_PATIENCE_S: Final = 60.0
_STEPS_BETWEEN_LOOKS: Final = 1_000_000
_SUPER_JOURNAL: Final = b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7"


class SqliteStorage:
    """One SQLite file, opened read-only; nothing is ever written beside it."""

    format = "nsys-sqlite"

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lost = 0
        self._damaged: set[str] = set()
        self._remarks: list[str] = []
        self._copy: Scratch | None = None
        self._uri = self._readable(path).absolute().as_uri() + "?mode=ro&immutable=1"
        # No table has more rows than this; a damaged one that seems to would never end.
        self._most_rows = path.stat().st_size // _LEAST_BYTES_PER_ROW
        self._lenient = bool(missing_bytes(path))

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
        sql = "SELECT id, value FROM StringIds"
        keyed = "SELECT 1 FROM pragma_table_info('StringIds') WHERE name = 'id' AND pk = 1"
        with closing(self._connect()) as db:
            if not db.execute(keyed).fetchall():
                # Without a key each query would read the whole table.
                asked = set(wanted)
                with self._forgiving("StringIds"):
                    rows = db.execute(f"{sql} LIMIT {self._most_rows}")
                    found.update((i, v) for i, v in rows if i in asked and isinstance(v, str))
                return found
            for start in range(0, len(wanted), _IDS_PER_QUERY):
                some = wanted[start : start + _IDS_PER_QUERY]
                marks = ",".join("?" * len(some))
                with self._forgiving("StringIds"):
                    rows = db.execute(f"{sql} WHERE id IN ({marks})", some)
                    found.update((i, v) for i, v in rows if isinstance(v, str))
        return found

    def records(self, table: str) -> list[Mapping[str, object]]:
        """Return a small table as dictionaries, as far as it can be read."""
        rows: list[Mapping[str, object]] = []
        columns = sorted(self._tables.get(table, ()))
        if not columns:
            return rows
        select = f"SELECT {', '.join(map(_quoted, columns))} FROM {_quoted(table)}"
        with closing(self._connect()) as db, self._forgiving(table):
            for row in db.execute(f"{select} LIMIT {_MOST_RECORDS}"):
                rows.append(dict(zip(columns, row, strict=True)))  # noqa: PERF401
        return rows

    def losses(self) -> list[str]:
        """Return what stood on pages that SQLite cannot read."""
        if not self._damaged:
            return self._remarks
        rows = f"{self._lost:,} rows or more" if self._lost else "rows"
        tables = ", ".join(sorted(self._damaged))
        return [*self._remarks, f"The file is damaged: {rows} of {tables} could not be read."]

    @cached_property
    def _tables(self) -> Mapping[str, frozenset[str]]:
        try:
            try:
                return self._schema()
            except (sqlite3.Error, UnicodeDecodeError):
                if self._lenient:
                    raise
                self._lenient = True
                self._remarks.append("The file's list of tables is damaged: some may be left out.")
                return self._schema()
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise UnreadableError(
                f"{self.path.name} is an SQLite file, but it cannot be read: {error}. "
                "Export it again: nsys export --type sqlite FILE.nsys-rep"
            ) from error

    def _schema(self) -> Mapping[str, frozenset[str]]:
        """Return the columns of every table that holds rows: a view may compute without end."""
        sql = (
            "SELECT m.name, c.name FROM sqlite_master AS m, pragma_table_info(m.name) AS c"
            " WHERE m.type = 'table' AND m.rootpage > 0 AND m.sql LIKE 'CREATE TABLE%'"
        )
        columns: dict[str, set[str]] = {}
        with closing(self._connect()) as db:
            for table, column in db.execute(sql):
                columns.setdefault(table, set()).add(column)
        return {table: frozenset(names) for table, names in columns.items()}

    def _readable(self, path: Path) -> Path:
        """Return the file, or a private copy where a journal holds part of its content.

        SQLite would need to write beside the file to read those.
        """
        journals = [path.with_name(path.name + end) for end in ("-wal", "-journal")]
        journals = [j for j in journals if j.is_file() and j.stat().st_size and _is_own(j)]
        if not journals:
            return path
        try:
            self._copy = Scratch()
            copy = self._copy.path / "export"
            for file in (path, *journals):
                shutil.copyfile(file, copy.with_name(file.name.replace(path.name, copy.name, 1)))
            with closing(sqlite3.connect(copy)) as db:
                db.execute("PRAGMA journal_mode=DELETE").fetchall()
        except (sqlite3.Error, OSError) as error:
            self._remarks.append(
                f"What stands in {journals[0].name} could not be read ({error}): "
                "the tables may lack rows."
            )
            return path
        return copy

    def _connect(self) -> sqlite3.Connection:
        """Open the file for small queries, which end after `_PATIENCE_S` whatever it holds."""
        db = sqlite3.connect(self._uri, uri=True)
        db.text_factory = decoded
        deadline = time.monotonic() + _PATIENCE_S
        db.set_progress_handler(lambda: time.monotonic() > deadline, _STEPS_BETWEEN_LOOKS)
        for pragma in self._pragmas():
            db.execute(pragma)
        return db

    def _pragmas(self) -> tuple[str, ...]:
        # The one way to make SQLite open a file that was cut off; nothing can be written.
        return ("PRAGMA writable_schema=ON", "PRAGMA cell_size_check=ON") if self._lenient else ()

    @contextmanager
    def _forgiving(self, table: str) -> Iterator[None]:
        """Turn what cannot be read into a loss; column names may be no UTF-8, either."""
        try:
            yield
        except (sqlite3.Error, UnicodeDecodeError):
            self._damaged.add(table)

    def _rowids(self, table: str) -> tuple[int, int] | None:
        """Return the first and last rowid; None where the table is empty or has no rowids."""
        if any(column.lower() == "rowid" for column in self._tables[table]):
            return None
        name = _quoted(table)
        try:
            with closing(self._connect()) as db:
                try:
                    # Two queries: SQLite answers min and max from the tree's edges one by one.
                    (first,) = db.execute(f"SELECT min(rowid) FROM {name}").fetchone()
                    (last,) = db.execute(f"SELECT max(rowid) FROM {name}").fetchone()
                except sqlite3.DatabaseError as error:
                    if isinstance(error, sqlite3.OperationalError):
                        return None
                    return self._readable_rowids(db, table)
                if first is None or last is None or first > last:
                    return None
                pieces = (last - first) // PIECE_ROWS + 1
                (dense,) = db.execute(
                    f"SELECT count(*) FROM (SELECT 1 FROM {name} LIMIT ?)",
                    (pieces * _LEAST_ROWS_PER_PIECE,),
                ).fetchone()
        except sqlite3.Error:
            return None
        # Rowids scattered over many pieces would cost a query each.
        return (first, last) if pieces == 1 or dense == pieces * _LEAST_ROWS_PER_PIECE else None

    def _readable_rowids(self, db: sqlite3.Connection, table: str) -> tuple[int, int] | None:
        """Return between which rowids a table can be read whose first or last page is lost."""
        sql = f"SELECT 1 FROM {_quoted(table)} WHERE rowid >= ? LIMIT 1"

        def readable(rowid: int) -> bool:
            try:
                return bool(db.execute(sql, (rowid,)).fetchall())
            except sqlite3.Error:
                return False

        self._damaged.add(table)
        powers = [2**bits for bits in range(_LARGEST_ROWID_BITS) if readable(2**bits)]
        if not powers:
            return None
        first = bisect_left(range(powers[0]), True, powers[0] // 2, key=readable)
        last = bisect_left(range(2 * powers[-1]), True, powers[-1], key=lambda i: not readable(i))
        return first, last - 1

    def _whole(self, select: _Select) -> pl.DataFrame:
        try:
            return self._query(select, "", self._most_rows)
        except _DAMAGE:
            self._damaged.add(select.table)
            return pl.DataFrame(schema=dict(select.schema))

    def _piece(self, select: _Select, first: int, last: int) -> pl.DataFrame:
        """Read rows first..last; around a damaged page, read what lies before and after it."""
        try:
            where = f" WHERE rowid BETWEEN {first} AND {last}"
            return self._query(select, where, last - first + 1)
        except _DAMAGE:
            if last - first < SMALLEST_PIECE:
                self._lost += last - first + 1
                self._damaged.add(select.table)
                return pl.DataFrame(schema=dict(select.schema))
            middle = (first + last) // 2
            halves = (self._piece(select, first, middle), self._piece(select, middle + 1, last))
            return pl.concat(halves)

    def _query(self, select: _Select, where: str, most: int) -> pl.DataFrame:
        """Read integers as they stand; only where one is none, test every value (a third slower).

        ADBC takes a column's type from its first rows and fails at a later row that differs.
        """
        with suppress(*_DAMAGE):
            frame = self._fetch(select, where, most, guarded=False)
            if all(frame.schema[name] == dtype for name, dtype in select.schema.items()):
                return frame
        frame = self._fetch(select, where, most, guarded=True)
        return frame.cast(dict(select.schema))  # type: ignore[arg-type]

    def _fetch(self, select: _Select, where: str, most: int, *, guarded: bool) -> pl.DataFrame:
        from adbc_driver_sqlite import dbapi

        with dbapi.connect(self._uri) as db, db.cursor() as cursor:
            for pragma in self._pragmas():
                cursor.execute(pragma)
            cursor.adbc_statement.set_options(**{"adbc.sqlite.query.batch_rows": _BATCH_ROWS})
            # Pages that stand in a damaged tree more than once would be read again and again.
            cursor.execute(f"{select.sql(guarded=guarded)}{where} LIMIT {most + 1}")
            frame = pl.DataFrame(cast("Any", cursor.fetch_arrow()), schema=list(select.schema))
        if frame.height > most:
            raise OSError(f"{select.table} has more rows than it can have")
        return frame


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


def _is_own(journal: Path) -> bool:
    """Tell whether a journal names no super-journal: SQLite would delete the file of that name."""
    with journal.open("rb") as file:
        file.seek(-min(len(_SUPER_JOURNAL), journal.stat().st_size), os.SEEK_END)
        return file.read() != _SUPER_JOURNAL


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _damage() -> tuple[type[Exception], ...]:
    from adbc_driver_manager import Error

    return (Error, pl.exceptions.PolarsError, OSError)


_DAMAGE: Final = _damage()
