"""Memory over time, cut into pixels: no peak is lost, however many events a pixel holds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from tracelens import units
from tracelens.analyses.memory.composition import BEFORE, grouped, holdings
from tracelens.analyses.memory.devices import devices
from tracelens.tables.memory_report import is_spread
from tracelens_dashboards import palette
from tracelens_dashboards.names import plain

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from numpy.typing import NDArray

    from tracelens.links.memory import Memory
    from tracelens_dashboards.library import Opened
    from tracelens_dashboards.memory.view import View

    Ints = NDArray[np.int64]

TOP: Final = 10
"""So many lines of code have a layer of their own."""

_MOST_MARKS: Final = 50

OTHER: Final = "other lines"
UNACCOUNTED: Final = "unaccounted (events missing)"
NAMELESS: Final = {
    "category": "no rule fits",
    "phase": "no phase",
    "site": "no call stack",
}


@dataclass(frozen=True)
class Layer:
    """One group of blocks: `held` bytes from each of the `positions` on."""

    name: str
    colour: str
    positions: Ints
    held: Ints

    def at(self, positions: Ints) -> Ints:
        """Return the bytes held at some positions."""
        place = np.searchsorted(self.positions, positions, side="right") - 1
        return np.where(place < 0, 0, self.held[place]) if self.held.size else place * 0


@dataclass(frozen=True)
class History:
    """What one device held. Position p is the state after event p - 1, and 0 before the first.

    Attributes:
        device: CUDA device.
        events: how many events there are.
        active: bytes at each position.
        allocated: the same.
        reserved: the same; None if not known.
        times: ns since the first event at each position; None if not recorded in order.
        phases: at each position a place in `phase_names`.
        phase_names: the first is "" for none.
        steps: at each position; -1 is none.
        errors: positions of out-of-memory errors.
        peak: the position at which most was active.
        axis: the one that shows more: `time` where events are spread over it.
    """

    device: int
    events: int
    active: Ints
    allocated: Ints
    reserved: Ints | None
    times: Ints | None
    phases: NDArray[np.uint8]
    phase_names: tuple[str, ...]
    steps: NDArray[np.int32]
    errors: Ints
    peak: int
    axis: str

    def along(self, axis: str) -> Ints:
        """Return where each position stands on an axis: ns, or the index of its event (or -1)."""
        if axis == "time" and self.times is not None:
            return self.times
        return np.arange(-1, self.events, dtype=np.int64)


@dataclass(frozen=True)
class Window:
    """A part of the axis in pixels: of each, where most was active in it, and the least active."""

    begin: float
    end: float
    positions: Ints
    low: Ints


class Recording:
    """The memory of a recording as the page needs it; made once, and read by many requests."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.lives = grouped(memory, "category")
        self.devices: list[int] = memory.devices["device"].to_list()
        told = devices(memory).sort("peak_active_bytes", descending=True)
        self.first: int = told["device"][0]
        self._histories = {device: _history(memory, device) for device in self.devices}
        self._layers: dict[tuple[int, str], tuple[Layer, ...]] = {}

    @property
    def categorised(self) -> Memory:
        """The memory, with lives that know their category."""
        return replace(self.memory, lives=self.lives)

    def history(self, device: int) -> History:
        """Return what a device held."""
        return self._histories[device]

    def layers(self, device: int, by: str) -> tuple[Layer, ...]:
        """Return what each group held, the longest-lived first; computed when first asked."""
        key = (device, by)
        if key not in self._layers:
            self._layers[key] = _layers(self.memory, device, by)
        return self._layers[key]


def recording(opened: Opened) -> Recording:
    """Return the memory of an opened recording; raises NothingToShowError where there is none."""
    return opened.once("memory page", lambda: Recording(opened.memory))


def window(history: History, seen: View) -> Window:
    """Return the part that is asked for, in at most as many pixels as it is wide.

    A pixel in which nothing happens shows what was held before it.
    """
    along = history.along(seen.axis)
    begin, end = _part(along, seen.begin, seen.end)
    edges = begin + (end - begin) * np.arange(_pixels(seen, end - begin) + 1) / _pixels(
        seen, end - begin
    )
    cuts = np.searchsorted(along, edges, side="left")
    cuts[-1] = np.searchsorted(along, end, side="right" if end >= along[-1] else "left")
    starts, ends = cuts[:-1].copy(), cuts[1:]
    starts[0] = max(0, starts[0] - 1)  # what was held when the part begins
    ends = np.maximum(ends, starts)
    return Window(
        begin,
        end,
        _extreme(history.active, starts, ends, np.maximum),
        history.active[_extreme(history.active, starts, ends, np.minimum)],
    )


