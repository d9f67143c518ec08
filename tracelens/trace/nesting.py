"""Which range lies inside which: depth, parent and lane of every range."""

from __future__ import annotations

from typing import Final

import polars as pl

ORDER: Final = ("start_ns", "end_ns", "pid", "tid")
DESCENDING: Final = (False, True, False, False)
"""What ranges are numbered by: their start, then the longest first."""
_DEEPEST: Final = 64
_MOST_THREADS: Final = 64
_FACTS: Final = {"depth": pl.Int32, "lane": pl.Int32, "parent": pl.UInt32}


def nested(ranges: pl.DataFrame) -> pl.DataFrame:
    """Return the ranges in order of start with `range_id`, `depth`, `lane` and `parent`.

    Ranges of one thread normally nest. Those that overlap an open range without lying inside it
    (start/end ranges do) go to the first lane of their thread where they nest; inside a lane
    every range lies within its parent. Linear in ranges times depth.

    Args:
        ranges: rows with start_ns, end_ns, pid and tid.
    """
    order = ranges.sort(ORDER, descending=DESCENDING, maintain_order=True)
    order = order.with_row_index("range_id")
    threads = order.select("range_id", "pid", "tid", "start_ns", "end_ns").partition_by(
        "pid", "tid", maintain_order=True
    )
    if len(threads) > _MOST_THREADS:
        return order.hstack(_walk(order))
    facts = [_nested_thread(thread) for thread in threads]
    if not facts:
        return order.with_columns(pl.lit(None, dtype).alias(n) for n, dtype in _FACTS.items())
    return order.hstack(pl.concat(facts).sort("range_id").drop("range_id"))


def _nested_thread(thread: pl.DataFrame) -> pl.DataFrame:
    """Return range_id, depth, lane and parent of one thread's ranges, by counting.

    A range's depth is how many began before it less how many had ended; its parent the last one
    of the depth above. Where that does not hold it, the ranges do not nest, and are walked.
    """
    solid = pl.col("end_ns") > pl.col("start_ns")
    ended = thread.filter(solid)["end_ns"].sort().search_sorted(thread["start_ns"], side="right")
    begun = solid.cast(pl.Int32).cum_sum() - solid.cast(pl.Int32)
    counted = thread.with_columns(depth=begun - ended.cast(pl.Int32), lane=pl.lit(0, pl.Int32))
    deepest = counted["depth"].max()
    if not isinstance(deepest, int) or deepest > _DEEPEST:
        return thread.select("range_id").hstack(_walk(thread))
    parent = pl.lit(None, pl.UInt32)
    for depth in range(deepest):
        above = pl.when(solid, pl.col("depth") == depth).then("range_id").forward_fill()
        parent = pl.when(pl.col("depth") == depth + 1).then(above).otherwise(parent)
    counted = counted.with_columns(parent=parent)
    ends = counted.select(parent="range_id", parent_end_ns="end_ns")
    holds = counted.join(ends, on="parent").select(
        (pl.col("end_ns") <= pl.col("parent_end_ns")).all()
    )
    if not holds.item():
        return thread.select("range_id").hstack(_walk(thread))
    return counted.select("range_id", *_FACTS)


def _walk(order: pl.DataFrame) -> pl.DataFrame:
    """Return depth, lane and parent of ranges in order, of any nesting, one by one."""
    depths: list[int] = []
    lanes: list[int] = []
    parents: list[int | None] = []
    # Per thread, per lane: the open ranges as (end, range_id), outermost first.
    open_lanes: dict[tuple[int, int], list[list[tuple[int, int]]]] = {}
    rows = order.select("range_id", "pid", "tid", "start_ns", "end_ns").iter_rows()
    for range_id, pid, tid, start, end in rows:
        stacks = open_lanes.setdefault((pid, tid), [[]])
        lane = _first_fit(stacks, start, end)
        stack = stacks[lane]
        depths.append(len(stack))
        lanes.append(lane)
        parents.append(stack[-1][1] if stack else None)
        stack.append((end, range_id))
    return pl.DataFrame({"depth": depths, "lane": lanes, "parent": parents}, schema=_FACTS)


def _first_fit(stacks: list[list[tuple[int, int]]], start: int, end: int) -> int:
    """Return the first lane that the range nests in, closing what has ended and adding a lane."""
    for lane, stack in enumerate(stacks):
        while stack and stack[-1][0] <= start:
            stack.pop()
        if not stack or end <= stack[-1][0]:
            return lane
    stacks.append([])
    return len(stacks) - 1


def timeline(track: pl.DataFrame) -> tuple[pl.Series, pl.Series]:
    """Return times, and from each time on the range_id of the innermost range open, or null.

    Args:
        track: ranges of one thread and lane with `range_id`, `depth` and `parent`.
    """
    solid = track.filter(pl.col("end_ns") > pl.col("start_ns"))
    # At one time ends come before starts; the outermost end and the innermost start come last.
    starts = solid.select(time="start_ns", order=pl.col("depth") + 1, label="range_id")
    ends = solid.select(time="end_ns", order=-pl.col("depth") - 1, label="parent")
    events = pl.concat([starts, ends]).sort("time", "order")
    last = events.unique("time", keep="last", maintain_order=True)
    return last["time"], last["label"]
