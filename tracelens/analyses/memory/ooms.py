"""Out-of-memory errors: the state when each happened, and what it was for lack of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens.analyses import Analysis
from tracelens.links.free_space import free_space

if TYPE_CHECKING:
    from tracelens.links.memory import Memory

EXHAUSTED: Final = "real exhaustion"
FRAGMENTED: Final = "fragmentation"
LIMITED: Final = "process limit"
UNKNOWN: Final = "cannot tell"
_MOST: Final = 100
"""Of so many errors, the last, free pieces are looked for: a program may try again and again."""
_MOST_BLOCKS: Final = 10_000_000
"""Fewer errors are looked at where each means looking at many blocks: 30 of 340,000 blocks."""

_SCHEMA: Final = {
    "device": pl.Int32,
    "index": pl.Int64,
    "phase": pl.String,
    "step": pl.Int32,
    "requested_bytes": pl.Int64,
    "active_bytes": pl.Int64,
    "reserved_bytes": pl.Int64,
    "free_bytes": pl.Int64,
    "unused_bytes": pl.Int64,
    "largest_free_bytes": pl.Int64,
    "verdict": pl.String,
    "site": pl.String,
}


@Analysis
def ooms(memory: Memory) -> pl.DataFrame:
    """Return one row per out-of-memory error, with the state at that event.

    `free_bytes` were free on the device, `unused_bytes` in the allocator's own segments, the
    largest piece of them `largest_free_bytes`. The verdict is `real exhaustion` if the request
    exceeds all that was free, `fragmentation` if enough was free and no piece was large enough,
    `process limit` if the device itself had room (set_per_process_memory_fraction and the like),
    and `cannot tell` if it is not known what the device had free.
    """
    sites = dict(memory.stacks.select("stack_id", "site").iter_rows())
    errors = memory.events.filter(pl.col("action") == "oom")
    looked_at = max(1, min(_MOST, _MOST_BLOCKS // max(1, memory.lives.height)))
    rows = []
    for number, event in enumerate(errors.iter_rows(named=True)):
        is_late = number >= errors.height - looked_at
        gaps = free_space(memory, event["device"], event["index"]) if is_late else None
        unused = None if gaps is None else int(gaps["bytes"].sum())
        rows.append(
            {
                **event,
                "requested_bytes": event["size_bytes"],
                "unused_bytes": unused,
                "largest_free_bytes": None if gaps is None else gaps["bytes"].max() or 0,
                "verdict": verdict(event["size_bytes"], event["free_bytes"], unused),
                "site": sites.get(event["stack_id"]),
            }
        )
    return pl.DataFrame(rows, schema=_SCHEMA, strict=False)


def verdict(requested: int, free: int | None, unused: int | None) -> str:
    """Return why a request could not be served; None is what is not known."""
    if free is None:
        return FRAGMENTED if unused is not None and unused >= requested else UNKNOWN
    if free >= requested:
        return LIMITED
    return FRAGMENTED if free + (unused or 0) >= requested else EXHAUSTED


ANALYSIS = ooms
