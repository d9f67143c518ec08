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
    by = "phase" if memory.ask.group == "phase" else "category"
    held = holdings(memory, by)
    marks = timeline(memory).select("device", pl.col("index").fill_null(-1), "time_ns")
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


def by_life(course: pl.DataFrame) -> list[str | None]:
    """Return the groups of a course: what is there longest first, what fits no rule last."""
    facts = course.group_by("group").agg(moments=pl.len(), least=pl.col("bytes").min())
    order = facts.sort(
        pl.col("group").is_null(),
        "moments",
        "least",
        "group",
        descending=[False, True, True, False],
    )
    return order["group"].to_list()


def grouped(memory: Memory, by: str) -> pl.DataFrame:
    """Return the lives of all blocks, with `category` and `group`: by category, phase or site."""
    lives = memory.once("categorised", lambda of: categorised(of, of.lives))
    if by == "category":
        return lives.with_columns(group="category")
    if by == "phase":
        group = pl.col("phase").cast(pl.String)
    else:
        sites = memory.stacks.select("stack_id", group="site")
        lives = lives.join(sites, on="stack_id", how="left", maintain_order="left")
        group = pl.col("group")
    older = pl.when("pre_existing").then(pl.lit(BEFORE))
    return lives.with_columns(group=older.otherwise(group))


def holdings(memory: Memory, by: str) -> pl.DataFrame:
    """Return what each group held and since when: device, group, index and bytes, by index.

    A row is what a group holds after the event `index`, and until the group's next row; -1 is
    before the first event. ``by`` is category, phase or site; groups are null where no rule fits,
    and what is older than the recording has no phase and no site but `BEFORE`. Sums by category
    have no other groups.
    """
    if (sums := category_sums(memory.trace)) is not None:
        device = pl.lit(memory.devices["device"][0], pl.Int32)
        return sums.select(device.alias("device"), "index", "bytes", group="category")
    key = ["device", "group"]
    rows = grouped(memory, by).select(
        "device",
        pl.col("group").cast(pl.Categorical),
        "alloc_index",
        "completed_index",
        bytes="size_bytes",
    )
    before = rows.filter(pl.col("alloc_index").is_null()).group_by(key).agg(pl.col("bytes").sum())
    begun = rows.filter(pl.col("alloc_index").is_not_null())
    ended = rows.filter(pl.col("completed_index").is_not_null())
    changes = pl.concat(
        [
            before.select(*key, "bytes", index=pl.lit(-1, pl.Int64)),
            begun.select(*key, "bytes", index="alloc_index"),
            ended.select(*key, -pl.col("bytes"), index="completed_index"),
        ]
    )
    # An event changes one block, so that no group has two rows of one index.
    return (
        changes.sort("device", "index")
        .with_columns(pl.col("bytes").cum_sum().over(key))
        .select("device", pl.col("group").cast(pl.String), "index", "bytes")
    )


ANALYSIS = composition
