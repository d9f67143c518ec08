"""How much was active in each phase of each step: its peak, and what was left at its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from tracelens.analyses import Analysis

if TYPE_CHECKING:
    from tracelens.links.memory import Memory


@Analysis
def phases(memory: Memory) -> pl.DataFrame:
    """Return one row per device, step and phase, in the order in which they began.

    A phase's peak counts what it found when it began, as `max_memory_allocated()` does after
    `reset_peak_memory_stats()`; `allocated_bytes` are all that it allocated, freed or not.
    """
    key = ["device", "step", "phase"]
    active = pl.col("active_bytes")
    begins = pl.any_horizontal(pl.col(k).ne_missing(pl.col(k).shift()) for k in key)
    first = pl.col("index") == 0
    starts = memory.devices.select("device", baseline="baseline_active_bytes")
    found = active.shift()
    if memory.devices.height:
        baseline = pl.col("device").replace_strict(
            starts["device"], starts["baseline"], return_dtype=pl.Int64, default=None
        )
        found = pl.when(first).then(baseline).otherwise(found)
    alloc = pl.col("action") == "alloc"
    return (
        memory.events.lazy()
        .select(
            *key,
            "index",
            "reserved_bytes",
            "active_bytes",
            alloc=alloc,
            allocated=pl.when(alloc).then("size_bytes"),
            reached=pl.when(begins).then(pl.max_horizontal(active, found)).otherwise(active),
        )
        .group_by(key, maintain_order=True)
        .agg(
            peak_active_bytes=pl.col("reached").max(),
            end_active_bytes=pl.col("active_bytes").last(),
            peak_reserved_bytes=pl.col("reserved_bytes").max(),
            allocations=pl.col("alloc").sum().cast(pl.Int64),
            allocated_bytes=pl.col("allocated").sum(),
            first_index=pl.col("index").first(),
        )
        .with_columns(pl.col("phase").cast(pl.String))
        .collect()
    )


ANALYSIS = phases