def course(recording: Recording, seen: View) -> dict[str, Any]:
    """Return what the browser draws of the part that is asked for: a number per pixel each.

    Layers lie one upon another, and add up to what was active, to the byte.
    """
    history = recording.history(seen.device)
    part = window(history, seen)
    positions = part.positions
    layers = recording.layers(seen.device, seen.by)
    values = [layer.at(positions) for layer in layers]
    rest = history.active[positions] - sum(values, np.zeros_like(positions))
    if rest.any():
        rest_name = OTHER if seen.by == "site" else UNACCOUNTED
        layers = (*layers, Layer(rest_name, palette.NONE, positions[:0], positions[:0]))
        values.append(rest)
    along = history.along(seen.axis)
    marks = {"peak": [history.peak], "oom": history.errors.tolist()}
    reserved = history.reserved
    return {
        "axis": seen.axis,
        "extent": [float(along[0]), float(along[-1])],
        "from": part.begin,
        "to": part.end,
        "most": int(max(history.active.max(), 1 if reserved is None else reserved.max(), 1)),
        "index": _int32(positions - 1),
        "active": _bytes(history.active[positions]),
        "low": _bytes(part.low),
        "allocated": _bytes(history.allocated[positions]),
        "reserved": None if reserved is None else _bytes(reserved[positions]),
        "layers": [
            {"name": layer.name, "colour": layer.colour, "held": _bytes(held)}
            for layer, held in zip(layers, values, strict=True)
            if held.any()
        ],
        "phases": [
            {"name": plain(name), "colour": palette.phase(name or None)}
            for name in history.phase_names
        ],
        "phase": history.phases[positions],
        "step": _int32(history.steps[positions]),
        "cursor": _mark("cursor", place_of(history, seen.at), history, along),
        "marks": [
            _mark(kind, place, history, along)
            for kind, places in marks.items()
            for place in places[-_MOST_MARKS:]
        ],
    }


def _mark(kind: str, position: int, history: History, along: Ints) -> dict[str, Any]:
    return {
        "kind": kind,
        "x": float(along[position]),
        "index": position - 1,
        "bytes": int(history.active[position]),
    }


def place_of(history: History, at: str) -> int:
    """Return the position of a moment as a view names it."""
    if at == "start":
        return 0
    if at == "end":
        return history.events
    if at == "oom" and history.errors.size:
        return int(history.errors[-1])
    return int(at) + 1 if at.isdecimal() else history.peak


def _history(memory: Memory, device: int) -> History:
    row = memory.devices.row(by_predicate=pl.col("device") == device, named=True)
    told = devices(memory).row(by_predicate=pl.col("device") == device, named=True)
    events = memory.of(device)
    times = events["time_ns"]
    timed = events.height > 1 and not times.null_count() and times.is_sorted()
    spread = timed and times[0] != times[-1]
    phases = events["phase"]
    names = phases.dtype.categories.to_list() if isinstance(phases.dtype, pl.Enum) else []
    reserved = events["reserved_bytes"]
    known = row["end_reserved_bytes"] is not None and not reserved.null_count()
    is_error = (events["action"] == "oom").fill_null(value=False)
    return History(
        device=device,
        events=events.height,
        active=_after(events["active_bytes"], row["baseline_active_bytes"]),
        allocated=_after(events["allocated_bytes"], row["baseline_allocated_bytes"]),
        reserved=_after(reserved, row["baseline_reserved_bytes"]) if known else None,
        times=_after(times - times[0], 0) if spread else None,
        phases=_after(phases.to_physical().cast(pl.Int64) + 1, 0).astype(np.uint8),
        phase_names=("", *names),
        steps=_after(events["step"], -1, -1).astype(np.int32),
        errors=is_error.arg_true().to_numpy().astype(np.int64) + 1,
        peak=0 if told["peak_index"] is None else told["peak_index"] + 1,
        axis="time" if spread and is_spread(times) else "event",
    )


