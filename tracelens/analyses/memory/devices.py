"""Each device: what was held before, at the peak and at the end, and whether events are missing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens.analyses import Analysis
from tracelens.links import moments

if TYPE_CHECKING:
    from tracelens.links.memory import Memory

_SCHEMA: Final = {
    "device": pl.Int32,
    "events": pl.Int64,
    "baseline_active_bytes": pl.Int64,
    "peak_active_bytes": pl.Int64,
    "peak_index": pl.Int64,
    "peak_phase": pl.String,
    "peak_step": pl.Int32,
    "end_active_bytes": pl.Int64,
    "baseline_reserved_bytes": pl.Int64,
    "peak_reserved_bytes": pl.Int64,
    "end_reserved_bytes": pl.Int64,
    "end_rounded_bytes": pl.Int64,
    "oom_events": pl.Int64,
    "truncated": pl.Boolean,
}


@Analysis
def devices(memory: Memory) -> pl.DataFrame:
    """Return one row per device that held memory or has events.

    `peak_index` is the event after which most was active, null if that was before the first one;
    `end_rounded_bytes` what `torch.cuda.memory_allocated()` says at the end: blocks as the
    allocator rounded them up.
    """
    rounded = dict(_rounded(memory).iter_rows())
    rows = []
    for row in memory.devices.iter_rows(named=True):
        device = row["device"]
        events = memory.of(device)
        peak = moments.peak(memory, device, events, "peak")
        at_peak = {} if peak.index is None else events.row(peak.index, named=True)
        reserved = (row["baseline_reserved_bytes"], events["reserved_bytes"].max())
        rows.append(
            {
                **row,
                "peak_active_bytes": peak.active_bytes,
                "peak_index": peak.index,
                "peak_phase": at_peak.get("phase"),
                "peak_step": at_peak.get("step"),
                "peak_reserved_bytes": max((r for r in reserved if r is not None), default=None),
                "end_rounded_bytes": rounded.get(device),
                "oom_events": int((events["action"] == "oom").sum()),
            }
        )
    return pl.DataFrame(rows, schema={**_SCHEMA}, strict=False).select(list(_SCHEMA))


def _rounded(memory: Memory) -> pl.DataFrame:
    table = memory.trace.get("blocks")
    if table is None:
        return pl.DataFrame({"device": [], "bytes": []})
    held = table.filter(pl.col("state") == "active_allocated")
    return held.group_by(pl.col("device").fill_null(0)).agg(pl.col("size_bytes").sum()).collect()


ANALYSIS = devices
