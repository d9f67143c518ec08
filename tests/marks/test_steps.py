"""Steps: one after another, around a block, and for those who listen."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

import tracelens
from tests.marks.recorded import marks_of
from tracelens.marks import on_step, steps

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _no_step_is_left() -> Iterator[None]:
    yield
    steps.abandon()


@pytest.fixture
def heard() -> Iterator[list[str]]:
    said: list[str] = []
    stop = on_step(lambda: said.append("begin"), lambda: said.append("end"))
    yield said
    stop()


def test_each_step_ends_where_the_next_begins() -> None:
    def work() -> None:
        for number in range(3):
            tracelens.step()
            with tracelens.phase(f"forward {number}"):
                pass
        steps.end()

    assert marks_of(work) == [
        "step",
        "step > forward 0",
        "step",
        "step > forward 1",
        "step",
        "step > forward 2",
    ]


def test_a_step_around_a_block_ends_with_it(heard: list[str]) -> None:
    def work() -> None:
        for _ in range(2):
            with tracelens.step():
                pass
            with tracelens.span("between"):
                pass

    assert marks_of(work) == ["step", "between", "step", "between"]
    assert heard == ["begin", "end"] * 2


def test_both_ways_of_writing_a_step_make_no_empty_ones(heard: list[str]) -> None:
    with tracelens.step():
        pass
    tracelens.step()
    tracelens.step()
    with tracelens.step():
        pass

    assert heard == ["begin", "end"] * 4


def test_a_step_that_raises_is_not_told_to_have_ended(heard: list[str]) -> None:
    def work() -> None:
        with pytest.raises(ValueError, match="bad batch"), tracelens.step():
            raise ValueError("bad batch")
        with tracelens.span("after"):
            pass

    assert marks_of(work) == ["step", "after"]
    assert heard == ["begin"]


def test_a_step_begun_within_a_range_ends_no_later_than_it() -> None:
    def work() -> None:
        with tracelens.span("epoch"):
            tracelens.step()
            with tracelens.span("data"):
                tracelens.step()
        with tracelens.span("evaluation"):
            pass

    # The second step ends the first, and with it the range that was begun in that.
    assert marks_of(work) == [
        "epoch",
        "epoch > step",
        "epoch > step > data",
        "epoch > step",
        "evaluation",
    ]
    assert steps.is_marked()


def test_each_thread_has_steps_of_its_own(heard: list[str]) -> None:
    tracelens.step()
    thread = threading.Thread(target=tracelens.step)
    thread.start()
    thread.join()

    assert heard == ["begin", "begin"]


def test_who_listens_can_end_the_program_there() -> None:
    begun = 0

    def begin() -> None:
        nonlocal begun
        begun += 1

    def end() -> None:
        raise SystemExit(0)

    stop = on_step(begin, end)
    tracelens.step()
    with pytest.raises(SystemExit):
        tracelens.step()
    stop()
    tracelens.step()

    assert begun == 1
