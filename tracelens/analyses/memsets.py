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
    details = linked.trace.get("gpu_ops")
    sets = linked.ops.lazy().filter(pl.col("kind") == "memset")
    sizes = pl.lit(None, pl.Int64).alias("bytes")
    if details is not None:
        sets = sets.join(details.select("op_id", "bytes"), on="op_id", how="left")
        sizes = pl.col("bytes").sum()
    took = pl.col("end_ns") - pl.col("start_ns")
    return sets.group_by("device").agg(**spread(took), bytes=sizes).sort("device").collect()


ANALYSIS = memsets
