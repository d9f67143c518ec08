"""PyTorch's ops by name: calls, time on CPU and GPU, and what they compute."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens.analyses import Analysis
from tracelens.links.op_inputs import dtype
from tracelens.links.ops import calls, launched, ops_of

if TYPE_CHECKING:
    from tracelens.links.linked import Linked
    from tracelens.links.ops import TorchOps

COUNTS: Final = pl.col("counts")
SEEN: Final = (pl.col("calls") > 0) | (pl.col("gpu_time_ns") > 0)
"""What of the sums is not all of a part of the trace that was not asked for."""

_LISTED: Final = 3
_SCHEMA: Final = {
    "name": pl.String,
    "calls": pl.Int64,
    "self_gpu_time_ns": pl.Int64,
    "share": pl.Float64,
    "gpu_time_ns": pl.Int64,
    "kernels": pl.Int64,
    "cpu_ns": pl.Int64,
    "self_cpu_ns": pl.Int64,
    "flops": pl.Int64,
    "flops_per_s": pl.Float64,
    "dtype": pl.String,
    "shapes": pl.Int64,
    "forward": pl.String,
    "self_kernels": pl.Int64,
    "by_external_id": pl.Int64,
}


def costs() -> dict[str, pl.Expr]:
    """Return the aggregates of `links.ops.calls` that describe what many calls cost.

    FLOP/s are over the GPU time of those calls whose FLOPs are known.
    """
    whole = pl.col("once")
    ran = pl.col("flops").is_not_null() & (pl.col("gpu_time_ns") > 0)
    flops = pl.col("flops").filter(COUNTS)
    return {
        "calls": COUNTS.sum().cast(pl.Int64),
        "self_gpu_time_ns": pl.col("self_gpu_time_ns").sum(),
        "gpu_time_ns": pl.col("gpu_time_ns").filter(whole).sum(),
        "kernels": pl.col("kernels").filter(whole).sum(),
        "self_kernels": pl.col("self_kernels").sum(),
        "cpu_ns": pl.col("cpu_ns").filter(whole & COUNTS).sum(),
        "self_cpu_ns": pl.col("self_cpu_ns").filter(COUNTS).sum(),
        "flops": pl.when(flops.count() > 0).then(flops.sum()),
        "flops_per_s": (
            pl.col("flops").filter(ran).sum() * 1e9 / pl.col("gpu_time_ns").filter(ran).sum()
        ).fill_nan(None),
        "by_external_id": pl.col("by_external_id").sum(),
    }


@Analysis
def ops(linked: Linked) -> pl.DataFrame:
    """Return one row per op's name, those first that launched most GPU time themselves.

    `gpu_time_ns` and `kernels` include what ops inside launched, `self_gpu_time_ns` does not: its
    sum is that of all GPU work, of which a last row without a name holds what no op launched.
    `share` is of that sum, 0..1. An op inside one of its own name adds no time twice. `forward`
    names the ops whose gradients a backward op computes, the most frequent first; `shapes` counts
    the distinct shapes of inputs.
    """
    found = ops_of(linked)
    if found is None:
        return pl.DataFrame(schema=_SCHEMA)
    frame = calls(linked, found)
    key = ["name_id"]
    table = (
        frame.lazy()
        .group_by(key)
        .agg(**costs(), shapes=pl.col("dims").filter(COUNTS).drop_nulls().n_unique().cast(pl.Int64))
        .filter((pl.col("calls") > 0) | (pl.col("kernels") > 0) | (pl.col("gpu_time_ns") > 0))
        .collect()
        .join(found.names, on=key, how="left")
        .join(_dtypes(frame), on=key, how="left")
        .join(_forwards(frame, found), on=key, how="left")
    )
    rows = [table, _in_no_op(linked, found)]
    total = pl.col("self_gpu_time_ns").sum()
    return (
        pl.concat(rows, how="diagonal")
        .with_columns(
            pl.col("dtype", "forward").fill_null(""),
            share=(pl.col("self_gpu_time_ns") / total).fill_nan(0.0),
        )
        .sort(
            pl.col("name").is_null(), "self_gpu_time_ns", "self_cpu_ns", "name",
            descending=[False, True, True, False],
        )
        .select(pl.col(name).cast(dtype) for name, dtype in _SCHEMA.items())
    )  # fmt: skip


def _in_no_op(linked: Linked, found: TorchOps) -> pl.DataFrame:
    """Return the row of the GPU work that no op launched, if there is any."""
    took = pl.col("end_ns") - pl.col("start_ns")
    rest = linked.ops.filter(launched(linked, found)["row"].is_null()).select(
        name=pl.lit(None, pl.String),
        took=took,
        kernel=pl.col("kind") == "kernel",
    )
    return rest.group_by("name").agg(
        self_gpu_time_ns=pl.col("took").sum(),
        gpu_time_ns=pl.col("took").sum(),
        kernels=pl.col("kernel").sum().cast(pl.Int64),
        self_kernels=pl.col("kernel").sum().cast(pl.Int64),
    )


def _dtypes(frame: pl.DataFrame) -> pl.DataFrame:
    """Return the types of each name's first tensor, the most frequent first."""
    used = frame.filter(COUNTS).group_by("name_id", "types").len()
    return _listed(used.with_columns(text=dtype(used["types"])), "dtype")


def _forwards(frame: pl.DataFrame, found: TorchOps) -> pl.DataFrame:
    """Return the names of the ops whose gradients each name computes, the most frequent first."""
    backward = frame.filter(COUNTS & pl.col("forward").is_not_null())
    differentiated = found.nest["name_id"].gather(backward["forward"])
    used = backward.select("name_id", of=differentiated).group_by("name_id", "of").len()
    names = found.names.select(of="name_id", text="name")
    return _listed(used.join(names, on="of", how="left"), "forward")


def _listed(used: pl.DataFrame, name: str) -> pl.DataFrame:
    """Return the texts that stand with each name_id, by `len`, in one; of many the first few."""
    texts = (
        used.drop_nulls("text")
        .group_by("name_id", "text")
        .agg(pl.col("len").sum())
        .sort("name_id", "len", "text", descending=[False, True, False])
    )
    several = pl.when(pl.len() > _LISTED).then(pl.lit(", …")).otherwise(pl.lit(""))
    return texts.group_by("name_id").agg(
        (pl.col("text").head(_LISTED).str.join(", ") + several.first()).alias(name)
    )


ANALYSIS = ops
