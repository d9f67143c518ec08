"""What ran inside each range: the GPU work launched in it, backward included.

An op belongs to the ranges open on its launching thread. Where that thread is an autograd
worker, or has no range open, the op belongs as well to the ranges of the thread that it works
for: the only other one of the process that holds a phase's range at that time, or else the only
other one that holds any range. Where several do, nobody can tell, and the op stays with its own
thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from tracelens.links.inference import is_autograd_thread
from tracelens.links.phases import phase_ranges, rules
from tracelens.trace.intervals import at
from tracelens.trace.nesting import timeline

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tracelens.links.linked import Linked

    Timeline = tuple[pl.Series, pl.Series]

_WORK = {
    "kernels": pl.col("kernels").sum(),
    "kernel_time_ns": pl.col("kernel_time_ns").sum(),
    "first_ns": pl.col("first_ns").min(),
    "last_ns": pl.col("last_ns").max(),
}


def work_inside(linked: Linked) -> pl.DataFrame:
    """Return every range with the kernels launched inside it, those of inner ranges included.

    Columns: those of `ranges`, kernels, kernel_time_ns, first_ns and last_ns (first start and
    last end on the GPU, null without kernels).
    """
    ranges = linked.ranges().collect()
    ops = linked.ops.filter(pl.col("kind") == "kernel", pl.col("launch_ns").is_not_null())
    parts = []
    for (pid,), of_process in ranges.group_by("pid"):
        work = ops.filter(pl.col("pid") == pid)
        if work.height:
            parts += _innermost_work(linked, work, of_process)
    empty = pl.DataFrame(
        schema={
            "range_id": pl.UInt32,
            "kernels": pl.UInt32,
            "kernel_time_ns": pl.Int64,
            "first_ns": pl.Int64,
            "last_ns": pl.Int64,
        }
    )
    own = pl.concat([empty, *parts]).group_by("range_id").agg(**_WORK)
    return _rolled_up(ranges.join(own, on="range_id", how="left"))


def _innermost_work(linked: Linked, work: pl.DataFrame, ranges: pl.DataFrame) -> list[pl.DataFrame]:
    """Return kernels by the innermost range of every thread and lane that they belong to."""
    tracks = {
        (tid, lane): timeline(track)
        for (tid, lane), track in ranges.sort("start_ns").group_by("tid", "lane")
    }
    work = work.with_columns(host=_hosts(linked, work, tracks))
    parts = []
    for (tid, _), track in tracks.items():
        mine = work.filter((pl.col("launch_tid") == tid) | (pl.col("host") == tid))
        took = pl.col("end_ns") - pl.col("start_ns")
        parts.append(
            mine.with_columns(range_id=at(*track, mine["launch_ns"]))
            .filter(pl.col("range_id").is_not_null())
            .group_by("range_id")
            .agg(
                kernels=pl.len(),
                kernel_time_ns=took.sum(),
                first_ns=pl.col("start_ns").min(),
                last_ns=pl.col("end_ns").max(),
            )
        )
    return parts


def _hosts(
    linked: Linked, work: pl.DataFrame, tracks: Mapping[tuple[int, int], Timeline]
) -> pl.Series:
    """Return the thread that each op's launching thread works for, null where it is its own."""
    pid = work["pid"][0]
    workers = _autograd_tids(linked, pid)
    phases = _phase_tracks(linked, pid)
    hosts = work.select("launch_ns", "launch_tid", "op_id").with_columns(
        host=pl.lit(None, pl.Int32)
    )
    for tid in hosts["launch_tid"].drop_nulls().unique():
        moments = hosts["launch_ns"]
        mine = pl.col("launch_tid") == tid
        others = [t for (other, _), t in tracks.items() if other != tid]
        if not others:
            continue
        candidate = at(*_only_thread({k: t for k, t in tracks.items() if k[0] != tid}), moments)
        holder = at(*_only_thread({k: t for k, t in phases.items() if k[0] != tid}), moments)
        own = [at(*t, moments).is_not_null() for (other, _), t in tracks.items() if other == tid]
        alone = ~own[0] if own and tid not in workers else pl.lit(value=True)
        found = pl.coalesce(holder, candidate)
        hosts = hosts.with_columns(host=pl.when(mine & alone).then(found).otherwise("host"))
    return hosts["host"]


def _only_thread(tracks: Mapping[tuple[int, int], Timeline]) -> Timeline:
    """Return which thread holds a range at what time: null where none does or several do."""
    if len(tracks) == 1:
        ((tid, _), (times, labels)) = next(iter(tracks.items()))
        held = labels.to_frame("label").select(
            pl.when(pl.col("label").is_not_null()).then(pl.lit(tid, pl.Int32))
        )
        return times, held.to_series()
    events = sorted(
        (time, key, label is not None)
        for key, (times, labels) in tracks.items()
        for time, label in zip(times, labels, strict=True)
    )
    holding: set[tuple[int, int]] = set()
    only: dict[int, int | None] = {}
    for time, key, holds in events:
        (holding.add if holds else holding.discard)(key)
        threads = {tid for tid, _ in holding}
        only[time] = next(iter(threads)) if len(threads) == 1 else None
    return pl.Series(list(only), dtype=pl.Int64), pl.Series(only.values(), dtype=pl.Int32)


def _phase_tracks(linked: Linked, pid: int) -> dict[tuple[int, int], Timeline]:
    from tracelens.trace.intervals import innermost

    found = [r for r in phase_ranges(linked.trace, rules()) if r.pid == pid]
    return {
        (tid, 0): innermost((r.start_ns, r.end_ns, r.code) for r in found if r.tid == tid)
        for tid in {r.tid for r in found}
    }


def _autograd_tids(linked: Linked, pid: int) -> set[int]:
    threads = linked.trace.get("threads")
    rows: Iterable[tuple[int, int, str]] = () if threads is None else threads.collect().rows()
    return {tid for p, tid, name in rows if p == pid and is_autograd_thread(name)}


def _rolled_up(ranges: pl.DataFrame) -> pl.DataFrame:
    """Add the work of every range to the ranges around it, deepest first."""
    done = []
    above = ranges.with_columns(pl.col("kernels", "kernel_time_ns").fill_null(0))
    for depth in sorted(ranges["depth"].unique(), reverse=True)[:-1]:
        level = above.filter(pl.col("depth") == depth)
        above = above.filter(pl.col("depth") < depth)
        done.append(level)
        inner = level.group_by(range_id="parent").agg(**_WORK)
        both = [
            above,
            above.select(pl.exclude(_WORK)).join(inner, on="range_id").select(above.columns),
        ]
        facts = [c for c in above.columns if c not in _WORK]
        above = pl.concat(both, how="vertical_relaxed").group_by(facts).agg(**_WORK)
    return pl.concat([above, *done], how="vertical_relaxed").sort("range_id")
