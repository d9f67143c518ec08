"""What of a trace an export holds: what was launched inside the cut, and what refers to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from tracelens.trace.intervals import window
from tracelens.trace.model import Caveat
from tracelens.trace.numbering import renumbered
from tracelens.trace.schema import REFERENCES, TABLES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tracelens.links.linked import Linked


def tables(linked: Linked) -> dict[str, pl.LazyFrame]:
    """Return the trace's tables, cut: GPU work, calls, ranges, and what PyTorch says of these.

    Rows keep their order and their ids; no id that is referred to is missing. Memory events,
    counters and snapshots are not cut.
    """
    found = {name: linked.trace[name] for name in TABLES if name in linked.trace}
    if "gpu_ops" in found and not linked.whole:
        kept_ops = linked.ops.lazy().select("op_id")
        found["gpu_ops"] = found["gpu_ops"].join(
            kept_ops, on="op_id", how="semi", maintain_order="left"
        )
    if linked.spans is not None:
        if (api := calls(linked)) is not None:
            found["api"] = api.lazy().drop("launch_row")
        if "ranges" in found:
            found["ranges"] = _reaching_into(found["ranges"], linked.spans)
    if not linked.whole:
        kept = {
            of: found[of].select(was=number, now=number)
            for of, number in (("gpu_ops", "op_id"), ("ranges", "range_id"))
            if of in found
        }
        referring = REFERENCES.keys() & found.keys()
        found |= {name: renumbered(name, found[name], kept) for name in referring}
    return found


def calls(linked: Linked) -> pl.DataFrame | None:
    """Return the API calls inside the cut with `launch_row`, by which ops name their launch."""
    api = linked.trace.get("api")
    if api is None:
        return None
    frame = api.with_row_index("launch_row").collect()
    return frame if linked.spans is None else window(frame, "start_ns", linked.spans)


def caveats(linked: Linked) -> list[Caveat]:
    """Return the trace's caveats, and whether this is a part of it."""
    whole = linked.trace.get("gpu_ops")
    have = 0 if whole is None else whole.select(pl.len()).collect().item()
    if linked.spans is None and linked.ops.height == have:
        return list(linked.trace.caveats)
    text = f"This export was cut to {linked.ops.height:,} of {have:,} GPU operations."
    return [*linked.trace.caveats, Caveat("note", text)]


def _reaching_into(ranges: pl.LazyFrame, spans: Iterable[tuple[int, int, int]]) -> pl.LazyFrame:
    """Return the ranges that reach into the cut; those that enclose it name its phases."""
    cuts = pl.LazyFrame(
        _merged(spans),
        schema={"pid": pl.Int32, "from_ns": pl.Int64, "to_ns": pl.Int64},
        orient="row",
    )
    # The first cut that ends after a range starts is the only one that can decide: cuts are apart.
    near = ranges.sort("start_ns").join_asof(
        cuts.sort("to_ns"),
        left_on="start_ns",
        right_on="to_ns",
        by="pid",
        strategy="forward",
        allow_exact_matches=False,
        check_sortedness=False,
    )
    begins_inside = pl.col("from_ns") <= pl.col("start_ns")
    reaches_in = pl.col("from_ns") < pl.col("end_ns")
    return near.filter(begins_inside | reaches_in).drop("from_ns", "to_ns").sort("range_id")


def _merged(spans: Iterable[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """Return the spans of each process without overlaps."""
    merged: list[tuple[int, int, int]] = []
    for pid, start, end in sorted(spans):
        if merged and merged[-1][0] == pid and start <= merged[-1][2]:
            merged[-1] = (pid, merged[-1][1], max(end, merged[-1][2]))
        else:
            merged.append((pid, start, end))
    return merged
