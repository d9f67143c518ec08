"""The largest allocations, with the line of user code that made them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from tracelens.analyses import Analysis
from tracelens.links.call_stacks import texts

if TYPE_CHECKING:
    from tracelens.links.memory import Memory


@Analysis
def largest(memory: Memory) -> pl.DataFrame:
    """Return the allocations of the recording, the largest first.

    Allocations of one size by one line in one phase are one row: `count` is how many there were;
    `index` is the event of the first, and `stack` its call stack.
    """
    sites = memory.stacks.lazy().select("stack_id", "site")
    found = (
        memory.lives.lazy()
        .filter(pl.col("alloc_index").is_not_null())
        .group_by("device", "size_bytes", "stack_id", "phase")
        .agg(count=pl.len().cast(pl.Int64), index=pl.col("alloc_index").min())
        .join(sites, on="stack_id", how="left")
        .group_by("device", "size_bytes", "site", "phase")
        .agg(
            pl.col("count").sum(),
            pl.col("index").min(),
            stack_id=pl.col("stack_id").get(pl.col("index").arg_min()),
        )
        .sort("size_bytes", "device", "index", descending=[True, False, False])
        .collect()
    )
    frames = texts(memory.trace, found["stack_id"].unique())
    return found.join(frames, on="stack_id", how="left", maintain_order="left").select(
        "device",
        pl.col("phase").cast(pl.String),
        "site",
        "count",
        "index",
        "stack",
        bytes="size_bytes",
    )


ANALYSIS = largest
