"""Recordings of any size, grown from our sample: the same step again and again along time."""

from __future__ import annotations

import gzip
import json
import pickle
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

SAMPLE: Final = Path(__file__).parents[1] / "samples" / "gpt2-xl-ctx256-h200" / "run.sqlite.gz"
SNAPSHOT: Final = SAMPLE.with_name("memory.pickle.gz")
RANK: Final = SAMPLE.parents[1] / "gpt2-medium-ddp-h200x2" / "rank0.json.gz"
_SHIFTED: Final = {"start", "end"}
_COUNTED: Final = {"correlationId", "gridId"}
_NUMBERED: Final = {"correlation", "External id", "Sequence number"}
_IDS: Final = 1_000_000
_FILLER_ROWS: Final = 2_450_000


def grown(folder: Path, repeat: int) -> Path:
    """Return the sample repeated along the time axis, with correlation ids of their own."""
    path = folder / f"gpt2-xl-x{repeat}.sqlite"
    if path.exists():
        return path
    part = folder / "part.sqlite"
    _unpack(part)
    with closing(sqlite3.connect(part)) as db:
        db.executescript("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;")
        tables = ["NVTX_EVENTS", *(t for t in _tables(db) if t.startswith("CUPTI_ACTIVITY_KIND_"))]
        span = 1 + max(db.execute(f"SELECT max(end) FROM {t}").fetchone()[0] for t in tables)
        ids = 1 + max(
            db.execute(f"SELECT max(correlationId) FROM {t}").fetchone()[0]
            for t in tables
            if "correlationId" in _columns(db, t)
        )
        for table in tables:
            _repeat(db, table, repeat, span, ids)
        db.commit()
    part.rename(path)
    return path


def few_kernels_much_else(folder: Path) -> Path:
    """Return an export of 1,000 kernels whose other tables (samples, OS calls) are huge."""
    path = folder / "few-kernels.sqlite"
    if path.exists():
        return path
    part = folder / "part.sqlite"
    _unpack(part)
    with closing(sqlite3.connect(part)) as db:
        db.executescript(
            f"""
            PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;
            DELETE FROM CUPTI_ACTIVITY_KIND_KERNEL WHERE rowid > 1000;
            CREATE TABLE OSRT_API (start INTEGER, end INTEGER, eventClass INTEGER,
              globalTid INTEGER, correlationId INTEGER, nameId INTEGER,
              returnValue INTEGER, nestingLevel INTEGER,
              callchainId INTEGER);
            CREATE TABLE SAMPLING_CALLCHAINS (id INTEGER, symbol INTEGER, module INTEGER,
              kernelMode INTEGER, thumbCode INTEGER, unresolved INTEGER, specialEntry INTEGER,
              originalIP INTEGER, unwindMethod INTEGER, stackDepth INTEGER);
            WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {_FILLER_ROWS})
            INSERT INTO OSRT_API SELECT i * 1000, i * 1000 + 900, 27, 281474976710656 + i % 64,
              i, i % 80, 0, 0, i FROM n;
            WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {_FILLER_ROWS})
            INSERT INTO SAMPLING_CALLCHAINS SELECT i / 20, i % 5000, i % 90, 0, 0, 0, NULL,
              140000000000000 + i, 1, i % 20 FROM n;
            """
        )
    part.rename(path)
    return path


