"""What the CPU did: PyTorch's ops, the user's ranges, Python frames and CUDA calls."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens.readers.kineto_json.arguments import ABSENT, Call, Op, column, decoded
from tracelens.trace.nesting import nested
from tracelens.trace.schema import API, OPS, RANGE_KINDS, RANGES

if TYPE_CHECKING:
    from collections.abc import Sequence

    import msgspec

    from tracelens.readers.kineto_json.events import Events

# The outermost first, where all of them begin and end together.
_KINDS: Final = ("python", "annotation", "op")
_NEEDS_INPUTS: Final = re.compile(r"conv|scaled_dot_product|attention")
_FACTS: Final = {name: dtype for name, dtype in OPS.schema().items() if name != "range_id"}


def calls(events: Events, *, everything: bool) -> pl.DataFrame:
    """Return the `api` table."""
    group = events.of("api")
    correlations = [a.correlation for a in decoded(group.events, Call)]
    frame = group.frame.with_columns(correlation=column(correlations, pl.UInt32))
    if everything:
        frame = frame.with_columns(status=pl.lit(None, pl.Int32))
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

    def ops(self) -> pl.DataFrame:
        """Return the `ops` table."""
        ops = self._whole.filter(pl.col("kind") == "op")
        forward = _forward(ops, self._flows)
        return ops.with_columns(forward=forward).select(list(OPS.schema()))

    def launchers(self, work: pl.DataFrame) -> pl.DataFrame:
        """Return the `launched_by` table: GPU ops whose External id is that of one range."""
        known = self._whole.filter(pl.col("external_id").is_not_null()).unique(
            "external_id", keep="none"
        )
        found = work.select("op_id", "external_id").join(
            known.select("external_id", "range_id"), on="external_id", maintain_order="left"
        )
        return found.select("op_id", "range_id")


def _part(events: Events, kind: str) -> pl.DataFrame:
    group = events.of(kind)
    args = decoded(group.events, Op) if kind != "python" else [Op()] * len(group.events)
    inputs = [
        a.inputs if _NEEDS_INPUTS.search(event.name) else ABSENT
        for event, a in zip(group.events, args, strict=True)
    ]
    external = [a.old_external_id if a.external_id is None else a.external_id for a in args]
    columns = {
        "external_id": column(external, pl.Int64),
        "sequence": column([a.sequence for a in args], pl.Int64),
        "forward_thread": column([a.forward_thread for a in args], pl.Int64),
        "dims": _texts([a.old_dims if a.dims is ABSENT else a.dims for a in args]),
        "types": _texts([a.types for a in args]),
        "inputs": _texts(inputs),
    }
    return group.frame.with_columns(
        rank=pl.lit(_KINDS.index(kind)), kind=pl.lit(kind, pl.Enum(RANGE_KINDS)), **columns
    )


def _texts(raws: Sequence[msgspec.Raw]) -> pl.Series:
    texts = [None if raw is ABSENT else bytes(raw).decode(errors="replace") for raw in raws]
    return pl.Series(texts, dtype=pl.String)


def _flows(events: Events) -> pl.DataFrame:
    """Return where forward and backward are tied: tid and time of both ends of each flow."""
    ends = {}
    for ph in ("s", "f"):
        flow = [e for e in events.by_category.get("fwdbwd", ()) if e.ph == ph]
        ends[ph] = pl.DataFrame(
            {
                "id": events.numbers.of([e.id for e in flow]),
                "pid": events.numbers.of([e.pid for e in flow]),
                "tid": events.numbers.of([e.tid for e in flow]),
                "start_ns": events.since_origin([e.ts for e in flow]).cast(pl.Int64),
            }
        ).unique(["id", "pid"], keep="none", maintain_order=True)
    return ends["s"].join(ends["f"], on=["id", "pid"], suffix="_to", maintain_order="left")


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
