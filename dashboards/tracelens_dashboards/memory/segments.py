"""The allocator's segments at one moment, and the live blocks in each: a map of address space."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl

from tracelens.errors import NothingToShowError
from tracelens.links.free_space import rounded, segments_at
from tracelens_dashboards.memory.course import place_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tracelens_dashboards.memory.course import Recording
    from tracelens_dashboards.memory.lifetimes import Blocks
    from tracelens_dashboards.memory.view import View

MOST: Final = 20_000
"""So many blocks are drawn one by one; smaller ones are drawn together with their neighbours."""

MERGED: Final = -1
"""The row of blocks that are drawn together."""

WHY_NOT: Final = (
    "Segments are known of PyTorch's memory snapshots only "
    "(torch.cuda.memory._dump_snapshot): other recordings do not tell what the allocator holds."
)


def segments(recording: Recording, known: Blocks, seen: View) -> dict[str, Any]:
    """Return the segments and blocks of the moment of a view, by address.

    Addresses are relative to `base`; blocks are as long as the allocator rounded them.

    Raises:
        NothingToShowError: the recording does not know segments.
    """
    memory = recording.memory
    if memory.kind != "snapshot" or "segments" not in memory.trace:
        raise NothingToShowError(WHY_NOT)
    history = recording.history(seen.device)
    position = place_of(history, seen.at)
    held = segments_at(memory, seen.device, position - 1 if position else None)
    begins = held["segment"].to_numpy()
    sizes = (held["segment_end"] - held["segment"]).to_numpy()
    live = np.flatnonzero((known.begun <= position) & (known.ended > position))
    live = live[np.argsort(known.addresses[live], kind="stable")]
    spans = _spans(known, live)
    base = int(begins[0]) if begins.size else 0
    return {
        "index": position - 1,
        "base": f"{base & (2**64 - 1):#x}",
        "begin": (begins - base).astype(np.float64),
        "size": sizes.astype(np.float64),
        "block": (spans[0] - base).astype(np.float64),
        "length": spans[1].astype(np.float64),
        "row": spans[2].astype(np.int32),
        "category": spans[3].astype(np.uint8),
        "names": known.names,
        "colours": known.colours,
        "active": int(history.active[position]),
        "reserved": int(sizes.sum()),
        "blocks": int(live.size),
    }


def _spans(known: Blocks, live: NDArray[np.int64]) -> tuple[NDArray[np.int64], ...]:
    """Return address, length, row and category of the blocks, small neighbours put together."""
    begins = known.addresses[live]
    lengths = _rounded(known.sizes[live])
    rows, categories = live.astype(np.int64), known.categories[live].astype(np.int64)
    if live.size <= MOST:
        return begins, lengths, rows, categories
    least = np.partition(lengths, -MOST)[-MOST]
    small = lengths < least
    touches = begins[1:] == begins[:-1] + lengths[:-1]
    joins = np.concatenate(
        [[False], touches & small[1:] & small[:-1] & (categories[1:] == categories[:-1])]
    )
    firsts = np.flatnonzero(~joins)
    together = np.diff(firsts, append=joins.size) > 1
    return (
        begins[firsts],
        np.add.reduceat(lengths, firsts),
        np.where(together, MERGED, rows[firsts]),
        categories[firsts],
    )


def _rounded(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    frame = pl.DataFrame({"size": sizes}).select(rounded(pl.col("size")))
    return frame.to_series().to_numpy()
