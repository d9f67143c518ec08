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
from tracelens.links.phases import phase_ranges
from tracelens.trace.intervals import at, innermost
from tracelens.trace.nesting import timeline

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tracelens.links.linked import Linked
    from tracelens.links.phases import PhaseRange

    Timeline = tuple[pl.Series, pl.Series]

_TOOK = pl.col("end_ns") - pl.col("start_ns")
_WORK = {
    "kernels": pl.col("kernels").sum(),
    "kernel_time_ns": pl.col("kernel_time_ns").sum(),
    "first_ns": pl.col("first_ns").min(),
    "last_ns": pl.col("last_ns").max(),
}
_EMPTY = pl.DataFrame(
    schema={
        "leaves": pl.List(pl.UInt32),
        "kernels": pl.UInt32,
        "kernel_time_ns": pl.Int64,
        "first_ns": pl.Int64,
        "last_ns": pl.Int64,
    }
)


def work_by_leaves(linked: Linked, ranges: pl.DataFrame) -> pl.DataFrame:
    """Return the kernels by the innermost ranges that they belong to.

    Columns: `leaves` (the range_ids: one for each thread and lane that has a range open),
    kernels, kernel_time_ns, first_ns and last_ns (first start and last end on the GPU). Each
    kernel counts in one row.
    """
    ops = linked.ops.filter(pl.col("kind") == "kernel", pl.col("launch_ns").is_not_null())
    phases = _phases(linked)
    by_pid = ops.partition_by("pid", as_dict=True)
    parts = [_EMPTY]
    for (pid,), of_process in ranges.group_by("pid"):
        if (work := by_pid.get((pid,))) is not None:
            parts.append(_of_process(linked, work, of_process, phases.get(pid, [])))
    return pl.concat(parts)


def work_inside(ranges: pl.DataFrame, by_leaves: pl.DataFrame) -> pl.DataFrame:
    """Return every range with the kernels launched inside it, those of inner ranges included."""
    leaves = by_leaves.explode("leaves", empty_as_null=True).rename({"leaves": "range_id"})
    own = leaves.group_by("range_id").agg(**_WORK)
    return _rolled_up(ranges.join(own, on="range_id", how="left"))


def worked_for(linked: Linked, moments: pl.DataFrame, ranges: pl.DataFrame) -> pl.Series:
    """Return the thread that each moment's thread then works for, null where that is itself.

    Args:
        linked: for phases, and for the names of threads.
        moments: pid, launch_tid and launch_ns.
        ranges: what tells which threads do something, nested.
    """
    phases = _phases(linked)
    known = moments.with_row_index("place").drop_nulls()
    by_pid = known.partition_by("pid", as_dict=True)
    found = pl.repeat(None, moments.height, dtype=pl.Int32, eager=True)
    for (pid,), of_process in ranges.group_by("pid"):
        if (mine := by_pid.get((pid,))) is not None:
            hosts = _hosts(linked, mine, _tracks(of_process), phases.get(pid, []))
            found = found.scatter(mine["place"], hosts)
    return found


def _phases(linked: Linked) -> dict[int, list[PhaseRange]]:
    phases: dict[int, list[PhaseRange]] = {}
    for phase_range in phase_ranges(linked.trace, linked.rules):
        phases.setdefault(phase_range.pid, []).append(phase_range)
    return phases


def _tracks(ranges: pl.DataFrame) -> dict[tuple[int, int], Timeline]:
    """Return what is open when, by thread and lane, of the ranges of one process."""
    return {
        (tid, lane): timeline(track)
        for (tid, lane), track in ranges.sort("start_ns").group_by("tid", "lane")
    }


def _of_process(
    linked: Linked, work: pl.DataFrame, ranges: pl.DataFrame, phases: Sequence[PhaseRange]
) -> pl.DataFrame:
    tracks = _tracks(ranges)
    work = work.with_columns(host=_hosts(linked, work, tracks, phases))
    columns = _leaves(work, tracks)
    by_leaf = (
        work.lazy()
        .select("start_ns", "end_ns", **columns)
        .filter(pl.any_horizontal(pl.col(list(columns)).is_not_null()))
        .group_by(list(columns))
        .agg(
            kernels=pl.len(),
            kernel_time_ns=_TOOK.sum(),
            first_ns=pl.col("start_ns").min(),
            last_ns=pl.col("end_ns").max(),
        )
        .with_columns(leaves=pl.concat_list(list(columns)).list.drop_nulls())
    )
    return by_leaf.select(_EMPTY.columns).collect()


