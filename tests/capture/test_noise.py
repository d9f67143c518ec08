"""Statistics of step times, against numpy's and against resampling by hand."""

from __future__ import annotations

import random
import statistics
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracelens.capture import noise

if TYPE_CHECKING:
    from collections.abc import Sequence

few = settings(max_examples=25)
samples = st.lists(st.integers(1, 10**12), min_size=1, max_size=60)


@few
@given(samples)
def test_the_figures_are_those_of_numpy(times: list[int]) -> None:
    found = noise.of(times)

    assert found.n == len(times)
    assert found.mean_ns == pytest.approx(np.mean(times))
    assert found.median_ns == pytest.approx(np.median(times))
    assert found.mad_ns == pytest.approx(np.median(np.abs(np.array(times) - np.median(times))))
    assert (found.min_ns, found.max_ns) == (min(times), max(times))
    assert [found.p5_ns, found.p95_ns] == pytest.approx(np.percentile(times, [5, 95]))
    if len(times) > 1:
        assert found.std_ns == pytest.approx(np.std(times, ddof=1))


@few
@given(samples, st.randoms(use_true_random=False))
def test_only_the_drift_depends_on_the_order(times: list[int], shuffle: random.Random) -> None:
    found = noise.of(times)
    shuffled = list(times)
    shuffle.shuffle(shuffled)
    other = noise.of(shuffled)

    assert noise.median_interval(times) == noise.median_interval(shuffled)
    for name in ("mean_ns", "median_ns", "std_ns", "mad_ns", "p5_ns", "p95_ns", "precision"):
        assert getattr(found, name) == getattr(other, name)


@few
@given(samples, st.integers(1, 20))
def test_times_twice_as_long_have_twice_the_statistics(times: list[int], power: int) -> None:
    factor = 2**power
    found, scaled = noise.of(times), noise.of([factor * time for time in times])

    for name in ("mean_ns", "median_ns", "median_low_ns", "median_high_ns", "mad_ns", "p95_ns"):
        assert getattr(scaled, name) == factor * getattr(found, name)
    assert scaled.std_ns == pytest.approx(factor * found.std_ns)
    assert (scaled.precision, scaled.drift) == (found.precision, found.drift)


@few
@given(samples)
def test_every_figure_lies_between_the_fastest_and_the_slowest(times: list[int]) -> None:
    found = noise.of(times)
    in_order = [found.min_ns, found.median_low_ns, found.median_ns, found.median_high_ns]

    assert [*in_order, found.max_ns] == sorted([*in_order, found.max_ns])
    assert found.min_ns <= found.p5_ns <= found.median_ns <= found.p95_ns <= found.max_ns
    assert found.precision >= 0


@pytest.mark.parametrize("n", [5, 8, 31, 100])
def test_the_interval_is_that_of_drawing_whole_resamples(n: int) -> None:
    draw = np.random.default_rng(n)
    times = np.sort(draw.lognormal(sigma=0.3, size=n))
    resamples = draw.choice(times, size=(40_000, n))
    low, high = np.percentile(np.median(resamples, axis=1), [2.5, 97.5])

    ours = noise.median_interval(times.tolist())

    assert _ranks(times, ours) == pytest.approx(_ranks(times, (low, high)), abs=1)


def test_the_interval_holds_the_true_median_about_as_often_as_it_says() -> None:
    draw = random.Random(4)  # noqa: S311 (statistics, no secret)
    truth = statistics.NormalDist(100, 5)
    held = 0
    for _ in range(200):
        low, high = noise.median_interval([draw.gauss(truth.mean, truth.stdev) for _ in range(25)])
        held += low <= truth.median <= high

    assert 0.90 <= held / 200 <= 0.99


def test_clocks_that_fall_are_a_drift_and_noise_is_none() -> None:
    draw = random.Random(0)  # noqa: S311 (statistics, no secret)
    steady = [draw.gauss(1000, 10) for _ in range(40)]
    falling = [time * (1 if i < 20 else 1.2) for i, time in enumerate(steady)]

    assert not noise.of(steady).drifts
    assert noise.of(falling).drifts
    assert noise.of(falling).drift == pytest.approx(0.2, abs=0.02)
    assert noise.of(falling[::-1]).drift == pytest.approx(1 / 1.2 - 1, abs=0.02)


def test_the_sentence_says_what_is_known() -> None:
    assert noise.sentence(noise.of([5])) == "a single step: nothing is known of the noise"
    assert "too few" in noise.sentence(noise.of([10, 11, 12]))
    calm = noise.sentence(noise.of([1_000_000 + i % 3 * 1000 for i in range(20)]))
    assert calm.startswith("median of 20 steps, known to 0.1 % with 95 % confidence; 90 % of them")
    assert "half" not in calm
    assert "slowest took 3.0 times" in noise.sentence(noise.of([*[1000] * 10, 3000, *[1000] * 10]))
    slower = noise.sentence(noise.of([1000, 1001, 1002, 1003, 1004] * 2 + [1200, 1201] * 5))
    assert "the second half was 19.8 % slower than the first" in slower


def _ranks(times: np.ndarray, interval: Sequence[float]) -> list[float]:
    """Return where values lie among the samples, so that medians between two count the same."""
    return [float(np.interp(value, times, np.arange(len(times)))) for value in interval]
