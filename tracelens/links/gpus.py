"""Which GPU a process means by a device number: ranks that each see one GPU all call theirs 0."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import polars as pl

from tracelens.trace.model import Caveat

if TYPE_CHECKING:
    from tracelens.trace.model import Trace


def by_gpu(trace: Trace) -> Trace:
    """Return the trace with devices numbered the same way in every process.

    Where processes mean different GPUs by one number (CUDA_VISIBLE_DEVICES), `device` becomes the
    recorder's number of the GPU, and a caveat says so. Everything else stays as it is.
    """
    table, ops = trace.get("devices"), trace.get("gpu_ops")
    if table is None or ops is None:
        return trace
    seen = table.filter(pl.col("pid").is_not_null(), pl.col("gpu").is_not_null())
    meant = seen.select("pid", "device", "gpu").unique().collect()
    if meant.group_by("device").agg(pl.col("gpu").n_unique())["gpu"].max() in (None, 1):
        return trace
    if meant.select(pl.struct("pid", "device").is_duplicated().any()).item():
        return trace
    gpu = pl.coalesce("gpu", "device").alias("device")
    numbered = (
        ops.join(meant.lazy(), on=["pid", "device"], how="left", maintain_order="left")
        .with_columns(gpu)
        .drop("gpu")
    )
    devices = table.with_columns(gpu)
    text = "Processes number their GPUs differently: devices are numbered as the recorder does."
    changed = replace(trace, tables={**trace.tables, "gpu_ops": numbered, "devices": devices})
    return changed.with_caveats(Caveat("note", text))
