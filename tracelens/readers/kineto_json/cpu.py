"""What the CPU did: PyTorch's ops, the user's ranges, Python frames and CUDA calls."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens.trace.nesting import nested
from tracelens.trace.schema import API, OPS, RANGE_KINDS, RANGES

if TYPE_CHECKING:
    from tracelens.readers.kineto_json.events import Events

# The outermost first, where all of them begin and end together.
_KINDS: Final = ("python", "annotation", "op")
_MOST: Final = 0.5
_FACTS: Final = {
    name: dtype for name, dtype in OPS.schema().items() if name not in ("range_id", "forward")
}


def calls(events: Events, *, everything: bool) -> pl.DataFrame:
    """Return the `api` table."""
    frame = events.of("api").with_columns(status=pl.lit(None, pl.Int32))
    order = ("start_ns", "end_ns", "pid", "tid", "correlation", "name_id")
    return frame.sort(order).select(list(API.schema(everything=everything)))


class Ranges:
    """The `ranges` of a trace, and the `ops` table of those that are PyTorch's ops.

    ``ranges`` has the columns of both; facts of ops are null elsewhere.
    """

    def __init__(self, events: Events) -> None:
        parts = [_part(events, kind) for kind in _KINDS]
        # What begins and ends together nests in this order, whatever the order in the file.
        ordered = pl.concat(parts).sort("rank", "external_id", "name_id", nulls_last=True)
        whole = nested(ordered.drop("rank"))
        self._whole = whole.with_columns(
            end_tid=pl.lit(None, pl.Int32), domain=pl.lit(""), closed=pl.lit(value=True)
        )
        self._flows = _flows(events)

    def table(self) -> pl.DataFrame:
        """Return the `ranges` table."""
        return self._whole.select(list(RANGES.schema()))

    def ops(self) -> pl.LazyFrame | None:
        """Return the `ops` table, worked out when it is first collected; None without ops."""
        if not (self._whole["kind"] == "op").any():
            return None
        return pl.defer(lambda: self._ops, schema=dict(OPS.schema()))

    @cached_property
    def _ops(self) -> pl.DataFrame:
        ops = self._whole.filter(pl.col("kind") == "op")
        forward = _forward(ops, self._flows)
        return ops.with_columns(forward=forward).select(list(OPS.schema()))

    def launchers(self, work: pl.DataFrame, api: pl.DataFrame) -> pl.DataFrame:
        """Return the `launched_by` table: GPU ops whose External id is that of one range.

        Some versions wrote other numbers under that name: where calls were recorded, too, the
        named ranges must be around most of them, and those that are not do not count.
        """
        known = self._whole.filter(pl.col("external_id").is_not_null()).unique(
            "external_id", keep="none"
        )
        named = work.select("op_id", "external_id", "correlation", call_pid="pid").join(
            known.select("external_id", "range_id", "start_ns", "end_ns", "pid", "tid"),
            on="external_id",
            maintain_order="left",
        )
        call = api.select("correlation", call_pid="pid", call_tid="tid", call_ns="start_ns").unique(
            ["correlation", "call_pid"], keep="none"
        )
        checked = named.join(
            call, on=["correlation", "call_pid"], how="left", maintain_order="left"
        )
        around = (
            (pl.col("pid") == pl.col("call_pid"))
            & (pl.col("tid") == pl.col("call_tid"))
            & pl.col("call_ns").is_between("start_ns", "end_ns")
        )
        facts = checked.select("op_id", "range_id", around=around)
        told, right = facts["around"].count(), int(facts["around"].sum())
        if right < _MOST * told:
            facts = facts.clear()
        return facts.filter(pl.col("around").fill_null(value=True)).select("op_id", "range_id")


def _part(events: Events, kind: str) -> pl.DataFrame:
    frame = events.of(kind)
    lacking = {name: pl.lit(None, t) for name, t in _FACTS.items() if name not in frame.columns}
    return frame.select(
        "start_ns",
        "end_ns",
        "pid",
        "tid",
        "name_id",
        *(name for name in _FACTS if name in frame.columns),
        rank=pl.lit(_KINDS.index(kind)),
        kind=pl.lit(kind, pl.Enum(RANGE_KINDS)),
        **lacking,
    ).select("start_ns", "end_ns", "pid", "tid", "name_id", "rank", "kind", *_FACTS)


def _flows(events: Events) -> pl.DataFrame:
    """Return where forward and backward are tied: tid and time of both ends of each flow."""
    ends = [
        events.of(kind)
        .select("flow", "pid", "tid", "start_ns")
        .unique(["flow", "pid"], keep="none", maintain_order=True)
        for kind in ("flow_from", "flow_to")
    ]
    return ends[0].join(ends[1], on=["flow", "pid"], suffix="_to", maintain_order="left")


def _forward(ops: pl.DataFrame, flows: pl.DataFrame) -> pl.Series:
    """Return of each backward op the range_id of the op whose gradient it computes.

    By the flow that begins and ends where the two begin; without one by the sequence number, which
    the forward op drew last.
    """
    # Of ops that begin together the innermost drew the number.
    starts = ops.sort("depth").unique(["pid", "tid", "start_ns"], keep="last")
    place = starts.select("pid", "tid", "start_ns", forward="range_id")
    to = ["pid", "tid_to", "start_ns_to"]
    by_flow = flows.join(place, on=["pid", "tid", "start_ns"]).unique(to, keep="none")
    drawn = pl.col("sequence").is_not_null() & (pl.col("sequence") >= 0)
    backward = pl.col("forward_thread").fill_null(0) > 0
    by_number = (
        ops.filter(drawn & ~backward)
        .sort("start_ns", "depth")
        .unique(["pid", "sequence"], keep="last")
        .select("pid", "sequence", numbered="range_id")
    )
    tied = ops.join(
        by_flow.select(*to, "forward"),
        left_on=["pid", "tid", "start_ns"],
        right_on=to,
        how="left",
        maintain_order="left",
    ).join(by_number, on=["pid", "sequence"], how="left", maintain_order="left")
    told = pl.coalesce("forward", pl.when(drawn).then("numbered"))
    return tied.select(pl.when(backward).then(told))["forward"]
