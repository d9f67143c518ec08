"""How busy a GPU is over time: what a drawing of a step shows, against counting by hand."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.asking import linked
from tests.build import Nsys
from tracelens.analyses.utilization import utilization
from tracelens.errors import NothingToShowError

if TYPE_CHECKING:
    from pathlib import Path


def train(steps: tuple[tuple[int, int], ...], kernels: list[tuple[int, int, int]]) -> Nsys:
    """Return a recording of steps, and of kernels: when launched, when begun, when done."""
    trace = Nsys()
    main = trace.thread("python")
    for number, (start, end) in enumerate(steps):
        main.push(f"step {number}", start, end)
        main.push("forward", start + 1, end - 1)
    for at, start, end in kernels:
        main.kernel("gemm", at=at, run=(start, end))
    return trace


def test_a_step_of_median_length_is_drawn_from_its_first_to_its_last_work(tmp_path: Path) -> None:
    steps = ((0, 1_000), (1_000, 4_000), (4_000, 6_000))
    trace = train(steps, [(500, 600, 700), (2_000, 2_100, 2_200), (4_500, 4_600, 4_700),
                          (5_000, 5_500, 5_600)])  # fmt: skip

    found = utilization(linked(trace, tmp_path), parts=10)

    assert (found.step, found.end_ns - found.start_ns) == (2, 1_000)
    assert found.frame.rows() == [(0, "forward", 1.0), (9, "forward", 1.0)]


def test_without_steps_all_is_drawn(tmp_path: Path) -> None:
    trace = Nsys()
    trace.thread("python").kernel("gemm", at=0, run=(100, 200))

    found = utilization(linked(trace, tmp_path), parts=4)

    assert found.step is None
    assert found.frame["share"].to_list() == [1.0] * 4


def test_without_work_there_is_nothing_to_draw(tmp_path: Path) -> None:
    trace = Nsys()
    trace.thread("python").push("step 0", 0, 10)

    with pytest.raises(NothingToShowError, match="no GPU work"):
        utilization(linked(trace, tmp_path))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(
    st.lists(st.tuples(st.integers(0, 400), st.integers(1, 200)), min_size=1, max_size=12),
    st.integers(1, 17),
)
def test_shares_are_what_counting_every_nanosecond_gives(
    tmp_path_factory: pytest.TempPathFactory, work: list[tuple[int, int]], parts: int
) -> None:
    trace = Nsys()
    main = trace.thread("python")
    for number, (start, took) in enumerate(work):
        main.kernel("gemm", at=number, run=(1_000 + start, 1_000 + start + took))

    found = utilization(linked(trace, tmp_path_factory.mktemp("trace")), parts=parts)

    first = min(start for start, _ in work)
    last = max(start + took for start, took in work)
    length = -(-(last - first) // parts)
    busy = Counter((ns - first) // length for s, took in work for ns in range(s, s + took))
    expected = {part: min(1.0, count / length) for part, count in busy.items()}
    shares = {part: share for part, _, share in found.frame.iter_rows()}
    assert shares == pytest.approx(expected)
