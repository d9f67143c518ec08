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

    Allocations of one size by one call stack in one phase are one row: `count` is how many there
    were and `index` the event of the first.
    """
    key = ["device", "size_bytes", "stack_id", "phase"]
    found = (
        memory.lives.lazy()
        .filter(pl.col("alloc_index").is_not_null())
        .group_by(key)
        .agg(count=pl.len().cast(pl.Int64), index=pl.col("alloc_index").min())
        .sort("size_bytes", "device", "index", descending=[True, False, False])
        .collect()
    )
    stacks = memory.stacks.join(texts(memory.trace, found["stack_id"].unique()), on="stack_id")
    named = found.join(stacks, on="stack_id", how="left", maintain_order="left")
    return named.select(
        "device",
        pl.col("phase").cast(pl.String),
        "site",
        "via",
        "count",
        "index",
        "stack",
        bytes="size_bytes",
    )


ANALYSIS = largest
