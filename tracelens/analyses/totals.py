"""How much GPU work there is: kernels, copies, graphs, busy and idle time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens.analyses import Analysis
from tracelens.analyses.gaps import gaps
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
        return remembered(linked.trace, "totals", lambda: _totals(linked), _fits)
    return _totals(linked)


def _fits(frame: pl.DataFrame) -> bool:
    counts = {column for columns in _KINDS.values() for column in columns}
    expected = dict.fromkeys((*counts, "span_ns", "idle_ns", "busy_ns"), pl.Int64)
    return frame.height == 1 and dict(frame.schema) == expected


def _totals(linked: Linked) -> pl.DataFrame:
    took = pl.col("end_ns") - pl.col("start_ns")
    by_kind = linked.ops.lazy().group_by("kind").agg(pl.len().cast(pl.Int64), took.sum()).collect()
    found = {kind: (count, time) for kind, count, time in by_kind.iter_rows()}
    sums: dict[str, int] = {}
    for kind, columns in _KINDS.items():
        sums |= dict(zip(columns, found.get(kind, (0, 0)), strict=True))
    span = pl.col("end_ns").max() - pl.col("start_ns").min()
    spans = linked.ops.lazy().group_by("device").agg(span_ns=span).collect()
    sums["span_ns"] = int(spans["span_ns"].sum())
    # Idle time is what the gaps add up to; busy, the union of all work, is the rest.
    sums["idle_ns"] = int(gaps(linked)["idle_ns"].sum())
    sums["busy_ns"] = sums["span_ns"] - sums["idle_ns"]
    return pl.DataFrame(
        {column: pl.Series([value], dtype=pl.Int64) for column, value in sums.items()}
    )


ANALYSIS = totals
