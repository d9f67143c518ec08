"""Reading torch.profiler traces: from the builder or a file to rows on the builder's clock."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from tests.kineto import Profile, training_step
from tracelens.errors import UnreadableError
from tracelens.readers.open import open_trace

if TYPE_CHECKING:
    from pathlib import Path

    from tracelens.trace.model import Trace

Rows = list[tuple[Any, ...]]
_TIMES: Final = ("start_ns", "end_ns", "time_ns")
_ABOUT: Final = {
    "gpu_ops": ("start_ns", "end_ns", "kind", "device", "stream", "context", "pid", "correlation",
                "name", "bytes", "copy_kind", "graph_id", "graph_node"),
    "api": ("start_ns", "end_ns", "pid", "tid", "name", "correlation"),
    "ranges": ("start_ns", "end_ns", "pid", "tid", "kind", "domain", "name", "depth", "lane",
               "closed"),
    "ops": ("sequence", "forward_thread", "external_id", "dims", "types", "inputs"),
}  # fmt: skip


def opened(profile: Profile, folder: Path, name: str = "trace.json", **how: Any) -> Trace:
    """Return what the reader makes of a trace, by way of a file and without the cache."""
    return open_trace(profile.write(folder / name, **how), cache=False)


def read(content: bytes | str, folder: Path, name: str = "trace.json") -> Trace:
    """Return what the reader makes of a file's content, without the cache."""
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return open_trace(path, cache=False)


def read_or_refused(content: bytes, folder: Path, name: str = "trace.json") -> Trace | None:
    """Return what the reader makes of a file's content, or None where it refuses it."""
    try:
        return read(content, folder, name)
    except UnreadableError:
        return None


def rows(trace: Trace, table: str, *columns: str, of: Profile | None = None) -> Rows:
    """Return some columns of a table, in order, with `name` for name_id.

    Times are on the builder's clock where ``of`` is given.
    """
    frame = trace[table]
    if "name" in columns and "name" not in frame.collect_schema():
        frame = frame.join(trace["names"], on="name_id", how="left", maintain_order="left")
    if of is not None:
        late = int(trace.source.facts["epoch_ns"]) - of.start_ns
        frame = frame.with_columns(pl.col(name) + late for name in _TIMES if name in columns)
    return frame.select(columns).collect().rows()


def said(trace: Trace, *kinds: str) -> list[str]:
    """Return the caveats of these kinds, or all of them."""
    return [c.text for c in trace.caveats if not kinds or c.kind in kinds]


def story(trace: Trace, *, of: Profile | None = None) -> dict[str, Rows]:
    """Return what a trace tells, without the numbers of rows: each table sorted, ids resolved."""
    told = {name: rows(trace, name, *_ABOUT[name], of=of) for name in _ABOUT if name in trace}
    if "ranges" in trace:
        told["parents"] = _pairs(trace, "range_id", "parent", trace["ranges"])
    if "ops" in trace:
        told["ops"] = [
            (*op[:3], *(json.loads(text or "null") for text in op[3:])) for op in told["ops"]
        ]
        told["forward"] = forwards(trace)
    if "launched_by" in trace:
        told["launched_by"] = launchers(trace)
    for table in ("threads", "memory", "devices"):
        if table in trace:
            told[table] = rows(trace, table, *trace[table].collect_schema().names())
    return {table: sorted(found, key=repr) for table, found in told.items()}


def forwards(trace: Trace) -> Rows:
    """Return (op, the op whose gradient it computes) by name, of the ops that compute one."""
    return sorted(_pairs(trace, "range_id", "forward", trace["ops"]))


def launchers(trace: Trace) -> Rows:
    """Return (GPU op, the op that the recorder names as its launcher) by name."""
    if "launched_by" not in trace:
        return []
    names = _named(trace, "gpu_ops", "op_id")
    ranges = _named(trace, "ranges", "range_id")
    pairs = trace["launched_by"].select("op_id", "range_id").collect().rows()
    return sorted((names[op], ranges[by]) for op, by in pairs)


def _pairs(trace: Trace, one: str, other: str, frame: pl.LazyFrame) -> Rows:
    names = _named(trace, "ranges", "range_id")
    found = frame.filter(pl.col(other).is_not_null()).select(one, other).collect()
    return [(names[a], names[b]) for a, b in found.rows()]


def _named(trace: Trace, table: str, key: str) -> dict[int, str]:
    return dict(rows(trace, table, key, "name"))


def a_step(version: str = "2026-02", **how: Any) -> Profile:
    """Return a trace of one step of training: nine kernels of 1,710 µs."""
    trace = Profile(version, **how)
    training_step(trace)
    return trace
