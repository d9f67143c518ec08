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
    begins = pl.any_horizontal(pl.col(k).ne_missing(pl.col(k).shift()) for k in key)
    alloc = pl.col("action") == "alloc"
    baseline = memory.devices.lazy().select("device", baseline="baseline_active_bytes")
    # Runs of events of one phase are few: a million events are grouped by one number alone.
    runs = (
        memory.events.lazy()
        .select(
            *key,
            "index",
            "reserved_bytes",
            "active_bytes",
            found=pl.col("active_bytes").shift(),
            alloc=alloc,
            allocated=pl.when(alloc).then("size_bytes"),
            run=begins.cum_sum().set_sorted(),
        )
        .group_by("run", maintain_order=True)
        .agg(
            pl.col(*key, "found").first(),
            peak_active_bytes=pl.col("active_bytes").max(),
            end_active_bytes=pl.col("active_bytes").last(),
            peak_reserved_bytes=pl.col("reserved_bytes").max(),
            allocations=pl.col("alloc").sum().cast(pl.Int64),
            allocated_bytes=pl.col("allocated").sum(),
            first_index=pl.col("index").first(),
        )
    )
    found = pl.when(pl.col("first_index") == 0).then("baseline").otherwise("found")
    return (
        runs.join(baseline, on="device", how="left", maintain_order="left")
        .group_by(key, maintain_order=True)
        .agg(
            peak_active_bytes=pl.max_horizontal("peak_active_bytes", found).max(),
            end_active_bytes=pl.col("end_active_bytes").last(),
            peak_reserved_bytes=pl.col("peak_reserved_bytes").max(),
            allocations=pl.col("allocations").sum(),
            allocated_bytes=pl.col("allocated_bytes").sum(),
            first_index=pl.col("first_index").first(),
        )
        .with_columns(pl.col("phase").cast(pl.String))
        .collect()
    )


ANALYSIS = phases