def _leaves(work: pl.DataFrame, tracks: Mapping[tuple[int, int], Timeline]) -> dict[str, pl.Series]:
    """Return the innermost range of each op, by role of the thread and by lane."""
    leaves: dict[str, pl.Series] = {}
    for role in ("launch_tid", "host"):
        rows = (
            work.select("launch_ns", role).with_row_index("row").filter(pl.col(role).is_not_null())
        )
        by_tid = rows.partition_by(role, as_dict=True)
        for (tid, lane), track in tracks.items():
            if (mine := by_tid.get((tid,))) is None:
                continue
            name = f"{role} {lane}"
            if name not in leaves:
                leaves[name] = pl.repeat(None, work.height, dtype=pl.UInt32, eager=True)
            leaves[name] = leaves[name].scatter(mine["row"], at(*track, mine["launch_ns"]))
    return leaves or {"launch_tid 0": pl.repeat(None, work.height, dtype=pl.UInt32, eager=True)}


def _hosts(
    linked: Linked,
    work: pl.DataFrame,
    tracks: Mapping[tuple[int, int], Timeline],
    phases: Sequence[PhaseRange],
) -> pl.Series:
    """Return the thread that each op's launching thread works for, null where it is its own."""
    pid = work["pid"][0]
    found = pl.coalesce(_only_other(work, _phase_tracks(phases)), _only_other(work, tracks))
    worker = pl.col("launch_tid").is_in(list(_autograd_tids(linked, pid)))
    return work.select(host=pl.when(worker | ~_has_own(work, tracks)).then(found))["host"]


def _has_own(work: pl.DataFrame, tracks: Mapping[tuple[int, int], Timeline]) -> pl.Series:
    """Tell of each op whether its launching thread has a range open."""
    by_tid: dict[int, list[Timeline]] = {}
    for (tid, _), track in tracks.items():
        by_tid.setdefault(tid, []).append(track)
    rows = work.select("launch_tid", "launch_ns").with_row_index()
    held = [pl.Series("index", [], dtype=rows.schema["index"])]
    for (tid,), mine in rows.partition_by("launch_tid", as_dict=True).items():
        opens = (at(*track, mine["launch_ns"]).is_not_null() for track in by_tid.get(tid, ()))
        held += (mine["index"].filter(is_open) for is_open in opens)
    return rows["index"].is_in(pl.concat(held).implode())


def _only_other(work: pl.DataFrame, tracks: Mapping[tuple[int, int], Timeline]) -> pl.Series:
    """Return the only thread other than each op's own that holds a range at its launch."""
    events = sorted(
        (time, key, label is not None)
        for key, (times, labels) in tracks.items()
        for time, label in zip(times, labels, strict=True)
    )
    # Per thread, the lanes that hold; one thread or two at most tell of a third what it needs.
    holding: dict[int, set[int]] = {}
    two: dict[int, tuple[int | None, int | None]] = {}
    for time, (tid, lane), holds in events:
        lanes = holding.setdefault(tid, set())
        (lanes.add if holds else lanes.discard)(lane)
        if not lanes:
            del holding[tid]
        one, other = (*holding, None, None)[:2] if len(holding) <= 2 else (None, None)
        two[time] = one, other
    times = pl.Series(list(two), dtype=pl.Int64)
    first, second = (
        at(times, pl.Series([pair[i] for pair in two.values()], dtype=pl.Int32), work["launch_ns"])
        for i in range(2)
    )
    me = pl.col("launch_tid")
    only = (
        pl.when(second.is_null() & (first != me))
        .then(first)
        .when(first == me)
        .then(second)
        .when(second == me)
        .then(first)
    )
    return work.select(only=only)["only"]


def _phase_tracks(phases: Sequence[PhaseRange]) -> dict[tuple[int, int], Timeline]:
    by_tid: dict[int, list[tuple[int, int, int]]] = {}
    for phase in phases:
        by_tid.setdefault(phase.tid, []).append((phase.start_ns, phase.end_ns, phase.code))
    return {(tid, 0): innermost(spans) for tid, spans in by_tid.items()}


def _autograd_tids(linked: Linked, pid: int) -> set[int]:
    threads = linked.trace.get("threads")
    rows: Iterable[tuple[int, int, str]] = () if threads is None else threads.collect().rows()
    return {tid for p, tid, name in rows if p == pid and is_autograd_thread(name)}


def _rolled_up(ranges: pl.DataFrame) -> pl.DataFrame:
    """Add the work of every range to the ranges around it, which come before it."""
    ranges = ranges.sort("range_id").with_columns(pl.col("kernels", "kernel_time_ns").fill_null(0))
    row_of = {range_id: row for row, range_id in enumerate(ranges["range_id"])}
    kernels, took, first, last = (ranges[name].to_list() for name in _WORK)
    parents = ranges["parent"].to_list()
    for row in range(ranges.height - 1, -1, -1):
        # Of a trace that was cut, the range around may be outside.
        if not kernels[row] or (around := row_of.get(parents[row])) is None:
            continue
        known = kernels[around] > 0
        kernels[around] += kernels[row]
        took[around] += took[row]
        first[around] = min(first[around], first[row]) if known else first[row]
        last[around] = max(last[around], last[row]) if known else last[row]
    sums = dict(zip(_WORK, (kernels, took, first, last), strict=True))
    return ranges.with_columns(
        pl.Series(name, values, dtype=ranges.schema[name]) for name, values in sums.items()
    )
