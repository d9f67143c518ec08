"""Looking at a part: inside a range, a step, a phase or a device, worker threads included."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.asking import linked, phase_of, table, the_row
from tests.build import Nsys, training_step
from tracelens.errors import NothingToShowError, UsageError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give three steps of two ranks; step 2 of each launches one kernel more."""
    trace = Nsys()
    for pid in (100, 200):
        main = trace.thread("python", pid=pid)
        for step in range(3):
            at = 10_000 * step
            training_step(trace, at=at, pid=pid)
            main.push(f"step {step}", at, at + 2_300)
            main.push("measured", at, at + 2_300)
        main.kernel("extra", at=22_250, run=(22_260, 22_270))
        main.kernel("outside", at=40_000, run=(40_001, 40_003))
    trace.thread("python", pid=200).kernel("b", at=41_000, run=(41_001, 41_003), device=1)
    return trace.write(tmp_path / "run.sqlite")


def kernels(path: Path, **cut: Any) -> int:
    return int(the_row(linked(path, **cut), "totals")["kernels"])


def test_a_range_holds_what_was_launched_in_it_by_any_thread_of_its_process(path: Path) -> None:
    of = linked(path, within="backward")

    assert {row["phase"]: row["kernels"] for row in table(of, "phases")} == {"backward": 18}
    assert kernels(path, within="step 1") == 18
    assert kernels(path, within="step 2") == 20


def test_all_instances_of_a_range_count_unless_one_is_named(path: Path) -> None:
    assert kernels(path, within="measured") == 2 * (9 + 9 + 10)
    assert [kernels(path, within=f"measured#{n}") for n in range(3)] == [18, 18, 20]


def test_a_range_of_one_process_holds_nothing_of_another(tmp_path: Path) -> None:
    trace = Nsys()
    trace.thread("python", pid=100).push("mine", 0, 100).kernel("a", at=50, run=(60, 70))
    trace.thread("python", pid=200).kernel("b", at=50, run=(60, 70))

    assert list(phase_of(linked(trace, tmp_path, within="mine"))) == ["a"]


def test_a_name_that_ends_in_a_number_is_a_name_first(tmp_path: Path) -> None:
    trace = Nsys()
    main = trace.thread("python")
    main.push("step", 0, 100).push("step#1", 200, 300).push("step", 400, 500)
    for name, at in (("a", 50), ("b", 250), ("c", 450)):
        main.kernel(name, at=at, run=(at, at + 10))
    path = trace.write(tmp_path / "run.sqlite")

    assert list(phase_of(linked(path, within="step#1"))) == ["b"]
    assert list(phase_of(linked(path, within="step#0"))) == ["a"]


def test_every_table_is_cut(path: Path) -> None:
    of = linked(path, within="step 1")

    calls = {row["name"]: row["calls"] for row in table(of, "api")}
    assert calls == {"cudaLaunchKernel": 18, "cudaMemcpyAsync": 2, "cudaDeviceSynchronize": 2}
    ranges = {row["name"]: row["instances"] for row in table(of, "ranges")}
    assert ranges == {"step 1": 2, "measured": 2, "forward": 2, "backward": 2, "optimizer": 2}
    assert {row["step"] for row in table(of, "steps")} == {1}
    assert the_row(of, "copies")["calls"] == 2
    assert the_row(of, "totals")["span_ns"] == 2_230
    assert of.coverage()["gpu_ops"] == 20


def test_a_step_is_what_was_launched_in_it(path: Path) -> None:
    assert [kernels(path, step=n) for n in range(3)] == [18, 18, 20]


def test_a_phase_is_what_belongs_to_it(path: Path) -> None:
    assert kernels(path, phases=("backward",)) == 18
    assert kernels(path, phases=("forward", "optimizer")) == 6 * (4 + 2)
    assert kernels(path, phases=("(none)",)) == 5
    assert kernels(path, phases=("(none)", "forward")) == 5 + 24


def test_a_device_is_what_ran_on_it(path: Path) -> None:
    assert (kernels(path, device=0), kernels(path, device=1)) == (2 * 29, 1)


def test_cuts_combine(path: Path) -> None:
    assert kernels(path, within="measured", step=1, phases=("forward",), device=0) == 8


def test_a_cut_by_phase_keeps_its_shares_of_what_is_left(path: Path) -> None:
    rows = table(linked(path, phases=("forward",)), "kernels")

    assert sum(row["share"] for row in rows) == pytest.approx(1)


@pytest.mark.parametrize(
    ("cut", "says"),
    [
        ({"within": "bakward"}, "no range named 'bakward'. Did you mean backward?"),
        ({"within": "backward#7"}, "'backward' has instances #0 to #2; there is no #7"),
        ({"step": 9}, "There is no step 9: steps are 0 to 2"),
        ({"device": 4}, "No work ran on device 4. Devices with work: 0, 1"),
        ({"phases": ("bakward",)}, "no phase named 'bakward'. Did you mean backward?"),
    ],
)
def test_what_is_not_there_is_named_with_what_is(
    path: Path, cut: dict[str, Any], says: str
) -> None:
    with pytest.raises(UsageError) as raised:
        linked(path, **cut)

    assert says in str(raised.value)


def test_a_recording_without_steps_says_how_to_mark_them(tmp_path: Path) -> None:
    trace = Nsys()
    trace.thread("python").kernel("k", at=0, run=(1, 2))

    with pytest.raises(NothingToShowError, match="marks no steps"):
        linked(trace, tmp_path, step=0)


def test_a_recording_without_ranges_says_so(tmp_path: Path) -> None:
    trace = Nsys()
    trace.thread("python").kernel("k", at=0, run=(1, 2))

    with pytest.raises(NothingToShowError, match="no ranges table: it was not recorded"):
        linked(trace, tmp_path, within="forward")


def test_a_name_that_only_a_kernel_bears_is_no_range(tmp_path: Path) -> None:
    trace = Nsys()
    trace.thread("python").push("forward", 0, 10).kernel("gemm", at=0, run=(1, 2))

    with pytest.raises(UsageError, match="no range named 'gemm'"):
        linked(trace, tmp_path, within="gemm")
