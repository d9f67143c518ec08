"""Ranges: with and as decorators, beside profilers that come and go, on several threads."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tracelens
from tests.marks.recorded import marks_of, profile
from tracelens.marks import is_recording, ranges

if TYPE_CHECKING:
    from collections.abc import Iterator


def test_ranges_are_recorded_as_they_nest() -> None:
    def work() -> None:
        with tracelens.step(), tracelens.phase("forward"), tracelens.span("softmax"):
            torch.ones(2).softmax(0)

    assert marks_of(work) == ["step", "step > forward", "step > forward > softmax"]


def test_a_decorated_function_has_a_range_each_time_and_stays_what_it_was() -> None:
    @tracelens.span("square")
    def square(x: int) -> int:
        """Multiply a number by itself."""
        return x * x

    assert marks_of(lambda: [square(3), square(4)]) == ["square", "square"]
    assert square(3) == 9
    assert square.__doc__ == "Multiply a number by itself."


def test_a_range_can_be_entered_again_while_it_is_open() -> None:
    again = tracelens.span("again")

    def work() -> None:
        with again, again:
            pass

    assert marks_of(work) == ["again", "again > again"]


def test_an_exception_ends_all_ranges_that_it_leaves() -> None:
    def work() -> None:
        with pytest.raises(ZeroDivisionError), tracelens.span("outer"), tracelens.span("inner"):
            raise ZeroDivisionError
        with tracelens.span("after"):
            pass

    assert marks_of(work) == ["outer", "outer > inner", "after"]


def test_ranges_of_a_generator_that_is_never_finished_end_with_what_holds_them() -> None:
    def numbers() -> Iterator[int]:
        with tracelens.span("generator"):
            yield from range(3)

    kept = numbers()

    def work() -> None:
        with tracelens.span("outer"):
            next(kept)
        with tracelens.span("after"):
            pass

    assert marks_of(work) == ["outer", "outer > generator", "after"]
    assert list(kept) == [1, 2]
    assert not ranges.opened()


def test_a_generator_or_coroutine_cannot_be_decorated() -> None:
    def numbers() -> Iterator[int]:
        yield 1

    async def wait() -> None:
        pass

    for function in (numbers, wait):
        with pytest.raises(TypeError, match=r"with tracelens.span\('x'\)"):
            tracelens.span("x")(function)


@pytest.mark.parametrize("name", [None, 3, b"forward", lambda: 0])
def test_a_name_is_text(name: object) -> None:
    with pytest.raises(TypeError, match="The name of a range is text"):
        tracelens.span(name)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="The name of a range is text"):
        tracelens.phase(name)  # type: ignore[arg-type]


def test_each_thread_has_ranges_of_its_own() -> None:
    inside, go_on = threading.Event(), threading.Event()
    seen: list[int] = []

    def work() -> None:
        with tracelens.span("worker"):
            seen.append(len(ranges.opened()))
            inside.set()
            go_on.wait()

    with profile(), tracelens.span("main"):
        thread = threading.Thread(target=work)
        thread.start()
        inside.wait()
        assert len(ranges.opened()) == 1
        go_on.set()
        thread.join()
        assert len(ranges.opened()) == 1

    assert seen == [1]


def test_nothing_is_open_while_nothing_records() -> None:
    with tracelens.step(), tracelens.phase("forward"):
        assert not is_recording()
        assert not ranges.opened()


def test_a_profiler_may_start_and_stop_within_a_range() -> None:
    before, within = profile(), profile()
    with tracelens.span("outer"):
        with before, tracelens.span("whole"):
            pass
        within.__enter__()
        with tracelens.span("cut"):
            within.__exit__(None, None, None)
            assert len(ranges.opened()) == 1
        assert not ranges.opened()
    assert not ranges.opened()


def test_a_range_does_not_outlive_its_profiler() -> None:
    """GIVEN ranges begun under one profiler that would be ended under the next (torch crashes)."""
    for _ in range(5):
        spans = [tracelens.span("first") for _ in range(20)]
        with profile():
            for one in spans:
                one.__enter__()
        with profile() as second:
            for one in reversed(spans):
                one.__exit__(None, None, None)
        gc.collect()

    assert not ranges.opened()
    assert not any(event.key == "first" for event in second.events())


@given(st.lists(st.sampled_from(["enter", "exit", "profile"]), max_size=30))
def test_whenever_a_profiler_comes_and_goes_pushes_have_pops(events: list[str]) -> None:
    entered = []
    profiler = None
    for n, event in enumerate(events):
        if event == "enter":
            entered.append(tracelens.span(f"range {n}"))
            entered[-1].__enter__()
        elif event == "exit" and entered:
            entered.pop().__exit__(None, None, None)
        elif event == "profile":
            profiler = _toggled(profiler)
        opened = [one.key for one in ranges.opened()]
        assert opened == [one for one in entered if one in opened]
    if profiler:
        _toggled(profiler)
    for one in reversed(entered):
        one.__exit__(None, None, None)

    assert not ranges.opened()


def _toggled(
    profiler: torch.autograd.profiler.profile | None,
) -> torch.autograd.profiler.profile | None:
    if profiler is None:
        return torch.autograd.profiler.profile().__enter__()
    profiler.__exit__(None, None, None)
    return None


@given(st.lists(st.integers(0, 5), max_size=20))
def test_ranges_that_end_in_any_order_still_nest(order: list[int]) -> None:
    """GIVEN spans entered and exited as interleaved coroutines would."""
    spans = [tracelens.span(str(n)) for n in range(6)]
    inside: set[int] = set()

    def work() -> None:
        for n in order:
            if n in inside:
                inside.remove(n)
                spans[n].__exit__(None, None, None)
            else:
                inside.add(n)
                spans[n].__enter__()
        for n in inside:
            spans[n].__exit__(None, None, None)

    with torch.autograd.profiler.profile() as profiler:
        work()

    assert not ranges.opened()
    intervals = sorted((e.time_range.start, -e.time_range.end) for e in profiler.function_events)
    assert len(intervals) >= len(set(order))
    for (_, end), (start, later) in pairwise(intervals):
        assert -later <= -end or start >= -end


def test_importing_tracelens_imports_neither_torch_nor_anything_heavy() -> None:
    heavy = "{'torch', 'numpy', 'nvtx', 'polars', 'inspect', 'msgspec', 'ctypes'}"
    code = f"import sys; import tracelens; print(sorted({heavy} & set(sys.modules)))"

    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_marks_work_where_torch_is_not_imported() -> None:
    code = """
import os, sys
os.environ["TRACELENS_RECORDING"] = "nsys"
import tracelens
with tracelens.step(), tracelens.phase("forward"):
    print(tracelens.marks.is_recording(), "torch" in sys.modules)
"""

    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "True False"


def test_spans_vanish_in_compiled_code_and_break_no_graph() -> None:
    @tracelens.span("decorated")
    def sine(x: torch.Tensor) -> torch.Tensor:
        with tracelens.phase("forward"), tracelens.span("inner"):
            return x.sin()

    def twice(x: torch.Tensor) -> torch.Tensor:
        tracelens.step()
        with tracelens.span("outer"):
            return sine(x) * 2

    compiled = torch.compile(twice, fullgraph=True, backend="eager")
    x = torch.ones(3)

    compiled(x)
    with torch._dynamo.config.patch(error_on_recompile=True):
        assert marks_of(lambda: compiled(x)) == []
        assert marks_of(lambda: tracelens.span("around")(compiled)(x)) == ["around"]
    assert torch.equal(compiled(x), 2 * x.sin())
