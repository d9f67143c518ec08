"""Idle between steps: the GPU waits from the last op of a step to the first of the next."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from tracelens import units
from tracelens.analyses.longest_gaps import longest
from tracelens.analyses.steps import step_at
from tracelens.analyses.totals import totals
from tracelens.errors import NothingToShowError
from tracelens.findings import Evidence, Finding, Rule
from tracelens.findings._work import LEAST_IDLE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracelens.links.linked import Linked


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
    each = units.time(idle_ns / (linked.steps.height - linked.steps["pid"].n_unique()))
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
    """Return those of the longest idle times around which work of different steps ran.

    Those are nearly all that there are: more than a thousand steps would have to be recorded, or
    each with many pauses beside.
    """
    found = longest(linked)
    before, after = (_steps_of(linked, found[side]) for side in ("before", "after"))
    one_process = before["pid"].eq_missing(after["pid"])
    differ = before["step"].ne_missing(after["step"])
    return found.filter(one_process & differ & before["amid"] & after["amid"])


def _steps_of(linked: Linked, ops: pl.Series) -> pl.DataFrame:
    """Return of each op pid, the step that launched it, and whether that was amid the steps.

    `step` is null outside of all; before the first and behind the last is not `amid`.
    """
    named = linked.ops.filter(pl.col("op_id").is_in(ops.implode())).select(
        "op_id", "pid", time_ns="launch_ns"
    )
    extents = linked.steps.group_by("pid").agg(pl.col("start_ns").min(), pl.col("end_ns").max())
    amid = pl.col("time_ns").is_between("start_ns", "end_ns").fill_null(value=False)
    numbers = (
        named.with_columns(step=step_at(linked, named))
        .join(extents, on="pid", how="left")
        .select("op_id", "pid", "step", amid=amid)
    )
    return ops.to_frame("op_id").join(numbers, on="op_id", how="left", maintain_order="left")


FINDING = Rule(_find)
