"""Which range lies inside which: depth, parent and lane of every range."""

from __future__ import annotations

import polars as pl


def nested(ranges: pl.DataFrame) -> pl.DataFrame:
    """Return the ranges in order of start with `range_id`, `depth`, `lane` and `parent`.

    Ranges of one thread normally nest. Those that overlap an open range without lying inside it
    (start/end ranges do) go to the first lane of their thread where they nest; inside a lane
    every range lies within its parent. One pass, linear in ranges times open depth.

    Args:
        ranges: rows with start_ns, end_ns, pid and tid.
    """
    order = ranges.sort(
        "start_ns", "end_ns", "pid", "tid", descending=[False, True, False, False],
        maintain_order=True,
    )  # fmt: skip
    depths, lanes, parents = _walk(order)
    return order.with_columns(
        range_id=pl.int_range(pl.len(), dtype=pl.UInt32),
        depth=pl.Series(depths, dtype=pl.Int32),
        lane=pl.Series(lanes, dtype=pl.Int32),
        parent=pl.Series(parents, dtype=pl.UInt32),
    )


def _walk(order: pl.DataFrame) -> tuple[list[int], list[int], list[int | None]]:
    depths: list[int] = []
    lanes: list[int] = []
    parents: list[int | None] = []
    # Per thread, per lane: the open ranges as (end, row), outermost first.
    open_lanes: dict[tuple[int, int], list[list[tuple[int, int]]]] = {}
    rows = order.select("pid", "tid", "start_ns", "end_ns").iter_rows()
    for row, (pid, tid, start, end) in enumerate(rows):
        stacks = open_lanes.setdefault((pid, tid), [[]])
        lane = _first_fit(stacks, start, end)
        stack = stacks[lane]
        depths.append(len(stack))
        lanes.append(lane)
        parents.append(stack[-1][1] if stack else None)
        stack.append((end, row))
    return depths, lanes, parents


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
