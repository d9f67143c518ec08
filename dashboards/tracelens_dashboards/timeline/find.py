"""Finding things in the timeline: the next item, and everything whose name fits."""

from __future__ import annotations

import base64
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl

from tracelens.errors import UsageError
from tracelens_dashboards.timeline.pyramid import Spread, edges
from tracelens_dashboards.timeline.rows import Labels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from tracelens_dashboards.timeline.pyramid import Lane
    from tracelens_dashboards.timeline.rows import Row, Timeline

MOST_NAMES: Final = 200
_LONGEST: Final = 500
_LOOKED_AT_ONCE: Final = 4_096
_KIND: Final = {
    "stream": "GPU",
    "ranges": "range",
    "python": "Python",
    "ops": "op",
    "api": "CUDA call",
}


def reference(timeline: Timeline, row: Row, item: int) -> dict[str, Any]:
    """Return where an item is and what it is called, as JSON may hold it."""
    spans = row.lanes[0].spans
    return {
        "row": row.id,
        "item": item,
        "name": timeline.names.short(int(spans.name[item])),
        "start_ns": int(spans.start[item]),
        "end_ns": int(spans.end[item]),
    }


def neighbour(
    rows: Sequence[Row],
    ns: int,
    direction: int,
    of: tuple[Row, int] | None = None,
    wanted: Labels | None = None,
) -> tuple[Row, int] | None:
    """Return the item that begins next after a time (direction 1), or last before it (-1).

    Args:
        rows: where to look; what begins together stands in the order of rows and lanes.
        ns: the time.
        direction: 1 or -1.
        of: the item that begins at that time and is left, if one does: others may begin with it.
        wanted: of every name_id, whether to stop there (`marked`); None: at any.
    """
    best: tuple[tuple[int, int], Row, int] | None = None
    ranked = [(row, lane) for row in rows for lane in row.lanes]
    mine = next((n for n, (row, lane) in enumerate(ranked) if _is_at(of, row, lane)), None)
    for rank, (row, lane) in enumerate(ranked):
        if of is not None and rank == mine:
            place = (lane.place(of[1]) or 0) + direction
        else:
            ties = mine is not None and (rank > mine if direction > 0 else rank < mine)
            edge = ns + (ties != (direction > 0))
            place = int(lane.before(np.array([edge]))[0]) - (direction < 0)
        item = _first(lane, place, direction, wanted)
        if item is None:
            continue
        key = direction * int(lane.spans.start[item]), direction * rank
        if best is None or key < best[0]:
            best = key, row, item
    return best and best[1:]


def _is_at(of: tuple[Row, int] | None, row: Row, lane: Lane) -> bool:
    return of is not None and of[0] is row and lane.place(of[1]) is not None


def _first(lane: Lane, place: int, direction: int, wanted: Labels | None) -> int | None:
    """Return the first wanted item of a lane from a place on."""
    many = _LOOKED_AT_ONCE
    while 0 <= place < len(lane):
        some = lane.items[place : place + many] if direction > 0 else _backwards(lane, place, many)
        if wanted is None:
            return int(some[0])
        fits = np.flatnonzero(wanted[lane.spans.name[some]])
        if len(fits):
            return int(some[fits[0]])
        place += direction * len(some)
        many *= 2
    return None


def _backwards(lane: Lane, place: int, many: int) -> NDArray[np.uint32]:
    return lane.items[max(0, place - many + 1) : place + 1][::-1]


def marked(timeline: Timeline, ids: pl.Series) -> Labels:
    """Return 1 for each of these name_ids and 0 for all others."""
    known = timeline.names.frame["name_id"]
    return Labels(known, known.is_in(ids.implode()).to_numpy(), 0)


def matching(timeline: Timeline, text: str, *, regex: bool) -> pl.Series:
    """Return the name_ids of the names that hold a text or a regular expression, in any case.

    Raises:
        UsageError: it is no regular expression, or too long a text.
    """
    if not 0 < len(text) <= _LONGEST:
        raise UsageError(f"Search for 1 to {_LONGEST} characters.")
    if not regex:
        text = "".join(rf"\x{{{ord(c):x}}}" for c in text)
    # The regex crate of polars takes time linear in the text, whatever the expression.
    fits = pl.col("name").str.contains(f"(?i){text}")
    try:
        found = timeline.names.frame.lazy().filter(fits).select("name_id").collect()["name_id"]
    except pl.exceptions.ComputeError as error:
        reason = " ".join(str(error).split())[:200]
        raise UsageError(f"This is no regular expression: {reason}") from error
    return found


def search(
    timeline: Timeline,
    rows: Sequence[Row],
    ids: pl.Series,
    window: tuple[int, int],
    px: int,
) -> dict[str, Any]:
    """Return what bears these names in a window: how often, and in which pixels of which row.

    Args:
        timeline: for the names.
        rows: where to look.
        ids: the name_ids.
        window: begin and end, in ns.
        px: its width in pixels.
    """
    wanted = marked(timeline, ids)
    at = edges(*window, px)
    counts: Counter[tuple[int, str]] = Counter()
    marks = {}
    for row in rows:
        touched = np.zeros(px, np.int64)
        for lane in row.lanes:
            items = lane.window(*window)
            hits = items[wanted[lane.spans.name[items]] > 0]
            if not len(hits):
                continue
            spans = lane.spans
            touched += Spread(at, spans.start[hits], spans.end[hits]).count()
            which, often = np.unique(spans.name[hits], return_counts=True)
            for name_id, count in zip(which.tolist(), often.tolist(), strict=True):
                counts[name_id, _KIND[row.kind]] += count
        if touched.any():
            marks[row.id] = base64.b64encode(
                np.minimum(touched, 255).astype(np.uint8).tobytes()
            ).decode()
    top = counts.most_common(MOST_NAMES)
    return {
        "count": counts.total(),
        "names": [
            {
                "name_id": name_id % 2**32,
                "name": timeline.names.full(name_id),
                "count": n,
                "kind": kind,
            }
            for (name_id, kind), n in top
        ],
        "more": len(counts) - len(top),
        "bins": marks,
    }
