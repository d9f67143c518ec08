"""Each CUDA stream: its work, and how much of it ran beside other streams or itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from tracelens.analyses import Analysis
from tracelens.trace.intervals import busy

if TYPE_CHECKING:
    from tracelens.links.linked import Linked

_KEYS = ("device", "pid", "context", "stream")


@Analysis
def streams(linked: Linked) -> pl.DataFrame:
    """Return one row per stream, busiest first.

    `busy_ns` is the union of the stream's work. `beside_ns` is how much of that union other
    streams of the device were busy, too. `self_overlap_ns` is how much its own work overlaps
    (programmatic launches on Hopper do): the sum of durations minus the union.
    """
    ops = linked.with_columns_of_ops("context", "stream")
    took = pl.col("end_ns") - pl.col("start_ns")
    own = (
        ops.group_by(_KEYS)
        .agg(
            ops=pl.len().cast(pl.Int64),
            kernels=(pl.col("kind") == "kernel").sum().cast(pl.Int64),
            total_ns=took.sum(),
        )
        .join(busy(ops, _KEYS), on=_KEYS, nulls_equal=True)
        .collect()
    )
    alone = _alone(ops.select(*_KEYS, "start_ns", "end_ns").collect(), own.select(_KEYS))
    return own.with_columns(
        beside_ns=pl.col("busy_ns") - alone,
        self_overlap_ns=pl.col("total_ns") - pl.col("busy_ns"),
    ).sort("busy_ns", *_KEYS, descending=[True, *[False] * len(_KEYS)])


def _alone(ops: pl.DataFrame, streams: pl.DataFrame) -> pl.Series:
    """Return for how long each stream was the only one of its device that was busy.

    One sweep over beginnings and ends: where a single stream is busy, the sum of the numbers of
    the busy streams is its own.
    """
    numbered = streams.with_row_index("number").with_columns(pl.col("number").cast(pl.Int64))
    ops = ops.filter(pl.col("end_ns") > pl.col("start_ns")).join(
        numbered, on=_KEYS, nulls_equal=True
    )
    opens = ops.select("device", "number", time="start_ns", change=1)
    closes = ops.select("device", "number", time="end_ns", change=-1)
    # Work of one stream may overlap itself: only the first to open and the last to close count.
    depth = pl.col("change").cum_sum().over("device", "number")
    events = pl.concat([opens, closes]).sort("time", "change").with_columns(depth=depth)
    edge = (pl.col("depth") == 1) & (pl.col("change") == 1)
    edges = events.filter(edge | (pl.col("depth") == 0)).with_columns(
        busy=pl.col("change").cum_sum().over("device"),
        which=(pl.col("change") * pl.col("number")).cum_sum().over("device"),
        lasted=(pl.col("time").shift(-1) - pl.col("time")).over("device"),
    )
    single = edges.filter(pl.col("busy") == 1).group_by(number="which").agg(pl.col("lasted").sum())
    alone = numbered.join(single, on="number", how="left", maintain_order="left")
    return alone["lasted"].fill_null(0)


ANALYSIS = streams
