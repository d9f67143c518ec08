"""GPU memory by op: what each one allocated, in which phase, and what of it made the peak."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from tests import by_hand
from tests.asking import Shell, linked, table
from tests.kineto import Profile, training_step
from tracelens.analyses.memory_by_op import BEFORE

if TYPE_CHECKING:
    from pathlib import Path

    from tests.asking import Row

K = 1_000


class Pool:
    """An allocator that tells its totals; blocks lie side by side."""

    def __init__(self, trace: Profile, held: int = 0) -> None:
        self.trace = trace
        self.held = held
        self.addresses: dict[str, int] = {}

    def alloc(self, tid: int, at: int, size: int, name: str, device: int = 0) -> None:
        self.held += size
        self.addresses[name] = 0x1000_0000 * (len(self.addresses) + 1)
        self._tell(tid, at, size, name, device)

    def free(self, tid: int, at: int, size: int, name: str, device: int = 0) -> None:
        self.held -= size
        self._tell(tid, at, -size, name, device)

    def _tell(self, tid: int, at: int, size: int, name: str, device: int) -> None:
        self.trace.thread(None, tid=tid).memory(
            at, size, allocated=self.held, reserved=1 << 20, device=device,
            address=self.addresses[name],
        )  # fmt: skip


def step() -> Profile:
    """Return a forward that keeps an activation, and a backward that frees it."""
    trace = Profile()
    main, autograd = trace.thread("python3", tid=100), trace.thread("pt_autograd_0", tid=101)
    main.annotation("forward", 0, 100 * K)
    main.annotation("backward", 100 * K, 300 * K)
    main.op("aten::to", 10 * K, 50 * K)
    main.op("aten::_to_copy", 11 * K, 49 * K)
    main.op("aten::empty_strided", 12 * K, 20 * K)
    main.op("aten::empty", 60 * K, 70 * K)
    autograd.op("MmBackward0", 150 * K, 200 * K)
    autograd.op("aten::mm", 160 * K, 190 * K)
    pool = Pool(trace, held=1_000)
    pool.alloc(100, 15 * K, 512, "copy")
    pool.alloc(100, 65 * K, 2_048, "buffer")
    pool.alloc(101, 170 * K, 4_096, "gradient")
    pool.free(101, 195 * K, 512, "copy")
    pool.alloc(101, 250 * K, 64, "late")
    main.memory(20 * K, 64, allocated=64, reserved=0, device=None)
    return trace


def rows_of(trace: Profile, folder: Path, **cut: Any) -> dict[tuple[str | None, str | None], Row]:
    of = linked(trace.write(folder / "trace.json"), **cut)
    return {(row["op"], row["phase"]): row for row in table(of, "memory_by_op")}


def test_an_allocation_is_of_the_innermost_op_that_does_more_than_allocate(tmp_path: Path) -> None:
    rows = rows_of(step(), tmp_path)

    assert {key: (row["allocations"], row["allocated_bytes"]) for key, row in rows.items()} == {
        ("aten::mm", "backward"): (1, 4_096),
        ("aten::empty", "forward"): (1, 2_048),  # nothing is around it
        ("aten::_to_copy", "forward"): (1, 512),
        (None, "backward"): (1, 64),
        ("MmBackward0", "backward"): (0, 0),
        (BEFORE, None): (0, 0),
    }
    assert rows["MmBackward0", "backward"]["freed_bytes"] == 512
    assert rows["MmBackward0", "backward"]["net_bytes"] == -512


def test_what_ops_hold_at_the_peak_adds_up_to_it(tmp_path: Path) -> None:
    rows = rows_of(step(), tmp_path)

    held = {key: row["at_peak_bytes"] for key, row in rows.items() if row["at_peak_bytes"]}
    assert held == {
        ("aten::mm", "backward"): 4_096,
        ("aten::empty", "forward"): 2_048,
        (BEFORE, None): 1_000,
        ("aten::_to_copy", "forward"): 512,
    }
    assert list(rows)[:4] == list(held)
    assert sum(row["share_of_peak"] for row in rows.values()) == pytest.approx(1)


def test_of_a_phase_only_its_events_count(tmp_path: Path) -> None:
    rows = rows_of(step(), tmp_path, phases=("forward",))

    assert {key: row["at_peak_bytes"] for key, row in rows.items()} == {
        ("aten::empty", "forward"): 2_048,
        ("aten::_to_copy", "forward"): 512,
    }


def test_devices_have_peaks_of_their_own(tmp_path: Path) -> None:
    trace = Profile()
    main = trace.thread("python3", tid=100)
    main.op("aten::mm", 0, 100 * K)
    main.op("aten::add", 100 * K, 200 * K)
    zero, one = Pool(trace), Pool(trace)
    zero.alloc(100, 10 * K, 1_024, "a")
    one.alloc(100, 20 * K, 512, "b", device=1)
    one.free(100, 30 * K, 512, "b", device=1)
    one.alloc(100, 110 * K, 2_048, "c", device=1)

    of = linked(trace.write(tmp_path / "trace.json"))

    found = {(row["op"], row["device"]): row["share_of_peak"] for row in table(of, "memory_by_op")}
    assert found == {("aten::add", 1): 1, ("aten::mm", 0): 1, ("aten::mm", 1): 0}


def test_where_phases_are_inferred_memory_is_of_what_its_thread_launches_next(
    tmp_path: Path,
) -> None:
    trace = Profile()
    training_step(trace, ranges=False)
    pool = Pool(trace)
    pool.alloc(100, 109 * K, 512, "activation")
    pool.alloc(101, 509 * K, 1_024, "gradient")
    pool.alloc(100, 1_809 * K, 256, "state")

    rows = rows_of(trace, tmp_path)

    assert {phase: row["allocated_bytes"] for (_, phase), row in rows.items()} == {
        "backward": 1_024, "forward": 512, "optimizer": 256,
    }  # fmt: skip


def test_without_memory_or_ops_it_says_what_records_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = Profile()
    trace.thread("python3").op("aten::mm", 0, 100)

    said = Shell(capsys)("summarize", trace.write(tmp_path / "t.json"), "-t", "memory_by_op")

    assert said.status == 4
    assert "profile_memory=True" in said.err


@pytest.mark.corpus
@pytest.mark.parametrize("name", ["gpt2-small-ctx512-bf16-stacks-memory", "three-streams-overlap"])
def test_totals_are_the_running_sums_of_what_was_allocated_and_freed(
    corpus: Path, name: str
) -> None:
    path = corpus / "kineto" / f"{name}-h200.json.gz"
    in_order = sorted(by_hand.read(path).by_cat["cpu_instant_event"], key=by_hand.ns)
    events = [event["args"] for event in in_order]
    told = [e for e in events if e.get("Device Type") == 1]
    held = told[0]["Total Allocated"] - told[0]["Bytes"]
    peak = before = held
    for event in told:
        held += event["Bytes"]
        assert held == event["Total Allocated"]
        peak = max(peak, held)

    rows = table(linked(path), "memory_by_op")

    assert sum(row["at_peak_bytes"] for row in rows) == peak
    assert sum(row["net_bytes"] for row in rows) == held - before
    assert sum(row["allocated_bytes"] for row in rows) == sum(max(0, e["Bytes"]) for e in told)


@pytest.mark.corpus
def test_every_op_has_the_bytes_that_a_plain_sweep_finds(corpus: Path) -> None:
    path = corpus / "kineto" / "gpt2-small-ctx512-bf16-stacks-memory-h200.json.gz"
    trace = by_hand.read(path)
    events = [
        e for e in trace.by_cat["cpu_instant_event"]
        if e["args"]["Device Type"] == 1 and e["args"]["Bytes"] > 0
    ]  # fmt: skip
    factories = {"aten::empty", "aten::empty_like", "aten::empty_strided", "aten::resize_"}
    allocated = Counter[str]()
    for event, ops in zip(events, trace.around(events, trace.by_cat["cpu_op"]), strict=True):
        names = [op["name"] for op in ops]
        telling = [name for name in names if name not in factories]
        allocated[(telling or names)[-1]] += event["args"]["Bytes"]

    found = Counter[str]()
    for row in table(linked(path), "memory_by_op"):
        found[row["op"]] += row["allocated_bytes"]

    assert +found == allocated
