"""What is noise: intervals against known numbers, and how often they are wrong."""

from __future__ import annotations

import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracelens.analyses.compare import noise

# The example of Welch's test that Wikipedia has: t = 2.46 on 25.0 degrees of freedom, p = 0.021.
FIRST = [27.5, 21.0, 19.0, 23.6, 17.0, 17.9, 16.9, 20.1, 21.9, 22.6, 23.1, 19.6, 19.0, 21.7, 21.4]
SECOND = [27.1, 22.0, 20.8, 23.4, 23.4, 23.5, 25.8, 22.0, 24.8, 20.2, 21.9, 22.1, 22.9, 20.5, 24.4]


def seeded(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 (statistics, no secret)


def gaussian(draw: random.Random, steps: int, mean: float = 100.0) -> list[float]:
    return [draw.gauss(mean, 1.0) for _ in range(steps)]


@pytest.mark.parametrize(
    ("share", "freedom", "value"),
    [  # Abramowitz and Stegun, table 26.10
        (0.975, 1, 12.706),
        (0.995, 4, 4.604),
        (0.975, 10, 2.228),
        (0.995, 30, 2.750),
        (0.9995, 120, 3.373),
        (0.995, 1e6, 2.576),
    ],
)
def test_the_quantiles_of_student_are_those_of_the_tables(
    share: float, freedom: float, value: float
) -> None:
    assert noise.student(share, freedom) == pytest.approx(value, abs=6e-4)


def test_the_interval_of_welch_is_as_wide_as_its_p_value_says() -> None:
    (just,) = noise.of_rows([(FIRST, SECOND)], level=0.0215)
    (not_yet,) = noise.of_rows([(FIRST, SECOND)], level=0.0205)

    assert just.value == pytest.approx(statistics.mean(SECOND) - statistics.mean(FIRST))
    assert (just.verdict, not_yet.verdict) == ("slower", "no difference")


def test_many_rows_share_the_level() -> None:
    alone = noise.of_rows([(FIRST, SECOND)], level=0.05)[0]
    of_three = noise.of_rows([(FIRST, SECOND)] * 3, level=0.05)

    assert alone.verdict == "slower"
    assert {d.verdict for d in of_three} == {"no difference"}
    assert of_three[0] == noise.of_rows([(FIRST, SECOND)], level=0.05 / 3)[0]


@pytest.mark.parametrize("steps", [1, 2])
def test_one_or_two_steps_tell_nothing_however_far_apart(steps: int) -> None:
    found = noise.of_total([100.0] * 50, [200.0] * steps)

    assert (found.verdict, found.low, found.high) == ("too few steps", None, None)
    assert found.value == 100.0
    assert not found.is_sure


def test_rows_with_too_few_steps_do_not_count_among_the_many() -> None:
    rows = [([1.0, 2.0], [1.0, 2.0])] * 50 + [(FIRST, SECOND)]

    assert noise.of_rows(rows, level=0.05)[-1].verdict == "slower"


def test_without_any_noise_a_difference_is_sure() -> None:
    assert noise.of_total([100.0] * 3, [103.0] * 3).verdict == "slower"
    assert noise.of_total([100.0] * 20, [97.0] * 20).verdict == "faster"
    assert noise.of_total([100.0] * 20, [100.0] * 20).verdict == "no difference"


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize("steps", [3, 7, 8, 20])
def test_a_run_does_not_differ_from_itself(seed: int, steps: int) -> None:
    samples = gaussian(seeded(seed), steps)
    total = noise.of_total(samples, samples)
    rows = noise.of_rows([(samples, samples)] * 20)

    assert (total.value, total.verdict) == (0.0, "no difference")
    assert {row.verdict for row in rows} == {"no difference"}


def test_the_bootstrap_is_the_same_each_time() -> None:
    draw = seeded(5)
    one, two = gaussian(draw, 12), gaussian(draw, 15)

    assert noise.of_total(one, two) == noise.of_total(list(one), list(two))


@pytest.mark.parametrize("steps", [3, 10])
def test_like_runs_raise_a_false_alarm_in_one_of_a_hundred_cases(steps: int) -> None:
    draw = seeded(steps)
    trials = 100
    totals = rows = 0
    for _ in range(trials):
        pairs = [(gaussian(draw, steps), gaussian(draw, steps)) for _ in range(20)]
        totals += noise.of_total(*pairs[0]).is_sure
        rows += any(row.is_sure for row in noise.of_rows(pairs))

    # More than five of 100 come in 0.05 % of cases where the rate is 1 %; the draws are fixed.
    assert totals <= 5
    assert rows <= 5


@pytest.mark.parametrize("seed", range(20))
def test_a_slowdown_of_3_percent_is_found_among_1_percent_of_noise_in_ten_steps(seed: int) -> None:
    draw = seeded(1_000 + seed)
    found = noise.of_total(gaussian(draw, 10), gaussian(draw, 10, mean=103.0))

    assert found.verdict == "slower"
    assert found.low is not None
    assert found.high is not None
    assert found.low < 3.0 < found.high


def test_an_interval_is_about_as_wide_as_the_normal_distribution_says() -> None:
    draw = seeded(7)
    found = noise.of_total(gaussian(draw, 400), gaussian(draw, 400))

    assert found.low is not None
    assert found.high is not None
    # Twice 2.576 standard errors of sqrt(1/400 + 1/400).
    assert found.high - found.low == pytest.approx(2 * 2.576 * (2 / 400) ** 0.5, rel=0.12)


def test_one_slow_step_makes_the_interval_wide_instead_of_the_run_slower() -> None:
    steady = [100.0, 101.0, 99.0, 100.5, 99.5, 100.2, 99.8, 100.1, 100.4, 99.6]
    found = noise.of_total(steady, [*steady[:-1], 180.0])

    assert found.verdict == "no difference"


def test_drift_is_told_from_noise() -> None:
    drifting = [100.0 + i for i in range(20)]
    shuffled = seeded(1).sample(drifting, 20)

    assert noise.is_dependent(drifting)
    assert not noise.is_dependent(shuffled)
    assert not noise.is_dependent(drifting[:5])  # too few to tell
    assert noise.autocorrelation([5.0] * 20) is None


samples = st.lists(st.floats(1.0, 1e9), min_size=3, max_size=12)


@given(samples, samples)
def test_the_other_way_round_the_difference_is_the_opposite(a: list[float], b: list[float]) -> None:
    (there,), (back,) = noise.of_rows([(a, b)]), noise.of_rows([(b, a)])

    assert there.value == -back.value
    assert there.low == pytest.approx(-back.high if back.high is not None else None)
    assert {there.verdict, back.verdict} in ({"no difference"}, {"slower", "faster"})


@given(samples, samples)
def test_the_unit_plays_no_part(a: list[float], b: list[float]) -> None:
    (ns,) = noise.of_rows([(a, b)])
    (scaled,) = noise.of_rows([([1024 * x for x in a], [1024 * x for x in b])])

    assert ns.verdict == scaled.verdict
