"""Call stacks for allocator events of torch.profiler: the ops and Python frames open on the thread.

A snapshot records a call stack with each event; torch.profiler records none, but the ranges of
its ops and Python functions hold the events, which tells the same.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens.trace.intervals import at
from tracelens.trace.nesting import timeline
from tracelens.trace.schema import FRAMES, STACKS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tracelens.trace.model import Trace

_FRAME: Final = re.compile(r"(.+)\((\d+)\): (.+)")
_INSTANCE: Final = re.compile(r" at 0x[0-9a-f]+|(?<=^nn\.Module: )(\w+?)_\d+$")
_KINDS: Final = ("op", "python")


def with_op_stacks(trace: Trace) -> Trace:
    """Return the trace with a stack for each event of `memory`, where ops hold them.

    A trace that has stacks, or no ops, stays as it is.
    """
    memory, ranges = trace.get("memory"), trace.get("ranges")
    if memory is None or ranges is None or "stacks" in trace or "names" not in trace:
        return trace
    found = ranges.select("range_id", "start_ns", "end_ns", "pid", "tid", "kind", "name_id")
    columns = [*found.collect_schema().names(), "depth", "lane", "parent"]
    tracks = ranges.filter(pl.col("pid").is_not_null()).select(columns).collect()
    events = memory.collect()
    if not tracks["kind"].is_in(_KINDS).any() or events.is_empty():
        return trace
    leaves = _leaves(events, tracks)
    names = dict(trace["names"].collect().select("name_id", "name").iter_rows())
    stack_of, stacks, frames = _chains(tracks, set(leaves.drop_nulls()), names)
    ids = leaves.replace_strict(stack_of, default=None, return_dtype=pl.UInt32)
    tables = {
        **trace.tables,
        "memory": events.with_columns(stack_id=ids).lazy(),
        "stacks": stacks.lazy(),
        "frames": frames.lazy(),
    }
    return replace(trace, tables=tables)


def _leaves(events: pl.DataFrame, tracks: pl.DataFrame) -> pl.Series:
    """Return the innermost range that is open on each event's thread, or null."""
    leaves = pl.repeat(None, events.height, dtype=pl.UInt32, eager=True)
    threads = tracks.sort("start_ns", "range_id").partition_by(
        "pid", "tid", "lane", as_dict=True, maintain_order=True
    )
    for (pid, tid, _), track in sorted(threads.items(), key=lambda item: -item[0][2]):
        mine = (events["pid"] == pid) & (events["tid"] == tid)
        places = mine.arg_true()
        if places.len():
            open_now = at(*timeline(track), events["time_ns"].gather(places)).cast(pl.UInt32)
            known = open_now.is_not_null()
            leaves = leaves.scatter(places.filter(known), open_now.filter(known))
    return leaves


def _chains(
    tracks: pl.DataFrame, leaves: Iterable[int], names: dict[int, str]
) -> tuple[dict[int, int], pl.DataFrame, pl.DataFrame]:
    """Return the stack of each leaf, and the tables `stacks` and `frames` of distinct ones.

    Instances of one module, or of one type, have one name.
    """
    kept = {name_id: _INSTANCE.sub(r"\1", name) for name_id, name in names.items()}
    first = dict(zip(reversed(kept.values()), reversed(kept), strict=True))
    row = {
        range_id: (kind in _KINDS, first[kept[name_id]] if name_id in kept else name_id, parent)
        for range_id, kind, name_id, parent in tracks.select(
            "range_id", "kind", "name_id", "parent"
        ).iter_rows()
    }
    # A chain is a frame and the chain around it; equal ones are one.
    chains: dict[tuple[int, int | None], int] = {}
    of_range: dict[int, int | None] = {}
    for leaf in leaves:
        path: list[int] = []
        here: int | None = leaf
        while here is not None and here in row and here not in of_range:
            path.append(here)
            here = row[here][2]
        chain = of_range.get(here) if here is not None else None
        for range_id in reversed(path):
            counts, name_id, _ = row[range_id]
            chain = chains.setdefault((name_id, chain), len(chains)) if counts else chain
            of_range[range_id] = chain
    links = list(chains)
    used = {leaf: chain for leaf in leaves if (chain := of_range.get(leaf)) is not None}
    # Names may have numbers below zero; frames have none.
    frame_of: dict[int, int] = {}
    stack_rows: list[tuple[int, int, int]] = []
    for stack_id in set(used.values()):
        link: int | None = stack_id
        depth = 0
        while link is not None:
            name_id, around = links[link]
            frame_id = frame_of.setdefault(name_id, len(frame_of))
            stack_rows.append((stack_id, depth, frame_id))
            link, depth = around, depth + 1
    frame_rows = [
        (frame_id, *_parts(kept.get(name_id, ""))) for name_id, frame_id in frame_of.items()
    ]
    return (
        used,
        pl.DataFrame(stack_rows, schema=dict(STACKS.schema()), orient="row"),
        pl.DataFrame(frame_rows, schema=dict(FRAMES.schema()), orient="row"),
    )


def _parts(name: str) -> tuple[str, str, int | None]:
    """Return function, file and line of a range's name, ``gpt.py(16): forward`` for Python."""
    found = _FRAME.fullmatch(name)
    return (found[3], found[1], int(found[2])) if found else (name, "", None)