def grown_snapshot(folder: Path, entries: int, recording: Path = SNAPSHOT) -> Path:
    """Return a memory snapshot of at least so many entries: its history again and again.

    Segments are taken in the first round only. Every round has lists of frames of its own, whose
    frames are shared, as PyTorch writes them.
    """
    path = folder / f"{recording.name.partition('.')[0]}-{entries}.pickle"
    if path.exists():
        return path
    with gzip.open(recording) as packed:
        content = pickle.load(packed)  # noqa: S301 — a sample of ours
    known = sum(len(trace) for trace in content["device_traces"])
    rounds = -(-entries // known)
    times = [e["time_us"] for trace in content["device_traces"] for e in trace]
    span_us = 1 + max(times) - min(times)
    content["device_traces"] = [
        [e for n in range(rounds) for e in _round(trace, n, span_us)]
        for trace in content["device_traces"]
    ]
    content["external_annotations"] = [
        {**annotation, "time_us": annotation["time_us"] + n * span_us}
        for n in range(rounds)
        for annotation in content["external_annotations"]
    ]
    part = folder / "part.pickle"
    part.parent.mkdir(parents=True, exist_ok=True)
    with part.open("wb") as out:
        pickle.dump(content, out, protocol=4)
    part.rename(path)
    return path


def _round(trace: list[dict[str, Any]], number: int, span_us: int) -> Iterator[dict[str, Any]]:
    """Return a history moved in time; an alloc and its free share a list, as they did."""
    lists: dict[int, list[Any]] = {}
    for entry in trace:
        if number and entry["action"].startswith("segment"):
            continue
        moved = {**entry, "time_us": entry["time_us"] + number * span_us}
        if frames := entry.get("frames"):
            moved["frames"] = lists.setdefault(id(frames), list(frames))
        yield moved


def parquet_folder(export: Path) -> Path:
    """Return an SQLite export as nsys writes it with `--type parquetdir`: a file per table."""
    import polars as pl

    folder = export.with_name(f"{export.stem}_pqtdir")
    if folder.exists():
        return folder
    part = export.with_name("part_pqtdir")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    with closing(sqlite3.connect(export)) as db:
        for table in _tables(db):
            rows = pl.read_database(f"SELECT * FROM {table}", db, infer_schema_length=None)
            rows.write_parquet(part / f"{table}.parquet")
    part.rename(folder)
    return folder


def torch_trace(folder: Path, repeat: int) -> Path:
    """Return a torch.profiler trace of one rank repeated along time, with ids of its own."""
    path = folder / f"gpt2-medium-x{repeat}.json"
    if path.exists():
        return path
    with gzip.open(RANK) as packed:
        trace = json.load(packed)
    events = trace["traceEvents"]
    lasting = [e for e in events if e["ph"] == "X" and e["cat"] != "Trace"]
    span = max(e["ts"] + e["dur"] for e in lasting) - min(e["ts"] for e in lasting)
    part = folder / "part.json"
    with part.open("w", encoding="utf-8") as file:
        head = {key: value for key, value in trace.items() if key != "traceEvents"}
        file.write(json.dumps(head, indent=2)[:-2] + ',\n  "traceEvents": [\n')
        written = (json.dumps(_later(e, n, span, repeat)) for n in range(repeat) for e in events)
        file.write(",\n".join(written) + "\n]}\n")
    part.rename(path)
    return path


def _later(event: dict[str, Any], n: int, span: float, repeat: int) -> dict[str, Any]:
    """Return an event as it would be in the n-th repetition."""
    shift = n * _IDS
    moved = {**event, "ts": round(event["ts"] + n * span, 3)}
    if event.get("cat") == "Trace":
        moved["dur"] = event["dur"] * repeat
    if "id" in event:
        moved["id"] = event["id"] + shift
    args = event.get("args", {})
    return {**moved, "args": {k: v + shift if k in _NUMBERED else v for k, v in args.items()}}


def _unpack(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(SAMPLE) as packed, path.open("wb") as plain:
        shutil.copyfileobj(packed, plain)


def _tables(db: sqlite3.Connection) -> list[str]:
    rows = db.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
    return [name for (name,) in rows]


def _columns(db: sqlite3.Connection, table: str) -> list[str]:
    return [row[1] for row in db.execute(f"PRAGMA table_info({table})")]


def _repeat(db: sqlite3.Connection, table: str, repeat: int, span: int, ids: int) -> None:
    columns = [
        f"{c} + {span} * :n" if c in _SHIFTED else f"{c} + {ids} * :n" if c in _COUNTED else c
        for c in _columns(db, table)
    ]
    rows = db.execute(f"SELECT max(rowid) FROM {table}").fetchone()[0]
    insert = f"INSERT INTO {table} SELECT {', '.join(columns)} FROM {table} WHERE rowid <= {rows}"
    db.executemany(insert, ({"n": n} for n in range(1, repeat)))
