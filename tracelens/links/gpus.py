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
    table = trace.get("devices")
    work = [name for name in ("gpu_ops", "memory") if name in trace]
    if table is None or not work:
        return trace
    seen = table.filter(pl.col("pid").is_not_null(), pl.col("gpu").is_not_null())
    meant = seen.select("pid", "device", "gpu").unique().collect()
    if meant.group_by("device").agg(pl.col("gpu").n_unique())["gpu"].max() in (None, 1):
        return trace
    if meant.select(pl.struct("pid", "device").is_duplicated().any()).item():
        return trace
    gpu = pl.coalesce("gpu", "device").alias("device")
    numbered = {
        name: trace[name]
        .join(meant.lazy(), on=["pid", "device"], how="left", maintain_order="left")
        .with_columns(gpu)
        .drop("gpu")
        for name in work
    }
    devices = table.with_columns(gpu)
    text = "Processes number their GPUs differently: devices are numbered as the recorder does."
    changed = replace(trace, tables={**trace.tables, **numbered, "devices": devices})
    return changed.with_caveats(Caveat("note", text))
