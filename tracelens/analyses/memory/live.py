"""What was live at one moment, by call stack, phase or file, with its category by rule."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens.analyses import Analysis
from tracelens.links.call_stacks import texts
from tracelens.links.category_sums import category_sums, held_at
from tracelens.links.memory_categories import categorised
from tracelens.links.moments import asked

if TYPE_CHECKING:
    from collections.abc import Mapping

    from polars._typing import PolarsDataType

    from tracelens.links.memory import Memory
    from tracelens.links.moments import Moment

UNACCOUNTED: Final = "unaccounted (events missing)"
_SCHEMA: Final[Mapping[str, PolarsDataType]] = {
    "device": pl.Int32,
    "at": pl.String,
    "index": pl.Int64,
    "bytes": pl.Int64,
    "share": pl.Float64,
    "blocks": pl.Int64,
    "category": pl.String,
    "phase": pl.String,
    "site": pl.String,
    "via": pl.String,
    "stack": pl.List(pl.String),
}


@Analysis
def live(memory: Memory) -> pl.DataFrame:
    """Return one row per group of blocks that were active at the moment, the largest first.

    The bytes of each device add up to what was active then, to the byte. `phase` is the one that
    allocated the blocks, `site` the line of user code, or the file where files were asked for;
    `via` tells rows of one line apart by the library's line that they came by.
    """
    parts = [live_at(memory, moment) for moment in asked(memory)]
    return pl.concat([pl.DataFrame(schema=dict(_SCHEMA)), *parts])


def live_at(memory: Memory, moment: Moment, blocks: pl.DataFrame | None = None) -> pl.DataFrame:
    """Return the rows of one moment; ``blocks``: those live then with their category, if known."""
    sums = category_sums(memory.trace)
    if sums is None:
        if blocks is None:
            blocks = categorised(memory, memory.live_at(moment.device, moment.index))
        grouped = _grouped(memory, moment, blocks)
    else:
        grouped = held_at(sums, moment.index or 0)
    lacking = {n: pl.lit(None, t) for n, t in _SCHEMA.items() if n not in grouped.columns}
    alike = pl.len().over("site", "category", "phase") > 1
    return (
        grouped.with_columns(**lacking)
        .with_columns(
            device=pl.lit(moment.device),
            at=pl.lit(moment.label),
            index=pl.lit(moment.index, pl.Int64),
            share=pl.col("bytes") / (moment.active_bytes or 1),
            via=pl.when(alike).then("via"),
            blocks=pl.when(pl.col("blocks") > 0).then("blocks"),
        )
        .sort("bytes", "category", "site", "via", "phase", descending=[True] + [False] * 4)
        .select(pl.col(n).cast(t) for n, t in _SCHEMA.items())
    )


def _grouped(memory: Memory, moment: Moment, blocks: pl.DataFrame) -> pl.DataFrame:
    """Return the blocks that were live, put together as was asked for."""
    named = blocks.join(memory.stacks, on="stack_id", how="left", maintain_order="left")
    by_file = memory.ask.group == "file"
    rows = named.select(
        "size_bytes",
        "category",
        "stack_id",
        "via",
        "address",
        phase=pl.col("phase").cast(pl.String),
        site="file" if by_file else "site",
    )
    keys = {
        "stack": ["category", "phase", "site", "via", "stack_id"],
        "phase": ["phase", "category"],
        "file": ["site", "category"],
    }[memory.ask.group]
    grouped = rows.group_by(keys).agg(
        bytes=pl.col("size_bytes").sum(), blocks=pl.col("address").count().cast(pl.Int64)
    )
    missing = moment.active_bytes - int(grouped["bytes"].sum())
    if missing:
        rest = {"bytes": [missing], "blocks": [None], "category": [UNACCOUNTED]}
        grouped = pl.concat([grouped, pl.DataFrame(rest, strict=False)], how="diagonal_relaxed")
    if "stack_id" not in grouped.columns:
        return grouped
    ids = grouped["stack_id"].drop_nulls().cast(pl.UInt32)
    return grouped.join(texts(memory.trace, ids), on="stack_id", how="left")


ANALYSIS = live
