"""How much GPU work there is: kernels, copies, graphs, busy and idle time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens.analyses import Analysis
from tracelens.trace.intervals import busy
from tracelens.trace.store import remembered

if TYPE_CHECKING:
    from tracelens.links.linked import Linked

_KINDS: Final = {
    "kernel": ("kernels", "kernel_time_ns"),
    "copy": ("copies", "copy_time_ns"),
    "memset": ("memsets", "memset_time_ns"),
    "graph": ("graph_launches", "graph_time_ns"),
}


@Analysis
def totals(linked: Linked) -> pl.DataFrame:
    """Return one row.

    `busy_ns` is the union of all GPU work per device, summed over devices; `span_ns` first start
    to last end per device, summed; `idle_ns` their difference. Times of one kind are sums of
    durations, which exceed the union where work overlaps.
    """
    if linked.whole:
        return remembered(linked.trace, "totals", lambda: _totals(linked))
    return _totals(linked)


def _totals(linked: Linked) -> pl.DataFrame:
    took = pl.col("end_ns") - pl.col("start_ns")
    by_kind = linked.ops.lazy().group_by("kind").agg(pl.len().cast(pl.Int64), took.sum()).collect()
    found = {kind: (count, time) for kind, count, time in by_kind.iter_rows()}
    sums: dict[str, int] = {}
    for kind, columns in _KINDS.items():
        sums |= dict(zip(columns, found.get(kind, (0, 0)), strict=True))
    spans = busy(linked.ops.lazy(), ["device"]).select(pl.col("busy_ns", "span_ns").sum()).collect()
    return spans.select(
        **{column: pl.lit(value, pl.Int64) for column, value in sums.items()},
        busy_ns="busy_ns",
        span_ns="span_ns",
        idle_ns=pl.col("span_ns") - pl.col("busy_ns"),
    )


ANALYSIS = totals
