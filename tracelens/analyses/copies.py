"""Memory copies by direction, with their bandwidth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from tracelens.analyses import Analysis

if TYPE_CHECKING:
    from tracelens.links.linked import Linked


@Analysis
def copies(linked: Linked) -> pl.DataFrame:
    """Return one row per direction, most time first; bandwidth is bytes over summed time."""
    took = pl.col("end_ns") - pl.col("start_ns")
    moved = linked.with_columns_of_ops("bytes", "copy_kind").filter(pl.col("kind") == "copy")
    return (
        moved.group_by(kind=pl.col("copy_kind").cast(pl.String))
        .agg(
            calls=pl.len().cast(pl.Int64),
            bytes=pl.col("bytes").sum(),
            total_ns=took.sum(),
        )
        .with_columns(
            bandwidth_bytes_per_s=pl.when(pl.col("total_ns") > 0).then(
                pl.col("bytes") * 1e9 / pl.col("total_ns")
            )
        )
        .sort("total_ns", "kind", descending=[True, False])
        .collect()
    )


ANALYSIS = copies
