"""GPU work in nsys exports: kernels, copies, memsets and whole-graph launches."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens.readers.nsys import own
from tracelens.readers.nsys.gather import cast, pid
from tracelens.readers.nsys.names import own_id
from tracelens.trace.schema import GPU_OPS, OP_KINDS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tracelens.readers.nsys.gather import Gather
    from tracelens.readers.nsys.names import Names

# CUPTI's CUpti_ActivityMemcpyKind; ENUM_CUDA_MEMCPY_OPER of every export repeats it.
COPIES: Final = {
    1: ("HtoD", "Host-to-Device"),
    2: ("DtoH", "Device-to-Host"),
    3: ("HtoA", "Host-to-Array"),
    4: ("AtoH", "Array-to-Host"),
    5: ("AtoA", "Array-to-Array"),
    6: ("AtoD", "Array-to-Device"),
    7: ("DtoA", "Device-to-Array"),
    8: ("DtoD", "Device-to-Device"),
    9: ("HtoH", "Host-to-Host"),
    10: ("PtoP", "Peer-to-Peer"),
    11: ("UnifiedHtoD", "Unified Host-to-Device"),
    12: ("UnifiedDtoH", "Unified Device-to-Host"),
    13: ("UnifiedDtoD", "Unified Device-to-Device"),
}
_SHARED: Final = {
    "start_ns": "start",
    "end_ns": "end",
    "device": "deviceId",
    "context": "contextId",
    "stream": "streamId",
    "correlation": "correlationId",
    "process": "globalPid",
}
_LAUNCH_SHAPE: Final = {
    "grid_x": "gridX",
    "grid_y": "gridY",
    "grid_z": "gridZ",
    "block_x": "blockX",
    "block_y": "blockY",
    "block_z": "blockZ",
    "registers": "registersPerThread",
    "static_bytes": "staticSharedMemory",
    "dynamic_bytes": "dynamicSharedMemory",
}
_GRAPH_TABLES: Final = {
    "CUPTI_ACTIVITY_KIND_GRAPH_TRACE",
    "CUDA_GRAPH_EVENTS",
    "CUDA_GRAPH_NODE_EVENTS",
}
_NAME_COLUMNS: Final = ("demangledName", "shortName", "mangledName")


@dataclass(frozen=True)
class Activity:
    """One nsys table of GPU work: ``columns`` are ours -> theirs beyond those all share."""

    table: str
    kind: str
    columns: Mapping[str, str] = field(default_factory=dict)


ACTIVITIES: Final = (
    Activity(
        "CUPTI_ACTIVITY_KIND_KERNEL",
        "kernel",
        {"graph_id": "graphId", "graph_node": "graphNodeId"},
    ),
    Activity(
        "CUPTI_ACTIVITY_KIND_MEMCPY",
        "copy",
        {
            "bytes": "bytes",
            "copy_code": "copyKind",
            "graph_id": "graphId",
            "graph_node": "graphNodeId",
        },
    ),
    Activity(
        "CUPTI_ACTIVITY_KIND_MEMSET",
        "memset",
        {"bytes": "bytes", "graph_id": "graphId", "graph_node": "graphNodeId"},
    ),
    Activity("CUPTI_ACTIVITY_KIND_GRAPH_TRACE", "graph", {"graph_id": "graphId"}),
)


def gpu_ops(gather: Gather, names: Names) -> pl.LazyFrame | None:
    """Return the `gpu_ops` table, or None where the export has no table of GPU work."""
    present = [a for a in ACTIVITIES if gather.has(a.table, ("start", "end"))]
    if not present:
        return None
    frames = {a.kind: _activity(gather, names, a) for a in present}
    if "kernel" in frames and "graph" in frames:
        frames["graph"] = _not_traced_by_node(frames["graph"], frames["kernel"])
    ops = pl.concat(frames.values()).with_row_index("op_id")
    return ops.select(cast(GPU_OPS.schema(everything=gather.everything)))


def _activity(gather: Gather, names: Names, activity: Activity) -> pl.LazyFrame:
    have = gather.storage.tables()[activity.table]
    columns = {**_SHARED, **activity.columns}
    if "globalPid" not in have:
        gather.note("missing", f"{activity.table} names no process: its work cannot be attributed.")
    if activity.kind == "kernel":
        if not _GRAPH_TABLES & gather.storage.tables().keys():
            # No graph was seen, so that these are null in every row.
            columns = {o: t for o, t in columns.items() if o not in ("graph_id", "graph_node")}
        columns["name_id"] = next((c for c in _NAME_COLUMNS if c in have), _NAME_COLUMNS[0])
        columns |= _LAUNCH_SHAPE if gather.everything else {}
    schema = {n: t for n, t in GPU_OPS.schema(everything=gather.everything).items() if n != "op_id"}
    made = _made(activity, names, gather)
    if own.NAME in have:
        columns["own_name"] = own.NAME
        made["name_id"] = pl.coalesce(own_id("own_name"), made["name_id"])
    lacking = {n: pl.lit(None, t) for n, t in schema.items() if n not in columns and n not in made}

    def change(raw: pl.DataFrame) -> pl.DataFrame:
        good = gather.sound(activity.table, raw)
        return good.with_columns(**lacking, **made).select(cast(schema))

    frame = gather.read(activity.table, columns, change)
    return names.resolved(frame) if {"name_id", "own_name"} & columns.keys() else frame


def _made(activity: Activity, names: Names, gather: Gather) -> dict[str, pl.Expr]:
    """Return the columns that are not read as they stand."""
    made = {
        "kind": pl.lit(activity.kind, pl.Enum(OP_KINDS)),
        "pid": pid("process", gather.machines),
    }
    if activity.kind == "kernel":
        unnamed = names.id_of("(unnamed kernel)")
        made["name_id"] = own_id("name_id").fill_null(unnamed)
        if gather.everything:
            shared = pl.col("static_bytes", "dynamic_bytes")
            made["shared_bytes"] = pl.when(pl.any_horizontal(shared.is_not_null())).then(
                pl.sum_horizontal(shared)
            )
    elif activity.kind == "memset":
        made["name_id"] = pl.lit(names.id_of("[CUDA memset]"))
    elif activity.kind == "graph":
        made["name_id"] = pl.lit(names.id_of("[CUDA graph]"))
    else:
        code = pl.col("copy_code")
        labels = {c: names.id_of(f"[CUDA memcpy {label}]") for c, (_, label) in COPIES.items()}
        unknown = names.id_of("[CUDA memcpy of unknown kind]")
        kinds = {c: kind for c, (kind, _) in COPIES.items()}
        made["copy_kind"] = code.replace_strict(kinds, default="unknown", return_dtype=pl.String)
        made["name_id"] = code.replace_strict(labels, default=unknown, return_dtype=pl.Int32)
    return made


def _not_traced_by_node(graphs: pl.LazyFrame, kernels: pl.LazyFrame) -> pl.LazyFrame:
    """Return the graph launches whose nodes are not recorded as kernels of their own."""
    nodes = kernels.filter(pl.col("graph_node").is_not_null()).select("pid", "correlation")
    kept = graphs.join(nodes.unique(), on=["pid", "correlation"], how="anti")
    return kept.collect().lazy()
