"""Short-lived allocations: how many, by which lines, and what they cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens.analyses import Analysis
from tracelens.analyses.memory.devices import devices

if TYPE_CHECKING:
    from tracelens.links.memory import Memory

SHORT: Final = 10
"""A block is short-lived if it was freed before so many more allocations."""

_NEVER: Final = 2**62


@Analysis
def churn(memory: Memory) -> pl.DataFrame:
    """Return one row per device, phase and line that makes short-lived allocations.

    Columns: `allocations` and `bytes` of the short-lived, `share` of all allocations of the
    device; `life_ns`, how long they lived in the median; `segments` and `segment_bytes`, which
    the allocator had to take from the device for them (each a cudaMalloc); `peak_bytes`, what of
    them was live at the device's peak.
    """
    key = ["device", "phase", "site"]
    events = memory.events.select(
        "time_ns",
        made=(pl.col("action") == "alloc").cum_sum(),
        grown=_segment_before("index").is_not_null(),
        grown_bytes=_segment_before("size_bytes"),
    )
    lives = memory.lives.filter(pl.col("alloc_index").is_not_null())
    begun, ended = (events["made"].gather(lives[row]) for row in ("begun_row", "ended_row"))
    short = (ended - begun < SHORT).fill_null(value=False)
    all_of = lives.group_by("device").agg(all=pl.len())
    kept = lives.filter(short)
    at_begin = events[kept["begun_row"]]
    facts = at_begin.select("grown", "grown_bytes").with_columns(
        life_ns=events["time_ns"].gather(kept["ended_row"]) - at_begin["time_ns"]
    )
    sites = memory.stacks.lazy().select("stack_id", pl.col("site").cast(pl.Categorical))
    peaks = devices(memory).select("device", "peak_index")
    at_peak = (pl.col("alloc_index") <= pl.col("peak_index")) & (
        pl.col("completed_index").fill_null(_NEVER) > pl.col("peak_index")
    )
    return (
        kept.hstack(facts)
        .lazy()
        .join(sites, on="stack_id", how="left")
        .join(peaks.join(all_of, on="device").lazy(), on="device")
        .group_by(key)
        .agg(
            allocations=pl.len().cast(pl.Int64),
            bytes=pl.col("size_bytes").sum(),
            share=pl.len() / pl.col("all").first(),
            life_ns=pl.col("life_ns").median(),
            segments=pl.col("grown").sum().cast(pl.Int64),
            segment_bytes=pl.col("grown_bytes").sum(),
            peak_bytes=pl.col("size_bytes").filter(at_peak).sum(),
        )
        .with_columns(pl.col("site").cast(pl.String))
        .sort("allocations", "bytes", *key, descending=[True, True, False, False, False])
        .with_columns(pl.col("phase").cast(pl.String))
        .collect()
    )


def _segment_before(column: str) -> pl.Expr:
    """Return the column of the event just before, where that took memory from the device."""
    taken = pl.col("action").is_in(["segment_alloc", "segment_map"])
    return pl.when(pl.col("index") > 0).then(pl.when(taken).then(pl.col(column)).shift())


ANALYSIS = churn
