"""Kernels as the GPU counted them (Nsight Compute): operations, bytes, throughput, occupancy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens.analyses import Analysis
from tracelens.errors import NothingToShowError
from tracelens.links.counters import of_linked

if TYPE_CHECKING:
    from tracelens.links.linked import Linked

_AMOUNTS: Final = ("bytes", "flops", "fp64_flops", "fp32_flops", "fp16_flops", "tensor_ops")
_SHARES: Final = ("sm_throughput", "memory_throughput", "occupancy", "l2_hit_rate")
_SCHEMA: Final = {
    "name": pl.String,
    "short_name": pl.String,
    "family": pl.String,
    "launches": pl.Int64,
    "total_ns": pl.Int64,
    "share": pl.Float64,
    **dict.fromkeys(_AMOUNTS, pl.Int64),
    "format": pl.String,
    "intensity": pl.Float64,
    "flops_per_s": pl.Float64,
    "bytes_per_s": pl.Float64,
    **dict.fromkeys(_SHARES, pl.Float64),
}


@Analysis
def kernel_counters(linked: Linked) -> pl.DataFrame:
    """Return one row per kernel name whose launches were measured, most time first.

    - `total_ns` is of the launches as the trace has them: of a recording by Nsight Compute alone
      those of its own runs, one kernel at a time.
    - `bytes` to and from memory; `flops` and its parts, `tensor_ops` those of tensor cores in
      `format`: see `links.counters`. Null where a launch was measured without them.
    - `sm_throughput`, `memory_throughput`, `occupancy`, `l2_hit_rate`: means over the time of the
      launches, 0 to 1.

    Raises:
        NothingToShowError: there are no counters.
    """
    counters = of_linked(linked)
    if counters is None:
        raise NothingToShowError(
            "the GPU's own counters are not in the recording: Nsight Compute records them "
            "(tracelens capture --with ncu:roofline, then tracelens summarize ncu.csv)"
        )
    took = pl.col("end_ns") - pl.col("start_ns")
    rows = (
        linked.ops.select("op_id", "name_id", took_ns=took)
        .join(counters, on="op_id", validate="1:1")
        .group_by("name_id")
        .agg(
            pl.len().cast(pl.Int64).alias("launches"),
            total_ns=pl.col("took_ns").sum(),
            format=pl.col("format").filter(pl.col("tensor_ops") > 0).drop_nulls().first(),
            **{name: _all_of(name) for name in _AMOUNTS},
            **{name: _mean(name) for name in _SHARES},
        )
    )
    names = linked.names.filter(pl.col("kind") == "kernel").drop("kind")
    timed = pl.when(pl.col("total_ns") > 0)
    return (
        rows.join(names, on="name_id", how="left", validate="1:1")
        .with_columns(
            share=(pl.col("total_ns") / pl.col("total_ns").sum()).fill_nan(0.0),
            intensity=pl.when(pl.col("bytes") > 0).then(pl.col("flops") / pl.col("bytes")),
            flops_per_s=timed.then(pl.col("flops") * 1e9 / pl.col("total_ns")),
            bytes_per_s=timed.then(pl.col("bytes") * 1e9 / pl.col("total_ns")),
        )
        .sort("total_ns", "name", descending=[True, False])
        .select(pl.col(name).cast(dtype) for name, dtype in _SCHEMA.items())
    )


def _all_of(name: str) -> pl.Expr:
    """Sum what may be large; null where one launch lacks it."""
    total = pl.col(name).cast(pl.Int128).sum().cast(pl.Int64, strict=False)
    return pl.when(pl.col(name).is_not_null().all()).then(total)


def _mean(name: str) -> pl.Expr:
    """Return the mean over time, of the launches that have a value."""
    weight = pl.when(pl.col(name).is_not_null()).then(pl.col("took_ns"))
    mean = (pl.col(name) * weight).sum() / weight.sum()
    # ncu prints hundredths of a percent; further digits depend on the order of summation.
    return pl.when(weight.sum() > 0).then(mean).otherwise(pl.col(name).mean()).round(6)


ANALYSIS = kernel_counters
