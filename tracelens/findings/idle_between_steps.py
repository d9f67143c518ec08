"""Idle between steps: the GPU waits from the last op of a step to the first of the next."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from tracelens import units
from tracelens.analyses.steps import with_step
from tracelens.analyses.totals import totals
from tracelens.errors import NothingToShowError
from tracelens.findings import Evidence, Finding, Rule
from tracelens.findings._work import LEAST_IDLE
from tracelens.trace.intervals import busy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracelens.links.linked import Linked

_KEY = ["pid", "device"]


def _find(linked: Linked) -> Iterator[Finding]:
    if linked.steps.height < 2:
        raise NothingToShowError("fewer than two steps are known")
    sums = totals(linked).row(0, named=True)
    if sums["idle_ns"] < LEAST_IDLE * sums["span_ns"] or not sums["span_ns"]:
        return
    between = _between(linked)
    idle_ns = int(between["idle_ns"].sum())
    share = idle_ns / sums["span_ns"]
    if share < LEAST_IDLE:
        return
    each = units.time(idle_ns / between.height)
    yield Finding(
        rule="idle_between_steps",
        says=(
            f"The GPU idles {units.time(idle_ns)} ({units.share(share)}) between steps, "
            f"{each} each time."
        ),
        evidence=(
            Evidence("steps", "idle time between the work of two steps", idle_ns, "ns"),
            Evidence("totals", "of the span from first to last op", share, "share"),
        ),
        change="Load batches ahead (DataLoader workers, pin_memory).",
        cost_ns=idle_ns,
        gain_ns=idle_ns,
        assumption="the next step's work had been launched before that of this one ended",
    )


def _between(linked: Linked) -> pl.DataFrame:
    """Return idle_ns for each time between the work of two steps, by process and device."""
    ops = with_step(linked).select(*_KEY, "step", "start_ns", "end_ns")
    extents = (
        ops.filter(pl.col("step").is_not_null())
        .group_by(*_KEY, "step")
        .agg(pl.col("start_ns").min(), pl.col("end_ns").max())
        .sort(*_KEY, "step")
    )
    times = (
        extents.with_columns(until_ns=pl.col("start_ns").shift(-1).over(_KEY))
        .filter(pl.col("until_ns") > pl.col("end_ns"))
        .select(*_KEY, from_ns="end_ns", until_ns="until_ns")
        .sort("from_ns")
        .with_row_index("place")
    )
    # What was launched outside of steps may work in between.
    outside = (
        ops.filter(pl.col("step").is_null())
        .select(*_KEY, "start_ns", "end_ns")
        .join(times, on=_KEY)
        .filter(pl.col("start_ns") < pl.col("until_ns"), pl.col("end_ns") > pl.col("from_ns"))
        .with_columns(
            pl.max_horizontal("start_ns", "from_ns").alias("start_ns"),
            pl.min_horizontal("end_ns", "until_ns").alias("end_ns"),
        )
    )
    worked = busy(outside.lazy(), ["place"]).select("place", "busy_ns").collect()
    joined = times.join(worked, on="place", how="left").with_columns(pl.col("busy_ns").fill_null(0))
    length = pl.col("until_ns") - pl.col("from_ns")
    return joined.select(*_KEY, idle_ns=length - pl.col("busy_ns"))


FINDING = Rule(_find)
