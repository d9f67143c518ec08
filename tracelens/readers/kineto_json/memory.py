"""What PyTorch's allocators did, where the profiler ran with profile_memory=True."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens.readers.kineto_json.arguments import Memory, column, decoded
from tracelens.trace.schema import MEMORY

if TYPE_CHECKING:
    from tracelens.readers.kineto_json.events import Events

_NAME: Final = "[memory]"
_CATEGORIES: Final = ("cpu_instant_event", "")
_CPU: Final = 0
_INTEGERS: Final = {
    "address": pl.Int64,
    "bytes": pl.Int64,
    "device_type": pl.Int32,
    "device": pl.Int32,
    "allocated": pl.Int64,
    "reserved": pl.Int64,
}


def memory(events: Events) -> pl.DataFrame | None:
    """Return the `memory` table in order of time, or None where none was recorded."""
    found = [
        event
        for category in _CATEGORIES
        for event in events.by_category.get(category, ())
        if event.name == _NAME
    ]
    if not found:
        return None
    args = decoded(found, Memory)
    schema = dict(MEMORY.schema())
    on_cpu = pl.col("device_type") == _CPU
    made = {
        "device": pl.when(~on_cpu).then("device"),
        "action": pl.when(pl.col("bytes") < 0).then(pl.lit("free")).otherwise(pl.lit("alloc")),
        "size_bytes": pl.col("bytes").abs(),
        "memory_kind": pl.when(on_cpu).then(pl.lit("host")).otherwise(pl.lit("device")),
        "allocated_bytes": "allocated",
        "reserved_bytes": "reserved",
    }
    frame = pl.DataFrame(
        {
            "time_ns": events.since_origin([e.ts for e in found]),
            "pid": events.numbers.of([e.pid for e in found]),
            "tid": events.numbers.of([e.tid for e in found]),
            **{name: column([getattr(a, name) for a in args], t) for name, t in _INTEGERS.items()},
        }
    ).with_columns(**made)  # type: ignore[arg-type]
    known = pl.col("time_ns").is_not_null() & pl.col("size_bytes").is_not_null()
    if lost := len(found) - frame.filter(known).height:
        events.set_aside(lost, "[memory] events", "they have no time or no size")
    lacking = {n: pl.lit(None, dtype) for n, dtype in schema.items() if n not in frame.columns}
    whole = frame.filter(known).with_columns(**lacking).select(list(schema)).cast(schema)  # type: ignore[arg-type]
    # Within one time the totals tell the order; the file's own order is by thread.
    return whole.sort("time_ns", maintain_order=True)
