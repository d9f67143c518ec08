"""The window of recorded steps: what the session is told, in what order, and what is timed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st

from tracelens.capture.recorder import Session, Wanted
from tracelens.capture.window import Window

if TYPE_CHECKING:
    from collections.abc import Sequence


class Diary(Session):
    """Writes down what it is told."""

    def __init__(self, enough: int = 0) -> None:
        self.said: list[str] = []
        self.enough = enough

    def warm(self) -> None:
        self.said.append("warm")

    def begin(self) -> None:
        self.said.append("begin")

    def stepped(self) -> None:
        self.said.append("stepped")

    def is_enough(self, steps_ns: Sequence[int]) -> bool:
        return len(steps_ns) >= self.enough

    def end(self) -> None:
        self.said.append("end")


def window(diary: Diary, warmup: int, steps: int | None) -> Window:
    def wait() -> None:
        diary.said.append("wait")

    return Window(diary, Wanted(Path(), "cpu", warmup, steps), wait)


def run(window: Window, diary: Diary, most: int = 100) -> int:
    """Run steps until the window is done; return how many."""
    ran = 0
    while not window.is_done and ran < most:
        window.begin_step()
        diary.said.append("step")
        window.end_step()
        ran += 1
    return ran


def test_the_recorder_warms_one_step_ahead_and_begins_with_the_device_at_rest() -> None:
    diary = Diary()
    run(window(diary, 2, 1), diary)

    first, second = ["step", "wait"], ["warm", "step", "wait"]
    recorded = ["wait", "begin", "step", "wait", "stepped", "wait", "end"]
    assert diary.said == first + second + recorded


def test_without_warm_up_the_first_step_is_recorded() -> None:
    diary = Diary()
    run(window(diary, 0, 1), diary)

    assert diary.said == ["wait", "begin", "step", "wait", "stepped", "wait", "end"]


@given(st.integers(0, 5), st.integers(1, 6), st.integers(0, 9))
def test_steps_are_counted_once_each(warmup: int, steps: int, enough: int) -> None:
    diary = Diary(enough)
    these = window(diary, warmup, steps)
    ran = run(these, diary)

    assert (len(these.warmup_ns), len(these.steps_ns)) == (warmup, max(steps, enough))
    assert ran == these.step == warmup + max(steps, enough)
    assert diary.said.count("stepped") == len(these.steps_ns)
    assert diary.said.count("begin") == diary.said.count("end") == 1
    assert diary.said.count("warm") == (warmup > 0)


def test_steps_after_the_window_are_none_of_it() -> None:
    diary = Diary()
    these = window(diary, 0, 2)
    run(these, diary)
    told = list(diary.said)
    these.begin_step()
    these.end_step()
    these.end()

    assert these.is_done
    assert diary.said == told
    assert these.step == 2


def test_a_window_ended_early_stays_ended_and_drops_the_step_under_way() -> None:
    diary = Diary()
    these = window(diary, 1, None)
    run(these, diary, most=3)
    these.begin_step()
    these.end()
    told = list(diary.said)
    these.end_step()
    run(these, diary)

    assert these.is_done
    assert (len(these.warmup_ns), len(these.steps_ns)) == (1, 2)
    assert diary.said == told
    assert told[-1] == "end"


def test_a_window_that_never_began_has_nothing_to_end() -> None:
    diary = Diary()
    these = window(diary, 3, 5)
    these.begin_step()
    these.end_step()
    these.end()

    assert "end" not in diary.said
    assert "begin" not in diary.said


def test_a_step_that_begins_again_is_one_step() -> None:
    diary = Diary()
    these = window(diary, 0, 5)
    these.begin_step()
    these.begin_step()
    these.end_step()
    these.end_step()

    assert these.step == 1
    assert diary.said.count("begin") == 1


class Moment:
    """A moment of a device whose clock ticks in steps of 2.5 ms."""

    clock = 0.0

    def __init__(self) -> None:
        Moment.clock += 2.5
        self.at = Moment.clock

    def elapsed_time(self, end: Any) -> float:
        return float(end.at - self.at)


def test_the_devices_own_clock_times_the_recorded_steps() -> None:
    these = Window(Session(), Wanted(Path(), "cuda", 1, 3), lambda: None, Moment)
    run(these, Diary())

    assert these.gpu_steps_ns == [2_500_000] * 3


def test_without_a_gpu_only_the_wall_clock_is_read() -> None:
    these = Window(Session(), Wanted(Path(), "cpu", 1, 3))
    run(these, Diary())

    assert len(these.steps_ns) == 3
    assert these.gpu_steps_ns == []
