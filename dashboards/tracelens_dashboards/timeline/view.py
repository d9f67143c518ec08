"""What a window shows: exact rectangles where they are few, sums over pixels elsewhere."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from tracelens_dashboards.timeline.pyramid import edges, together

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from tracelens_dashboards.timeline.rows import Curve, Row

    Arrays = Mapping[str, NDArray[Any]]

MOST_ITEMS: Final = 20_000
"""So many rectangles are drawn in all; rows with few of them come first."""

_MOST_PER_PX: Final = 2
_TYPES: Final = {"float32": "f32", "float64": "f64", "uint8": "u8", "uint32": "u32"}
_X_STEPS: Final = 64
_BUSY_STEPS: Final = 1024


def view(rows: Sequence[Row], from_ns: int, to_ns: int, px: int) -> bytes:
    """Return the picture of some rows, as `packed` packs it.

    Args:
        rows: which.
        from_ns: begin of the window.
        to_ns: its end, later than that.
        px: how many pixels it is wide.
    """
    shown = _as_items(rows, from_ns, to_ns, px)
    at = edges(from_ns, to_ns, px)
    parts: list[tuple[dict[str, Any], Arrays]] = []
    for row in rows:
        if row.curve is not None:
            parts.append(({"id": row.id, "mode": "curve", "count": px}, curve(row.curve, at)))
        elif row.id in shown:
            arrays = items(row, from_ns, to_ns, px)
            parts.append(({"id": row.id, "mode": "items", "count": len(arrays["item"])}, arrays))
        else:
            arrays = bins(row, at)
            lanes = len(arrays["busy"]) // px
            head = {"id": row.id, "mode": "bins", "count": px * lanes, "lanes": lanes}
            parts.append((head, arrays))
    return packed({"from": from_ns, "to": to_ns, "px": px}, parts)


def _as_items(rows: Iterable[Row], from_ns: int, to_ns: int, px: int) -> set[str]:
    """Return the rows to be shown as items: those with the fewest, as many as there is room for.

    A row in which they stand so close that they would hide one another is shown as sums.
    """
    counts = []
    for row in rows:
        visible = [lane.visible(from_ns, to_ns) for lane in row.lanes]
        if row.curve is None and max(visible, default=0) <= _MOST_PER_PX * px:
            counts.append((sum(visible), row.id))
    shown, total = set(), 0
    for count, name in sorted(counts):
        total += count
        if total > MOST_ITEMS:
            break
        shown.add(name)
    return shown


def items(row: Row, from_ns: int, to_ns: int, px: int) -> dict[str, NDArray[Any]]:
    """Return the visible items of a row, lane by lane in order of time.

    `x0` and `x1` are pixels from the window's begin, cut off a pixel beyond its edges.
    """
    found = [lane.window(from_ns, to_ns) for lane in row.lanes]
    item = np.concatenate(found) if found else np.zeros(0, np.uint32)
    spans = row.lanes[0].spans
    per_px = (to_ns - from_ns) / px
    x0, x1 = (
        np.clip(_rounded((times[item] - from_ns) / per_px, _X_STEPS), -1, px + 1)
        for times in (spans.start, spans.end)
    )
    return {
        "x0": x0.astype(np.float32),
        "x1": x1.astype(np.float32),
        "lane": np.repeat(np.arange(len(found), dtype=np.uint8), [len(part) for part in found]),
        "phase": spans.codes("phase", item),
        "family": spans.codes("family", item),
        "name": spans.name[item].view(np.uint32),
        "item": item.astype(np.uint32),
    }


def bins(row: Row, at: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    """Return the sums over the pixels between edges: of a stream in one, of a thread by lane."""
    parts = [lane.bins(at) for lane in row.lanes]
    if row.kind == "stream" and len(parts) > 1:
        parts = [together(parts, row.cover.bins(at).busy_ns)]
    width = np.maximum(np.diff(at), 1)
    return {
        "busy": np.concatenate([_share(part.busy_ns / width) for part in parts]),
        "phase": np.concatenate([part.most("phase") for part in parts]),
        "family": np.concatenate([part.most("family") for part in parts]),
        "count": np.concatenate([part.count for part in parts]).astype(np.uint32),
    }


def curve(of: Curve, at: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    """Return the least and the most of memory between edges; NaN before its first event."""
    first = np.searchsorted(of.time, at[:-1], "right") - 1
    end = np.maximum(np.searchsorted(of.time, at[1:], "left"), first + 1)
    known = end > 0
    pairs = np.stack([np.maximum(first, 0), np.maximum(end, 1)], axis=1).ravel()
    made = {}
    for name, values in (("allocated", of.allocated), ("reserved", of.reserved)):
        padded = np.append(values, np.nan)
        for end_name, reach in (("min", np.fmin), ("max", np.fmax)):
            made[f"{name}_{end_name}"] = np.where(known, reach.reduceat(padded, pairs)[::2], np.nan)
    return made


def packed(head: Mapping[str, Any], parts: Iterable[tuple[Mapping[str, Any], Arrays]]) -> bytes:
    """Return arrays with a JSON header that says what they are.

    The header's length stands in the first four bytes (little-endian); it is padded so that what
    follows is aligned to eight. `arrays` has name -> [offset behind the header, type, length].
    """
    rows, chunks, offset = [], [], 0
    for row, arrays in parts:
        places = {}
        for name, array in arrays.items():
            places[name] = [offset, _TYPES[array.dtype.name], len(array)]
            data = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
            chunks.append(data + bytes(-len(data) % 8))
            offset += len(chunks[-1])
        rows.append({**row, "arrays": places})
    text = json.dumps({**head, "rows": rows}, separators=(",", ":")).encode()
    text += b" " * (-(len(text) + 4) % 8)
    return b"".join([len(text).to_bytes(4, "little"), text, *chunks])


def _share(busy: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return shares in steps that compress well; only nothing is 0, only all of it is 1."""
    steps = np.clip(np.rint(busy * _BUSY_STEPS), busy > 0, _BUSY_STEPS - (busy < 1))
    return (steps / _BUSY_STEPS).astype(np.float32)


def _rounded(values: NDArray[np.float64], steps: int) -> NDArray[np.float64]:
    return np.rint(values * steps) / steps
