"""Idle time of each GPU by cause: waiting for launches, for a synchronisation, for the CPU."""

from __future__ import annotations

import polars as pl

from tracelens.analyses import Analysis
from tracelens.analyses.longest_gaps import longest_gaps
from tracelens.links.linked import Linked


def gaps(linked: Linked) -> pl.DataFrame:
    """Return one row per device and cause, most idle time first.

    `share` is of the device's idle time between its first and last op, 0..1. The longest gap's
    length and neighbours stand in `longest_ns`, `before_name` and `after_name`.
    """
    return (
        longest_gaps(linked)
        .group_by("device", "cause", maintain_order=True)
        .agg(
            gaps=pl.len().cast(pl.Int64),
            idle_ns=pl.col("idle_ns").sum(),
            median_ns=pl.col("idle_ns").median(),
            longest_ns=pl.col("idle_ns").first(),
            before_name=pl.col("before_name").first(),
            after_name=pl.col("after_name").first(),
        )
        .with_columns(share=pl.col("idle_ns") / pl.col("idle_ns").sum().over("device"))
        .sort("device", "idle_ns", "cause", descending=[False, True, False])
    )


ANALYSIS = Analysis(gaps)
