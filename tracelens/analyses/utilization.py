"""How busy a GPU was over time, phase by phase: what a drawing of a step shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from tracelens.errors import NothingToShowError
from tracelens.links.linked import NO_PHASE

if TYPE_CHECKING:
    from tracelens.links.linked import Linked


@dataclass(frozen=True)
class Utilization:
    """How busy one GPU was from ``start_ns`` to ``end_ns``, in parts of equal length.

    ``frame`` has part (from 0), phase and share, the part of its time that the GPU worked for the
    phase; where work overlaps, shares are scaled down to add up to 1. ``step`` is the step that it
    is of: the one of median length; None where the recording marks none.
    """

    frame: pl.DataFrame
    parts: int
    start_ns: int
    end_ns: int
    device: int
    step: int | None


def utilization(linked: Linked, parts: int = 250) -> Utilization:
    """Return how busy the GPU was that worked most, in a typical step or, without steps, in all.

    Raises:
        NothingToShowError: there is no GPU work.
    """
    ops = linked.ops.lazy()
    step = _typical(linked)
    chosen = ops
    if step is not None:
        pid, _, begin, end = step
        chosen = ops.filter(
            pl.col("pid") == pid, pl.col("launch_ns") >= begin, pl.col("launch_ns") < end
        )
    work = pl.col("end_ns") - pl.col("start_ns")
    spans = chosen.group_by("device").agg(
        pl.col("start_ns").min(), pl.col("end_ns").max(), work=work.sum()
    )
    found = spans.sort("work", "device", descending=[True, False]).head(1).collect()
    if found.is_empty():
        raise NothingToShowError("there is no GPU work to draw")
    device, start, end, _ = found.row(0)
    frame = _shares(ops.filter(pl.col("device").eq_missing(device)), start, end, parts)
    return Utilization(frame, parts, start, end, device, None if step is None else step[1])


def _typical(linked: Linked) -> tuple[int, int, int, int] | None:
    """Return pid, number, start and end of the step of median length that launched GPU work."""
    times = linked.ops["launch_ns"].drop_nulls()
    if linked.steps.is_empty() or times.is_empty():
        return None
    first, last = times.min(), times.max()
    steps = linked.steps.filter(pl.col("start_ns") <= last, pl.col("end_ns") > first)
    took = steps.with_columns(took=pl.col("end_ns") - pl.col("start_ns"))
    ordered = took.sort("took", "pid", "step")
    if ordered.is_empty():
        return None
    row = ordered.row((ordered.height - 1) // 2, named=True)
    return row["pid"], row["step"], row["start_ns"], row["end_ns"]


def _shares(ops: pl.LazyFrame, start: int, end: int, parts: int) -> pl.DataFrame:
    length = max(1, -(-(end - start) // parts))
    inside = ops.filter(pl.col("end_ns") > start, pl.col("start_ns") < end).select(
        phase=pl.col("phase").cast(pl.String).fill_null(NO_PHASE),
        begin=pl.col("start_ns").clip(lower_bound=start) - start,
        end=pl.col("end_ns").clip(upper_bound=end) - start,
    )
    first, last = pl.col("begin") // length, (pl.col("end") - 1) // length
    cut = inside.with_columns(part=pl.int_ranges(first, last + 1)).explode("part")
    low, high = pl.col("part") * length, (pl.col("part") + 1) * length
    overlap = pl.min_horizontal("end", high) - pl.max_horizontal("begin", low)
    sums = cut.group_by("part", "phase").agg(share=overlap.sum() / length)
    total = pl.col("share").sum().over("part")
    scaled = pl.col("share") / pl.when(total > 1).then(total).otherwise(1)
    return sums.with_columns(share=scaled).sort("part", "phase").collect()
