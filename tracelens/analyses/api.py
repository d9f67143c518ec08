"""CUDA API calls by function: how often, and how long the CPU was in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from tracelens.analyses import Analysis
from tracelens.analyses.kernels import spread

if TYPE_CHECKING:
    from tracelens.links.linked import Linked

_VERSION = r"_v\d+(_ptsz|_ptds)?$"


def plain_name(name: pl.Expr) -> pl.Expr:
    """Return a function's name without the API version (cudaLaunchKernel_v7000)."""
    return name.str.replace(_VERSION, "")


@Analysis
def api(linked: Linked) -> pl.DataFrame:
    """Return one row per function, most time first; `share` is of the time in all calls, 0..1."""
    named = linked.calls().join(linked.trace["names"], on="name_id", how="left")
    took = pl.col("end_ns") - pl.col("start_ns")
    return (
        named.group_by(name=plain_name(pl.col("name")))
        .agg(**spread(took))
        .with_columns(share=(pl.col("total_ns") / pl.col("total_ns").sum()).fill_nan(0.0))
        .sort("total_ns", "name", descending=[True, False])
        .collect()
    )


ANALYSIS = api
