"""Histories that no allocator would write: every table still says something, or says why not."""

from __future__ import annotations

import copy
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.snapshots import MIB, Snapshot, dump, training
from tracelens.errors import TracelensError
from tracelens.links.memory import Ask, remember
from tracelens.readers.open import open_trace
from tracelens.render import Options
from tracelens.render.html import render as html
from tracelens.render.text import render as text
from tracelens.tables import build
from tracelens.tables.memory_report import MEMORY, defaults

ACTIONS = (
    "alloc", "free_requested", "free_completed", "segment_alloc", "segment_free", "segment_map",
    "segment_unmap", "oom", "snapshot", "free", "nonsense",
)  # fmt: skip
ADDRESSES = st.sampled_from([0, 1 << 40, (1 << 40) + 512, 2 << 40, 2**63 + 5, -1])
SIZES = st.sampled_from([0, 1, 512, MIB, 20 * MIB, 2**40, 2**62])
ENTRIES = st.fixed_dictionaries(
    {"action": st.sampled_from(ACTIONS), "addr": ADDRESSES, "size": SIZES, "stream": st.just(0)},
    optional={
        "time_us": st.sampled_from([0, 1, 10**15, 2**60, -5]),
        "device_free": SIZES,
        "frames": st.sampled_from([[], None, [{"name": "f", "filename": "a.py", "line": 1}]]),
    },
)


def everything(path: Path, **ask: Any) -> None:
    """Make every table of a snapshot, as text and as a page."""
    memory = remember(open_trace(path, cache=False), Ask(**ask))
    for names in (build.all_tables(MEMORY), defaults(memory)):
        report = build.report_on(memory, names, MEMORY)
        for table in report.tables:
            assert table.frame.columns == [c.name for c in table.table.columns]
        text([report], Options())
        html([report], Options())


@settings(max_examples=30)
@given(
    traces=st.lists(st.lists(ENTRIES, max_size=12), max_size=3),
    segments=st.booleans(),
    at=st.sampled_from(["peak", "end", "oom", "0"]),
    group=st.sampled_from(["stack", "phase", "file"]),
)
def test_any_list_of_entries_is_shown_or_refused_in_words(
    traces: list[list[dict[str, Any]]], at: str, group: str, *, segments: bool
) -> None:
    content = training(steps=1).content() if segments else Snapshot().content()
    content["device_traces"] = traces
    with TemporaryDirectory() as folder:
        path = dump(content, Path(folder) / "snapshot.pickle")
        with suppress(TracelensError):
            everything(path, at=at, group=group)


@settings(max_examples=30)
@given(
    drops=st.sets(st.integers(0, 46), max_size=25),
    swaps=st.lists(st.tuples(st.integers(0, 46), st.integers(0, 46)), max_size=5),
    ring=st.none() | st.integers(1, 30),
)
def test_histories_with_holes_still_end_where_the_segments_say(
    drops: set[int], swaps: list[tuple[int, int]], ring: int | None
) -> None:
    snapshot = training(steps=3)
    snapshot.ring = ring
    content = copy.deepcopy(snapshot.content())
    trace = content["device_traces"][0]
    for one, other in swaps:
        if max(one, other) < len(trace):
            trace[one], trace[other] = trace[other], trace[one]
    kept = [entry for i, entry in enumerate(trace) if i not in drops]
    content["device_traces"][0] = kept
    with TemporaryDirectory() as folder:
        path = dump(content, Path(folder) / "snapshot.pickle")
        memory = remember(open_trace(path, cache=False), Ask(at="end"))

        if kept:
            assert memory.events["active_bytes"][-1] == 4 * MIB
            assert memory.events["reserved_bytes"][-1] == sum(
                segment["total_size"] for segment in content["segments"]
            )
        live = build.fill_on(memory, "live", MEMORY).frame
        assert live["bytes"].sum() == 4 * MIB
        everything(path)
