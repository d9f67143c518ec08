"""Memory sets on the GPU: calls, bytes and time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from tracelens.analyses import Analysis
from tracelens.analyses.kernels import spread

if TYPE_CHECKING:
    from tracelens.links.linked import Linked


@Analysis
def memsets(linked: Linked) -> pl.DataFrame:
    """Return one row per device."""
    sets = linked.with_columns_of_ops("bytes").filter(pl.col("kind") == "memset")
    facts = spread(pl.col("end_ns") - pl.col("start_ns"))
    return (
        sets.group_by("device").agg(**facts, bytes=pl.col("bytes").sum()).sort("device").collect()
    )


ANALYSIS = memsets
