"""The timer: how many steps are enough, and what it writes of them."""

from __future__ import annotations

import json
import statistics
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracelens import registry
from tracelens.capture import job
from tracelens.capture.job import Failure, Outcome
from tracelens.capture.recorder import Made, Recorder, Wanted
from tracelens.capture.recorders.timer import LEAST, LONGEST_NS, MOST, is_enough
from tracelens.errors import UnreadableError
from tracelens.readers.open import open_trace

if TYPE_CHECKING:
    from pathlib import Path

MS = 1_000_000


@pytest.fixture
def timer() -> Recorder:
    found: Recorder = registry.load("recorder", "timer")
    return found


def finished(timer: Recorder, folder: Path, *outcomes: Outcome) -> list[Made]:
    """Answer as processes would, and let the timer write what it makes of it."""
    one = job.Job("timer", Wanted(folder, "cpu"), "matmul")
    job.save(one)
    for outcome in outcomes:
        job.answer(one, outcome)
    return timer.finish(one.wanted, lambda _: None)


def said(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def test_all_samples_are_kept_beside_their_statistics(timer: Recorder, tmp_path: Path) -> None:
    steps = [10 * MS, 11 * MS, 12 * MS, 11 * MS, 30 * MS]
    made = finished(timer, tmp_path, Outcome(steps_ns=steps, warmup_ns=[99 * MS], build_ns=5))

    assert made == [Made("timer.json", None, is_recording=False)]
    found = said(tmp_path / "timer.json")
    assert (found["steps_ns"], found["warmup_ns"], found["build_ns"]) == (steps, [99 * MS], 5)
    assert found["wall"]["median_ns"] == statistics.median(steps)
    assert found["wall"]["mean_ns"] == statistics.fmean(steps)
    assert found["gpu"] is None
    assert "slowest took 2.7 times the median" in found["noise"]
    assert not list(tmp_path.glob(".*"))


def test_times_of_a_gpu_have_statistics_of_their_own(timer: Recorder, tmp_path: Path) -> None:
    finished(timer, tmp_path, Outcome(steps_ns=[5 * MS] * 3, gpu_steps_ns=[4 * MS] * 3))

    found = said(tmp_path / "timer.json")
    assert (found["wall"]["median_ns"], found["gpu"]["median_ns"]) == (5 * MS, 4 * MS)


def test_each_rank_has_a_file_and_one_without_steps_has_none(
    timer: Recorder, tmp_path: Path
) -> None:
    gone = Outcome(rank=2, failure=Failure("error", "gone", "build"))
    ranks = [Outcome(rank=rank, steps_ns=[MS, MS + rank]) for rank in (0, 1)]
    made = finished(timer, tmp_path, *ranks, gone)

    assert [one.path for one in made] == ["timer.rank0.json", "timer.rank1.json"]
    assert [one.rank for one in made] == [0, 1]
    assert said(tmp_path / "timer.rank1.json")["steps_ns"] == [MS, MS + 1]
    assert timer.files(Wanted(tmp_path, "cpu", processes=2)) == [one.path for one in made]


def test_a_file_of_times_is_not_taken_for_a_trace(timer: Recorder, tmp_path: Path) -> None:
    (made,) = finished(timer, tmp_path, Outcome(steps_ns=[MS] * 4))

    assert not made.is_recording
    with pytest.raises(UnreadableError):
        open_trace(tmp_path / made.path)


def test_the_program_is_not_marked(timer: Recorder) -> None:
    assert not timer.listens


def test_ranks_time_as_many_steps_as_one_another(timer: Recorder, tmp_path: Path) -> None:
    wanted = Wanted(tmp_path, "cpu", processes=2)
    noisy = [MS, 50 * MS, 3 * MS]

    assert timer.session(wanted, 0).is_enough(noisy)
    assert not timer.session(Wanted(tmp_path, "cpu"), None).is_enough(noisy)
    exact = Wanted(tmp_path, "cpu", options={"exact": True})
    assert timer.session(exact, None).is_enough(noisy)


def test_steady_steps_are_enough_at_once_and_noisy_ones_are_not() -> None:
    steady = [MS + i % 2 for i in range(LEAST)]
    noisy = [MS * (1 + i % 3) for i in range(LEAST)]

    assert not is_enough(steady[:-1])
    assert is_enough(steady)
    assert not is_enough(noisy)
    assert is_enough(noisy * (MOST // LEAST))


def test_long_steps_are_not_repeated_for_the_statistics() -> None:
    assert is_enough([LONGEST_NS // 2] * 2)
    assert not is_enough([LONGEST_NS // 4] * 3)


@settings(max_examples=25)
@given(st.lists(st.integers(1, 60 * 10**9), min_size=1, max_size=30))
def test_timing_ends(times: list[int]) -> None:
    steps: list[int] = []
    while not is_enough(steps or [0]):
        steps.append(times[len(steps) % len(times)])

    assert len(steps) <= MOST
    assert sum(steps[:-1]) < LONGEST_NS
