"""The free pieces of the caching allocator's segments at any moment of its history.

Segments and live blocks of a moment follow from those at the end and the events after it. A
block takes its bytes rounded up to 512; the allocator may have left it up to 1 MiB more, which
counts as free here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tracelens.links.memory import Memory

_ROUND_BYTES: Final = 512
_WHOLE: Final = {"segment_alloc": 1, "segment_free": -1}
_MAPPED: Final = {"segment_map": 1, "segment_unmap": -1}
_SCHEMA: Final = {
    "segment": pl.Int64,
    "address": pl.Int64,
    "bytes": pl.Int64,
    "split": pl.Boolean,
}


def free_space(memory: Memory, device: int, index: int | None) -> pl.DataFrame | None:
    """Return the free pieces after an event (None: before the first), or None if not known.

    Columns: `segment` (its address), `address`, `bytes`, and `split`: whether the segment holds
    live blocks, too, so that it cannot be given back to the device.
    """
    if "segments" not in memory.trace or memory.kind != "snapshot":
        return None
    segments = segments_at(memory, device, index)
    live = memory.live_at(device, index)
    end = memory.of(device).height - 1
    blocks = live.select("address", bytes=rounded(pl.col("size_bytes")))
    if index == end or end < 0:
        blocks = _exact(memory, device)
    reach = pl.min_horizontal(pl.col("address") + pl.col("bytes"), "segment_end")
    inside = (
        blocks.sort("address")
        .join_asof(segments, left_on="address", right_on="segment", strategy="backward")
        .filter(pl.col("address") < pl.col("segment_end"))
        .with_columns(reached=pl.max_horizontal("segment", reach.cum_max().shift()))
    )
    before = inside.select(
        "segment",
        address="reached",
        bytes=pl.col("address") - pl.col("reached"),
        split=pl.lit(value=True),
    )
    after = segments.join(
        inside.group_by("segment").agg(reached=reach.max()), on="segment", how="left"
    ).select(
        "segment",
        address=pl.coalesce("reached", "segment"),
        bytes=pl.col("segment_end") - pl.coalesce("reached", "segment"),
        split=pl.col("reached").is_not_null(),
    )
    pieces = pl.concat([before, after]).filter(pl.col("bytes") > 0)
    return pieces.sort("segment", "address").select(pl.col(n).cast(t) for n, t in _SCHEMA.items())


def rounded(size: pl.Expr) -> pl.Expr:
    return (size.clip(1) + _ROUND_BYTES - 1) & -_ROUND_BYTES


def _exact(memory: Memory, device: int) -> pl.DataFrame:
    """Return the blocks in use at the end, with their true sizes."""
    held = pl.col("state").str.starts_with("active") & (pl.col("device").fill_null(0) == device)
    return memory.trace["blocks"].filter(held).select("address", bytes="size_bytes").collect()


def segments_at(memory: Memory, device: int, index: int | None) -> pl.DataFrame:
    """Return the segments held at the moment: `segment` (address) and `segment_end`."""
    at_end = (
        memory.trace["segments"]
        .filter(pl.col("device").fill_null(0) == device)
        .select("address", "size_bytes", "expandable")
        .collect()
    )
    later = (
        memory.of(device)
        .slice(0 if index is None else index + 1)
        .filter(pl.col("action").is_in([*_WHOLE, *_MAPPED]))
        .select("address", "size_bytes", pl.col("action").cast(pl.String))
    )
    grows = pl.col("expandable").fill_null(value=False)
    whole = _whole(at_end.filter(~grows), later)
    return pl.concat([whole, _mapped(at_end.filter(grows), later)]).sort("segment")


def _undone(later: pl.DataFrame, changes: Mapping[str, int]) -> pl.DataFrame:
    """Return what the events changed, the other way round."""
    return later.filter(pl.col("action").is_in(list(changes))).select(
        "address",
        "size_bytes",
        there=-pl.col("action").replace_strict(changes, return_dtype=pl.Int32),
    )


def _whole(at_end: pl.DataFrame, later: pl.DataFrame) -> pl.DataFrame:
    """Return segments that are taken and given back whole: each change is undone."""
    there = pl.concat([at_end.select("address", "size_bytes", there=1), _undone(later, _WHOLE)])
    held = there.group_by("address", "size_bytes").agg(pl.col("there").sum())
    return held.filter(pl.col("there") > 0).select(
        segment="address", segment_end=pl.col("address") + pl.col("size_bytes")
    )


def _mapped(at_end: pl.DataFrame, later: pl.DataFrame) -> pl.DataFrame:
    """Return the mapped parts of segments that grow, by counting over their addresses."""
    parts = pl.concat([at_end.select("address", "size_bytes", there=1), _undone(later, _MAPPED)])
    begins = parts.select(place="address", by="there")
    ends = parts.select(place=pl.col("address") + pl.col("size_bytes"), by=-pl.col("there"))
    counted = (
        pl.concat([begins, ends])
        .group_by("place")
        .agg(pl.col("by").sum())
        .filter(pl.col("by") != 0)
        .sort("place")
        .with_columns(held=pl.col("by").cum_sum(), segment_end=pl.col("place").shift(-1))
    )
    return counted.filter(pl.col("held") > 0).select(segment="place", segment_end="segment_end")
