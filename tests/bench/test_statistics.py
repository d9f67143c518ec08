"""What samples tell, held against numpy, brute force, and truths that are known."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracelens.bench import statistics

if TYPE_CHECKING:
    from collections.abc import Callable

np = pytest.importorskip("numpy", reason="numpy is not installed")

times = st.lists(st.floats(1e-7, 1e3), min_size=1, max_size=60)


def singly(samples: list[float]) -> list[list[float]]:
    return [[sample] for sample in samples]


@given(times)
def test_figures_are_those_of_numpy(samples: list[float]) -> None:
    found = statistics.of(singly(samples))

    assert found.n == len(samples)
    assert found.median == pytest.approx(np.median(samples))
    assert found.mad == pytest.approx(np.median(np.abs(np.array(samples) - np.median(samples))))
    expected = np.quantile(samples, [0.05, 0.95, 0.99], method="linear")
    assert [found.p5, found.p95, found.p99] == pytest.approx(list(expected))


@given(times, st.floats(1e-3, 1e3))
def test_the_interval_holds_the_median_and_scales_with_the_unit(
    samples: list[float], factor: float
) -> None:
    found = statistics.of(singly(samples))
    scaled = statistics.of(singly([factor * sample for sample in samples]))

    if len(samples) < statistics.LEAST:
        assert found.low is found.high is None
        assert found.precision == math.inf
        return
    assert found.low is not None
    assert found.high is not None
    assert min(samples) <= found.low <= found.median <= found.high <= max(samples)
    if found.effective == scaled.effective:  # ties may come and go by rounding
        assert scaled.low == pytest.approx(factor * found.low)
        assert scaled.high == pytest.approx(factor * found.high)


@pytest.mark.parametrize("n", [9, 25, 40, 101])
def test_the_interval_is_that_of_many_resamples(n: int) -> None:
    draw = np.random.default_rng(n)
    samples = np.sort(draw.exponential(size=n))
    medians = np.median(draw.choice(samples, (20_000, n)), axis=1)
    expected = np.quantile(medians, [0.025, 0.975])

    found = statistics.interval([float(x) for x in samples], n)

    ranks = [int(np.searchsorted(samples, end)) for end in (*found, *expected)]
    # Never narrower, and wider by the sign test's one place at most.
    assert 0 <= ranks[2] - ranks[0] <= 2
    assert 0 <= ranks[1] - ranks[3] <= 2


def iid(draw: np.random.Generator, n: int) -> list[list[float]]:
    return singly(list(draw.exponential(size=n) - math.log(2)))


def blocks(draw: np.random.Generator, n: int) -> list[list[float]]:
    """Give samples whose blocks differ twice as much as the samples of one."""
    return [list(2 * draw.normal() + draw.normal(size=10)) for _ in range(n)]


def drifting(draw: np.random.Generator, n: int) -> list[list[float]]:
    """Give samples that are each like the one before (autocorrelation 0.8)."""
    samples = [draw.normal()]
    for _ in range(n - 1):
        samples.append(0.8 * samples[-1] + 0.6 * draw.normal())
    return singly(samples)


def wandering(draw: np.random.Generator, n: int) -> list[list[float]]:
    """Give samples whose noise hides that the blocks drift (autocorrelation 0.8)."""
    return [[level + draw.normal() for _ in range(5)] for (level,) in drifting(draw, n)]


@pytest.mark.parametrize(
    ("source", "n"),
    [
        (iid, 6), (iid, 7), (iid, 10), (iid, 40), (blocks, 6), (blocks, 20), (drifting, 60),
        (wandering, 80),
    ],
)  # fmt: skip
def test_the_interval_holds_the_truth_in_95_of_100_cases(
    source: Callable[..., list[list[float]]], n: int
) -> None:
    draw = np.random.default_rng(20_261_120)
    cases, held = 400, 0
    for _ in range(cases):
        found = statistics.of(source(draw, n))
        assert found.low is not None
        assert found.high is not None
        held += found.low <= 0 <= found.high

    # 2.3 standard errors of 400 draws: 2.5 %.
    assert held / cases >= 0.95 - 0.025


def test_an_interval_becomes_narrow_with_the_root_of_the_samples() -> None:
    draw = np.random.default_rng(1)
    widths = []
    for n in (100, 400):
        found = [statistics.of(iid(draw, n)) for _ in range(40)]
        widths.append(np.mean([(one.high or 0) - (one.low or 0) for one in found]))

    assert widths[0] / widths[1] == pytest.approx(2, rel=0.2)


def test_samples_of_blocks_that_differ_count_as_few() -> None:
    same = [[1.0, 2.0, 3.0]] * 10
    differ = [[1.0, 1.1, 1.2], [3.0, 3.1, 3.2]] * 5

    assert statistics.of(same).effective > 15
    assert statistics.of(differ).effective < 12


def test_one_block_tells_nothing_of_how_blocks_differ() -> None:
    found = statistics.of([[float(x) for x in range(100)]])

    assert found.effective == 1
    assert (found.low, found.high) == (0, 99)


def test_equal_samples_have_an_interval_of_no_width() -> None:
    found = statistics.of([[2.0] * 5] * 4)

    assert (found.low, found.high, found.mad, found.precision) == (2, 2, 0, 0)


def test_a_drift_is_seen_in_the_autocorrelation() -> None:
    rising = statistics.of(singly([float(x) for x in range(40)]))
    turning = statistics.of(singly([1.0, 2.0] * 20))

    assert rising.autocorrelation is not None
    assert rising.autocorrelation > 0.8
    assert rising.effective < 4
    assert turning.autocorrelation == pytest.approx(-0.975)
    assert turning.effective >= 39
    assert statistics.of(singly([1.0, 2.0, 3.0])).autocorrelation is None


@pytest.mark.parametrize(("freedom", "student"), [(3, 3.1824), (9, 2.2622), (19, 2.0930)])
def test_few_blocks_widen_as_students_distribution_does(freedom: int, student: float) -> None:
    assert statistics._widening(freedom) == pytest.approx(student / 1.959964, rel=0.015)


@given(st.integers(1, 60), st.floats(0.01, 0.99), st.data())
def test_binomial_tails_are_sums_of_probabilities(m: int, p: float, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, m))

    exact = sum(math.comb(m, i) * p**i * (1 - p) ** (m - i) for i in range(k, m + 1))

    assert statistics._at_least(k, m, p) == pytest.approx(exact, abs=1e-12)
