"""What the CPU did in each phase: calls of PyTorch's ops, their time, and the matmul part of it."""

from __future__ import annotations

from typing import Final

import polars as pl

from tracelens.analyses import Analysis
from tracelens.links.flops import FORMULAS
from tracelens.links.linked import NO_PHASE, Linked
from tracelens.links.ops import calls, ops_of
from tracelens.links.phases import phase_at
from tracelens.trace.intervals import window

_SCHEMA: Final = {
    "phase": pl.String,
    "calls": pl.Int64,
    "self_cpu_ns": pl.Int64,
    "share": pl.Float64,
    "matmul": pl.Float64,
    "flops": pl.Int64,
    "flops_per_s": pl.Float64,
}


@Analysis
def cpu_phases(linked: Linked) -> pl.DataFrame:
    """Return one row per phase, in the order of training; the last one is of ops in no phase.

    An op belongs to the phase that its thread is in when it is called; one on another thread, as
    autograd's, to the phase that holds in its process. `self_cpu_ns` adds up to the time in which
    threads were inside of ops (two threads at once count twice), of which `share` is the part,
    0..1. `matmul` is the part of a phase's time inside matrix products, convolutions and fused
    attention. `flops_per_s` is over the time of the ops whose FLOPs are known.
    """
    found = ops_of(linked)
    if found is None:
        return pl.DataFrame(schema=_SCHEMA)
    frame = calls(linked, found)
    if linked.spans is not None:
        inside = window(frame.select("row", "pid", "start_ns"), "start_ns", linked.spans)
        frame = frame.filter(pl.col("row").is_in(inside["row"].implode()))
    phase = phase_at(linked.trace, frame.select("pid", "tid", time_ns="start_ns"), linked.rules)
    is_product = found.names.select("name_id", product=pl.col("name").is_in(list(FORMULAS)))
    took, known = pl.col("self_cpu_ns"), pl.col("flops").is_not_null()
    flops, whole = pl.col("flops").sum(), pl.col("cpu_ns").filter(known).sum()
    table = (
        frame.lazy()
        .with_columns(phase)
        .join(is_product.lazy(), on="name_id", how="left")
        .group_by("phase")
        .agg(
            calls=pl.len(),
            self_cpu_ns=took.sum(),
            matmul=(took.filter("product").sum() / took.sum()).fill_nan(0.0),
            flops=pl.when(known.any()).then(flops),
            flops_per_s=pl.when(known.any()).then(flops * 1e9 / whole),
        )
        .with_columns(share=(took / took.sum()).fill_nan(0.0))
        .sort("phase", nulls_last=True)
        .collect()
    )
    if linked.cut.phases:
        kept = table["phase"].cast(pl.String).fill_null(NO_PHASE).is_in(linked.cut.phases)
        table = table.filter(kept)
    return table.select(pl.col(name).cast(dtype) for name, dtype in _SCHEMA.items())


ANALYSIS = cpu_phases
