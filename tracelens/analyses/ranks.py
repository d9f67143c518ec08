"""Each rank: steps, how busy its GPU was, communication and what of it computation did not hide."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens.analyses import Analysis
from tracelens.links.collectives import collectives, rank_of
from tracelens.trace.intervals import busy, window

if TYPE_CHECKING:
    from polars._typing import PolarsDataType

    from tracelens.links.linked import Linked

SCHEMA: Final[dict[str, PolarsDataType]] = {
    "rank": pl.Int32,
    "process": pl.Int32,
    "steps": pl.Int64,
    "step_median_ns": pl.Float64,
    "kernels": pl.Int64,
    "busy_ns": pl.Int64,
    "idle_ns": pl.Int64,
    "span_ns": pl.Int64,
    "busy_share": pl.Float64,
    "collectives": pl.Int64,
    "comm_time_ns": pl.Int64,
    "comm_busy_ns": pl.Int64,
    "comm_overlapped_ns": pl.Int64,
    "comm_exposed_ns": pl.Int64,
    "exposed_share": pl.Float64,
    "waiting_ns": pl.Int64,
    "arrives_last": pl.Int64,
    "peak_memory_bytes": pl.Int64,
    "memory_source": pl.String,
}


@Analysis
def ranks(linked: Linked) -> pl.DataFrame:
    """Return one row: of the rank that recorded the trace, or one of each process it holds.

    `step_median_ns` is the median step on the CPU. Times are unions per device, summed, but for
    `comm_time_ns`, the sum of the durations of collectives: `comm_overlapped_ns` is how long
    collectives ran while kernels of other kinds did, `comm_exposed_ns` the rest of
    `comm_busy_ns`. `peak_memory_bytes` is what PyTorch's allocator had given out at most
    (`memory_source`: events). `waiting_ns` and `arrives_last` need the other ranks: null here.
    """
    several = linked.ops["pid"].n_unique() > 1
    process = pl.when(pl.lit(several)).then("pid").cast(pl.Int32).alias("process")
    comm = linked.once("collectives", collectives)["op_id"]
    ops = linked.ops.with_columns(process, is_comm=pl.col("op_id").is_in(comm.implode()))
    kernels = pl.col("kind").is_in(["kernel", "graph"])
    found = ops if ops.height else ops.clear(1)
    key = ["process"]
    table = (
        found.group_by(key)
        .agg(
            kernels=(pl.col("kind") == "kernel").sum().cast(pl.Int64),
            collectives=pl.col("is_comm").sum().cast(pl.Int64),
            comm_time_ns=(pl.col("end_ns") - pl.col("start_ns")).filter("is_comm").sum(),
        )
        .pipe(_with, _union(ops, "busy_ns", "span_ns"))
        .pipe(_with, _union(ops.filter("is_comm"), "comm_busy_ns"))
        .pipe(_with, _union(ops.filter(kernels, ~pl.col("is_comm")), "compute_ns"))
        .pipe(_with, _union(ops.filter(kernels | pl.col("is_comm")), "either_ns"))
        .pipe(_with, _steps(linked, process))
        .join(_peaks(linked, process), on=key, how="left", nulls_equal=True)
    )
    overlapped = pl.col("comm_busy_ns") + pl.col("compute_ns") - pl.col("either_ns")
    return (
        table.with_columns(
            rank=pl.lit(rank_of(linked)),
            idle_ns=pl.col("span_ns") - pl.col("busy_ns"),
            busy_share=_of_span("busy_ns"),
            comm_overlapped_ns=overlapped,
            comm_exposed_ns=pl.col("comm_busy_ns") - overlapped,
            waiting_ns=pl.lit(None),
            arrives_last=pl.lit(None),
        )
        .with_columns(exposed_share=_of_span("comm_exposed_ns"))
        .select(list(SCHEMA))
        .cast(SCHEMA)  # type: ignore[arg-type]
        .sort("process", nulls_last=True)
    )


def _with(table: pl.DataFrame, more: pl.DataFrame) -> pl.DataFrame:
    """Return the table with more columns by process; times and counts without a row are 0."""
    joined = table.join(more, on="process", how="left", nulls_equal=True)
    return joined.with_columns(
        pl.col(more.columns).exclude("process", "step_median_ns").fill_null(0)
    )


def _union(ops: pl.DataFrame, union: str, span: str = "") -> pl.DataFrame:
    """Return by process the time in which an op ran, summed over devices, and the span."""
    times = busy(ops.lazy(), ["process", "device"]).group_by("process")
    sums = {union: pl.col("busy_ns").sum(), **({span: pl.col("span_ns").sum()} if span else {})}
    return times.agg(**sums).collect()


def _steps(linked: Linked, process: pl.Expr) -> pl.DataFrame:
    took = pl.col("end_ns") - pl.col("start_ns")
    steps = linked.steps.with_columns(process)
    return steps.group_by("process").agg(
        steps=pl.len().cast(pl.Int64), step_median_ns=took.median()
    )


def _peaks(linked: Linked, process: pl.Expr) -> pl.DataFrame:
    """Return by process what PyTorch's allocator had given out at most, devices summed."""
    trace = linked.trace
    table = None if "memory" in trace.on_request else trace.get("memory")
    if table is None:
        columns = {"process": pl.Int32, "peak_memory_bytes": pl.Int64, "memory_source": pl.String}
        return pl.DataFrame(schema=columns)
    events = table.filter(
        pl.col("memory_kind") == "device", pl.col("allocated_bytes").is_not_null()
    ).collect()
    if linked.spans is not None:
        events = window(events, "time_ns", linked.spans)
    by_device = events.with_columns(process).group_by("process", "device")
    peaks = by_device.agg(peak_memory_bytes=pl.col("allocated_bytes").max())
    return (
        peaks.group_by("process")
        .agg(pl.col("peak_memory_bytes").sum())
        .with_columns(memory_source=pl.lit("events"))
    )


def _of_span(column: str) -> pl.Expr:
    return (pl.col(column) / pl.col("span_ns")).fill_nan(0.0)


ANALYSIS = ranks
