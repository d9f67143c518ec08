"""Training steps: named ones, and those that repeated phases show."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.asking import linked, table
from tests.build import Nsys, training_step
from tracelens.errors import NothingToShowError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    "name",
    ["step {}", "ProfilerStep#{}", "iteration {}", "iter_{}", "train_step", "Step", "step={}"],
)
def test_ranges_named_step_are_steps(tmp_path: Path, name: str) -> None:
    trace = Nsys()
    for number in range(3):
        at = 10_000 * number
        training_step(trace, at=at)
        trace.thread("python").push(name.format(number + 5), at, at + 2_300)

    rows = table(linked(trace, tmp_path), "steps")

    assert [row["step"] for row in rows] == [0, 1, 2]
    assert [row["name"] for row in rows] == [name.format(number + 5) for number in range(3)]
    for row in rows:
        assert (row["duration_ns"], row["kernels"]) == (2_300, 9)
        assert (row["busy_ns"], row["idle_ns"]) == (1_750, 480)
        assert (row["forward_ns"], row["backward_ns"], row["optimizer_ns"]) == (750, 700, 260)
        assert (row["other_ns"], row["kernel_time_ns"]) == (0, 1_710)


@pytest.mark.parametrize(
    "name", ["Optimizer.step#AdamW.step", "scheduler_step", "optimizer step 3"]
)
def test_a_step_of_the_optimizer_is_no_training_step(tmp_path: Path, name: str) -> None:
    trace = Nsys()
    main = trace.thread("python")
    for at in range(0, 300, 100):
        main.push(name, at, at + 50)
    main.kernel("k", at=10, run=(20, 30))

    with pytest.raises(NothingToShowError, match="no steps are marked"):
        table(linked(trace, tmp_path), "steps")


def test_repeated_phases_are_steps_where_none_is_named(tmp_path: Path) -> None:
    trace = Nsys()
    for at in (0, 10_000, 20_000):
        training_step(trace, at=at)

    rows = table(linked(trace, tmp_path), "steps")

    assert [(row["step"], row["name"], row["start_ns"]) for row in rows] == [
        (0, None, 100),
        (1, None, 10_100),
        (2, None, 20_100),
    ]
    assert [(row["duration_ns"], row["kernels"], row["source"]) for row in rows] == [
        (2_100, 9, "phases")
    ] * 3


def test_one_pass_through_the_phases_is_no_repetition(tmp_path: Path) -> None:
    trace = Nsys()
    training_step(trace)

    with pytest.raises(NothingToShowError, match="no steps are marked"):
        table(linked(trace, tmp_path), "steps")


def test_accumulated_gradients_are_one_step(tmp_path: Path) -> None:
    trace = Nsys()
    main = trace.thread("python")
    for at in (0, 1_000):
        for name, start in (("forward", 0), ("backward", 100), ("forward", 200), ("backward", 300)):
            main.push(name, at + start, at + start + 90)
        main.push("optimizer", at + 400, at + 490)
    main.kernel("k", at=10, run=(20, 30))

    rows = table(linked(trace, tmp_path), "steps")

    assert [(row["start_ns"], row["duration_ns"]) for row in rows] == [(0, 490), (1_000, 490)]


def test_warm_up_of_forward_alone_does_not_shift_the_steps(tmp_path: Path) -> None:
    trace = Nsys()
    main = trace.thread("python")
    for at in (0, 1_000, 2_000):
        main.push("forward", at, at + 90).push("backward", at + 100, at + 190)
        main.push("zero_grad", at + 200, at + 210)
        main.push("optimizer", at + 210, at + 290)
    main.kernel("k", at=10, run=(20, 30))

    rows = table(linked(trace, tmp_path), "steps")

    assert [(row["start_ns"], row["duration_ns"]) for row in rows] == [
        (0, 290),
        (1_000, 290),
        (2_000, 290),
    ]


def test_zero_grad_first_belongs_to_the_step_that_it_begins(tmp_path: Path) -> None:
    """Most training loops call zero_grad before forward."""
    trace = Nsys()
    main = trace.thread("python")
    for at in (0, 1_000, 2_000):
        main.push("zero_grad", at, at + 10).push("forward", at + 10, at + 90)
        main.push("backward", at + 100, at + 190).push("optimizer", at + 200, at + 290)
    main.kernel("k", at=10, run=(20, 30))

    rows = table(linked(trace, tmp_path), "steps")

    assert [(row["start_ns"], row["duration_ns"]) for row in rows] == [
        (0, 290),
        (1_000, 290),
        (2_000, 290),
    ]


def test_steps_that_hold_smaller_steps_count_and_not_the_smaller_ones(tmp_path: Path) -> None:
    trace = Nsys()
    main = trace.thread("python")
    for number in range(4):
        at = 1_000 * number
        main.push(f"step {number}", at, at + 900)
        for micro in range(2):
            main.push(f"micro_step {micro}", at + 400 * micro, at + 400 * micro + 300)
    main.kernel("k", at=10, run=(20, 30))

    rows = table(linked(trace, tmp_path), "steps")

    assert [row["name"] for row in rows] == ["step 0", "step 1", "step 2", "step 3"]


def test_each_process_counts_its_own_steps(tmp_path: Path) -> None:
    trace = Nsys()
    for pid in (100, 200):
        for number in range(2):
            at = 10_000 * number + pid
            training_step(trace, at=at, pid=pid)
            trace.thread("python", pid=pid).push(f"step {number}", at, at + 2_300)

    rows = table(linked(trace, tmp_path), "steps")

    assert [(row["pid"], row["step"], row["kernels"]) for row in rows] == [
        (100, 0, 9),
        (100, 1, 9),
        (200, 0, 9),
        (200, 1, 9),
    ]


def test_a_step_without_gpu_work_is_a_step(tmp_path: Path) -> None:
    trace = Nsys()
    main = trace.thread("python")
    for number in range(3):
        main.push(f"step {number}", 1_000 * number, 1_000 * number + 900)
    main.kernel("k", at=1_010, run=(1_020, 1_030))

    rows = table(linked(trace, tmp_path), "steps")

    assert [(row["kernels"], row["busy_ns"]) for row in rows] == [(0, 0), (1, 10), (0, 0)]


def test_work_of_a_step_that_runs_after_it_still_counts_for_it(tmp_path: Path) -> None:
    trace = Nsys()
    main = trace.thread("python")
    main.push("step 0", 0, 100).push("step 1", 100, 200)
    main.kernel("a", at=90, run=(150, 190))
    main.kernel("b", at=110, run=(190, 195))

    rows = table(linked(trace, tmp_path), "steps")

    assert [row["kernel_time_ns"] for row in rows] == [40, 5]


def test_steps_are_found_by_the_names_that_the_user_gave_to_phases(tmp_path: Path) -> None:
    trace = Nsys()
    main = trace.thread("python")
    for at in (0, 1_000):
        main.push("FPROP", at, at + 90).push("backward", at + 100, at + 190)
    main.kernel("k", at=10, run=(20, 30))

    named = linked(trace, tmp_path, phase_rules={"forward": "FPROP"})

    assert [(row["start_ns"], row["duration_ns"]) for row in table(named, "steps")] == [
        (0, 190),
        (1_000, 190),
    ]
