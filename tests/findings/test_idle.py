"""Rules on idle time: each with a trace that it finds, one that it must not, and one too blank."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.build import Nsys
from tests.findings.asked import found, is_silent, looked, numbers, reason
from tests.kineto import Profile

if TYPE_CHECKING:
    from pathlib import Path

US = 1_000
MS = 1_000_000
OF_CAUSES = ("launch_bound", "cpu_bound", "queued_gaps", "synchronising_calls")


def back_to_back(gap_ns: int, *, many: int = 100, late: bool) -> Nsys:
    """Return kernels every 10 µs with gaps between, launched in the gap before, or long ago."""
    trace = Nsys()
    main = trace.thread("python")
    for number in range(many):
        start = 10 * US * number + 10 * US
        at = start - gap_ns // 2 if late else number
        main.kernel("k", at=at, run=(start, start + 10 * US - gap_ns))
    return trace


def paused(pause_ns: int, work_ns: int, call: str | None = None) -> Nsys:
    """Return two kernels with a pause between, at whose end the second one is launched."""
    trace = Nsys()
    main = trace.thread("python")
    main.kernel("k", at=0, run=(10, 10 + work_ns))
    if call:
        main.push("validate", 100, 10 + work_ns + pause_ns)
        main.call(call, 200, 10 + work_ns + pause_ns - 20 * US)
    at = 10 + work_ns + pause_ns
    main.kernel("k", at=at - 10 * US, run=(at, at + work_ns))
    return trace


def test_gaps_before_each_launch_are_the_cost_of_launching(tmp_path: Path) -> None:
    finding = found("launch_bound", back_to_back(600, late=True), tmp_path)

    assert finding.cost_ns == finding.gain_ns == 99 * 600
    assert numbers(finding)["gaps", "gaps of this cause"] == 99
    span = 99 * 10 * US + 9_400
    assert numbers(finding)["totals", "of the span from first to last op"] == 99 * 600 / span
    assert "59.4 µs (5.9 %)" in finding.says
    assert "CUDA graphs" in finding.change


def test_a_few_percent_are_no_launch_bound(tmp_path: Path) -> None:
    assert is_silent("launch_bound", back_to_back(490, late=True), tmp_path)


def test_single_calls_that_take_long_are_no_lack_of_graphs(tmp_path: Path) -> None:
    trace = Nsys()
    main = trace.thread("python")
    main.kernel("k", at=0, run=(10, MS))
    main.call("cuModuleLoadData", 500, 2 * MS)
    main.kernel("k", at=2 * MS + 10 * US, run=(2 * MS + 11 * US, 3 * MS))

    finding = found("launch_bound", trace, tmp_path)

    assert "single CUDA calls take long" in finding.says
    assert "Warm up" in finding.change


def test_a_thread_that_is_away_costs_what_the_gpu_idles(tmp_path: Path) -> None:
    finding = found("cpu_bound", paused(200 * US, 1_000 * US), tmp_path)

    assert finding.cost_ns == 200 * US
    assert "(9.1 %)" in finding.says


def test_a_pause_of_less_than_a_twentieth_is_none(tmp_path: Path) -> None:
    assert is_silent("cpu_bound", paused(200 * US, 1_950 * US), tmp_path)


def test_gaps_between_what_was_launched_before(tmp_path: Path) -> None:
    finding = found("queued_gaps", back_to_back(1_200, late=False), tmp_path)

    assert finding.cost_ns == 99 * 1_200
    assert "99 gaps of 1.20 µs" in finding.says


def test_queued_gaps_of_under_a_tenth_are_usual(tmp_path: Path) -> None:
    assert is_silent("queued_gaps", back_to_back(990, late=False), tmp_path)


def test_what_follows_a_synchronisation_is_named_with_its_range(tmp_path: Path) -> None:
    trace = paused(90 * US, 500 * US, "cudaDeviceSynchronize")

    finding = found("synchronising_calls", trace, tmp_path)

    assert finding.cost_ns == 90 * US
    assert "100 % after cudaDeviceSynchronize in validate (1 call)" in finding.says
    assert finding.evidence[0].table == "synchronisations"


def test_reading_a_number_is_named_as_in_python(tmp_path: Path) -> None:
    trace = Profile()
    main = trace.thread("python3")
    main.kernel("k", at=0, run=(1_000, 500 * US))
    main.op("aten::item", 2_000, 520 * US)
    main.op("aten::_local_scalar_dense", 3_000, 519 * US)
    main.call("cudaStreamSynchronize", 4_000, 515 * US)
    main.kernel("k", at=590 * US, run=(600 * US, 1_000 * US))

    finding = found("synchronising_calls", trace, tmp_path)

    assert "cudaStreamSynchronize of .item() (1 call)" in finding.says
    assert finding.cost_ns == 100 * US
    assert finding.change == "Read values off the GPU every many steps only."


@pytest.mark.parametrize(
    ("call", "change"),
    [
        ("cudaMalloc", "Allocate once"),
        ("cudaMemcpy", "pinned memory"),
        ("cudaDeviceSynchronize", "Leave it out"),
    ],
)
def test_the_change_depends_on_the_call(tmp_path: Path, call: str, change: str) -> None:
    assert change in found("synchronising_calls", paused(90 * US, 500 * US, call), tmp_path).change


def test_synchronisations_that_cost_little_are_left_alone(tmp_path: Path) -> None:
    trace = paused(90 * US, 950 * US, "cudaDeviceSynchronize")

    assert is_silent("synchronising_calls", trace, tmp_path)


def test_a_synchronisation_outside_of_marked_steps_costs_no_step(tmp_path: Path) -> None:
    trace = paused(90 * US, 500 * US, "cudaDeviceSynchronize")
    main = trace.thread("python")
    main.push("step 0", 0, 50)
    main.push("step 1", 580 * US, 1_100 * US)

    assert is_silent("synchronising_calls", trace, tmp_path)


def stepped(between_ns: int, *, copied_ns: int = 0) -> Nsys:
    """Return three steps of 1 ms of work with idle time between, in which a copy may run."""
    trace = Nsys()
    main = trace.thread("python")
    for number in range(3):
        at = number * (MS + between_ns)
        main.push(f"step {number}", at, at + MS)
        main.kernel("k", at=at + 100, run=(at + 200, at + MS))
        if copied_ns:
            main.copy(bytes=8, at=at + MS + 100, run=(at + MS + 1_000, at + MS + 1_000 + copied_ns))
    return trace


def test_idle_time_between_steps_is_told_apart(tmp_path: Path) -> None:
    finding = found("idle_between_steps", stepped(100 * US), tmp_path)

    assert finding.cost_ns == 2 * (100 * US + 200)
    assert "100.2 µs each time" in finding.says


def test_what_is_copied_between_steps_is_no_idle_time(tmp_path: Path) -> None:
    finding = found("idle_between_steps", stepped(200 * US, copied_ns=50 * US), tmp_path)

    assert finding.cost_ns == 2 * (150 * US + 200)


def test_steps_that_follow_closely_are_left_alone(tmp_path: Path) -> None:
    assert is_silent("idle_between_steps", stepped(50 * US), tmp_path)


def test_without_steps_nothing_lies_between_them(tmp_path: Path) -> None:
    trace = back_to_back(600, late=True)

    assert reason("idle_between_steps", trace, tmp_path) == "fewer than two steps are known"


@pytest.mark.parametrize("rule", OF_CAUSES)
def test_without_calls_nobody_knows_what_the_gpu_waited_for(tmp_path: Path, rule: str) -> None:
    trace = Nsys()
    for number in range(3):
        trace.kernel_without_launch("k", (100 * number, 100 * number + 40))

    assert "no CUDA calls were recorded" in reason(rule, trace, tmp_path)


@pytest.mark.parametrize("rule", OF_CAUSES)
def test_without_the_launches_neither(tmp_path: Path, rule: str) -> None:
    trace = Nsys()
    trace.thread("python").call("cudaFree", 0, 1)
    for number in range(3):
        trace.kernel_without_launch("k", (100 * number, 100 * number + 40))

    assert "100 % of the idle time were not recorded" in reason(rule, trace, tmp_path)


def test_a_recording_without_a_gpu_could_not_be_looked_at(tmp_path: Path) -> None:
    trace = Nsys()
    trace.thread("python").push("forward", 0, 100)

    answer = looked(trace, tmp_path)

    assert answer.findings == ()
    assert {"no GPU work was recorded", "no kernel was recorded"} <= set(answer.could_not.values())
