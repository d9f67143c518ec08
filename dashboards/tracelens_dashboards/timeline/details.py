"""Everything that is known of one item: where it ran, who launched it, and what it launched."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl

from tracelens import units
from tracelens.analyses.ranges import instances
from tracelens_dashboards.launch_shapes import launch_shapes
from tracelens_dashboards.names import plain
from tracelens_dashboards.timeline.find import reference
from tracelens_dashboards.timeline.pyramid import NONE
from tracelens_dashboards.timeline.rows import timeline as rows_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracelens.links.linked import Linked
    from tracelens_dashboards.library import Opened
    from tracelens_dashboards.timeline.rows import Row, Timeline

MOST_LAUNCHED: Final = 100


def details(opened: Opened, row: Row, item: int) -> dict[str, Any]:
    """Return what is known of an item of a row, as JSON may hold it."""
    timeline = rows_of(opened)
    spans = row.lanes[0].spans
    found = reference(timeline, row, item)
    one = np.array([item], np.uint32)
    phase, family = (int(spans.codes(key, one)[0]) for key in ("phase", "family"))
    about = {
        **found,
        "name": timeline.names.full(int(spans.name[item])),
        "short_name": found["name"],
        "kind": row.kind,
        "duration_ns": found["end_ns"] - found["start_ns"],
        "phase": None if phase == NONE else timeline.phases[phase],
        "family": None if family == NONE else timeline.families[family],
        "launch": None,
        "op": None,
        "ranges": [],
        "python": [],
        "graph": None,
        "work": None,
        "launched": [],
        "launched_count": 0,
    }
    if row.kind == "stream":
        return about | _of_gpu_op(opened, timeline, item)
    if row.kind == "api":
        return about | _of_call(opened.linked, timeline, row, item)
    return about | _of_range(opened, timeline, row, item)


def _of_gpu_op(opened: Opened, timeline: Timeline, item: int) -> dict[str, Any]:
    linked = opened.linked
    columns = ("context", "stream", "bytes", "copy_kind", "graph_id", "graph_node")
    one = linked.with_columns_of_ops(*columns).slice(item, 1).collect().row(0, named=True)
    facts = [
        ("kind", one["kind"] if one["copy_kind"] is None else f"{one['kind']} {one['copy_kind']}"),
        ("device", one["device"]),
        ("stream", one["stream"]),
        ("context", one["context"]),
        ("process", one["pid"]),
    ]
    if one["bytes"] is not None:
        took = one["end_ns"] - one["start_ns"]
        facts.append(("bytes", units.size(one["bytes"])))
        if took:
            facts.append(("rate", units.rate(one["bytes"] / took * 1e9)))
    if one["kind"] == "kernel":
        facts += _shape(opened, item)
    pid, tid, at = one["pid"], one["launch_tid"], one["launch_ns"]
    known: dict[str, Any] = {"kind": one["kind"]}
    if one["graph_id"] is not None or one["graph_node"] is not None:
        known["graph"] = {name: one[name] for name in ("graph_id", "graph_node")}
    if at is not None:
        facts.append(("start after launch", units.time(one["start_ns"] - at)))
        known |= _around(timeline, pid, tid, at)
    if one["launch_row"] is not None:
        row = _on_thread(timeline, "api", pid, tid, one["launch_row"])
        known["launch"] = row and reference(timeline, row, one["launch_row"])
    if known.get("op") is None:
        known["op"] = _named_launcher(linked, timeline, item)
    return known | {"facts": _facts(facts)}


def _of_call(linked: Linked, timeline: Timeline, row: Row, item: int) -> dict[str, Any]:
    spans = row.lanes[0].spans
    pid, tid = _thread(row)
    launched = linked.ops.filter(pl.col("launch_row") == item)
    ops = launched.head(MOST_LAUNCHED)["op_id"]
    places = [(timeline.where("gpu_ops", op), op) for op in ops]
    facts = [("process", pid), ("thread", tid)]
    return {
        "facts": _facts(facts),
        **_around(timeline, pid, tid, int(spans.start[item])),
        "work": _work(launched),
        "launched": [reference(timeline, place, op) for place, op in places if place],
        "launched_count": launched.height,
    }


def _of_range(opened: Opened, timeline: Timeline, row: Row, item: int) -> dict[str, Any]:
    """Return what was launched inside a range, by the toolkit's rules, and the ranges around it.

    For a range that the user named, that is the work of autograd's thread, too, as in the table
    `ranges`; for an op, what its own thread launched.
    """
    spans = row.lanes[0].spans
    start, end = int(spans.start[item]), int(spans.end[item])
    pid, tid = _thread(row)
    around = _around(timeline, pid, tid, start, until=end, but=item)
    place = {"pid": pid, "tid": tid, "start_ns": start, "end_ns": end}
    work = _named_work(opened, place) or _own_work(opened.linked, place)
    return {"facts": _facts([("process", pid), ("thread", tid)]), **around, "work": work}


def _named_work(opened: Opened, place: dict[str, int]) -> dict[str, int] | None:
    """Return the work of a range that the user named; None of any other."""
    known = opened.once("timeline range work", lambda: instances(opened.linked))
    found = known.filter(**place).select("kernels", "kernel_time_ns").head(1)
    if found.is_empty():
        return None
    kernels, took = found.row(0)
    return {"kernels": int(kernels or 0), "kernel_time_ns": int(took or 0)}


def _own_work(linked: Linked, place: dict[str, int]) -> dict[str, int]:
    at = pl.col("launch_ns")
    mine = (pl.col("pid") == place["pid"]) & (pl.col("launch_tid") == place["tid"])
    inside = mine & (at >= place["start_ns"]) & (at < place["end_ns"])
    return _work(linked.ops.filter(inside))


def _around(
    timeline: Timeline, pid: int, tid: int, ns: int, *, until: int = 0, but: int = -1
) -> dict[str, Any]:
    """Return what is open on a thread at a time (and lasts until another).

    Ranges and Python's calls stand outermost first; the op is the innermost one.
    """
    found: dict[str, list[dict[str, Any]]] = {"ranges": [], "python": [], "ops": []}
    for row in timeline.of_thread(pid, tid):
        if row.kind in found:
            for lane in row.lanes:
                for item in lane.window(ns, ns + 1).tolist():
                    if lane.spans.end[item] >= max(until, ns + 1) and item != but:
                        found[row.kind].append(reference(timeline, row, item))
    for some in found.values():
        some.sort(key=lambda r: (r["start_ns"], -r["end_ns"]))
    op = found["ops"][-1] if found["ops"] else None
    return {"ranges": found["ranges"], "python": found["python"], "op": op}


def _named_launcher(linked: Linked, timeline: Timeline, item: int) -> dict[str, Any] | None:
    """Return the op that the recorder itself names as a GPU op's launcher."""
    named = linked.trace.get("launched_by")
    if named is None:
        return None
    rows = named.filter(pl.col("op_id") == item).select("range_id").head(1).collect()
    if rows.is_empty():
        return None
    op = int(rows["range_id"][0])
    row = timeline.where("ranges", op)
    return reference(timeline, row, op) if row else None


