"""Bytes per category over time, where a recording holds these sums and nothing else of memory.

PyTorch's profiler wrote such timelines (export_memory_timeline). They become `counters` whose
names end in ``(bytes)``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

if TYPE_CHECKING:
    from tracelens.trace.model import Trace

FORMAT: Final = "torch-memory-timeline"
_UNIT: Final = " (bytes)"


def category_sums(trace: Trace) -> pl.DataFrame | None:
    """Return index, time_ns, category and bytes, or None where this is no such recording.

    A row is what one category held from one moment on; `index` counts the moments. Categories
    bear the profiler's own names, in small letters.
    """
    counters = trace.get("counters")
    if counters is None or trace.source.format != FORMAT:
        return None
    return (
        counters.filter(pl.col("name").str.ends_with(_UNIT))
        .sort("time_ns", maintain_order=True)
        .select(
            "time_ns",
            index=pl.col("time_ns").rle_id().cast(pl.Int64),
            category=pl.col("name")
            .str.strip_suffix(_UNIT)
            .str.to_lowercase()
            .str.replace_all("_", " "),
            bytes=pl.col("value").cast(pl.Int64),
        )
        .unique(["index", "category"], keep="last", maintain_order=True)
        .collect()
    )


def held_at(sums: pl.DataFrame, index: int) -> pl.DataFrame:
    """Return category and bytes of what was held after a moment."""
    last = sums.filter(pl.col("index") <= index).unique(
        "category", keep="last", maintain_order=True
    )
    return last.filter(pl.col("bytes") != 0).select("category", "bytes")


def totals(sums: pl.DataFrame) -> pl.DataFrame:
    """Return index, time_ns and bytes: the sum of all categories after each moment."""
    change = pl.col("bytes").diff().fill_null(pl.col("bytes")).over("category")
    return (
        sums.with_columns(bytes=change.cum_sum())
        .unique("index", keep="last", maintain_order=True)
        .select("index", "time_ns", "bytes")
    )
