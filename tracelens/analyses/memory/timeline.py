"""What was allocated, active and reserved over time, with phase and step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens.analyses import Analysis

if TYPE_CHECKING:
    from tracelens.links.memory import Memory

PARTS: Final = 500
"""The history of a device is cut into so many parts, of which the extremes are kept."""


@Analysis
def timeline(memory: Memory) -> pl.DataFrame:
    """Return one row per event that matters, in order: at most 2,500 of each device.

    Of each of 500 equal parts of the history, the first and last event are kept, the least and
    most that was active, and the most that was reserved; so are out-of-memory errors. A device's
    first row, of a null index, is what it held before the first event.
    """
    parts = []
    for row in memory.devices.iter_rows(named=True):
        events = memory.of(row["device"])
        before = {
            "device": row["device"],
            **{c: row[f"baseline_{c}"] for c in _CURVES},
        }
        schema = {n: events.schema[n] for n in _COLUMNS}
        parts += [pl.DataFrame([before], schema=schema), _kept(events).select(_COLUMNS)]
    columns = {**{n: memory.events.schema[n] for n in _COLUMNS}}
    return pl.concat([pl.DataFrame(schema=columns), *parts]).with_columns(
        pl.col("phase", "action").cast(pl.String)
    )


_CURVES: Final = ("allocated_bytes", "active_bytes", "reserved_bytes")
_COLUMNS: Final = ["device", "index", "time_ns", *_CURVES, "phase", "step", "action"]


def _kept(events: pl.DataFrame) -> pl.DataFrame:
    """Return the events that show the history's course."""
    length = max(1, -(-events.height // PARTS))
    index = pl.col("index")
    active, reserved = pl.col("active_bytes"), pl.col("reserved_bytes")
    extremes = events.group_by(part=index // length).agg(
        first=index.first(),
        last=index.last(),
        least=index.gather(active.arg_min()).first(),
        most=index.gather(active.arg_max()).first(),
        held=index.gather(reserved.arg_max()).first(),
    )
    errors = events.filter(pl.col("action") == "oom")["index"]
    wanted = pl.concat([*(extremes[c] for c in extremes.columns[1:]), errors]).drop_nulls()
    return events[wanted.unique().sort().cast(pl.UInt32)]


ANALYSIS = timeline
