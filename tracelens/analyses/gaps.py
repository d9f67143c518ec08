"""Idle time of each GPU by cause: waiting for launches, for a synchronisation, for the CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens.analyses import Analysis
from tracelens.analyses.longest_gaps import with_neighbours
from tracelens.links.idle import sums
from tracelens.trace.store import remembered

if TYPE_CHECKING:
    from tracelens.links.linked import Linked


_COLUMNS: Final = (
    "device", "cause", "gaps", "idle_ns", "share", "median_ns", "longest_ns", "before_name",
    "after_name",
)  # fmt: skip


@Analysis
def gaps(linked: Linked) -> pl.DataFrame:
    """Return one row per device and cause, most idle time first.

    `share` is of the device's idle time between its first and last op, 0..1. The longest gap's
    length and neighbours stand in `longest_ns`, `before_name` and `after_name`.
    """
    if linked.whole:
        return remembered(linked.trace, "gaps", lambda: _gaps(linked), _fits)
    return _gaps(linked)


def _fits(frame: pl.DataFrame) -> bool:
    numbers = ("gaps", "idle_ns", "longest_ns")
    return set(_COLUMNS) <= set(frame.columns) and all(
        frame.schema[name] == pl.Int64 for name in numbers
    )


def _gaps(linked: Linked) -> pl.DataFrame:
    key = ["device", "cause"]
    found = sums(linked)
    by_cause = found.times.group_by(key).agg(
        gaps=pl.len().cast(pl.Int64),
        total_ns=pl.col("idle_ns").sum(),
        median_ns=pl.col("idle_ns").median(),
    )
    around = with_neighbours(linked, found.longest_of).rename({"idle_ns": "longest_ns"})
    return (
        by_cause.join(around, on=key, nulls_equal=True)
        .rename({"total_ns": "idle_ns"})
        .with_columns(
            pl.col("cause").cast(pl.String),
            share=pl.col("idle_ns") / pl.col("idle_ns").sum().over("device"),
        )
        .sort("device", "idle_ns", "cause", descending=[False, True, False])
    )


ANALYSIS = gaps
