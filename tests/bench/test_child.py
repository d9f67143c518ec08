"""The process that measures: what it answers, and what it does where something fails."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tracelens.bench import child, job
from tracelens.bench.case import Case, Target
from tracelens.bench.job import Job, Line
from tracelens.hardware.measured import Failed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


def call(_target: Target) -> Callable[[], object]:
    return lambda: None


def broken(_target: Target) -> Callable[[], object]:
    raise RuntimeError("no such format\nand more")


def small(name: str, build: Callable[[Target], Callable[[], object]] = call, **more: Any) -> Case:
    return Case(name, "bytes_per_s", more.pop("work", 1), build, **more)


@pytest.fixture
def having(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Line]]:
    """Measure these cases in this process, on the processor, and return the answers."""

    def these(*cases: Case, skip: int = 0) -> list[Line]:
        def given(_target: Target) -> Iterator[Case]:
            yield from cases

        answers: list[Line] = []
        monkeypatch.setattr(child, "cases", given)
        assert child.measure(Job("cpu", quick=True, skip=skip), answers.append) == 0
        return answers

    return these


def names(answers: Iterable[Line]) -> list[str]:
    return [one.result.name for one in answers if one.result]


def test_what_fails_leaves_the_others_and_is_told_in_a_line(having: Any) -> None:
    answers = having(small("a"), small("b", broken), small("c"))

    assert names(answers) == ["a", "c"]
    assert [one.failed for one in answers if one.failed] == [
        Failed("b", "RuntimeError: no such format")
    ]
    assert answers[-1].over


def test_each_case_is_announced_before_it_is_measured(having: Any) -> None:
    first, *rest, last = having(small("a"), small("b"))

    assert first.device
    assert first.facts["torch"]
    assert [one.begun or (one.result and one.result.name) for one in rest] == ["a", "a", "b", "b"]
    assert [bool(one.begun) for one in rest] == [True, False, True, False]
    assert last.over


def test_a_process_goes_on_behind_the_case_that_another_died_of(having: Any) -> None:
    assert names(having(small("a"), small("b"), small("c"), skip=2)) == ["c"]


def test_what_does_not_fit_into_memory_is_left_out(having: Any) -> None:
    assert names(having(small("a", needs_bytes=2**60), small("b"))) == ["b"]


def test_what_would_take_too_long_in_a_larger_size_is_left_out(having: Any) -> None:
    answers = having(small("a", work=10), small("a", work=10**20), small("b", work=10**20))

    assert names(answers) == ["a", "b"]


def test_a_rate_is_the_work_over_the_median_and_a_time_is_the_median(having: Any) -> None:
    first, second = (
        one.result
        for one in having(small("a", work=1000), Case("t", "s", 0, call, clock="host"))
        if one.result
    )

    assert first.value == pytest.approx(1000 / first.median_s)
    assert first.clock == "wall clock"
    assert second.value == second.median_s


def test_answers_are_lines_that_are_read_again() -> None:
    answer = Line(failed=Failed("a\nb", "\x1b[31m"), facts={"x": 1})

    line = job.line(answer)

    assert line.count(b"\n") == 1
    assert job.said(line) == answer
    assert job.decode(job.encode(Job("2", quick=True, skip=3))) == Job("2", quick=True, skip=3)
