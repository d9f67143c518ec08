"""Rules on memory: each with a snapshot that it finds, one that it must not, and one too blank."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.findings.asked import found, is_silent, numbers, reason
from tests.kineto import Profile
from tests.snapshots import MIB, Snapshot, training
from tracelens.findings import look
from tracelens.links.memory import remember
from tracelens.readers.open import open_trace

if TYPE_CHECKING:
    from pathlib import Path

LINE = ("model.py:20 forward", "train.py:3 main")
OTHER = ("model.py:30 head", "train.py:3 main")


def failing(*, free_mib: int, live: int = 4, freed: tuple[int, ...] = ()) -> Snapshot:
    """Return a program that ran out of memory with 8 MiB blocks live, some freed again."""
    snapshot = Snapshot()
    gpu = snapshot.device()
    blocks = [gpu.alloc(8 * MIB, stack=LINE) for _ in range(live)]
    for place in freed:
        gpu.free(blocks[place])
    gpu.oom(20 * MIB, free=free_mib * MIB, stack=LINE)
    return snapshot


@pytest.mark.parametrize(
    ("snapshot", "says", "change"),
    [
        (failing(free_mib=3), "That is real exhaustion: less must be live at once.", ""),
        (failing(free_mib=1, live=6, freed=(0, 2, 4)), "That is fragmentation.", "expandable"),
        (failing(free_mib=90), "the process was not allowed more of it", ""),
    ],
    ids=["exhausted", "in pieces", "limited"],
)
def test_what_an_allocation_failed_for_is_told(
    tmp_path: Path, snapshot: Snapshot, says: str, change: str
) -> None:
    finding = found("out_of_memory", snapshot, tmp_path)

    assert finding.says.startswith("Out of memory at model.py:20 forward: 20.0 MiB asked for.")
    assert says in finding.says
    assert change in finding.change
    assert numbers(finding)["ooms", "asked for"] == 20 * MIB


def test_who_has_enough_memory_does_not_run_out(tmp_path: Path) -> None:
    assert is_silent("out_of_memory", training(), tmp_path)


def leaking(kept: int, *, steps: int = 4) -> Snapshot:
    """Return steps that each leave so many bytes behind."""
    snapshot = Snapshot()
    gpu = snapshot.device()
    for step in range(steps):
        with snapshot.range(f"step {step}"):
            gpu.alloc(kept, stack=LINE)
            gpu.free(gpu.alloc(4 * MIB, stack=OTHER))
    return snapshot


def test_a_line_that_leaves_memory_behind_is_named(tmp_path: Path) -> None:
    finding = found("leaks", leaking(2 * MIB), tmp_path)

    assert finding.says.startswith("model.py:20 forward leaves 2.00 MiB a step behind, in 3 of 3")
    assert finding.cost_bytes == finding.gain_bytes == 3 * 2 * MIB
    assert finding.subject == "model.py:20 forward"


def test_less_than_a_mebibyte_a_step_is_no_leak(tmp_path: Path) -> None:
    assert is_silent("leaks", leaking(MIB - 1), tmp_path)


def test_leaks_need_steps(tmp_path: Path) -> None:
    assert "fewer than two steps" in reason("leaks", leaking(2 * MIB, steps=1), tmp_path)


def peaking(*sizes: int) -> Snapshot:
    """Return blocks of so many MiB, each of a line of its own, live together in forward."""
    snapshot = Snapshot()
    gpu = snapshot.device()
    with snapshot.range("forward"):
        blocks = [
            gpu.alloc(size * MIB, stack=(f"model.py:{20 + place} forward",))
            for place, size in enumerate(sizes)
        ]
    with snapshot.range("backward"):
        for block in blocks:
            gpu.free(block)
    return snapshot


def test_the_peak_is_told_by_category_and_line(tmp_path: Path) -> None:
    finding = found("memory_peak", peaking(10, 30), tmp_path)

    assert finding.says == (
        "The peak of 40.0 MiB in forward: 100 % are activations, model.py:21 forward holds 75 %."
    )
    assert finding.cost_bytes == 40 * MIB
    assert "Checkpoint activations" in finding.change
    assert finding.gain_bytes == 40 * MIB  # of what the change is about, not of the line
    assert finding.assumption.startswith("none of activations was live")
    assert numbers(finding)["live", "model.py:21 forward at the peak"] == 30 * MIB


def test_a_line_of_less_than_a_tenth_is_not_named(tmp_path: Path) -> None:
    finding = found("memory_peak", peaking(*[2] * 11), tmp_path)

    assert finding.says == "The peak of 22.0 MiB in forward: 100 % are activations."


def test_what_cuda_gave_out_tells_no_tensors(tmp_path: Path) -> None:
    from tests.build import Nsys

    trace = Nsys()
    trace.memory_usage(0, 4_096, 1)
    answer = look(remember(open_trace(trace.write(tmp_path / "run.sqlite"), cache=False)), "memory")

    assert "tensors were not" in answer.could_not["memory_peak"]
    assert "segments are known" in answer.could_not["fragmentation"]


def fragmented(block_mib: int) -> Snapshot:
    """Return four blocks of 300 MiB of which three were freed before the peak, and one more."""
    snapshot = Snapshot()
    gpu = snapshot.device()
    blocks = [gpu.alloc(300 * MIB, stack=LINE) for _ in range(4)]
    for block in blocks[1:]:
        gpu.free(block)
    gpu.alloc(block_mib * MIB, stack=OTHER)
    return snapshot


def test_memory_in_no_use_at_the_peak_is_told(tmp_path: Path) -> None:
    finding = found("fragmentation", fragmented(1_000), tmp_path)

    assert finding.cost_bytes == finding.gain_bytes == 900 * MIB
    assert "900.0 MiB (41 % of what is reserved) are in no use" in finding.says
    assert "pieces of 300.0 MiB at most" in finding.says


def test_a_small_part_of_what_is_reserved_may_be_in_no_use(tmp_path: Path) -> None:
    assert is_silent("fragmentation", fragmented(5_200), tmp_path)  # 900 of 6,400 MiB: 14 %


def churning(lives: int, segments: int) -> Snapshot:
    """Return blocks freed at once, for each of which CUDA is asked, among others that stay."""
    snapshot = Snapshot()
    gpu = snapshot.device()
    with snapshot.range("forward"):
        for _ in range(segments):
            gpu.free(gpu.alloc(30 * MIB, stack=LINE))
            gpu.release(gpu.segments[-1])
        for _ in range(lives):
            gpu.alloc(MIB // 2, stack=OTHER)
    return snapshot


def test_short_lives_that_take_memory_of_cuda_are_told(tmp_path: Path) -> None:
    finding = found("churn", churning(lives=10, segments=10), tmp_path)

    assert finding.cost_bytes == 10 * 30 * MIB
    assert finding.says.startswith("50 % of allocations are freed within 10 others")
    assert "most in forward, model.py:20 forward" in finding.says


@pytest.mark.parametrize(("lives", "segments"), [(11, 10), (9, 9)])
def test_some_short_lives_are_usual(tmp_path: Path, lives: int, segments: int) -> None:
    assert is_silent("churn", churning(lives, segments), tmp_path)


def test_a_snapshot_without_history_tells_no_lives(tmp_path: Path) -> None:
    snapshot = Snapshot()
    gpu = snapshot.device()
    gpu.recording = False
    gpu.alloc(4 * MIB, stack=LINE)

    assert reason("churn", snapshot, tmp_path) == "no allocations were recorded"
    assert reason("out_of_memory", snapshot, tmp_path) == "no history was recorded"


def test_the_profilers_totals_tell_a_peak_too(tmp_path: Path) -> None:
    trace = Profile()
    main = trace.thread("python3")
    main.annotation("forward", 0, 100_000)
    main.memory(1_000, 8 * MIB, allocated=8 * MIB, reserved=20 * MIB)
    main.memory(2_000, -8 * MIB, allocated=0, reserved=20 * MIB)
    path = trace.write(tmp_path / "rank0.json")

    answer = look(remember(open_trace(path, cache=False)), "memory")

    assert [f.cost_bytes for f in answer.findings] == [8 * MIB]
    assert "segments are known" in answer.could_not["fragmentation"]
