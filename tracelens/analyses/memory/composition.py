"""What was live over time by category by rule, or by the phase that allocated it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens.analyses import Analysis
from tracelens.analyses.memory.timeline import timeline
from tracelens.links.category_sums import category_sums
from tracelens.links.memory_categories import categorised

if TYPE_CHECKING:
    from tracelens.links.memory import Memory

BEFORE: Final = "before the recording"


@Analysis
def composition(memory: Memory) -> pl.DataFrame:
    """Return one row per event of `timeline` and group that has blocks, in order.

    Groups are categories, or phases where the memory was asked for by phase (``--group phase``);
    null is what no rule fits, or what was allocated in no phase.
    The bytes of an event's groups add up to what was active after it.
    """
    if (sums := category_sums(memory.trace)) is not None:
        return _of_sums(memory, sums)
    lives = categorised(memory, memory.lives)
    group = pl.col("category")
    if memory.ask.group == "phase":
        phase = pl.col("phase").cast(pl.String)
        group = pl.when("pre_existing").then(pl.lit(BEFORE)).otherwise(phase)
    rows = lives.select(
        "device", "alloc_index", "completed_index", "size_bytes", group=group.cast(pl.Categorical)
    )
    begun = rows.filter(pl.col("alloc_index").is_not_null())
    ended = rows.filter(pl.col("completed_index").is_not_null())
    before = pl.lit(-1, pl.Int64)
    changes = pl.concat(
        [
            rows.filter(pl.col("alloc_index").is_null()).select(
                "device", "group", bytes="size_bytes", index=before
            ),
            begun.select("device", "group", bytes="size_bytes", index="alloc_index"),
            ended.select("device", "group", bytes=-pl.col("size_bytes"), index="completed_index"),
        ]
    )
    marks = timeline(memory).select("device", pl.col("index").fill_null(-1), "time_ns")
    held = (
        changes.sort("device", "group", "index")
        .with_columns(pl.col("bytes").cum_sum().over("device", "group"))
        .unique(["device", "group", "index"], keep="last", maintain_order=True)
    )
    parts = []
    for (device, name), one in held.group_by("device", "group", maintain_order=True):
        mine = marks.filter(pl.col("device") == device)
        at = mine.join_asof(one.select("index", "bytes"), on="index", strategy="backward")
        parts.append(at.with_columns(group=pl.lit(name, pl.String)))
    empty = marks.clear().with_columns(bytes=pl.lit(None, pl.Int64), group=pl.lit(None, pl.String))
    found = pl.concat([empty, *parts]).filter(pl.col("bytes") != 0)
    index = pl.when(pl.col("index") >= 0).then("index")
    return found.sort("device", "index", "group").select(
        "device", index.alias("index"), "time_ns", "group", "bytes"
    )


def _of_sums(memory: Memory, sums: pl.DataFrame) -> pl.DataFrame:
    marks = timeline(memory).select("device", "index", "time_ns").drop_nulls("index")
    parts = [
        marks.join_asof(one.select("index", "bytes"), on="index").with_columns(group=pl.lit(name))
        for (name,), one in sums.group_by("category", maintain_order=True)
    ]
    found = pl.concat(parts).filter(pl.col("bytes") != 0).sort("index", "group")
    return found.select("device", "index", "time_ns", "group", "bytes")


ANALYSIS = composition
