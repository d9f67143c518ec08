"""Arithmetic on intervals [start, end): unions, gaps between them, and who holds at a time."""

from __future__ import annotations

from collections import Counter
from heapq import heappop, heappush
from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_START, _END = pl.col("start_ns"), pl.col("end_ns")


def busy(frame: pl.LazyFrame, by: Sequence[str] = ()) -> pl.LazyFrame:
    """Return, per group of ``by``, the union of the intervals and their span.

    Columns: ``by``, busy_ns (length of the union), span_ns (first start to last end),
    first_ns, last_ns.
    """
    keys = [pl.col(k) for k in by]
    ordered = frame.select(*keys, _START, _END).sort("start_ns").collect()
    several = (
        keys
        and ordered.select(pl.any_horizontal(k.ne_missing(k.first()).any() for k in keys)).item()
    )
    reached = _END.cum_max().shift()
    reached = reached.over(keys) if several else reached
    gap = (_START - reached).clip(lower_bound=0)
    aggregates = {
        "first_ns": _START.min(),
        "last_ns": _END.max(),
        "gap_ns": pl.col("gap_ns").sum(),
    }
    spaced = ordered.lazy().with_columns(gap_ns=gap)
    total = spaced.group_by(keys).agg(**aggregates) if keys else spaced.select(**aggregates)
    span = (pl.col("last_ns") - pl.col("first_ns")).fill_null(0)
    return total.select(
        *keys,
        busy_ns=span - pl.col("gap_ns"),
        span_ns=span,
        first_ns=pl.col("first_ns"),
        last_ns=pl.col("last_ns"),
    )


def gaps(ordered: pl.DataFrame, reached_ns: int | None, holder: int | None) -> pl.DataFrame:
    """Return the times in which nothing ran, up to the last start.

    Args:
        ordered: op_id, start_ns and end_ns in order of start.
        reached_ns: the latest end of what came before these ops, if anything did.
        holder: the op_id of what ended then.

    Returns:
        start_ns and end_ns of each gap, and before / after: the op_id of the interval that ended
        last before it and of the one that ended it.
    """
    reached = pl.max_horizontal(_END.cum_max(), pl.lit(reached_ns, pl.Int64))
    # The interval that reaches furthest so far: where the running maximum last changed.
    last = pl.when(reached == _END).then(pl.col("op_id")).forward_fill()
    return (
        ordered.lazy()
        .with_columns(
            free_ns=reached.shift(fill_value=pl.lit(reached_ns, pl.Int64)),
            before=last.fill_null(pl.lit(holder, pl.UInt32)).shift(
                fill_value=pl.lit(holder, pl.UInt32)
            ),
        )
        .filter(pl.col("free_ns") < _START)
        .select("before", start_ns="free_ns", end_ns="start_ns", after="op_id")
        .collect()
    )


def innermost(intervals: Iterable[tuple[int, int, int]]) -> tuple[pl.Series, pl.Series]:
    """Return which label holds when: at any time, the interval opened last of those open.

    Args:
        intervals: (start, end, label); of two opened at once, the one that closes first is inner.

    Returns:
        times (ascending) and the label from each time on, null where nothing is open.
    """
    events: list[tuple[int, int, tuple[int, int, int]]] = []
    for start, end, label in intervals:
        if end > start:
            item = (start, -end, label)
            events += ((start, 1, item), (end, 0, item))
    events.sort()
    times: list[int] = []
    labels: list[int | None] = []
    # The innermost is on top; what closed below it stays until it comes up.
    open_now: list[tuple[int, int, int]] = []
    closed: Counter[tuple[int, int, int]] = Counter()
    for time, opens, (start, end, label) in events:
        item = (-start, -end, -label)
        if opens:
            heappush(open_now, item)
        else:
            closed[item] += 1
        while open_now and closed[open_now[0]]:
            closed[heappop(open_now)] -= 1
        now = -open_now[0][2] if open_now else None
        if times and times[-1] == time:
            labels[-1] = now
        else:
            times.append(time)
            labels.append(now)
    return pl.Series(times, dtype=pl.Int64), pl.Series(labels, dtype=pl.Int64)


def at(times: pl.Series, labels: pl.Series, moments: pl.Series) -> pl.Series:
    """Return the label that holds at each moment, null before the first time and at nulls."""
    # Place 0 stands for the time before the first.
    known = pl.concat([pl.Series([None], dtype=labels.dtype), labels.rename("")])
    place = times.search_sorted(moments, side="right")
    if moments.null_count():
        masked = place.to_frame("place").select(pl.when(moments.is_not_null()).then("place"))
        place = masked["place"]
    return known.gather(place)


def window(frame: pl.DataFrame, column: str, spans: Iterable[tuple[int, int, int]]) -> pl.DataFrame:
    """Return the rows whose time lies in a span of their process.

    Args:
        frame: rows with `pid` and the time column.
        column: the name of the time column.
        spans: (pid, start, end).
    """
    by_pid: dict[int, list[tuple[int, int, int]]] = {}
    for pid, start, end in spans:
        by_pid.setdefault(pid, []).append((start, end, 1))
    kept = [pl.Series([False], dtype=pl.Boolean).new_from_index(0, frame.height)]
    for pid, intervals in by_pid.items():
        inside = at(*innermost(intervals), frame[column]).is_not_null()
        kept.append(inside & (frame["pid"] == pid).fill_null(value=False))
    mask = kept[0]
    for more in kept[1:]:
        mask = mask | more
    return frame.filter(mask)
