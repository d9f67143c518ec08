"""CUDA graphs launched as a whole: how often, and how long each took."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from tracelens.analyses import Analysis
from tracelens.analyses.kernels import spread

if TYPE_CHECKING:
    from tracelens.links.linked import Linked


@Analysis
def graphs(linked: Linked) -> pl.DataFrame:
    """Return one row per graph and device, most time first; what ran inside is not recorded."""
    runs = linked.with_columns_of_ops("graph_id").filter(pl.col("kind") == "graph")
    took = pl.col("end_ns") - pl.col("start_ns")
    table = runs.group_by("graph_id", "device").agg(**spread(took))
    return table.sort("total_ns", "graph_id", descending=[True, False]).collect()


ANALYSIS = graphs
