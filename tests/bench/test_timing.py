"""How a median is sampled: by a clock that the test turns."""

from __future__ import annotations

import math
import random
import statistics
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracelens.bench import timing
from tracelens.bench.timing import Effort, sampled, standard_error

if TYPE_CHECKING:
    from collections.abc import Callable

EFFORT = Effort(
    warmup_s=0.1, sample_s=0.01, least=5, most=50, budget_s=1.0, precision=0.001, longest_s=1.0
)


class Calls:
    """Calls that take what they are told to, in turn."""

    def __init__(self, *seconds: float) -> None:
        self.seconds = seconds
        self.asked: list[int] = []

    def __call__(self, calls: int) -> float:
        self.asked.append(calls)
        return calls * self.seconds[len(self.asked) % len(self.seconds)]


def test_steady_calls_settle_after_the_least_samples() -> None:
    found = sampled(Calls(1e-3), EFFORT)

    assert found.settled
    assert found.samples_s == pytest.approx([1e-3] * 5)
    assert found.median_s == pytest.approx(1e-3)
    assert found.mad_s == pytest.approx(0, abs=1e-12)


def test_short_calls_are_timed_many_at_once_and_long_ones_singly() -> None:
    short, long = Calls(1e-5), Calls(0.05)

    sampled(short, EFFORT)
    sampled(long, EFFORT)

    assert short.asked[-1] == 1000  # 10 ms
    assert long.asked[-1] == 1


def test_a_sample_holds_no_more_calls_than_fit_into_the_queue() -> None:
    calls = Calls(1e-7)

    sampled(calls, EFFORT, most_calls=500)

    assert max(calls.asked) == 500


def test_calls_are_warmed_up_before_the_first_sample() -> None:
    calls = Calls(1e-3)

    sampled(calls, EFFORT)

    # Two single ones, tens for a tenth of a second, and five samples of ten.
    first, second, *warm = calls.asked[:-5]
    assert (first, second) == (1, 1)
    assert sum(warm) in (100, 110)
    assert calls.asked[-5:] == [10] * 5


def test_noise_is_sampled_until_the_budget_is_spent_and_called_noise() -> None:
    found = sampled(Calls(0.02, 0.03, 0.05, 0.09), EFFORT)

    assert not found.settled
    assert 5 <= len(found.samples_s) <= 50
    assert 1.0 <= sum(found.samples_s) < 1.1


def test_noise_of_short_calls_ends_with_the_most_samples() -> None:
    effort = Effort(0.0, 1e-6, 5, 50, 1e9, 0.001, 1.0)

    found = sampled(Calls(1e-6, 2e-6, 5e-6), effort)

    assert not found.settled
    assert len(found.samples_s) == 50


def test_a_clock_that_stands_still_ends_it_all_the_same() -> None:
    found = sampled(lambda _calls: 0.0, EFFORT)

    assert len(found.samples_s) >= 5
    assert found.median_s > 0


@given(st.lists(st.floats(1e-6, 1.0), min_size=5, max_size=40))
def test_the_standard_error_is_that_of_the_formula(samples: list[float]) -> None:
    median = statistics.median(samples)
    mad = statistics.median(abs(one - median) for one in samples)

    expected = 1.2533 * 1.4826 * mad / math.sqrt(len(samples)) / median

    assert standard_error(samples) == pytest.approx(expected)


@given(st.integers(0, 2**31), st.floats(1e-3, 0.1))
def test_samples_of_normal_noise_give_its_median(seed: int, spread: float) -> None:
    draw = random.Random(seed)  # noqa: S311 (noise, no secret)
    noisy: Callable[[int], float] = lambda calls: calls * draw.gauss(1, spread / 10)  # noqa: E731

    found = sampled(noisy, Effort(0.0, 0.5, 9, 400, 1e9, 0.001, 1.0))

    assert found.settled
    # Six standard errors of the median of the least samples.
    assert found.median_s == pytest.approx(1, abs=6 * 1.2533 * spread / 10 / math.sqrt(9))


def test_the_processor_gets_less_effort_than_a_gpu_if_it_is_quick() -> None:
    from tracelens.bench.case import Target

    efforts = {
        (device, quick): timing.effort(Target(None, device, quick=quick)).budget_s
        for device in ("cpu", "cuda:0")
        for quick in (True, False)
    }

    assert efforts["cpu", True] < efforts["cuda:0", True] < efforts["cuda:0", False]
