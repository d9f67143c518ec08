"""Addresses that lead from a number to its place in the timeline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tracelens_dashboards.parts import place
from tracelens_dashboards.timeline.rows import timeline

if TYPE_CHECKING:
    from tracelens_dashboards.library import Opened

_LEAST_AROUND_NS: Final = 20_000


def in_timeline(opened: Opened, table: str, item: int, start_ns: int, end_ns: int) -> str:
    """Return the address of the timeline with one row of a table picked, and what lies around it.

    Args:
        opened: the recording.
        table: gpu_ops or ranges.
        item: its row there.
        start_ns: when it began.
        end_ns: when it ended.
    """
    around = max(end_ns - start_ns, _LEAST_AROUND_NS)
    row = timeline(opened).where(table, item)
    state = {
        "from": start_ns - around,
        "to": end_ns + around,
        "pick": None if row is None else f"{row.id}:{item}",
    }
    return place(opened.item.id, "timeline", **state)
