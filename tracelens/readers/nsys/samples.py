"""Memory-usage events and GPU metrics in nsys exports, read when somebody asks for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import polars as pl

from tracelens.readers.nsys.gather import cast, pid
from tracelens.trace.schema import COUNTERS, MEMORY

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tracelens.readers.nsys.gather import Gather

USAGE: Final = "CUDA_GPU_MEMORY_USAGE_EVENTS"
METRICS: Final = "GPU_METRICS"
METRIC_NAMES: Final = "TARGET_INFO_GPU_METRICS"
# ENUM_CUDA_DEV_MEM_EVENT_OPER and ENUM_CUDA_MEM_KIND.
OPERATIONS: Final = {0: "alloc", 1: "free"}
MEMORY_KINDS: Final = {
    0: "pageable",
    1: "pinned",
    2: "device",
    3: "array",
    4: "managed",
    5: "device static",
    6: "managed static",
}


def memory(gather: Gather) -> pl.LazyFrame | None:
    """Return the `memory` table in order of time; sizes are what was asked of CUDA itself."""
    if not gather.has(USAGE, ("start", "bytes", "memoryOperationType")):
        return None
    columns = {
        "time_ns": "start",
        "process": "globalPid",
        "device": "deviceId",
        "address": "address",
        "size_bytes": "bytes",
        "operation": "memoryOperationType",
        "kind": "memKind",
    }
    known = (*columns, "pid", "action", "memory_kind")
    schema = {n: t for n, t in MEMORY.schema().items() if n in known}

    def change(raw: pl.DataFrame) -> pl.DataFrame:
        made = raw.with_columns(
            pid=pid("process", gather.machines),
            action=_label("operation", OPERATIONS),
            memory_kind=_label("kind", MEMORY_KINDS),
        )
        return made.select(cast(schema)).filter(pl.col("time_ns").is_not_null())

    frame = gather.read(USAGE, columns, change).sort("time_ns", maintain_order=True)
    lacking = {n: pl.lit(None, t) for n, t in MEMORY.schema().items() if n not in schema}
    return frame.with_columns(**lacking).select(list(MEMORY.schema()))


def counters(gather: Gather) -> pl.LazyFrame | None:
    """Return the `counters` table: GPU metrics named by TARGET_INFO_GPU_METRICS."""
    if not gather.has(METRICS, ("timestamp", "metricId", "value")):
        return None
    columns = {
        "time_ns": "timestamp",
        "type_id": "typeId",
        "metric_id": "metricId",
        "value": "value",
    }
    raw = gather.read(METRICS, columns, lambda part: part)
    rows = gather.storage.records(METRIC_NAMES)
    labels = pl.LazyFrame(
        {
            "type_id": pl.Series([_number(r, "typeId") for r in rows], dtype=pl.Int64),
            "metric_id": pl.Series([_number(r, "metricId") for r in rows], dtype=pl.Int64),
            "name": pl.Series([str(r.get("metricName") or "") for r in rows], dtype=pl.String),
        }
    ).unique(["type_id", "metric_id"], keep="first")
    named = raw.join(labels, on=["type_id", "metric_id"], how="left", nulls_equal=True)
    return (
        named.with_columns(
            # The low byte of a metric's type is the GPU's number.
            device=pl.col("type_id") % 256,
            name=pl.coalesce("name", pl.format("metric {}", "metric_id")),
        )
        .select(cast(COUNTERS.schema()))
        .sort("time_ns", "device", "name", maintain_order=True)
    )


def _label(column: str, labels: Mapping[int, str]) -> pl.Expr:
    return pl.col(column).replace_strict(labels, default="unknown", return_dtype=pl.String)


def _number(row: Mapping[str, Any], key: str) -> int | None:
    value = row.get(key)
    return value if isinstance(value, int) and -(2**63) <= value < 2**63 else None
