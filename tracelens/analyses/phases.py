"""GPU work by training phase, each op counted in the phase that launched it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from tracelens.analyses import Analysis
from tracelens.trace.intervals import busy

if TYPE_CHECKING:
    from tracelens.links.linked import Linked


@Analysis
def phases(linked: Linked) -> pl.DataFrame:
    """Return one row per phase, in the order of training; a null phase is work in none.

    Counts and times add up to `totals`. `share` is of all kernel and graph time, 0..1.
    """
    took = pl.col("end_ns") - pl.col("start_ns")
    kind = pl.col("kind")
    sums = (
        linked.ops.lazy()
        .group_by("phase")
        .agg(
            kernels=(kind == "kernel").sum().cast(pl.Int64),
            kernel_time_ns=took.filter(kind == "kernel").sum(),
            graph_launches=(kind == "graph").sum().cast(pl.Int64),
            graph_time_ns=took.filter(kind == "graph").sum(),
            copies=(kind == "copy").sum().cast(pl.Int64),
            copy_time_ns=took.filter(kind == "copy").sum(),
        )
    )
    spans = busy(linked.ops.lazy(), ["device", "phase"])
    unions = spans.group_by("phase").agg(pl.col("busy_ns").sum())
    time = pl.col("kernel_time_ns") + pl.col("graph_time_ns")
    joined = sums.join(unions, on="phase", nulls_equal=True).sort("phase", nulls_last=True)
    return joined.select(
        pl.col("phase").cast(pl.String),
        "kernels",
        "kernel_time_ns",
        "busy_ns",
        "graph_launches",
        "graph_time_ns",
        "copies",
        "copy_time_ns",
        share=(time / time.sum()).fill_nan(0.0),
    ).collect()


ANALYSIS = phases
