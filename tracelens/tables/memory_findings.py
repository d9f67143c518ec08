"""What stands out of a memory recording: sentences computed from its tables, with their numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens import units
from tracelens.analyses.memory.churn import SHORT, churn
from tracelens.analyses.memory.devices import devices
from tracelens.analyses.memory.fragmentation import fragmentation
from tracelens.analyses.memory.leaks import leaks
from tracelens.analyses.memory.live import live
from tracelens.analyses.memory.ooms import EXHAUSTED, FRAGMENTED, LIMITED, ooms
from tracelens.errors import NothingToShowError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracelens.links.memory import Memory

_LINE_SHARE: Final = 0.1
_UNUSED_SHARE: Final = 0.15
_UNUSED_BYTES: Final = 256 << 20
_CHURN_SHARE: Final = 0.5
_CHURN_SEGMENTS: Final = 10
_LEAK_BYTES: Final = 1 << 20


def findings(memory: Memory) -> tuple[str, ...]:
    """Return sentences, errors first."""
    return (
        *_ooms(memory),
        *_leaks(memory),
        *_line(memory),
        *_fragmentation(memory),
        *_churn(memory),
    )


def _ooms(memory: Memory) -> Iterator[str]:
    errors = ooms(memory)
    if errors.is_empty():
        return
    row = errors.row(-1, named=True)
    many = f" ({errors.height} times; the last)" if errors.height > 1 else ""
    where = f" at {row['site']}" if row["site"] else ""
    asked = f"Out of memory{where}{many}: {units.size(row['requested_bytes'])} were asked for"
    free = units.size(row["free_bytes"])
    unused = units.size(row["unused_bytes"])
    piece = units.size(row["largest_free_bytes"])
    own = f"{unused} of them free in pieces of {piece} at most"
    held = f"the allocator held {units.size(row['reserved_bytes'])}"
    enough = (row["unused_bytes"] or 0) >= row["requested_bytes"]
    yield {
        EXHAUSTED: (
            f"{asked}, the device had {free} free, and {held}, {units.size(row['active_bytes'])} "
            "of it in use. That is real exhaustion: less must be live at once."
        ),
        FRAGMENTED: (
            f"{asked}, the device had {free} free, and {held}, {own}. That is fragmentation: try "
            "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True."
        ),
        LIMITED: (
            f"{asked}, and the device itself had {free} free: the process was not allowed more of "
            f"it (set_per_process_memory_fraction, say). Then {held}, {own}"
            + (", so that it is fragmented, too." if enough else ".")
        ),
    }.get(
        row["verdict"],
        f"{asked}, and {held}; what the device had free was not recorded.",
    )


def _leaks(memory: Memory) -> Iterator[str]:
    try:
        growing = leaks(memory).filter(pl.col("grows"), pl.col("bytes_per_step") >= _LEAK_BYTES)
    except NothingToShowError:
        return
    if growing.is_empty():
        return
    row = growing.row(0, named=True)
    more = f" (and {growing.height - 1} more lines)" if growing.height > 1 else ""
    yield (
        f"{row['site'] or 'A line without frames'} leaves {units.size(row['bytes_per_step'])} a "
        f"step behind, in {row['steps']} of {row['steps_watched']} steps{more}: a leak, or state "
        "that grows. See --table leaks."
    )


def _line(memory: Memory) -> Iterator[str]:
    """Name the line of user code that holds most, where it holds much."""
    held = live(memory).filter(pl.col("site").is_not_null())
    lines = held.group_by("device", "at", "site").agg(pl.col("bytes", "share", "blocks").sum())
    if memory.ask.group != "stack" or lines.is_empty():
        return
    top = lines.sort("share", "site", descending=[True, False]).row(0, named=True)
    if top["share"] >= _LINE_SHARE:
        at = {"peak": "the peak", "end": "what is live at the end"}.get(top["at"], top["at"])
        blocks = f"{units.count(top['blocks'])} block{'s' * (top['blocks'] != 1)}"
        yield (
            f"One line, {top['site']}, holds {units.share(top['share'])} of {at}: "
            f"{units.size(top['bytes'])} in {blocks}."
        )


def _fragmentation(memory: Memory) -> Iterator[str]:
    try:
        found = fragmentation(memory).filter(pl.col("at") == "peak")
    except NothingToShowError:
        return
    for row in found.sort("unused_bytes", descending=True).head(1).iter_rows(named=True):
        if row["unused_share"] < _UNUSED_SHARE or row["unused_bytes"] < _UNUSED_BYTES:
            continue
        yield (
            f"At the peak {units.size(row['unused_bytes'])} "
            f"({units.share(row['unused_share'])} of what is reserved) are in no use: "
            f"{units.size(row['inactive_split_bytes'])} between live blocks, and no piece is "
            f"larger than {units.size(row['largest_free_bytes'])}. See --table fragmentation."
        )


def _churn(memory: Memory) -> Iterator[str]:
    found = churn(memory)
    share = float(found["share"].sum()) / max(1, devices(memory).height)
    if share < _CHURN_SHARE or not memory.lives.height:
        return
    row = found.row(0, named=True)
    segments = int(found["segments"].sum())
    cost = ""
    if segments >= _CHURN_SEGMENTS:
        taken = units.size(int(found["segment_bytes"].sum()))
        cost = f", and {segments} cudaMallocs ({taken}) were made for them"
    yield (
        f"{units.share(share)} of allocations are freed again within {SHORT} others{cost}; most "
        f"are of {row['phase'] or 'no phase'}"
        f"{', ' + row['site'] if row['site'] else ''}. See --table churn."
    )
