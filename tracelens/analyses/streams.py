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
    whole = dict(busy(ops, ["device"]).select("device", "busy_ns").collect().iter_rows())
    beside = [_beside(ops, row, own, whole) for row in own.iter_rows(named=True)]
    return own.with_columns(
        beside_ns=pl.Series(beside, dtype=pl.Int64),
        self_overlap_ns=pl.col("total_ns") - pl.col("busy_ns"),
    ).sort("busy_ns", *_KEYS, descending=[True, *[False] * len(_KEYS)])


def _beside(
    ops: pl.LazyFrame,
    stream: dict[str, int],
    streams: pl.DataFrame,
    whole: dict[int, int],
) -> int:
    """Return |A and B| = |A| + |B| - |A or B| for a stream A and the others B of its device."""
    mates = streams.filter(pl.col("device") == stream["device"])
    if mates.height == 1:
        return 0
    this = pl.all_horizontal(pl.col(key).eq_missing(stream[key]) for key in _KEYS)
    others = ops.filter(pl.col("device") == stream["device"], ~this)
    rest: int = busy(others).select("busy_ns").collect().item()
    return stream["busy_ns"] + rest - whole[stream["device"]]


ANALYSIS = streams