def _thread(row: Row) -> tuple[int, int]:
    pid, tid = row.key
    return pid or 0, tid or 0


def _on_thread(timeline: Timeline, table: str, pid: int, tid: int, item: int) -> Row | None:
    rows = (r for r in timeline.of_thread(pid, tid) if r.table == table and r.holds(item))
    return next(rows, None)


def _work(ops: pl.DataFrame) -> dict[str, int]:
    kernels = ops.filter(pl.col("kind") == "kernel")
    took = (kernels["end_ns"] - kernels["start_ns"]).sum()
    return {"kernels": kernels.height, "kernel_time_ns": int(took)}


def _shape(opened: Opened, item: int) -> Iterator[tuple[str, Any]]:
    """Give grid, block, registers and shared memory, where they were recorded."""
    shapes = launch_shapes(opened)
    if item >= shapes.height:
        return
    one = shapes.row(item, named=True)
    for name in ("grid", "block"):
        sides = [one[f"{name}_{axis}"] for axis in "xyz"]
        if None not in sides:
            yield name, " × ".join(map(units.count, sides))
    if one["registers"] is not None:
        yield "registers per thread", one["registers"]
    if one["shared_bytes"] is not None:
        yield "shared memory", units.size(one["shared_bytes"])


def _facts(pairs: list[tuple[str, Any]]) -> list[dict[str, str]]:
    return [
        {"label": label, "text": plain(str(value))} for label, value in pairs if value is not None
    ]
