"""Nsight Systems exports: SQLite files, Parquet and Arrow folders, schemas of 2020 to 2026."""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from tracelens.errors import UnreadableError
from tracelens.readers import Progress, Reader, no_progress

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import polars as pl

    from tracelens.readers.nsys.gather import Gather
    from tracelens.readers.nsys.storage import Storage
    from tracelens.trace.model import Trace

_SQLITE: Final = b"SQLite format 3\x00"
_MARKS: Final = (
    "StringIds",
    "NVTX_EVENTS",
    "META_DATA_EXPORT",
    "EXPORT_META_DATA",
    "TARGET_INFO_GPU",
    "TARGET_INFO_SESSION_START_TIME",
    "ProcessStreams",
    "UnwindMethodType",
)


def recognises(path: Path, head: bytes) -> bool:
    """Tell whether this is an SQLite file, or a folder with nsys's tables as files."""
    if path.is_dir():
        from tracelens.readers.nsys.columnar import holds_export

        return holds_export(path)
    return head.startswith(_SQLITE)


def read(path: Path, *, everything: bool = False, progress: Progress = no_progress) -> Trace:
    """Read an export.

    Raises:
        UnreadableError: it is damaged beyond its list of tables, is another program's
            database, or was never finished.
    """
    from tracelens.readers.nsys import facts, own
    from tracelens.readers.nsys.api import api
    from tracelens.readers.nsys.gather import Gather
    from tracelens.readers.nsys.names import Names
    from tracelens.readers.nsys.ops import gpu_ops
    from tracelens.readers.nsys.ranges import ranges
    from tracelens.trace.model import Source, Trace
    from tracelens.trace.scratch import Scratch

    storage = _storage(path)
    _check(storage)
    spill = Scratch()
    gather = Gather(storage, spill.path, everything=everything, progress=progress)
    _note_missing_bytes(gather)
    names = Names(gather)
    with ThreadPoolExecutor(2) as pool:
        # Side by side: while one table's last parts are read, the other keeps the cores busy.
        parts = {
            "gpu_ops": pool.submit(gpu_ops, gather, names),
            "api": pool.submit(api, gather, names),
        }
    found = {name: part.result() for name, part in parts.items()}
    later = _on_request(gather)
    tables: dict[str, pl.LazyFrame | None] = {
        **gather.near({name: frame for name, frame in found.items() if frame is not None}),
        "ranges": ranges(gather, names),
        "threads": facts.threads(gather),
        "devices": facts.devices(storage),
        "names": names.frame(),
        **later,
    }
    added = own.tables(gather, tables)
    tables |= added
    facts.diagnostics(gather)
    for loss in storage.losses():
        gather.note("damaged", loss)
    producer, schema_version = facts.producer(storage)
    source = Source(path, storage.format, producer, schema_version, facts.capture_facts(storage))
    present = {name: frame for name, frame in tables.items() if frame is not None}
    before = own.caveats(storage)
    caveats = (*before, *(caveat for caveat in gather.said() if caveat not in before))
    on_request = tuple(name for name in later if name not in added)
    return Trace(source, present, caveats, (spill, storage), on_request)


def on_request(path: Path) -> Mapping[str, pl.LazyFrame]:
    """Return the tables that are read only when collected, for a trace out of the cache."""
    from tracelens.readers.nsys.gather import Gather
    from tracelens.trace.scratch import Scratch

    spill = Scratch()
    return _on_request(Gather(_storage(path), spill.path), spill)


def _on_request(gather: Gather, *kept: object) -> dict[str, pl.LazyFrame]:
    import polars as pl

    from tracelens.readers.nsys import samples
    from tracelens.trace.schema import TABLES

    def later(read: Callable[[Gather], pl.LazyFrame | None], empty: pl.DataFrame) -> pl.DataFrame:
        _ = kept
        frame = read(gather)
        return empty if frame is None else frame.collect()

    found: dict[str, tuple[str, Callable[[Gather], pl.LazyFrame | None]]] = {
        "memory": (samples.USAGE, samples.memory),
        "counters": (samples.METRICS, samples.counters),
    }
    return {
        name: pl.defer(
            functools.partial(later, read, TABLES[name].empty()), schema=dict(TABLES[name].schema())
        )
        for name, (source, read) in found.items()
        if source in gather.storage.tables()
    }


def _storage(path: Path) -> Storage:
    if path.is_dir():
        from tracelens.readers.nsys.columnar import ColumnarStorage

        return ColumnarStorage(path)
    from tracelens.readers.nsys.sqlite import SqliteStorage

    return SqliteStorage(path)


def _check(storage: Storage) -> None:
    """Refuse what is no nsys export, saying what it looks like."""
    tables = storage.tables()
    name = storage.path.name
    events = [t for t in tables if t.startswith("CUPTI_ACTIVITY_KIND_")]
    if events or "NVTX_EVENTS" in tables:
        return
    if not any(mark in tables for mark in _MARKS):
        what = f"its tables are {', '.join(sorted(tables)[:4])}" if tables else "it has no tables"
        raise UnreadableError(
            f"{name} is an SQLite database, but no Nsight Systems export: {what}. "
            "Make one with: nsys export --type sqlite FILE.nsys-rep"
        )
    if "StringIds" not in tables:
        raise UnreadableError(
            f"{name} is the beginning of an nsys export that was not finished. "
            "Export it again: nsys export --force-overwrite true --type sqlite FILE.nsys-rep"
        )


def _note_missing_bytes(gather: Gather) -> None:
    if gather.storage.format != "nsys-sqlite":
        return
    from tracelens.readers.nsys.sqlite import missing_bytes

    if missing := missing_bytes(gather.storage.path):
        gather.note(
            "damaged",
            f"The file is cut off: {missing:,} bytes are missing at its end. "
            "What follows covers what could be read.",
        )


READER = Reader(recognises, read, on_request)
