"""Blocks as rectangles, from their allocation to their end: the largest exact, the rest in sums."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl

from tracelens import units
from tracelens.errors import NothingToShowError
from tracelens.links.call_stacks import texts
from tracelens_dashboards.memory.course import (
    NAMELESS,
    UNACCOUNTED,
    colour_of,
    said,
    window,
)
from tracelens_dashboards.names import plain

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tracelens_dashboards.memory.course import Layer, Recording
    from tracelens_dashboards.memory.view import View

    Ints = NDArray[np.int64]

MOST: Final = 2_000
"""So many blocks are drawn one by one."""

_LONGEST_STACK: Final = 20_000


@dataclass(frozen=True)
class Blocks:
    """The blocks of one device as arrays; positions are those of `course.History`."""

    begun: Ints
    ended: Ints
    sizes: Ints
    addresses: Ints
    categories: NDArray[np.uint8]
    names: tuple[str, ...]
    colours: tuple[str, ...]


def blocks(recording: Recording, device: int) -> Blocks:
    """Return all blocks of a device, in the order of `Recording.lives`."""
    lives = recording.lives.filter(pl.col("device") == device)
    after = recording.history(device).events + 1
    names = lives["category"].unique(maintain_order=True).to_list()
    codes = {name: code for code, name in enumerate(names)}
    return Blocks(
        begun=(lives["alloc_index"].fill_null(-1) + 1).to_numpy(),
        ended=(lives["completed_index"].fill_null(after) + 1).to_numpy(),
        sizes=lives["size_bytes"].fill_null(0).to_numpy(),
        addresses=lives["address"].fill_null(0).to_numpy(),
        categories=np.array([codes[name] for name in lives["category"]], dtype=np.uint8),
        names=tuple(plain(str(name or NAMELESS["category"])) for name in names),
        colours=tuple(colour_of(name, "category") for name in names),
    )


def lifetimes(recording: Recording, known: Blocks, seen: View, most: int = MOST) -> dict[str, Any]:
    """Return the largest blocks of the part that is asked for, and what the rest sums up to.

    A block takes the pixels `first` to `last`, the last one excluded. Of each pixel, blocks and
    `rest` add up to what was active at the pixel's own position, to the byte.
    """
    history = recording.history(seen.device)
    part = window(history, seen)
    positions = part.positions
    first = np.searchsorted(positions, known.begun, side="left")
    last = np.searchsorted(positions, known.ended, side="left")
    there = np.flatnonzero((first < last) & (known.sizes > 0))
    shown = there
    if there.size > most:
        shown = there[np.argpartition(known.sizes[there], -most)[-most:]]
    shown = shown[np.lexsort((shown, known.begun[shown]))]
    layers = recording.layers(seen.device, "category")
    return {
        "from": part.begin,
        "to": part.end,
        "pixels": int(positions.size),
        "row": shown.astype(np.int32),
        "first": first[shown].astype(np.uint16),
        "last": last[shown].astype(np.uint16),
        "size": known.sizes[shown].astype(np.float64),
        "category": known.categories[shown],
        "offset": _compact(known, shown) if seen.lives == "address" else None,
        "names": known.names,
        "colours": known.colours,
        "rest": _rest(known, shown, (first, last), layers, (positions, history.active)),
        "active": history.active[positions].astype(np.float64),
        "blocks": int(there.size),
        "smallest": int(known.sizes[shown].min()) if shown.size < there.size else 0,
    }


def block(recording: Recording, known: Blocks, device: int, row: int) -> dict[str, Any]:
    """Return what is known of one block, as text.

    Raises:
        NothingToShowError: there is no such block.
    """
    if not 0 <= row < known.sizes.size:
        raise NothingToShowError("There is no such block.")
    history = recording.history(device)
    life = recording.lives.filter(pl.col("device") == device).row(row, named=True)
    begun, ended = int(known.begun[row]), int(known.ended[row])
    never = ended > history.events
    told = {
        "Size": f"{units.size(life['size_bytes'])} ({units.count(life['size_bytes'])} B)",
        "Category": known.names[known.categories[row]],
        "Allocated": "before the first event" if not begun else f"at {said(history, begun)}",
        "Freed": "not within the recording" if never else f"at {said(history, ended)}",
    }
    if history.times is not None and begun and not never:
        told["Lived"] = units.time(int(history.times[ended] - history.times[begun]))
    told["Events"] = "" if never or not begun else units.count(ended - begun)
    if life["address"] is not None:
        told["Address"] = f"{life['address'] & (2**64 - 1):#x}"
    return {
        "facts": [[name, value] for name, value in told.items() if value],
        "stack": _stack(recording, life["stack_id"]),
        "begun": begun - 1,
    }


def _stack(recording: Recording, stack_id: int | None) -> list[str]:
    if stack_id is None:
        return []
    found = texts(recording.memory.trace, pl.Series([stack_id], dtype=pl.UInt32))
    return [plain(frame) for frames in found["stack"] for frame in frames][:_LONGEST_STACK]


def _rest(
    known: Blocks,
    shown: Ints,
    pixels: tuple[Ints, Ints],
    layers: tuple[Layer, ...],
    course: tuple[Ints, Ints],
) -> list[dict[str, Any]]:
    """Return of each category what the blocks that are not shown hold in each pixel."""
    positions, active = course
    rest = active[positions].copy()
    bands = []
    for layer in layers:
        code = known.names.index(layer.name) if layer.name in known.names else -1
        mine = shown[known.categories[shown] == code]
        drawn = np.zeros(positions.size + 1, np.int64)
        np.add.at(drawn, pixels[0][mine], known.sizes[mine])
        np.subtract.at(drawn, pixels[1][mine], known.sizes[mine])
        held = layer.at(positions)
        rest -= held
        bands.append((layer.name, layer.colour, held - np.cumsum(drawn)[:-1]))
    bands.append((UNACCOUNTED, "#8a9099", rest))
    return [
        {"name": name, "colour": colour, "held": held.astype(np.float64)}
        for name, colour, held in bands
        if held.any()
    ]


def _compact(known: Blocks, shown: Ints) -> NDArray[np.float64]:
    """Return the blocks' addresses without the gaps that none of them ever uses."""
    order = np.argsort(known.addresses[shown], kind="stable")
    begins = known.addresses[shown][order]
    reach = np.maximum.accumulate(begins + known.sizes[shown][order])
    gaps = np.maximum(begins[1:] - reach[:-1], 0)
    skipped = np.concatenate([begins[:1], gaps]).cumsum()
    offsets = np.empty(shown.size, np.float64)
    offsets[order] = begins - skipped
    return offsets
