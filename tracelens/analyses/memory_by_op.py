"""GPU memory by PyTorch op and phase: what it allocated, freed, and held at the peak."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens.analyses import Analysis
from tracelens.errors import NothingToShowError
from tracelens.links.linked import NO_PHASE
from tracelens.links.memory import Ask, remember
from tracelens.links.memory_ops import allocating, launching_phase
from tracelens.links.memory_phases import INFERRED
from tracelens.links.moments import named
from tracelens.links.ops import ops_of
from tracelens.trace.intervals import window

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracelens.links.linked import Linked
    from tracelens.links.memory import Memory
    from tracelens.links.ops import TorchOps

BEFORE: Final = "(before the recording)"
_KEY: Final = ["device", "op", "phase"]
_SCHEMA: Final = {
    "op": pl.String,
    "phase": pl.String,
    "device": pl.Int32,
    "at_peak_bytes": pl.Int64,
    "share_of_peak": pl.Float64,
    "allocations": pl.Int64,
    "allocated_bytes": pl.Int64,
    "freed_bytes": pl.Int64,
    "net_bytes": pl.Int64,
}


@Analysis
def memory_by_op(linked: Linked) -> pl.DataFrame:
    """Return one row per device, op and phase, most memory at the device's peak first.

    The op of an event is the innermost one open on its thread that does more than allocate
    (`links.memory_ops`). `at_peak_bytes` is what the op had allocated and nobody had freed when
    most was allocated: with the row of what was there before the recording, it adds up to the
    peak, of which `share_of_peak` is the part, 0..1. `freed_bytes` are those of blocks that were
    freed while the op ran, whoever had allocated them; `net_bytes` is allocated less freed.

    Raises:
        NothingToShowError: no ops or no memory events with threads were recorded.
    """
    trace, ops = linked.trace, ops_of(linked)
    recorded = "memory" in trace and "memory" not in trace.on_request
    if ops is None or not recorded:
        raise NothingToShowError(
            "memory was not recorded with ops: torch.profiler.profile(profile_memory=True) does it"
        )
    asked = {name: linked.rules.patterns[name].pattern for name in linked.rules.asked}
    memory = remember(trace, Ask(linked.cut.device, phase_rules=asked))
    events = _placed(linked, memory, ops)
    alloc, size = pl.col("action") == "alloc", pl.col("size_bytes")
    sums = (
        events.filter("counts")
        .group_by(_KEY)
        .agg(
            allocations=alloc.sum().cast(pl.Int64),
            allocated_bytes=size.filter(alloc).sum(),
            freed_bytes=size.filter(pl.col("action") == "free").sum(),
        )
    )
    nothing = sums.select(*_KEY, at_peak_bytes="allocated_bytes").clear()
    held = pl.concat([nothing, *_at_peaks(linked, memory, events)])
    peaks = {moment.device: moment.active_bytes for moment in named(memory, "peak")}
    peak = pl.col("device").replace_strict(peaks, default=None, return_dtype=pl.Int64)
    return (
        sums.join(held, on=_KEY, how="full", coalesce=True, nulls_equal=True)
        .with_columns(
            pl.col("allocations", "allocated_bytes", "freed_bytes", "at_peak_bytes").fill_null(0)
        )
        .with_columns(
            net_bytes=pl.col("allocated_bytes") - pl.col("freed_bytes"),
            share_of_peak=pl.col("at_peak_bytes") / peak,
        )
        .sort("at_peak_bytes", "allocated_bytes", *_KEY, descending=[True, True, *[False] * 3])
        .select(pl.col(name).cast(dtype) for name, dtype in _SCHEMA.items())
    )


def _placed(linked: Linked, memory: Memory, ops: TorchOps) -> pl.DataFrame:
    """Return the events with op, phase, and whether they lie in the part that was asked for."""
    row = allocating(ops, memory.events)
    name_id = ops.nest["name_id"].gather(row).to_frame("name_id")
    op = name_id.join(ops.names, on="name_id", how="left", maintain_order="left")["name"]
    phase = memory.events["phase"].cast(pl.String).replace(INFERRED, "backward")
    if linked.phase_source == "inferred":
        inferred = launching_phase(linked, memory.events).cast(pl.String)
        phase = pl.select(phase=pl.coalesce(phase, inferred))["phase"]
    events = memory.events.with_columns(op=op, phase=phase).with_row_index("event")
    counts = pl.lit(value=True)
    if linked.spans is not None:
        inside = window(events.select("event", "pid", "time_ns"), "time_ns", linked.spans)
        counts = pl.col("event").is_in(inside["event"].implode())
    if linked.cut.phases:
        counts &= pl.col("phase").fill_null(NO_PHASE).is_in(linked.cut.phases)
    return events.with_columns(counts=counts)


def _at_peaks(linked: Linked, memory: Memory, events: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """Give, of each device's peak, what ops and phases had allocated that was live then."""
    whole = linked.spans is None and not linked.cut.phases
    for peak in named(memory, "peak"):
        live = memory.live_at(peak.device, peak.index).filter(pl.col("begun_row").is_not_null())
        began = events.select(*_KEY, "counts")[live["begun_row"]]
        known = began.with_columns(live["size_bytes"]).filter("counts")
        held = known.group_by(_KEY).agg(at_peak_bytes=pl.col("size_bytes").sum())
        before = peak.active_bytes - int(live["size_bytes"].sum())
        if whole and before:
            row = {"device": peak.device, "op": BEFORE, "phase": None, "at_peak_bytes": before}
            held = pl.concat([held, pl.DataFrame([row], schema=held.schema)])
        yield held


ANALYSIS = memory_by_op
