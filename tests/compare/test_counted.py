"""Which steps count: what warms up and what was cut off does not, a slow step does."""

from __future__ import annotations

import pytest

from tracelens.analyses.compare.counted import left_out


def kept(
    durations: list[int], kernels: list[int] | None = None, names: list[str | None] | None = None
) -> list[int]:
    count = len(durations)
    reasons = left_out(names or [None] * count, durations, kernels or [5] * count)
    return [i for i, reason in enumerate(reasons) if reason is None]


def test_steady_steps_all_count() -> None:
    assert kept([100, 101, 99, 102]) == [0, 1, 2, 3]


def test_a_slow_first_step_warms_up() -> None:
    assert kept([843, 107, 95, 96, 96]) == [1, 2, 3, 4]
    assert kept([110, 107, 95, 96, 96]) == [0, 1, 2, 3, 4]


def test_a_slow_step_in_between_is_noise_and_counts() -> None:
    assert kept([100, 100, 300, 100, 100]) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("name", ["Warm-up Step 1", "warmup 0", "WARM_UP"])
def test_a_step_may_say_that_it_warms_up(name: str) -> None:
    assert kept([100, 100, 100], names=[name, "step 1", "step 2"]) == [1, 2]


def test_where_all_say_so_they_are_what_there_is() -> None:
    assert kept([100, 100], names=["warm-up 0", "warm-up 1"]) == [0, 1]


def test_steps_of_other_work_at_either_end_are_left_out() -> None:
    assert kept([100] * 7, kernels=[9, 7, 5, 5, 5, 5, 2]) == [2, 3, 4, 5]


def test_other_work_in_between_counts() -> None:
    assert kept([100] * 5, kernels=[5, 5, 8, 5, 5]) == [0, 1, 2, 3, 4]


def test_where_every_step_has_its_own_work_none_is_odd() -> None:
    assert kept([100] * 4, kernels=[5, 6, 7, 8]) == [0, 1, 2, 3]


def test_of_one_or_two_steps_all_count() -> None:
    assert kept([900, 100], kernels=[9, 5]) == [0, 1]
    assert kept([900]) == [0]
    assert kept([]) == []


def test_the_reason_has_the_numbers() -> None:
    reasons = left_out([None] * 4, [400, 100, 101, 99], [5, 5, 5, 5])

    assert reasons[0] == "warm-up: it takes 4.0 times the others' median"
