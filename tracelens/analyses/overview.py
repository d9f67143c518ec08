"""Each phase at a glance: kernels, time, and how its time divides among kinds of work."""

from __future__ import annotations

from typing import Final

import polars as pl

from tracelens.analyses import Analysis
from tracelens.analyses.families import families
from tracelens.analyses.phases import phases
from tracelens.links.linked import NO_PHASE, Linked

GROUPS: Final = {
    "matmul": ("gemm", "conv", "triton_template"),
    "attention": ("attention",),
    "elementwise": ("elementwise", "triton_pointwise"),
    "optimizer": ("optimizer", "triton_foreach"),
    "norm_softmax": ("normalization", "softmax", "loss"),
    "reduction": ("reduction", "triton_reduction", "sort_scan"),
    "copy": ("copy", "gather_scatter", "embedding"),
    "comm": ("comm",),
    "graph": ("cuda_graph",),
}


def overview(linked: Linked) -> pl.DataFrame:
    """Return one row per phase with the share of its kernel and graph time in each group, 0..1."""
    group = {family: name for name, members in GROUPS.items() for family in members}
    shares = (
        families(linked)
        .with_columns(group=pl.col("family").replace_strict(group, default="rest"))
        .pivot("group", index="phase", values="share_of_phase", aggregate_function="sum")
    )
    missing = [pl.lit(0.0).alias(g) for g in (*GROUPS, "rest") if g not in shares.columns]
    table = phases(linked).join(
        shares.with_columns(missing),
        on="phase",
        how="left",
        nulls_equal=True,
        maintain_order="left",
    )
    return table.select(
        pl.col("phase").fill_null(NO_PHASE),
        "kernels",
        pl.col("kernel_time_ns", "graph_time_ns", "share"),
        *(pl.col(g).fill_null(0.0) for g in (*GROUPS, "rest")),
    )


ANALYSIS = Analysis(overview)
