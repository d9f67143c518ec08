"""Out of memory: an allocation failed, for want of memory or since it lay in pieces."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from tracelens import units
from tracelens.analyses.memory.ooms import EXHAUSTED, FRAGMENTED, LIMITED, ooms
from tracelens.errors import NothingToShowError
from tracelens.findings import Evidence, Finding, Rule

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tracelens.links.memory import Memory

_SEGMENTS: Final = "Set PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True."


def _find(memory: Memory) -> Iterator[Finding]:
    if memory.events.is_empty():
        raise NothingToShowError("no history was recorded")
    errors = ooms(memory)
    if errors.is_empty():
        return
    row = errors.row(-1, named=True)
    many = f" ({errors.height} times; the last)" if errors.height > 1 else ""
    where = f" at {row['site']}" if row["site"] else ""
    asked = f"Out of memory{where}{many}: {units.size(row['requested_bytes'])} asked for"
    says, change = _verdict(row)
    told = {
        "requested_bytes": "asked for",
        "free_bytes": "free on the device",
        "reserved_bytes": "held by the allocator",
        "unused_bytes": "of it in no use",
        "largest_free_bytes": "largest piece of that",
    }
    yield Finding(
        rule="out_of_memory",
        says=f"{asked}. {says}",
        evidence=tuple(
            Evidence("ooms", what, row[name], "bytes")
            for name, what in told.items()
            if row[name] is not None
        ),
        change=change,
        cost_bytes=row["reserved_bytes"] or row["requested_bytes"],
        subject=row["site"],
    )


def _verdict(row: Mapping[str, Any]) -> tuple[str, str]:
    """Return what the state then was, and what to try."""
    free, reserved = units.size(row["free_bytes"]), units.size(row["reserved_bytes"])
    unused, piece = units.size(row["unused_bytes"]), units.size(row["largest_free_bytes"])
    enough = (row["unused_bytes"] or 0) >= row["requested_bytes"]
    exhausted = (
        f"{free} were free, and {units.size(row['active_bytes'])} of {reserved} reserved in use. "
        "That is real exhaustion: less must be live at once."
    )
    pieces = (
        f"{unused} of {reserved} reserved were free, in pieces of {piece} at most. "
        "That is fragmentation."
    )
    limited = (
        f"The device had {free} free: the process was not allowed more of it "
        "(set_per_process_memory_fraction)."
    )
    said = {
        EXHAUSTED: (exhausted, ""),
        FRAGMENTED: (pieces, _SEGMENTS),
        LIMITED: (limited, _SEGMENTS if enough else ""),
    }
    unknown = f"{reserved} were reserved; what the device had free was not recorded."
    return said.get(row["verdict"], (unknown, ""))


FINDING = Rule(_find, about="memory")
