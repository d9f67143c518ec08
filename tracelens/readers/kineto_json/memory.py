"""What PyTorch's allocators did, where the profiler ran with profile_memory=True."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens.trace.schema import MEMORY

if TYPE_CHECKING:
    from tracelens.readers.kineto_json.events import Events

_CPU: Final = 0


def memory(events: Events) -> pl.DataFrame | None:
    """Return the `memory` table in order of time, or None where none was recorded."""
    found = events.of("memory")
    if found.is_empty():
        return None
    schema = dict(MEMORY.schema())
    on_cpu = pl.col("device_type") == _CPU
    frame = found.with_columns(
        time_ns="start_ns",
        device=pl.when(~on_cpu).then("device"),
        action=pl.when(pl.col("bytes") < 0).then(pl.lit("free")).otherwise(pl.lit("alloc")),
        size_bytes=pl.col("bytes").abs(),
        memory_kind=pl.when(on_cpu).then(pl.lit("host")).otherwise(pl.lit("device")),
        allocated_bytes="allocated",
        reserved_bytes="reserved",
    )
    known = frame.drop_nulls(["time_ns", "size_bytes"])
    if lost := frame.height - known.height:
        events.set_aside(lost, "[memory] events", "they have no time or no size")
    lacking = {n: pl.lit(None, dtype) for n, dtype in schema.items() if n not in frame.columns}
    return known.with_columns(**lacking).select(list(schema)).sort("time_ns", maintain_order=True)
