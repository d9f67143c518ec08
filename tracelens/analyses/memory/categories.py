"""What was live at one moment by category: the rules' shares, and what no rule fits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from tracelens.analyses import Analysis
from tracelens.analyses.memory.live import live

if TYPE_CHECKING:
    from tracelens.links.memory import Memory


@Analysis
def categories(memory: Memory) -> pl.DataFrame:
    """Return one row per device and category, the largest first; null is what no rule fits.

    The bytes of each device add up to what was active at the moment.
    """
    return by_category(live(memory))


def by_category(found: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of `live` put together by category."""
    by = ["device", "at", "index"]
    total = pl.col("bytes").sum().over("device")
    return (
        found.group_by(*by, "category")
        .agg(pl.col("bytes", "blocks").sum())
        .with_columns(share=(pl.col("bytes") / total).fill_nan(0.0))
        .with_columns(blocks=pl.when(pl.col("blocks") > 0).then("blocks"))
        .sort("device", "bytes", "category", descending=[False, True, False])
        .select(*by, "category", "bytes", "share", "blocks")
    )


ANALYSIS = categories
