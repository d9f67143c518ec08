"""Cutting the profiler's memory timelines into columns, in the child process.

`export_memory_timeline` wrote two kinds of JSON: ``[times_us, sizes]``, where every row of sizes
is a zero and the bytes of each category, and rows of ``[t_ns, action, bytes, category]``, where
bytes are what the event adds to its category. Both become samples of counters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from tracelens.readers.torch_snapshot.columns import integer, time
from tracelens.readers.torch_snapshot.handed import packed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tracelens.readers.torch_snapshot.handed import Column, Hand

CATEGORIES: Final = (
    "PARAMETER", "OPTIMIZER_STATE", "INPUT", "TEMPORARY", "ACTIVATION", "GRADIENT",
    "AUTOGRAD_DETAIL", "UNKNOWN",
)  # fmt: skip
_MOST_CATEGORIES: Final = 64
_ROW: Final = 4


def is_timeline(content: Sequence[Any]) -> bool:
    """Tell whether a list that is not empty is one of the two kinds."""
    return _is_sampled(content) or _is_row(content[0])


def cut(content: Sequence[Any], hand: Hand) -> dict[str, Any]:
    """Hand the table `samples` or `changes` over and return the facts."""
    if _is_sampled(content):
        hand.begin("samples")
        return {"aside": _samples(content[0], content[1], hand)}
    hand.begin("changes")
    return {"aside": _changes(content, hand)}


def _samples(times: Sequence[Any], sizes: Sequence[Any], hand: Hand) -> int:
    width = len(sizes[0]) if sizes else 0
    rows = [
        (at, row)
        for at, row in zip(times, sizes, strict=False)
        if type(row) is list and len(row) == width
    ]
    for column in range(1, min(width, _MOST_CATEGORIES)):
        columns: dict[str, Column] = {
            "time_us": packed([time(at) for at, _ in rows]),
            "category": column - 1,
            "value": packed([integer(row[column]) for _, row in rows]),
        }
        hand.part("samples", len(rows), columns)
    return max(len(times), len(sizes)) - len(rows)


def _changes(content: Sequence[Any], hand: Hand) -> int:
    rows = [row for row in content if _is_row(row)]
    columns = {
        "time_ns": packed([time(row[0]) for row in rows]),
        "action": packed([integer(row[1]) for row in rows]),
        "bytes": packed([integer(row[2]) for row in rows]),
        "category": packed([integer(row[3]) for row in rows]),
    }
    hand.part("changes", len(rows), columns)
    return len(content) - len(rows)


def _is_sampled(content: Sequence[Any]) -> bool:
    if len(content) != 2 or any(type(part) is not list for part in content):
        return False
    times, sizes = content
    if not times or not sizes:
        return not times and not sizes
    return type(times[0]) in {int, float} and type(sizes[0]) is list


def _is_row(row: Any) -> bool:
    return type(row) is list and len(row) == _ROW and {type(v) for v in row} <= {int, float}
