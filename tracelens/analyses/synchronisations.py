"""Calls that wait for the GPU: which op or range makes them, and how long the GPU idled after."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens.analyses import Analysis
from tracelens.analyses.api import plain_name
from tracelens.analyses.steps import step_at
from tracelens.links.idle import BLOCKING, idle
from tracelens.links.nest import nest
from tracelens.links.ops import ops_of
from tracelens.trace.schema import NAMED_BY_USERS

if TYPE_CHECKING:
    from polars._typing import PolarsDataType

    from tracelens.links.linked import Linked

_SCHEMA: Final[dict[str, PolarsDataType]] = {
    "call": pl.String,
    "op": pl.String,
    "range": pl.String,
    "in_step": pl.Boolean,
    "calls": pl.Int64,
    "idle_ns": pl.Int64,
    "cpu_ns": pl.Int64,
    "thread": pl.Int32,
}
_ITEM: Final = "aten::_local_scalar_dense"
_MOMENT: Final = ("pid", "tid")


@Analysis
def synchronisations(linked: Linked) -> pl.DataFrame:
    """Return one row per call, PyTorch op, range and thread, most idle time first.

    `op` is the innermost PyTorch op around the call (`.item()` for the one that reads a number),
    `range` the innermost range that a person named; null where there is none. `in_step` tells
    whether a step was open in the process, and is null where no steps are known. `idle_ns` is the
    GPU's idle time that this call ended: of the gaps of cause `synchronising`, whose sum it is.

    Raises:
        NothingToShowError: no CUDA calls were recorded.
    """
    api = linked.trace["api"].with_row_index("last_row")
    names = linked.trace["names"].filter(pl.col("name").str.contains(BLOCKING))
    ids = names.select("name_id").collect()["name_id"]
    waits = api.filter(pl.col("name_id").is_in(ids.implode()))
    if linked.spans is not None:
        begun = linked.calls().select("pid", "tid", "start_ns", "name_id").unique()
        waits = waits.join(begun, on=begun.collect_schema().names(), how="semi", nulls_equal=True)
    waits = waits.join(names, on="name_id", how="left", maintain_order="left")
    calls = waits.with_columns(call=plain_name(pl.col("name"))).collect()
    calls = calls.join(_idle(linked), on="last_row", how="left", maintain_order="left")
    moments = calls.select(*_MOMENT, time_ns="start_ns")
    step = step_at(linked, moments)
    known = pl.lit(linked.steps.height > 0)
    placed = calls.with_columns(
        op=_op(linked, moments),
        range=_range(linked, moments),
        in_step=pl.when(known).then(step.is_not_null()),
    )
    key = ["call", "op", "range", "in_step", "tid"]
    return (
        placed.group_by(key)
        .agg(
            calls=pl.len(),
            idle_ns=pl.col("idle_ns").sum(),
            cpu_ns=(pl.col("end_ns") - pl.col("start_ns")).sum(),
        )
        .sort("idle_ns", "cpu_ns", *key, descending=[True, True, *[False] * len(key)])
        .rename({"tid": "thread"})
        .select(pl.col(name).cast(dtype) for name, dtype in _SCHEMA.items())
    )


def _idle(linked: Linked) -> pl.DataFrame:
    """Return last_row and the idle_ns that the call ended."""
    parts = [
        part.filter(pl.col("cause") == "synchronising").select("last_row", "idle_ns")
        for part in idle(linked)
    ]
    empty = pl.DataFrame(schema={"last_row": pl.UInt32, "idle_ns": pl.Int64})
    return pl.concat([empty, *parts]).group_by("last_row").agg(pl.col("idle_ns").sum())


def _op(linked: Linked, moments: pl.DataFrame) -> pl.Series:
    found = ops_of(linked)
    if found is None:
        return pl.Series("op", [None] * moments.height, dtype=pl.String)
    ids = found.nest["name_id"].gather(found.nest.innermost(moments))
    text = dict(found.names.select("name_id", "name").iter_rows())
    named = ids.replace_strict(text, default=None, return_dtype=pl.String)
    return named.replace(_ITEM, ".item()").rename("op")


def _range(linked: Linked, moments: pl.DataFrame) -> pl.Series:
    table = linked.trace.get("ranges")
    nothing = pl.Series("range", [None] * moments.height, dtype=pl.String)
    if table is None:
        return nothing
    named = table.filter(pl.col("kind").is_in(NAMED_BY_USERS)).collect()
    if named.is_empty():
        return nothing
    tree = nest(named)
    ids = tree["name_id"].gather(tree.innermost(moments)).rename("name_id").to_frame()
    texts = linked.trace["names"].collect()
    joined = ids.join(texts, on="name_id", how="left", maintain_order="left")
    return joined["name"].rename("range")


ANALYSIS = synchronisations
