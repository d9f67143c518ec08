"""The replay of allocator histories: what it says was held after each event, to the byte."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.snapshots import MIB, Device, Snapshot
from tracelens.links.free_space import free_space
from tracelens.links.memory import Memory, remember
from tracelens.readers.open import open_trace

if TYPE_CHECKING:
    from tests.snapshots import Segment

Row = dict[str, Any]
SNAPSHOTS = (
    "memory/expandable-segments-ring-wrapped-h200.pickle.gz",
    "memory/gpt2-small-ctx512-bf16-h200.pickle.gz",
    "memory/gpt2-xl-ctx256-fp32-h200.pickle.gz",
    "memory/oom-after-unwind-h200.pickle.gz",
    "memory/oom-observer-h200.pickle.gz",
    "multirank/gpt2-medium-ddp-h200x2/rank0.pickle.gz",
    "multirank/gpt2-medium-ddp-h200x2/rank1.pickle.gz",
    "multirank/gpt2-medium-fsdp-h200x2/rank0.pickle.gz",
    "multirank/gpt2-medium-fsdp-h200x2/rank1.pickle.gz",
)


def remembered(snapshot: Snapshot, folder: Path) -> Memory:
    """Return a snapshot replayed, by way of a file."""
    return remember(open_trace(snapshot.write(folder / "snapshot.pickle"), cache=False))


def curve(memory: Memory, name: str, device: int = 0) -> list[int]:
    """Return what held after each event."""
    return memory.of(device)[f"{name}_bytes"].to_list()


def test_active_counts_until_the_free_is_complete_and_allocated_until_it_is_asked_for(
    tmp_path: Path,
) -> None:
    snapshot = Snapshot()
    gpu = snapshot.device()
    one, two = gpu.alloc(1000), gpu.alloc(500)
    gpu.free_requested(one)
    gpu.free(two)
    gpu.free_completed(one)

    memory = remembered(snapshot, tmp_path)

    # segment, alloc, alloc, requested, requested, completed, completed
    assert curve(memory, "allocated") == [0, 1000, 1500, 500, 0, 0, 0]
    assert curve(memory, "active") == [0, 1000, 1500, 1500, 1500, 1000, 0]
    assert curve(memory, "reserved") == [2 * MIB] * 7


def test_what_was_there_before_the_recording_is_in_the_baseline(tmp_path: Path) -> None:
    snapshot = Snapshot()
    gpu = snapshot.device()
    gpu.recording = False
    kept, given_back = gpu.alloc(3000), gpu.alloc(5000)
    gpu.recording = True
    gpu.free(gpu.alloc(700))
    gpu.free(given_back)

    memory = remembered(snapshot, tmp_path)

    row = memory.devices.row(0, named=True)
    assert row["baseline_active_bytes"] == 8000
    assert row["baseline_reserved_bytes"] == 2 * MIB
    assert curve(memory, "active") == [8700, 8700, 8000, 8000, 3000]
    older = memory.lives.filter("pre_existing").sort("size_bytes")
    assert older["address"].to_list() == [kept.address, given_back.address]
    assert older["completed_index"].to_list() == [None, 4]


def test_a_block_that_waits_for_a_stream_at_the_end_is_active_and_not_allocated(
    tmp_path: Path,
) -> None:
    snapshot = Snapshot()
    gpu = snapshot.device()
    waits = gpu.alloc(800)
    gpu.alloc(100)
    gpu.free_requested(waits)

    row = remembered(snapshot, tmp_path).devices.row(0, named=True)

    assert (row["end_active_bytes"], row["end_allocated_bytes"]) == (900, 100)
    assert (row["baseline_active_bytes"], row["baseline_allocated_bytes"]) == (0, 0)


@pytest.mark.parametrize("missing", ["free_requested", "free_completed"])
def test_where_one_step_of_each_free_was_not_recorded_the_other_stands_for_both(
    tmp_path: Path, missing: str
) -> None:
    snapshot = Snapshot()
    gpu = snapshot.device()
    gpu.alloc(100)
    gpu.free(gpu.alloc(1000))
    gpu.trace = [entry for entry in gpu.trace if entry["action"] != missing]

    memory = remembered(snapshot, tmp_path)

    assert curve(memory, "active") == curve(memory, "allocated") == [0, 100, 1100, 100]
    assert memory.devices["one_free"].to_list() == [True]


def test_an_address_used_again_is_another_block(tmp_path: Path) -> None:
    snapshot = Snapshot()
    gpu = snapshot.device()
    first = gpu.alloc(1000, stack=("a.py:1 f",))
    gpu.free(first)
    second = gpu.alloc(900, stack=("a.py:2 f",))

    memory = remembered(snapshot, tmp_path)

    assert first.address == second.address
    lives = memory.lives.join(memory.stacks, on="stack_id").sort("alloc_index")
    assert lives["site"].to_list() == ["a.py:1 f", "a.py:2 f"]
    assert lives["completed_index"].to_list() == [3, None]


def test_one_address_on_two_devices_is_two_blocks(tmp_path: Path) -> None:
    snapshot = Snapshot()
    for number, size in ((0, 100), (3, 300)):
        gpu = snapshot.device(number)
        gpu.segment(2 * MIB, kind="small", address=1 << 40)
        gpu.alloc(size)

    memory = remembered(snapshot, tmp_path)

    assert memory.devices["device"].to_list() == [0, 3]
    assert curve(memory, "active", 0)[-1] == 100
    assert curve(memory, "active", 3)[-1] == 300
    assert memory.lives["address"].n_unique() == 1


def test_the_order_is_the_list_even_where_time_goes_back(tmp_path: Path) -> None:
    snapshot = Snapshot()
    gpu = snapshot.device()
    block = gpu.alloc(100, at=2000)
    gpu.free(block, at=1000)
    gpu.alloc(300, at=500)

    memory = remembered(snapshot, tmp_path)

    assert curve(memory, "active") == [0, 100, 100, 0, 300]


def test_a_history_without_events_is_known_at_its_end_alone(tmp_path: Path) -> None:
    snapshot = Snapshot()
    gpu = snapshot.device()
    gpu.recording = False
    gpu.alloc(1234)

    memory = remembered(snapshot, tmp_path)

    assert memory.events.is_empty()
    assert memory.devices["end_active_bytes"].to_list() == [1234]
    assert memory.live_at(0, None)["size_bytes"].to_list() == [1234]


def test_actions_that_nobody_knows_change_nothing(tmp_path: Path) -> None:
    snapshot = Snapshot()
    gpu = snapshot.device()
    gpu.alloc(100)
    gpu.event("snapshot")
    gpu.event("a new action", 1 << 40, 12345)

    assert curve(remembered(snapshot, tmp_path), "active") == [0, 100, 100, 100]


@dataclass
class History:
    """A generated history, and what truly held after each of its operations."""

    snapshot: Snapshot
    live: dict[int, list[Any]] = field(default_factory=dict)
    truth: dict[int, dict[int, Row]] = field(default_factory=dict)
    oldest: dict[int, Row] = field(default_factory=dict)

    def note(self, gpu: Device) -> None:
        """Write down what a device holds now."""
        blocks = [block for segment in gpu.segments for block in segment.blocks.values()]
        row = {
            "active": sum(b.size for b in blocks),
            "allocated": sum(b.size for b in blocks if b.state == "active_allocated"),
            "reserved": sum(s.size for s in gpu.segments),
            "blocks": sorted((b.address, b.size) for b in blocks),
            "gaps": sorted(gap for s in gpu.segments for gap in _gaps(s)),
        }
        if gpu.recording:
            self.truth.setdefault(gpu.number, {})[len(gpu.trace) - 1] = row
        else:
            self.oldest[gpu.number] = row


def _gaps(segment: Segment) -> list[tuple[int, int]]:
    """Return address and size of what is free in a segment."""
    found, place = [], segment.address
    for address in sorted(segment.blocks):
        found.append((place, address - place))
        place = address + segment.blocks[address].held
    found.append((place, segment.address + segment.size - place))
    return [(at, size) for at, size in found if size]


def _act(history: History, gpu: Device, what: str, number: int) -> None:
    live = history.live.setdefault(gpu.number, [])
    empty = [s for s in gpu.segments if not s.blocks and s.size]
    growing = [s for s in gpu.segments if s.expandable]
    if what == "alloc":
        live.append(gpu.alloc(1 + number * 40_000 % (3 * MIB), stream=number % 2))
    elif what == "expandable" and number % 5 == 0:
        gpu.segment(2 * MIB, expandable=True, stream=number % 2)
    elif what == "grow" and growing:
        gpu.grow(growing[number % len(growing)], 2 * MIB)
    elif what == "shrink" and growing:
        segment = growing[number % len(growing)]
        gaps = _gaps(segment)
        at_end = gaps and sum(gaps[-1]) == segment.address + segment.size
        if at_end and gaps[-1][1] >= 2 * MIB < segment.size:
            gpu.shrink(segment, 2 * MIB)
    elif what == "release" and empty:
        gpu.release(empty[number % len(empty)])
    elif what == "oom":
        gpu.oom(number, free=number)
    elif what == "request" and live:
        block = live[number % len(live)]
        if block.state == "active_allocated":
            gpu.free_requested(block)
    elif what == "free" and live:
        block = live.pop(number % len(live))
        if block.state == "active_allocated":
            gpu.free_requested(block)
        gpu.free_completed(block)
    history.note(gpu)


NOTHING: Row = {"active": 0, "allocated": 0, "reserved": 0, "blocks": [], "gaps": []}
ACTIONS = (
    "alloc", "alloc", "alloc", "free", "free", "request", "release", "expandable", "grow",
    "shrink", "oom",
)  # fmt: skip
OPERATIONS = st.lists(
    st.tuples(st.sampled_from(ACTIONS), st.integers(0, 1), st.integers(0, 500)), max_size=60
)


@settings(max_examples=40)
@given(operations=OPERATIONS, begins=st.integers(0, 20), ring=st.none() | st.integers(1, 40))
def test_any_history_is_replayed_to_the_byte(
    operations: list[tuple[str, int, int]], begins: int, ring: int | None
) -> None:
    history = History(Snapshot("2.11"))
    history.snapshot.ring = ring
    devices = [history.snapshot.device(0), history.snapshot.device(1)]
    for i, (what, device, number) in enumerate(operations):
        for gpu in devices:
            gpu.recording = i >= begins
        _act(history, devices[device], what, number)
    if not any(gpu.segments or gpu.trace for gpu in devices):
        return

    with TemporaryDirectory() as folder:
        memory = remembered(history.snapshot, Path(folder))

    for gpu in devices:
        if gpu.number not in memory.devices["device"]:
            assert not gpu.trace
            continue
        cut = max(0, len(gpu.trace) - ring) if ring else 0
        for place, truth in history.truth.get(gpu.number, {}).items():
            _check(memory, gpu.number, place - cut, truth)
        if not cut and gpu.trace:
            _check(memory, gpu.number, -1, history.oldest.get(gpu.number, NOTHING), first=True)


def _check(memory: Memory, device: int, index: int, truth: Row, *, first: bool = False) -> None:
    if index < -1 or (index == -1 and not first):
        return
    at = None if index < 0 else index
    row = memory.devices.row(by_predicate=pl.col("device") == device, named=True)
    if at is None:
        held = [row[f"baseline_{c}_bytes"] for c in ("active", "allocated", "reserved")]
    else:
        held = [curve(memory, c, device)[at] for c in ("active", "allocated", "reserved")]
    asked = memory.of(device)["action"]
    if row["one_free"] or (asked == "free_requested").sum() == 0:
        assert [held[0], held[2]] == [truth["active"], truth["reserved"]]
    else:
        assert held == [truth["active"], truth["allocated"], truth["reserved"]]
    live = memory.live_at(device, at)
    assert sorted(live.select("address", "size_bytes").iter_rows()) == truth["blocks"]
    gaps = free_space(memory, device, at)
    assert gaps is not None
    assert sorted(gaps.select("address", "bytes").iter_rows()) == truth["gaps"]


@pytest.mark.corpus
@pytest.mark.parametrize("name", SNAPSHOTS)
def test_the_replay_ends_where_the_segments_say(corpus: Path, name: str) -> None:
    trace = open_trace(corpus / name, cache=False)
    memory = remember(trace)
    blocks, segments = trace["blocks"].collect(), trace["segments"].collect()

    for device in memory.devices["device"]:
        last = memory.of(device).row(-1, named=True)
        held = blocks.filter(pl.col("device") == device)
        states = {"allocated": ["active_allocated"], "active": ["active_allocated"]}
        states["active"].append("active_pending_free")
        for curve_name, which in states.items():
            truth = held.filter(pl.col("state").is_in(which))["requested_bytes"].sum()
            assert last[f"{curve_name}_bytes"] == truth
        reserved = segments.filter(pl.col("device") == device)["size_bytes"].sum()
        assert last["reserved_bytes"] == reserved
        live = memory.live_at(device, memory.of(device).height - 1)
        assert live["size_bytes"].sum() == last["active_bytes"]


@pytest.mark.corpus
@pytest.mark.parametrize("name", SNAPSHOTS)
def test_peaks_are_those_of_a_plain_replay(corpus: Path, name: str) -> None:
    trace = open_trace(corpus / name, cache=False)
    memory = remember(trace)

    for device in memory.devices["device"]:
        truth = plain(trace.tables, device)
        events = memory.of(device)
        peak = events["active_bytes"].arg_max()
        assert events["active_bytes"][0] - truth["active"][0] == 0
        assert events["active_bytes"].to_list() == truth["active"]
        assert events["reserved_bytes"].to_list() == truth["reserved"]
        assert peak == truth["active"].index(max(truth["active"]))


def plain(tables: Any, device: int) -> dict[str, list[int]]:
    """Replay one device with Python's own integers, backwards from the end."""
    rows = tables["memory"].filter(pl.col("device") == device).collect()
    blocks = tables["blocks"].filter(pl.col("device") == device).collect()
    segments = tables["segments"].filter(pl.col("device") == device).collect()
    active = sum(
        size
        for size, state in blocks.select("requested_bytes", "state").iter_rows()
        if state.startswith("active")
    )
    reserved = sum(segments["size_bytes"])
    found: dict[str, list[int]] = {"active": [], "reserved": []}
    pairs = zip(rows["action"].to_list(), rows["size_bytes"].to_list(), strict=True)
    for action, size in reversed(list(pairs)):
        found["active"].insert(0, active)
        found["reserved"].insert(0, reserved)
        active -= {"alloc": size, "free_completed": -size}.get(action, 0)
        reserved -= {"segment_alloc": size, "segment_map": size}.get(action, 0)
        reserved += {"segment_free": size, "segment_unmap": size}.get(action, 0)
    return found


@pytest.mark.corpus
def test_the_corpus_says_the_same(corpus: Path) -> None:
    known = json.loads((corpus / "memory_truth.json").read_text(encoding="utf-8"))

    for name, said in known.items():
        memory = remember(open_trace(corpus / "memory" / name, cache=False))
        for truth in said["devices"]:
            events = memory.of(truth["device"])
            row = memory.devices.row(by_predicate=pl.col("device") == truth["device"], named=True)
            assert events.height == truth["events"]
            assert row["baseline_active_bytes"] == truth["baseline_active"]
            assert events["active_bytes"].max() == truth["peak_active"]
            assert events["active_bytes"].arg_max() == truth["peak_index"]
            assert events["active_bytes"][-1] == truth["end_active"]
            assert events["reserved_bytes"].max() == truth["peak_reserved"]
            assert events["reserved_bytes"][-1] == truth["end_reserved"]
            assert (events["action"] == "oom").sum() == truth["ooms"]
