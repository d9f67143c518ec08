"""How much GPU work there is: kernels, copies, graphs, busy and idle time."""

from __future__ import annotations

import polars as pl

from tracelens.analyses import Analysis
from tracelens.links.linked import Linked
from tracelens.trace.intervals import busy


def totals(linked: Linked) -> pl.DataFrame:
    """Return one row.

    `busy_ns` is the union of all GPU work per device, summed over devices; `span_ns` first start
    to last end per device, summed; `idle_ns` their difference. Times of one kind are sums of
    durations, which exceed the union where work overlaps.
    """
    took = pl.col("end_ns") - pl.col("start_ns")
    kind = pl.col("kind")
    sums = linked.ops.lazy().select(
        **{
            column: expression
            for name, count, time in (
                ("kernel", "kernels", "kernel_time_ns"),
                ("copy", "copies", "copy_time_ns"),
                ("memset", "memsets", "memset_time_ns"),
                ("graph", "graph_launches", "graph_time_ns"),
            )
            for column, expression in (
                (count, (kind == name).sum().cast(pl.Int64)),
                (time, took.filter(kind == name).sum()),
            )
        }
    )
    spans = busy(linked.ops.lazy(), ["device"]).select(
        pl.col("busy_ns").sum(), pl.col("span_ns").sum()
    )
    both = pl.concat([sums.collect(), spans.collect()], how="horizontal")
    return both.with_columns(idle_ns=pl.col("span_ns") - pl.col("busy_ns"))


ANALYSIS = Analysis(totals)
