"""The longest times in which a GPU had nothing to do, and what its next kernel waited for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens.analyses import Analysis
from tracelens.analyses.api import plain_name
from tracelens.links.idle import SCHEMA, sums
from tracelens.trace.store import remembered

if TYPE_CHECKING:
    from tracelens.links.linked import Linked

_COLUMNS: Final = (
    "idle_ns", "cause", "before_name", "after_name", "call", "device", "thread", "start_ns",
    "end_ns",
)  # fmt: skip


@Analysis
def longest_gaps(linked: Linked) -> pl.DataFrame:
    """Return the `MOST` longest idle times with the names of the ops around them, longest first.

    `call` is the last CUDA call of the launching thread before it launched the op after the gap;
    null where that op had been launched before the gap began.
    """
    return with_neighbours(linked, longest(linked)).select(_COLUMNS)


def longest(linked: Linked) -> pl.DataFrame:
    """Return the same idle times as `links.idle` has them: with op_ids and rows of calls."""
    if linked.whole:
        return remembered(linked.trace, "longest_idle", lambda: sums(linked).longest, _fits)
    return sums(linked).longest


def _fits(frame: pl.DataFrame) -> bool:
    return dict(frame.schema) == dict(SCHEMA)


def with_neighbours(linked: Linked, rows: pl.DataFrame) -> pl.DataFrame:
    """Return idle times with before_name, after_name, thread and call; for few rows."""
    around = pl.concat([rows["before"], rows["after"]]).unique()
    ops = linked.ops.lazy().filter(pl.col("op_id").is_in(around.implode()))
    named = (
        ops.join(linked.names.lazy(), on=["name_id", "kind"], how="left")
        .select("op_id", "short_name", "launch_tid")
        .collect()
    )
    before = named.select(before="op_id", before_name="short_name")
    after = named.select(after="op_id", after_name="short_name", thread="launch_tid")
    keep = {"how": "left", "maintain_order": "left"}
    joined = rows.join(before, on="before", **keep).join(after, on="after", **keep)  # type: ignore[arg-type]
    api = linked.trace.get("api")
    if api is None:
        return joined.with_columns(call=pl.lit(None, pl.String))
    calls = api.with_row_index("last_row").filter(
        pl.col("last_row").is_in(rows["last_row"].drop_nulls().implode())
    )
    called = calls.join(linked.trace["names"], on="name_id", how="left").select(
        "last_row", call=plain_name(pl.col("name"))
    )
    return joined.join(called.collect(), on="last_row", **keep)  # type: ignore[arg-type]


ANALYSIS = longest_gaps
