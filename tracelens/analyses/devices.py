"""Each GPU: what it is, and how busy it was."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from tracelens.analyses import Analysis
from tracelens.trace.intervals import busy
from tracelens.trace.schema import DEVICES

if TYPE_CHECKING:
    from tracelens.links.linked import Linked


@Analysis
def devices(linked: Linked) -> pl.DataFrame:
    """Return one row per device with work; facts are null where the recording has none."""
    table = linked.trace.get("devices")
    facts = (DEVICES.empty().lazy() if table is None else table).collect()
    # Processes may see different GPUs under one number; then no single name is true.
    known = facts.group_by("device").agg(
        pl.when(pl.col(c).drop_nulls().n_unique() == 1).then(pl.col(c).drop_nulls().first())
        for c in ("name", "sm_count", "capability", "memory_bytes", "bandwidth_bytes_per_s")
    )
    counts = (
        linked.with_columns_of_ops("context", "stream")
        .group_by("device")
        .agg(
            kernels=(pl.col("kind") == "kernel").sum().cast(pl.Int64),
            processes=pl.col("pid").n_unique().cast(pl.Int64),
            streams=pl.struct("pid", "context", "stream").n_unique().cast(pl.Int64),
        )
    )
    spans = busy(linked.ops.lazy(), ["device"])
    return (
        counts.join(spans, on="device", nulls_equal=True)
        .join(known.lazy(), on="device", how="left")
        .with_columns(
            idle_ns=pl.col("span_ns") - pl.col("busy_ns"),
            busy_share=(pl.col("busy_ns") / pl.col("span_ns")).fill_nan(0.0),
        )
        .sort("device", nulls_last=True)
        .collect()
    )


ANALYSIS = devices
