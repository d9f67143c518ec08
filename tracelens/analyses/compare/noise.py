"""Whether two runs differ by more than their steps vary: intervals of differences, and verdicts.

The samples are steps. A single number, the time of a step, has its interval from the studentized
bootstrap where there are steps enough; the rows of a table, which are many, have Student's.
"""

from __future__ import annotations

import functools
import itertools
import math
import random
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

Verdict = Literal["slower", "faster", "no difference", "too few steps", "only in A", "only in B"]

LEVEL: Final = 0.01
"""How often at most a table (or the total) of runs that are alike holds any false verdict."""
LEAST: Final = 3
"""Fewer steps on either side tell nothing of the noise."""
ENOUGH: Final = 8
"""Steps on both sides from which the bootstrap is used: fewer make too few distinct resamples."""
RESAMPLES: Final = 4000
_SEED: Final = 20_261_120
_TINY: Final = 1e-12


@dataclass(frozen=True)
class Difference:
    """How much more the second of two sides takes than the first, per step.

    ``low`` and ``high`` bound the interval; they are None where there are too few steps.
    """

    value: float
    low: float | None
    high: float | None
    verdict: Verdict

    @property
    def is_sure(self) -> bool:
        """Whether the interval does not hold zero."""
        return self.verdict in ("slower", "faster")


def of_total(a: Sequence[float], b: Sequence[float], level: float = LEVEL) -> Difference:
    """Return the difference of two means with its interval, by the studentized bootstrap.

    Steps are drawn anew with replacement from each side, and the interval is made of the quantiles
    of the difference over its standard error (Efron and Tibshirani, "An Introduction to the
    Bootstrap", 1993, sections 12.5 and 16.2). It is never narrower than Welch's (`of_rows`): draws
    that miss the few slow steps know nothing of them. With fewer than `ENOUGH` steps on a side it
    is Welch's alone. The draws are the same each time, so that the answer is, too.

    Args:
        a: samples of the baseline, one per step.
        b: samples of the other side.
        level: how often the interval may miss the truth.
    """
    (welch,) = of_rows([(a, b)], level)
    error = _spread(a, b) if welch.low is not None else 0.0
    if min(len(a), len(b)) < ENOUGH or not error or welch.low is None or welch.high is None:
        return welch
    draw = random.Random(_SEED)  # noqa: S311 (statistics, no secret)
    low_t, high_t = _quantiles(_studentized(a, b, welch.value, draw), level)
    low, high = welch.value - high_t * error, welch.value - low_t * error
    return _judged(welch.value, min(low, welch.low), max(high, welch.high))


def of_rows(
    pairs: Sequence[tuple[Sequence[float], Sequence[float]]], level: float = LEVEL
) -> list[Difference]:
    """Return the differences of many means, with intervals that hold all at once.

    They are Welch's ("The generalization of Student's problem when several different population
    variances are involved", Biometrika 34, 1947), each at the level divided by how many there are
    (Bonferroni), so that a table of runs that are alike holds no false verdict but in a share
    ``level`` of cases. Resampling ten steps cannot tell the tails that hundreds of rows need: its
    percentiles find differences everywhere, and studentized they find none.
    """
    tested = sum(min(len(a), len(b)) >= LEAST for a, b in pairs)
    return [_welch(a, b, level / max(1, tested)) for a, b in pairs]


def autocorrelation(samples: Sequence[float]) -> float | None:
    """Return how much each step is like the one before it (lag 1), from -1 to 1; None: too few."""
    if len(samples) < ENOUGH:
        return None
    mean = statistics.fmean(samples)
    around = [sample - mean for sample in samples]
    whole = sum(x * x for x in around)
    if whole <= 0:
        return None
    return sum(x * y for x, y in itertools.pairwise(around)) / whole


def is_dependent(samples: Sequence[float]) -> bool:
    """Tell whether steps are alike in a row by more than chance, so that they tell less."""
    found = autocorrelation(samples)
    return found is not None and found > max(0.3, 2.33 / math.sqrt(len(samples)))


def _welch(a: Sequence[float], b: Sequence[float], level: float) -> Difference:
    value = statistics.fmean(b) - statistics.fmean(a)
    if min(len(a), len(b)) < LEAST:
        return Difference(value, None, None, "too few steps")
    error = _spread(a, b)
    if error == 0:
        return _judged(value, value, value)
    parts = [statistics.variance(side) / len(side) for side in (a, b)]
    freedom = sum(parts) ** 2 / sum(
        part**2 / (len(side) - 1) for part, side in zip(parts, (a, b), strict=True)
    )
    reach = student(1 - level / 2, freedom) * error
    return _judged(value, value - reach, value + reach)


def _judged(value: float, low: float, high: float) -> Difference:
    verdict: Verdict = "slower" if low > 0 else "faster" if high < 0 else "no difference"
    return Difference(value, low, high, verdict)


def _spread(a: Sequence[float], b: Sequence[float]) -> float:
    """Return the standard error of the difference of means; 0 where it is but rounding."""
    error = math.sqrt(sum(statistics.variance(side) / len(side) for side in (a, b)))
    return error if error > _TINY * max(map(abs, (*a, *b))) else 0.0


def _studentized(
    a: Sequence[float], b: Sequence[float], value: float, draw: random.Random
) -> list[float]:
    found = []
    for _ in range(RESAMPLES):
        one, two = draw.choices(a, k=len(a)), draw.choices(b, k=len(b))
        error, shift = _error_and_shift(one, two)
        away = shift - value
        found.append(away / error if error > 0 else math.copysign(math.inf, away) if away else 0.0)
    return sorted(found)


def _error_and_shift(one: Sequence[float], two: Sequence[float]) -> tuple[float, float]:
    """Return the standard error of a difference of means, and that; `statistics` is too slow."""
    error, means = 0.0, []
    for side in (one, two):
        n = len(side)
        mean = sum(side) / n
        error += sum((x - mean) ** 2 for x in side) / (n - 1) / n
        means.append(mean)
    return math.sqrt(error), means[1] - means[0]


def _quantiles(ordered: Sequence[float], level: float) -> tuple[float, float]:
    last = len(ordered) - 1
    return ordered[math.floor(level / 2 * last)], ordered[math.ceil((1 - level / 2) * last)]


@functools.lru_cache(maxsize=4096)
def student(share: float, freedom: float) -> float:
    """Return the value below which a share (above a half) of Student's distribution lies.

    By bisection of the distribution, which is an incomplete beta function (Abramowitz and Stegun,
    "Handbook of Mathematical Functions", 1964, 26.7.1 and 26.5.8).
    """
    tail = 2 * (1 - share)
    high = 1.0
    while _beyond(high, freedom) > tail:
        high *= 2
    low = high / 2 if high > 1 else 0.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _beyond(middle, freedom) > tail else (low, middle)
    return high


def _beyond(t: float, freedom: float) -> float:
    """Return how often Student's t is further from zero than this."""
    return _beta(freedom / (freedom + t * t), freedom / 2, 0.5)


def _beta(x: float, a: float, b: float) -> float:
    """Return the regularized incomplete beta function by its continued fraction (Lentz)."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - _beta(1 - x, b, a)
    front = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    )
    c, d = 1.0, 1 / (1 - (a + b) * x / (a + 1))
    found = d
    for m in range(1, 300):
        for step in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d, c = 1 / (1 + step * d), 1 + step / c
            found *= c * d
        if abs(c * d - 1) < 1e-14:
            break
    return front * found / a
