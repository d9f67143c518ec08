"""Which phase each kernel belongs to, where ranges name the phases."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.asking import linked, phase_of, table
from tests.build import Nsys, Thread, training_step
from tracelens.errors import UsageError
from tracelens.links.phases import rules

if TYPE_CHECKING:
    from pathlib import Path


def launches(thread: Thread, *named: tuple[str, int]) -> None:
    """Launch kernels, each at its time; each runs for 1 ns, much later and in order."""
    for name, at in named:
        thread.kernel(name, at=at, run=(10_000 + 10 * at, 10_001 + 10 * at))


def test_autograd_works_for_the_thread_that_waits_in_backward(tmp_path: Path) -> None:
    trace = Nsys()
    main, autograd = trace.thread("python"), trace.thread("pt_autograd_0", tid=101)
    main.push("forward", 0, 100).push("backward", 100, 200)
    launches(main, ("loss", 50))
    launches(autograd, ("gradient", 150), ("late", 250))

    assert phase_of(linked(trace, tmp_path)) == {
        "loss": ("forward", "own_thread"),
        "gradient": ("backward", "same_process"),
        "late": (None, "none"),
    }


def test_a_thread_with_a_phase_of_its_own_needs_no_other(tmp_path: Path) -> None:
    trace = Nsys()
    main, other = trace.thread("python"), trace.thread("python-2", tid=101)
    main.push("backward", 0, 100)
    other.push("forward", 0, 50)
    launches(other, ("own", 20), ("borrowed", 70))

    assert phase_of(linked(trace, tmp_path)) == {
        "own": ("forward", "own_thread"),
        "borrowed": ("backward", "same_process"),
    }


def test_no_process_borrows_a_phase_of_another(tmp_path: Path) -> None:
    trace = Nsys()
    trace.thread("python", pid=100).push("forward", 0, 1000)
    launches(trace.thread("python", pid=200), ("elsewhere", 500))
    launches(trace.thread("python", pid=100), ("here", 500))

    assert phase_of(linked(trace, tmp_path)) == {
        "here": ("forward", "own_thread"),
        "elsewhere": (None, "none"),
    }


def test_the_innermost_phase_wins(tmp_path: Path) -> None:
    trace = Nsys()
    main = trace.thread("python")
    main.push("step 1", 0, 1000).push("Backward", 100, 900).push("optimizer", 500, 600)
    main.push("layer", 510, 590)
    launches(main, ("gradient", 200), ("adam", 550), ("more", 700))

    assert phase_of(linked(trace, tmp_path)) == {
        "gradient": ("backward", "own_thread"),
        "adam": ("optimizer", "own_thread"),
        "more": ("backward", "own_thread"),
    }


def test_ranges_within_a_phase_do_not_end_it(tmp_path: Path) -> None:
    trace = Nsys()
    main = trace.thread("python")
    main.push("forward", 0, 100).push("attention", 10, 20).push("mlp", 20, 30)
    launches(main, ("a", 15), ("b", 25), ("c", 50))

    assert set(phase_of(linked(trace, tmp_path)).values()) == {("forward", "own_thread")}


def test_phases_that_overlap_as_start_end_ranges_the_one_opened_last_holds(tmp_path: Path) -> None:
    trace = Nsys()
    main = trace.thread("python")
    main.push("forward", 0, 60, kind="start_end").push("backward", 40, 100, kind="start_end")
    launches(main, ("a", 20), ("b", 50), ("c", 80))

    assert [phase for phase, _ in phase_of(linked(trace, tmp_path)).values()] == [
        "forward",
        "backward",
        "backward",
    ]


def test_of_two_threads_that_disagree_the_one_that_waits_is_worked_for(tmp_path: Path) -> None:
    trace = Nsys()
    waits, busy = trace.thread("trainer"), trace.thread("evaluator", tid=101)
    worker = trace.thread("pt_autograd_0", tid=102)
    waits.push("backward", 0, 1000)
    busy.push("forward", 0, 1000)
    launches(busy, *((f"eval {at}", at) for at in range(5, 1000, 10)))
    launches(worker, *((f"grad {at}", at) for at in range(100, 900, 50)))

    found = phase_of(linked(trace, tmp_path))

    assert {how for name, how in found.items() if "eval" in name} == {("forward", "own_thread")}
    assert {how for name, how in found.items() if "grad" in name} == {("backward", "same_process")}


def test_where_threads_disagree_and_both_wait_nobody_can_tell(tmp_path: Path) -> None:
    trace = Nsys()
    trace.thread("trainer").push("backward", 0, 1000)
    trace.thread("evaluator", tid=101).push("forward", 0, 1000)
    launches(trace.thread("worker", tid=102), ("whose", 500))

    of = linked(trace, tmp_path)

    assert phase_of(of) == {"whose": (None, "ambiguous")}
    assert of.coverage()["ambiguous"] == 1


def test_threads_that_agree_leave_no_doubt(tmp_path: Path) -> None:
    trace = Nsys()
    trace.thread("trainer").push("backward", 0, 1000)
    trace.thread("second", tid=101).push("backward", 200, 800)
    launches(trace.thread("worker", tid=102), ("grad", 500))

    assert phase_of(linked(trace, tmp_path)) == {"grad": ("backward", "same_process")}


@pytest.mark.parametrize(
    ("name", "phase"),
    [
        ("forward", "forward"),
        ("Forward Pass", "forward"),
        ("forward_pass", "forward"),
        ("fwd", "forward"),
        ("step 3: fwd", "forward"),
        ("model.forward", "forward"),
        ("bwd_12", "backward"),
        ("BACKWARD", "backward"),
        ("Backward pass 3", "backward"),
        ("optimizer", "optimizer"),
        ("optimizer_step", "optimizer"),
        ("Optimizer.step#AdamW.step", "optimizer"),
        ("optim step", "optimizer"),
        ("optimiser", "optimizer"),
        ("zero_grad", "optimizer"),
        ("Optimizer.zero_grad#AdamW.zero_grad", "optimizer"),
        ("loss", None),
        ("data", None),
        ("forward-backward", None),
        ("prefill", "prefill"),
        ("Decode 17", "decode"),
        ("decode_image", None),
        ("vae decode", None),
        ("fwd_bwd", None),
        ("carry-forwarding", None),
        ("straightforward", None),
        ("optimistic", None),
        ("optional", None),
        ("step 3", None),
        ("", None),
    ],
)
def test_a_name_means_a_phase(name: str, phase: str | None) -> None:
    assert rules().phase(name) == phase


def test_loss_is_in_no_phase_unless_asked_for(tmp_path: Path) -> None:
    trace = Nsys()
    main = trace.thread("python")
    main.push("forward", 0, 100).push("loss", 100, 150).push("backward", 150, 300)
    launches(main, ("gemm", 50), ("nll", 120), ("grad", 200))
    path = trace.write(tmp_path / "run.sqlite")

    assert phase_of(linked(path))["nll"] == (None, "none")
    asked = linked(path, phase_rules={"loss": "^loss$"})
    assert phase_of(asked)["nll"] == ("loss", "own_thread")
    assert [row["phase"] for row in table(asked, "phases")] == ["forward", "backward", "loss"]


def test_a_rule_of_the_user_comes_before_the_built_in_ones(tmp_path: Path) -> None:
    trace = Nsys()
    main = trace.thread("python")
    main.push("forward teacher", 0, 100).push("forward student", 100, 200).push("VAE", 200, 300)
    launches(main, ("a", 50), ("b", 150), ("c", 250))

    of = linked(trace, tmp_path, phase_rules={"teacher": "teacher", "forward": "student|VAE"})

    assert [phase for phase, _ in phase_of(of).values()] == ["teacher", "forward", "forward"]


def test_a_rule_that_replaces_a_built_in_one_takes_its_names_away(tmp_path: Path) -> None:
    trace = Nsys()
    main = trace.thread("python")
    main.push("forward", 0, 100).push("denoise", 100, 200)
    launches(main, ("a", 50), ("b", 150))

    found = phase_of(linked(trace, tmp_path, phase_rules={"forward": "denoise"}))

    assert found == {"a": (None, "none"), "b": ("forward", "own_thread")}


def test_a_rule_that_is_no_regular_expression_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--phases loss=\(: this is no regular expression"):
        rules({"loss": "("})


def test_ranges_of_libraries_count_only_where_the_user_has_none(tmp_path: Path) -> None:
    trace = Nsys()
    main = trace.thread("python")
    main.push("backward", 0, 100, domain="library")
    launches(main, ("a", 50))
    alone = trace.write(tmp_path / "alone.sqlite")
    main.push("forward", 0, 100)
    beside = trace.write(tmp_path / "beside.sqlite")

    assert phase_of(linked(alone)) == {"a": ("backward", "own_thread")}
    assert phase_of(linked(beside)) == {"a": ("forward", "own_thread")}


def test_work_whose_launch_is_missing_takes_the_phase_of_both_neighbours(tmp_path: Path) -> None:
    trace = Nsys()
    main = trace.thread("python")
    main.push("forward", 0, 100).push("backward", 100, 200)
    main.kernel("f1", at=10, run=(1000, 1010))
    trace.kernel_without_launch("between forward", (1010, 1020))
    main.kernel("f2", at=20, run=(1020, 1030))
    trace.kernel_without_launch("at the border", (1030, 1040))
    main.kernel("b1", at=110, run=(1040, 1050))
    trace.kernel_without_launch("at the end", (1050, 1060))

    found = phase_of(linked(trace, tmp_path))

    assert found["between forward"] == ("forward", "inferred")
    assert found["at the border"] == (None, "unlinked")
    assert found["at the end"] == (None, "unlinked")


def test_neighbours_are_those_of_the_stream(tmp_path: Path) -> None:
    trace = Nsys()
    main = trace.thread("python")
    main.push("forward", 0, 100).push("backward", 100, 200)
    main.kernel("f1", at=10, run=(1000, 1010), stream=7)
    main.kernel("b1", at=110, run=(1002, 1003), stream=8)
    trace.kernel_without_launch("on 7", (1010, 1020), stream=7)
    trace.kernel_without_launch("on 8", (1004, 1005), stream=8)
    trace.kernel_without_launch("alone", (1004, 1005), stream=9)
    trace.kernel_without_launch("other device", (1004, 1005), stream=7, device=1)
    main.kernel("f2", at=20, run=(1020, 1030), stream=7)
    main.kernel("b2", at=120, run=(1006, 1007), stream=8)

    found = phase_of(linked(trace, tmp_path))

    assert found["on 7"] == ("forward", "inferred")
    assert found["on 8"] == ("backward", "inferred")
    assert found["alone"] == found["other device"] == (None, "unlinked")


def test_neighbours_in_no_phase_pass_none_on(tmp_path: Path) -> None:
    trace = Nsys()
    main = trace.thread("python")
    main.push("forward", 0, 100)
    main.kernel("n1", at=200, run=(1000, 1010))
    trace.kernel_without_launch("between", (1010, 1020))
    main.kernel("n2", at=210, run=(1020, 1030))

    assert phase_of(linked(trace, tmp_path))["between"] == (None, "unlinked")


def test_by_execution_a_kernel_counts_where_it_ran(tmp_path: Path) -> None:
    trace = Nsys()
    step = training_step(trace)
    path = trace.write(tmp_path / "run.sqlite")
    by_launch = {row["phase"]: row["kernels"] for row in table(linked(path), "phases")}
    executed = linked(path, attribution="execution")
    by_execution = {row["phase"]: row["kernels"] for row in table(executed, "phases")}

    assert by_launch == step.kernels
    # Of forward's kernels two begin at 550 and 850 ns, when the range backward has begun.
    assert by_execution == {"forward": 2, "backward": 5, "optimizer": 2, None: 0}


def test_by_execution_even_work_without_a_launch_has_a_place(tmp_path: Path) -> None:
    trace = Nsys()
    trace.thread("python").push("forward", 0, 100)
    trace.kernel_without_launch("k", (50, 60))

    found = phase_of(linked(trace, tmp_path, attribution="execution"))

    assert found == {"k": ("forward", "same_process")}


def test_ranges_of_phases_around_a_copy_count_for_the_copy(tmp_path: Path) -> None:
    trace = Nsys()
    main = trace.thread("python")
    main.push("forward", 0, 100)
    main.copy(bytes=10, at=10, run=(200, 230))
    main.memset(bytes=10, at=20, run=(230, 231))
    main.graph(graph_id=1, at=30, run=(240, 300))

    of = linked(trace, tmp_path)
    (row,) = table(of, "phases")

    assert (row["phase"], row["copies"], row["copy_time_ns"]) == ("forward", 1, 30)
    assert (row["graph_launches"], row["graph_time_ns"], row["busy_ns"]) == (1, 60, 91)
    assert of.coverage()["own_thread"] == 3
