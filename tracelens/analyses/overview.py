"""Each phase at a glance: kernels, time, and how its time divides among kinds of work."""

from __future__ import annotations

from typing import Final

import polars as pl

from tracelens.analyses import Analysis
from tracelens.analyses.families import families
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


@Analysis
def overview(linked: Linked) -> pl.DataFrame:
    """Return one row per phase with the share of its kernel and graph time in each group, 0..1."""
    groups = {family: group for group, members in GROUPS.items() for family in members}
    group = pl.col("family").replace_strict(groups, default="rest")
    time = pl.col("kernel_time_ns") + pl.col("graph_time_ns")
    return (
        families(linked)
        .group_by("phase", maintain_order=True)
        .agg(
            pl.col("kernels", "kernel_time_ns", "graph_time_ns").sum(),
            **{g: pl.col("share_of_phase").filter(group == g).sum() for g in (*GROUPS, "rest")},
        )
        .with_columns(pl.col("phase").fill_null(NO_PHASE), share=(time / time.sum()).fill_nan(0.0))
    )


ANALYSIS = overview
