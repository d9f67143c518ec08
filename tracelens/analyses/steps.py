"""Training steps: how long each took, how busy the GPU was with it, and its phases."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens.analyses import Analysis
from tracelens.errors import NothingToShowError
from tracelens.trace.intervals import at, busy, innermost

if TYPE_CHECKING:
    from tracelens.links.linked import Linked

_PHASES: Final = ("forward", "backward", "optimizer")


@Analysis
def steps(linked: Linked) -> pl.DataFrame:
    """Return one row per step and process, in order.

    `duration_ns` is the step's length on the CPU. GPU times are of the work launched in it:
    `busy_ns` and `idle_ns` per device and summed, `*_ns` by phase sums of kernel durations.

    Raises:
        NothingToShowError: the recording marks no steps and repeats no phases.
    """
    if linked.steps.is_empty():
        raise NothingToShowError("no steps are marked: no range is named step, no phase repeats")
    ops = with_step(linked).filter(pl.col("step").is_not_null()).lazy()
    took = pl.col("end_ns") - pl.col("start_ns")
    kernel = pl.col("kind") == "kernel"
    phase = pl.col("phase").cast(pl.String)
    keys = ["pid", "step"]
    work = ops.group_by(keys).agg(
        kernels=kernel.sum().cast(pl.Int64),
        kernel_time_ns=took.filter(kernel).sum(),
        **{f"{name}_ns": took.filter(kernel, phase == name).sum() for name in _PHASES},
        other_ns=took.filter(kernel, ~phase.is_in(_PHASES).fill_null(value=False)).sum(),
    )
    spans = (
        busy(ops, [*keys, "device"])
        .group_by(keys)
        .agg(pl.col("busy_ns").sum(), idle_ns=(pl.col("span_ns") - pl.col("busy_ns")).sum())
    )
    return (
        linked.steps.lazy()
        .join(work, on=keys, how="left")
        .join(spans, on=keys, how="left")
        .with_columns(
            pl.col("kernels").fill_null(0),
            pl.col("^(kernel_time|busy|idle|other|forward|backward|optimizer)_ns$").fill_null(0),
            duration_ns=pl.col("end_ns") - pl.col("start_ns"),
        )
        .sort("pid", "step")
        .collect()
    )


def with_step(linked: Linked) -> pl.DataFrame:
    """Return the ops with the step that launched them, null outside of all steps."""
    launched = linked.ops.select("pid", time_ns="launch_ns")
    return linked.ops.with_columns(step=step_at(linked, launched))


def step_at(linked: Linked, moments: pl.DataFrame) -> pl.Series:
    """Return the step that was open in the process (`pid`) at each `time_ns`, null outside."""
    found = moments.select("pid", step=pl.lit(None, pl.Int32))
    for (pid,), of_process in linked.steps.group_by("pid"):
        rows = of_process.select("start_ns", "end_ns", "step").iter_rows()
        step = at(*innermost(rows), moments["time_ns"]).cast(pl.Int32)
        found = found.with_columns(step=pl.when(pl.col("pid") == pid).then(step).otherwise("step"))
    return found["step"]


ANALYSIS = steps
