"""Every kernel by name: calls, total, mean, median, extremes and spread of its time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from tracelens.analyses import Analysis

if TYPE_CHECKING:
    from tracelens.links.linked import Linked


def spread(took: pl.Expr) -> dict[str, pl.Expr]:
    """Return the aggregates that describe durations: the columns of `nsys stats`."""
    return {
        "calls": pl.len().cast(pl.Int64),
        "total_ns": took.sum(),
        "mean_ns": took.mean(),
        "median_ns": took.median(),
        "min_ns": took.min(),
        "max_ns": took.max(),
        # Rounded: the last digits depend on how polars divides the rows among threads.
        "std_ns": took.std().fill_null(0.0).round_sig_figs(12),
    }


@Analysis
def kernels(linked: Linked) -> pl.DataFrame:
    """Return one row per kernel name, most time first; `share` is of all kernel time, 0..1."""
    share = pl.col("total_ns") / pl.col("total_ns").sum()
    return (
        linked.ops.lazy()
        .filter(pl.col("kind") == "kernel")
        .group_by("name_id", "kind")
        .agg(**spread(pl.col("end_ns") - pl.col("start_ns")))
        .join(linked.names.lazy(), on=["name_id", "kind"], how="left")
        .with_columns(share=share.fill_nan(0.0))
        .sort("total_ns", "name", descending=[True, False])
        .select(
            "name", "short_name", "family", "calls", "total_ns", "share",
            "mean_ns", "median_ns", "min_ns", "max_ns", "std_ns",
        )
        .collect()
    )  # fmt: skip


ANALYSIS = kernels
