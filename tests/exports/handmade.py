"""Traces by hand, straight in the data model: what an exporter must carry, whoever recorded it.

Rows are dictionaries; what a row leaves out is null, and `name` stands for the row's `name_id`::

    trace = made(
        gpu_ops=[{"kind": "kernel", "start_ns": 5, "end_ns": 9, "pid": 1, "name": "k"}],
        ranges=[{"kind": "op", "start_ns": 0, "end_ns": 9, "pid": 1, "tid": 1, "name": "aten::mm"}],
    )
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
from polars.testing import assert_frame_equal

from tracelens.trace.model import Caveat, Source, Trace
from tracelens.trace.nesting import nested
from tracelens.trace.schema import TABLES

Row = dict[str, Any]


def made(
    path: Path = Path("rank0.json"),
    facts: dict[str, str] | None = None,
    caveats: tuple[Caveat, ...] = (),
    **tables: list[Row],
) -> Trace:
    """Return a trace with these tables, in the order in which readers give them."""
    names: dict[str, int] = {}
    for rows in tables.values():
        for row in rows:
            if "name" in row and rows not in (tables.get("threads"), tables.get("devices")):
                names.setdefault(row["name"], len(names) - 2)
    frames = {name: _frame(name, rows, names) for name, rows in tables.items()}
    if "gpu_ops" in frames:
        ops = frames["gpu_ops"].drop("op_id").with_row_index("op_id")
        frames["gpu_ops"] = ops.select(list(TABLES["gpu_ops"].schema(everything=True)))
    if "ranges" in frames:
        plain = frames["ranges"].drop("range_id", "depth", "lane", "parent")
        frames["ranges"] = nested(plain).select(list(TABLES["ranges"].schema()))
    frames["names"] = _frame(
        "names", [{"name_id": number, "name": text} for text, number in names.items()], {}
    )
    source = Source(path, "kineto-json", "PyTorch", None, facts or {})
    return Trace(source, {name: frame.lazy() for name, frame in frames.items()}, caveats)


def _frame(name: str, rows: list[Row], names: dict[str, int]) -> pl.DataFrame:
    schema = TABLES[name].schema(everything=True)
    whole = [{**row, "name_id": names.get(row.get("name", ""))} | row for row in rows]
    if name == "ranges":
        whole = [{"domain": "", "closed": True, **row} for row in whole]
    columns = {c: pl.Series([row.get(c) for row in whole], dtype=t) for c, t in schema.items()}
    return pl.DataFrame(columns)


def pytorch_step() -> Trace:
    """Return one step of a profile with stacks, shapes, memory and a collective.

    A kernel, a copy and a kernel again: GPU work does not come ordered by kind. The op that
    launched the last kernel is the gradient of the first op.
    """
    thread: Row = {"pid": 100, "tid": 100}
    autograd: Row = {"pid": 100, "tid": 101}
    gpu: Row = {"pid": 100, "device": 0, "stream": 7, "context": 1}
    return made(
        facts={"epoch_ns": "1790857026000000123", "rank": "0", "world_size": "2"},
        caveats=(Caveat("lost", "3 events were dropped."),),
        gpu_ops=[
            gpu | {"kind": "kernel", "name": "void gemm<4>(int)", "start_ns": 40, "end_ns": 90,
                   "correlation": 11, "grid_x": 3, "block_x": 128, "shared_bytes": 512},
            gpu | {"kind": "copy", "name": "Memcpy HtoD (Pinned -> Device)", "start_ns": 90,
                   "end_ns": 95, "correlation": 12, "bytes": 4096, "copy_kind": "HtoD"},
            gpu | {"kind": "kernel", "name": "ncclDevKernel_AllReduce", "start_ns": 130,
                   "end_ns": 180, "correlation": 13, "stream": 17},
        ],
        api=[
            thread | {"name": "cudaLaunchKernel", "start_ns": 20, "end_ns": 25, "correlation": 11},
            thread | {"name": "cudaMemcpyAsync", "start_ns": 50, "end_ns": 55, "correlation": 12},
            autograd | {"name": "cuLaunchKernelEx", "start_ns": 120, "end_ns": 125,
                        "correlation": 13, "status": 0},
        ],
        ranges=[
            thread | {"kind": "python", "name": "train.py(3): step", "start_ns": 0, "end_ns": 200},
            thread | {"kind": "annotation", "name": "forward", "start_ns": 5, "end_ns": 60},
            thread | {"kind": "op", "name": "aten::mm", "start_ns": 10, "end_ns": 30},
            thread | {"kind": "annotation", "name": "backward", "start_ns": 100, "end_ns": 190},
            autograd | {"kind": "op", "name": "MmBackward0", "start_ns": 110, "end_ns": 128},
        ],
        ops=[
            {"range_id": 2, "sequence": 7, "external_id": 5, "dims": "[[4, 8], [8, 2]]",
             "types": '["float"]'},
            {"range_id": 4, "sequence": 7, "forward": 2, "forward_thread": 1, "external_id": 6},
        ],
        launched_by=[{"op_id": 0, "range_id": 2}, {"op_id": 2, "range_id": 4}],
        collectives=[{"op_id": 2, "collective": "allreduce", "in_elements": 2**40, "dtype": "Float",
                      "group_size": 2, "ranks": "[0, 1]"}],
        threads=[thread | {"name": "python3"}, autograd | {"name": "pt_autograd_0"}],
        devices=[{"device": 0, "name": "NVIDIA H200", "sm_count": 132, "capability": "9.0",
                  "memory_bytes": 150_109_880_320}],
        memory=[
            thread | {"time_ns": 12, "device": 0, "action": "alloc", "address": 0x7F00,
                      "size_bytes": 64, "memory_kind": "device", "allocated_bytes": 1064,
                      "reserved_bytes": 2048},
            thread | {"time_ns": 35, "device": 0, "action": "free", "address": 0x7F00,
                      "size_bytes": 64, "memory_kind": "device", "allocated_bytes": 1000,
                      "reserved_bytes": 2048},
        ],
    )  # fmt: skip


def snapshot() -> Trace:
    """Return a memory snapshot: two blocks of one segment, and an allocation that failed."""
    at: Row = {"device": 0, "pid": 0, "stream": 0}
    memory = [
        at | {"action": "segment_alloc", "address": 4096, "size_bytes": 2048, "stack_id": 0},
        at | {"action": "alloc", "address": 4096, "size_bytes": 512, "stack_id": 1},
        at | {"action": "alloc", "address": -4096, "size_bytes": 100, "pool": "1,0",
              "context": "compiled", "metadata": "layer 3"},
        at | {"action": "free_requested", "address": -4096, "size_bytes": 100},
        at | {"action": "free_completed", "address": -4096, "size_bytes": 100},
        at | {"action": "oom", "size_bytes": 2**40, "free_bytes": 12},
    ]  # fmt: skip
    timed = [{**row, "time_ns": 1_790_857_026_000_000_000 + n} for n, row in enumerate(memory)]
    timed[3]["time_ns"] = None
    return made(
        Path("snapshot.pickle"),
        facts={"epoch_ns": "0"},
        ranges=[{"kind": "annotation", "pid": 0, "tid": 0, "name": "forward", "closed": False,
                 "start_ns": 1_790_857_026_000_000_000, "end_ns": 1_790_857_026_000_000_005}],
        memory=timed,
        segments=[{"segment_id": 0, "device": 0, "address": 4096, "size_bytes": 2048, "stream": 0,
                   "segment_kind": "small", "expandable": False, "stack_id": 0}],
        blocks=[
            {"segment_id": 0, "device": 0, "address": 4096, "size_bytes": 512,
             "requested_bytes": 512, "state": "active_allocated", "stack_id": 1},
            {"segment_id": 0, "device": 0, "address": 4608, "size_bytes": 1536,
             "requested_bytes": 0, "state": "inactive"},
        ],
        stacks=[{"stack_id": 0, "depth": 0, "frame_id": 1}, {"stack_id": 1, "depth": 0,
                "frame_id": 0}, {"stack_id": 1, "depth": 1, "frame_id": 1}],
        frames=[{"frame_id": 0, "function": "relu", "file": "a.py", "line": 3},
                {"frame_id": 1, "function": "main", "file": "b.py", "line": 9}],
    )  # fmt: skip


def rows(trace: Trace, table: str) -> pl.DataFrame:
    """Return a table with `name` in place of `name_id`, and GPU work by kind, as it is exported."""
    frame = trace[table].collect()
    if "name_id" in frame.columns and table != "names":
        names = trace["names"].collect()
        frame = frame.join(names, on="name_id", how="left", maintain_order="left").drop("name_id")
    if table == "gpu_ops":
        frame = frame.sort("kind", "op_id").drop("op_id")
    return frame


def without(trace: Trace, *tables: str) -> Trace:
    """Return a trace without some tables."""
    kept = {name: frame for name, frame in trace.tables.items() if name not in tables}
    return replace(trace, tables=kept)


def assert_same(before: Trace, after: Trace) -> None:
    """Tell that a trace has lost nothing but the numbers of its names and of its GPU work."""
    assert before.tables.keys() == after.tables.keys()
    for name in before.tables.keys() - {"names"}:
        assert_frame_equal(rows(before, name), rows(after, name), check_column_order=False)
    assert before.source.facts.items() <= after.source.facts.items()
    assert set(before.caveats) <= set(after.caveats)
