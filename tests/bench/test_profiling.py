"""What a recording says of calls that are parted by marks, made by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tracelens.bench import profiling
from tracelens.bench.profiling import Work

MARK = "at::cuda::spin_kernel(long)"


def recorded(*works: tuple[str, float, float]) -> list[Work]:
    return [Work(name, start, end) for name, start, end in works]


def test_a_call_is_from_its_first_kernel_to_the_end_of_its_last() -> None:
    works = recorded(
        (MARK, 0, 50),
        (MARK, 50, 51), ("fill", 52, 80), (MARK, 81, 82), ("mul", 90, 100), ("add", 105, 120),
        (MARK, 130, 131), ("fill", 132, 160), (MARK, 161, 162), ("mul", 170, 180),
        ("add", 181, 190),
    )  # fmt: skip

    found = profiling.found(reversed(works), 2, is_flushed=True)

    assert found is not None
    assert found.median_s == pytest.approx(25e-9)  # of 30 and 20
    assert (found.launches, found.kernels) == (2, ("mul", "add"))


def test_without_a_flush_every_mark_begins_a_call() -> None:
    works = recorded((MARK, 0, 50), (MARK, 50, 51), ("a", 60, 70), (MARK, 71, 72), ("a", 80, 90))

    found = profiling.found(works, 2, is_flushed=False)

    assert found is not None
    assert found.median_s == pytest.approx(10e-9)


@pytest.mark.parametrize(
    "works",
    [
        (),
        ((MARK, 0, 1),),
        ((MARK, 0, 1), (MARK, 1, 2)),
        ((MARK, 0, 1), (MARK, 1, 2), ("a", 2, 3), (MARK, 4, 5), ("a", 6, 7)),
    ],
)
def test_a_recording_that_does_not_hold_each_call_says_nothing(works: Any) -> None:
    assert profiling.found(recorded(*works), 1, is_flushed=False) is None


def test_a_profiler_that_fails_says_nothing() -> None:
    def broken(**_more: object) -> Any:
        raise RuntimeError("CUPTI_ERROR_MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED")

    kinds = SimpleNamespace(CUDA=1)
    torch = SimpleNamespace(profiler=SimpleNamespace(ProfilerActivity=kinds, profile=broken))

    assert profiling.profiled([], None, SimpleNamespace(torch=torch)) is None  # type: ignore[arg-type]
