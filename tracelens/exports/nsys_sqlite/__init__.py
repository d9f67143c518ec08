"""An SQLite file in the schema of Nsight Systems 2025.5, of any recording, for whatever reads nsys.

Kernels, copies, memsets, graph launches, CUDA calls, ranges, memory usage, GPU metrics, threads,
processes and GPUs stand in nsys's own tables. PyTorch's ops, annotations and Python frames are
push/pop ranges there; what nsys's schema cannot say stands in columns and tables of our own
(`readers.nsys.own`), which nsys ignores and tracelens reads back.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens.errors import NothingToShowError
from tracelens.exports import Exporter, Progress, no_progress
from tracelens.exports.nsys_sqlite.schema import TABLES, create, quoted
from tracelens.readers.nsys import own
from tracelens.trace.schema import TABLES as MODEL

if TYPE_CHECKING:
    from pathlib import Path

    from tracelens.links.linked import Linked

_ROWS: Final = 50_000
_SHOWN: Final = ("gpu_ops", "api", "ranges", "memory")
_OWN: Final = {own.table(name): table for name, table in MODEL.items()}


def write(linked: Linked, path: Path, /, *, progress: Progress = no_progress) -> None:
    """Write the file.

    Raises:
        NothingToShowError: the recording has nothing that nsys's schema has a table for.
        OSError: it cannot be written.
    """
    from tracelens.exports.nsys_sqlite.rows import Export

    if not any(name in linked.trace for name in _SHOWN):
        raise NothingToShowError(
            f"{linked.trace.source.path.name} holds no GPU work, API calls, ranges or memory "
            "events to export."
        )
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            # Nobody else sees the draft: a journal would only double what is written.
            db.execute("PRAGMA journal_mode=OFF")
            db.execute("PRAGMA synchronous=OFF")
            db.execute("BEGIN")
            for table, rows in Export(linked).tables():
                _insert(db, table, rows.collect(), progress)
            db.execute("COMMIT")
    except sqlite3.Error as error:
        raise OSError(str(error)) from error


def _insert(db: sqlite3.Connection, table: str, rows: pl.DataFrame, progress: Progress) -> None:
    """Make a table, unless it is there, and add rows to it: some at a time, what is null left out.

    Columns of nulls need not be written, and most of nsys's are.
    """
    db.execute(create(table, _columns(table)))
    if rows.is_empty():
        return
    told = [column.name for column in rows if column.null_count() < rows.height]
    rows = rows[told or rows.columns[:1]]
    columns, marks = ", ".join(map(quoted, rows.columns)), ", ".join("?" * rows.width)
    sql = f"INSERT INTO {table} ({columns}) VALUES ({marks})"
    for number, piece in enumerate(rows.iter_slices(_ROWS)):
        db.executemany(sql, zip(*(column.to_list() for column in piece), strict=True))
        progress(f"writing {table}", min((number + 1) * _ROWS, rows.height), rows.height)


def _columns(table: str) -> tuple[str, ...]:
    if table in TABLES:
        return TABLES[table]
    kinds = {pl.String: ":text", pl.Float64: ":real"}
    columns = _OWN[table].schema()
    return tuple(f"{name}{kinds.get(dtype, '')}" for name, dtype in columns.items())  # type: ignore[call-overload]


EXPORTER = Exporter(
    write,
    suffix=".sqlite",
    use="Read it with nsys stats {path}, with SQL or with tracelens.",
)
