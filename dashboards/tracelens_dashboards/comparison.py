"""Recordings side by side, from few and cheap facts: which one was slower, idler, larger."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from tracelens import units
from tracelens.analyses.totals import totals
from tracelens.errors import TracelensError
from tracelens.tables import Column
from tracelens.tables.trust import gpus, named_gpus
from tracelens.trace import store
from tracelens_dashboards import parts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tracelens_dashboards.library import Item, Library, Opened

MOST: Final = 8
"""So many recordings are compared at most."""

LARGEST_BYTES: Final = 64 << 20
"""A larger one is compared once it has been read: it is then in the cache."""

_COLUMNS: Final = (
    Column("recording", "recording", "text"),
    Column("gpu", "GPU", "text"),
    Column("step_ns", "step", "ns"),
    Column("busy_share", "GPU busy", "share"),
    Column("kernels", "kernels", "count"),
    Column("kernel_time_ns", "kernel time", "ns"),
    Column("span_ns", "span", "ns"),
    Column("why", "", "text"),
)
_NOTE: Final = (
    "Step is the median on the CPU; busy is of the time between a GPU's first and last work. "
    "Memory is not compared here: its page has it."
)


def card(library: Library, item: Item) -> Any:
    """Return the comparison of a recording with those beside it; None where it is alone."""
    chosen, others = choose(library.items, item)
    if len(chosen) < 2:
        return None
    rows = [_row(library, one) for one in chosen]
    said = [rows_told for row in rows if (rows_told := row["why"])]
    columns = _COLUMNS if said else _COLUMNS[:-1]

    def decorate(row: Mapping[str, Any], column: Column) -> parts.Cell | None:
        if column.name != "recording" or row["id"] == item.id:
            return None
        return parts.Cell(parts.place(row["id"], "overview"))

    rest = f" {units.count(others)} more recordings are not compared." if others else ""
    return parts.card(
        "Beside the others",
        parts.table_of(columns, rows, decorate=decorate),
        note=_NOTE + rest,
    )


def choose(items: Sequence[Item], item: Item) -> tuple[list[Item], int]:
    """Return at most `MOST` recordings with a trace, and how many there are beside them.

    Those of the same run come before others, and the one that is shown is always among them.
    """
    traces = [one for one in items if one.trace is not None]
    near = sorted(traces, key=lambda one: (one.id != item.id, one.group != item.group))
    kept = {one.id for one in near[:MOST]}
    return [one for one in traces if one.id in kept], len(traces) - len(kept)


def _row(library: Library, item: Item) -> dict[str, Any]:
    """Return the facts of one recording, or why there are none."""
    row: dict[str, Any] = {"id": item.id, "recording": item.title, "why": ""}
    if item.trace is not None and not _is_cheap(item.trace):
        return {**row, "why": "large: open it once to have it here", "gpu": units.ABSENT}
    try:
        return {**row, **library.brief(item.id, "comparison", _facts)}
    except TracelensError as error:
        return {**row, "why": str(error), "gpu": units.ABSENT}


def _facts(opened: Opened) -> dict[str, Any]:
    linked = opened.linked
    sums = totals(linked).row(0, named=True)
    names = named_gpus(gpus(linked))
    steps = linked.steps
    return {
        "gpu": ", ".join(names) or "CPU",
        "step_ns": (steps["end_ns"] - steps["start_ns"]).median(),
        "busy_share": sums["busy_ns"] / sums["span_ns"] if sums["span_ns"] else None,
        "kernels": sums["kernels"],
        "kernel_time_ns": sums["kernel_time_ns"],
        "span_ns": sums["span_ns"],
    }


def _is_cheap(path: Path) -> bool:
    try:
        if path.is_file() and path.stat().st_size <= LARGEST_BYTES:
            return True
    except OSError:
        return True  # reading it tells what is wrong
    key = store.key(path)
    return key is not None and (store.folder() / key).exists()