def _after(values: pl.Series, before: int | None, absent: int = 0) -> Ints:
    """Return values by position: what held before the first event comes first."""
    filled = values.cast(pl.Int64).fill_null(absent).to_numpy()
    first = before if before is not None else (int(filled[0]) if filled.size else 0)
    return np.concatenate([[first], filled]).astype(np.int64)


def _part(along: Ints, begin: float | None, end: float | None) -> tuple[float, float]:
    """Return the part of an axis that is asked for and is there; it is never empty."""
    first, last = float(along[0]), max(float(along[-1]), float(along[0]) + 1)
    low = min(max(first if begin is None else begin, first), last)
    high = min(max(last if end is None else end, first), last)
    least = min(10.0, last - first)
    if high - low < least:
        middle = min(max((low + high) / 2, first + least / 2), last - least / 2)
        low, high = middle - least / 2, middle + least / 2
    return low, high


def _pixels(seen: View, length: float) -> int:
    """Return how many pixels there are: no event needs two of them on an axis of events."""
    return max(1, min(seen.width, int(length))) if seen.axis == "event" else seen.width


def _extreme(values: Ints, starts: Ints, ends: Ints, most: np.ufunc) -> Ints:
    """Return of each pixel the first position of its extreme; of an empty one, that before it."""
    found = np.maximum(starts - 1, 0)
    full = np.flatnonzero(starts < ends)
    if not full.size:
        return found
    first, last = int(starts[full[0]]), int(ends[full[-1]])
    inside = values[first:last]
    tops = most.reduceat(inside, starts[full] - first)
    hits = np.flatnonzero(inside == np.repeat(tops, (ends - starts)[full])) + first
    owner = np.searchsorted(starts[full], hits, side="right") - 1
    found[full] = hits[np.flatnonzero(np.diff(owner, prepend=-1))]
    return found


def _layers(memory: Memory, device: int, by: str) -> tuple[Layer, ...]:
    held = holdings(memory, by).filter(pl.col("device") == device)
    found = [
        (name, one["index"].to_numpy() + 1, one["bytes"].to_numpy())
        for (name,), one in held.group_by("group", maintain_order=True)
    ]
    if by == "site":
        found = sorted(found, key=lambda layer: -int(layer[2].max()))
        older = [layer for layer in found if layer[0] == BEFORE]
        found = [*older, *[layer for layer in found if layer[0] != BEFORE][:TOP]]
    colours = _colours([name for name, *_ in found], by)
    return tuple(
        Layer(plain(str(name or NAMELESS[by])), colour, *rest)
        for (name, *rest), colour in sorted(
            zip(found, colours, strict=True), key=lambda both: _lasting(*both[0])
        )
    )


def _lasting(name: object, positions: Ints, held: Ints) -> tuple[bool, bool, int, str]:
    """Return by what layers are sorted: what always holds most lies at the bottom."""
    least = 0 if not positions.size or positions[0] > 0 else int(held.min())
    return name is None, name != BEFORE, -least, str(name)


def _colours(names: Sequence[str | None], by: str) -> list[str]:
    if by == "site":
        known = {None: palette.NONE, BEFORE: palette.category(BEFORE)}
        return [known.get(name) or palette.of_place(rank) for rank, name in enumerate(names)]
    return [colour_of(name, by) for name in names]


def colour_of(name: object, by: str) -> str:
    """Return the colour of a category or a phase, on all pictures the same."""
    text = None if name is None else str(name)
    if by == "category" or text == BEFORE:
        return palette.category(text)
    return palette.phase(text)


def said(history: History, position: int) -> str:
    """Return in words which moment a position is, and in which phase and step."""
    if not position:
        return "before the first event"
    when = [f"event {units.count(position - 1)}"]
    if history.times is not None:
        when.append(f"{units.time(int(history.times[position]))} after the first")
    if name := history.phase_names[history.phases[position]]:
        when.append(plain(name))
    if (step := int(history.steps[position])) >= 0:
        when.append(f"step {step}")
    return ", ".join(when)


def _bytes(values: Ints) -> NDArray[np.float64]:
    return values.astype(np.float64)  # exact up to 2**53


def _int32(values: NDArray[Any]) -> NDArray[np.int32]:
    return values.astype(np.int32)
