"""Levels of detail: intervals in lanes, and exact sums over any pixels of any window.

A lane's intervals do not overlap. So what lies before a moment is the first so many of them, and
the time of each phase and family up to that moment is a running sum, kept for every 64th interval,
and the rest of one block: a view of ten million intervals costs as much as one of a hundred
thousand, at any zoom, and nothing is rounded to a grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    Ints = NDArray[np.int64]
    Codes = NDArray[np.uint8]
    Items = NDArray[np.uint32]

NONE: Final = 255
"""The code of what has no phase or no family."""
NO_NAME: Final = -(2**31)
"""The name_id of what has none."""
MOST_LANES: Final = 128
"""What would need more lanes than that shares the last one; such recordings are damaged."""

_BLOCK: Final = 64
_PART: Final = _BLOCK << 14
_COUNTED_ONE_BY_ONE: Final = 60_000

Key = Literal["phase", "family"]
KEYS: Final[tuple[Key, ...]] = ("phase", "family")


@dataclass(frozen=True)
class Spans:
    """Intervals by number of their row in a table of the trace: what an `item` is.

    ``name`` is the name_id, `NO_NAME` where there is none; ``phase`` and ``family`` are codes, or
    None where no interval has one. Times are in ns; an interval of 0 ns is one moment.
    """

    start: Ints
    end: Ints
    name: NDArray[np.int32]
    phase: Codes | None = None
    family: Codes | None = None

    def codes(self, key: Key, items: Items) -> Codes:
        """Return the code of each item."""
        kept = self.phase if key == "phase" else self.family
        return np.full(len(items), NONE, np.uint8) if kept is None else kept[items]


@dataclass(frozen=True)
class Bins:
    """Sums over the pixels of a window.

    ``count`` is how many intervals touch a pixel, ``time_ns`` how long each code of a key holds in
    it (pixel × place in ``codes``), ``busy_ns`` how long any interval lasts in it.
    """

    count: Ints
    busy_ns: Ints
    codes: dict[Key, Codes]
    time_ns: dict[Key, Ints]

    def most(self, key: Key) -> Codes:
        """Return the code that holds longest in each pixel; NONE where nothing takes time."""
        codes, time_ns = self.codes[key], self.time_ns[key]
        if not len(codes):
            return np.full(len(self.count), NONE, np.uint8)
        found = codes[time_ns.argmax(axis=1)]
        return np.where(time_ns.any(axis=1), found, np.uint8(NONE))


def together(parts: Sequence[Bins], busy_ns: Ints) -> Bins:
    """Return the sums of several lanes as those of one, which is busy when any of them is."""
    count: Ints = np.sum([part.count for part in parts], axis=0)
    codes: dict[Key, Codes] = {}
    time_ns: dict[Key, Ints] = {}
    for key in KEYS:
        codes[key] = np.unique(np.concatenate([part.codes[key] for part in parts]))
        time_ns[key] = np.zeros((len(count), len(codes[key])), np.int64)
        for part in parts:
            time_ns[key][:, np.searchsorted(codes[key], part.codes[key])] += part.time_ns[key]
    return Bins(count, busy_ns, codes, time_ns)


class Lane:
    """Intervals of one table in order of start; unless it is `tangled`, no two overlap."""

    def __init__(self, spans: Spans, items: Items) -> None:
        self.spans = spans
        self.items = items
        self.tangled = any((start[1:] < end[:-1]).any() for start, end in self._parts(overlap=1))
        self._firsts = spans.start[items[::_BLOCK]]
        self._reach = np.maximum.accumulate(spans.end[items]) if self.tangled else None
        self.codes: dict[Key, Codes] = {key: self._present(key) for key in KEYS}
        self._sums: dict[Key, Ints] = {}
        if not self.tangled:
            self._sums = {key: self._running(key) for key in KEYS}

    def __len__(self) -> int:
        return len(self.items)

    def before(self, times: Ints) -> Ints:
        """Return how many intervals begin before each time."""
        if not len(self.items):
            return np.zeros(len(times), np.int64)
        block = np.searchsorted(self._firsts, times, "left")
        low = np.where(block > 0, (block - 1) * _BLOCK + 1, 0)
        high = np.minimum(block * _BLOCK, len(self.items))
        for _ in range(_BLOCK.bit_length()):
            middle = (low + high) // 2
            at = self.items[np.minimum(middle, len(self.items) - 1)]
            earlier = (low < high) & (self.spans.start[at] < times)
            low, high = np.where(earlier, middle + 1, low), np.where(earlier, high, middle)
        return low

    def place(self, item: int) -> int | None:
        """Return where an item stands in the lane; None where it does not."""
        if not 0 <= item < len(self.spans.start):
            return None
        start = self.spans.start[item]
        first, end = self.before(np.array([start, start + 1]))
        found = np.flatnonzero(self.items[first:end] == item)
        return int(first + found[0]) if len(found) else None

    def window(self, from_ns: int, to_ns: int) -> Items:
        """Return the items that touch a window, in order of start."""
        first, last = (int(n) for n in self._bounds(from_ns, to_ns))
        items = self.items[first:last]
        if not self.tangled:
            return items
        start = self.spans.start[items]
        return items[(self.spans.end[items] > from_ns) | (start >= from_ns)]

    def visible(self, from_ns: int, to_ns: int) -> int:
        """Return how many intervals touch a window; of a tangled lane at most so many."""
        first, last = self._bounds(from_ns, to_ns)
        return int(last - first)

    def bins(self, edges: Ints) -> Bins:
        """Return the sums between edges, of which there is one more than pixels."""
        from_ns, to_ns = int(edges[0]), int(edges[-1])
        if self.tangled or self.visible(from_ns, to_ns) <= _COUNTED_ONE_BY_ONE:
            return self._counted(edges, self.window(from_ns, to_ns))
        before = self.before(edges)
        crossing = self._last_end(before) > edges
        count = before[1:] - before[:-1] + crossing[:-1]
        time_ns: dict[Key, Ints] = {
            key: np.diff(self._until(key, edges, before), axis=0) for key in KEYS
        }
        return Bins(count, time_ns["phase"].sum(axis=1), self.codes, time_ns)

    def _parts(self, overlap: int = 0) -> Iterator[tuple[Ints, Ints]]:
        """Give starts and ends, some at a time: all at once would need much memory."""
        for first in range(0, len(self.items), _PART):
            items = self.items[first : first + _PART + overlap]
            yield self.spans.start[items], self.spans.end[items]

    def _present(self, key: Key) -> Codes:
        found = np.zeros(256, np.bool_)
        found[self.spans.codes(key, self.items)] = True
        return np.flatnonzero(found).astype(np.uint8) if found.any() else np.array([NONE], np.uint8)

    def _running(self, key: Key) -> Ints:
        """Return how long each code held before each block, and in all."""
        width = len(self.codes[key])
        running = np.zeros((-(-len(self.items) // _BLOCK) + 1, width), np.int64)
        for part, (start, end) in enumerate(self._parts()):
            codes = self.spans.codes(key, self.items[part * _PART : (part + 1) * _PART])
            cell = np.searchsorted(self.codes[key], codes)
            cell += np.arange(len(cell)) // _BLOCK * width
            blocks = -(-len(cell) // _BLOCK)
            sums = np.bincount(cell, end - start, blocks * width).astype(np.int64)
            first = part * (_PART // _BLOCK) + 1
            running[first : first + blocks] = sums.reshape(blocks, width)
        np.cumsum(running, axis=0, out=running)
        return running

    def _bounds(self, from_ns: int, to_ns: int) -> tuple[int, int]:
        first, last = (int(n) for n in self.before(np.array([from_ns, to_ns])))
        if self._reach is not None:
            return min(first, int(np.searchsorted(self._reach, from_ns, "right"))), last
        return first - bool(first and self.spans.end[self.items[first - 1]] > from_ns), last

    def _last_end(self, before: Ints) -> Ints:
        ends = self.spans.end[self.items[np.maximum(before - 1, 0)]]
        return np.where(before > 0, ends, np.iinfo(np.int64).min)

    def _until(self, key: Key, times: Ints, before: Ints) -> Ints:
        """Return how long each code held until each time: that of whole blocks, and of the rest.

        The rest holds at least the last interval before each time, which may last beyond it.
        """
        block = np.maximum(before - 1, 0) // _BLOCK
        place = block[:, None] * _BLOCK + np.arange(_BLOCK)
        row, column = np.nonzero(place < before[:, None])
        items = self.items[place[row, column]]
        took = np.minimum(self.spans.end[items], times[row]) - self.spans.start[items]
        present = self.codes[key]
        code = np.searchsorted(present, self.spans.codes(key, items))
        rest = np.bincount(row * len(present) + code, took, len(times) * len(present))
        found: Ints = self._sums[key][block] + rest.astype(np.int64).reshape(len(times), -1)
        return found

    def _counted(self, edges: Ints, items: Items) -> Bins:
        start, end = self.spans.start[items], self.spans.end[items]
        spread = Spread(edges, start, end)
        time_ns = {}
        for key in KEYS:
            code = np.searchsorted(self.codes[key], self.spans.codes(key, items))
            time_ns[key] = spread.time_ns(code, len(self.codes[key]))
        if self.tangled:
            alone = Spread(edges, *merged(start, end))
            busy_ns = alone.time_ns(np.zeros(len(alone.start), np.int64), 1)[:, 0]
        else:
            busy_ns = time_ns["phase"].sum(axis=1)
        return Bins(spread.count(), busy_ns, self.codes, time_ns)


class Spread:
    """Any intervals over the pixels between edges; all of them touch the window."""

    def __init__(self, edges: Ints, start: Ints, end: Ints) -> None:
        self.edges = edges
        self.px = len(edges) - 1
        self.start = np.maximum(start, edges[0])
        self.end = np.minimum(end, edges[-1])
        first = np.searchsorted(edges, self.start, "right") - 1
        last = np.searchsorted(edges, self.end, "left") - 1
        self.first = np.clip(first, 0, self.px - 1)
        self.last = np.clip(last, self.first, self.px - 1)

    def count(self) -> Ints:
        """Return how many intervals touch each pixel."""
        begun = np.bincount(self.first, minlength=self.px + 1)
        gone = np.bincount(self.last + 1, minlength=self.px + 1)
        counts: Ints = np.cumsum(begun - gone)[: self.px]
        return counts

    def time_ns(self, code: NDArray[Any], codes: int) -> Ints:
        """Return how long each of so many codes holds in each pixel."""
        shape = (self.px + 1) * codes
        whole = self.first == self.last
        left_end = np.where(whole, self.end, self.edges[self.first + 1])
        time = np.bincount(self.first * codes + code, left_end - self.start, shape)
        right = np.where(whole, 0, self.end - self.edges[self.last])
        time += np.bincount(self.last * codes + code, right, shape)
        # Pixels between the first and the last are full.
        begun = np.bincount((self.first + 1) * codes + code, ~whole, shape)
        gone = np.bincount(self.last * codes + code, ~whole, shape)
        full = np.cumsum((begun - gone).reshape(-1, codes), axis=0)[: self.px]
        width = np.diff(self.edges)[:, None]
        summed = time.reshape(-1, codes)[: self.px] + full * width
        whole_ns: Ints = np.rint(summed).astype(np.int64)
        return whole_ns


def edges(from_ns: int, to_ns: int, px: int) -> Ints:
    """Return the edges of the pixels of a window: px + 1 whole ns, as evenly as they can be."""
    width, rest = divmod(to_ns - from_ns, px)
    place = np.arange(px + 1, dtype=np.int64)
    found: Ints = from_ns + place * width + place * rest // px
    return found


def lanes(spans: Spans, items: Items) -> tuple[Lane, ...]:
    """Return intervals side by side: each in the first lane that is free, overlapping or not."""
    items = in_order(spans, items)
    number = _numbered(spans.start[items], spans.end[items])
    return split(spans, items, number)


def split(spans: Spans, items: Items, number: NDArray[Any]) -> tuple[Lane, ...]:
    """Return the lanes of ordered items by their number; those beyond `MOST_LANES` share one."""
    if not len(items):
        return ()
    most = min(int(number.max()) + 1, MOST_LANES)
    if most == 1:
        return (Lane(spans, items),)
    number = np.minimum(number, MOST_LANES - 1)
    return tuple(Lane(spans, items[number == lane]) for lane in range(most))


def union(of: Iterable[Lane]) -> Lane:
    """Return the times in which any lane is busy, as a lane of its own (without names)."""
    some = tuple(of)
    start = np.concatenate([lane.spans.start[lane.items] for lane in some])
    end = np.concatenate([lane.spans.end[lane.items] for lane in some])
    order = np.argsort(start, kind="stable")
    start, end = merged(start[order], end[order])
    nameless = np.broadcast_to(np.int32(NO_NAME), len(start))
    return Lane(Spans(start, end, nameless), np.arange(len(start), dtype=np.uint32))


def merged(start: Ints, end: Ints) -> tuple[Ints, Ints]:
    """Return intervals, which stand in order of start, with those that overlap or touch as one."""
    if not len(start):
        return start, end
    reach = np.maximum.accumulate(end)
    opens = np.flatnonzero(start[1:] > reach[:-1]) + 1
    return start[np.r_[0, opens]], reach[np.r_[opens - 1, len(end) - 1]]


def in_order(spans: Spans, items: Items) -> Items:
    """Return items by start, then by end and name: the same order whatever theirs was."""
    start = spans.start[items]
    if (start[1:] > start[:-1]).all():
        return items
    order = np.argsort(start, kind="stable")
    items, start = items[order], start[order]
    tied = start[1:] == start[:-1]
    places = np.flatnonzero(np.r_[tied, False] | np.r_[False, tied])
    some = items[places]
    items[places] = some[np.lexsort((spans.name[some], spans.end[some], start[places]))]
    return items


def _numbered(start: Ints, end: Ints) -> NDArray[np.int64]:
    """Return the lane of each interval, which stand in order of start."""
    number = np.zeros(len(start), np.int64)
    if len(start) < 2:
        return number
    reach = np.maximum.accumulate(end)
    joins = np.r_[False, start[1:] < reach[:-1]]
    if not joins.any():
        return number
    place = np.arange(len(start))
    opens = np.maximum.accumulate(np.where(joins, 0, place))
    # Most often a kernel overlaps its neighbours alone: then two lanes take turns.
    knot = np.zeros(len(start), np.bool_)
    knot[opens[2:][start[2:] < reach[:-2]]] = True
    knotted = knot[opens]
    number[~knotted] = (place - opens)[~knotted] % 2
    _first_free(number, np.flatnonzero(knotted), start, end)
    return number


def _first_free(number: NDArray[np.int64], places: Ints, start: Ints, end: Ints) -> None:
    """Give the intervals at these places the first lane that is free at their start."""
    busy: list[tuple[int, int]] = []
    free: list[int] = []
    lanes_used = 0
    rows = zip(places.tolist(), start[places].tolist(), end[places].tolist(), strict=True)
    for place, begins, ends in rows:
        while busy and busy[0][0] <= begins:
            heappush(free, heappop(busy)[1])
        if free:
            lane = heappop(free)
        else:
            lane, lanes_used = lanes_used, lanes_used + 1
        number[place] = lane
        heappush(busy, (ends, lane))
