"""What samples of a time tell: quantiles, and an interval of the median that knows of drift."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from statistics import NormalDist, fmean, median
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

LEAST: Final = 6
"""Fewer samples have no interval: all six lie on one side of the median in 3 % of cases."""

LEVEL: Final = 0.05
_ENOUGH: Final = 8
_MANY: Final = 12
_SURE: Final = 1.6449  # exceeded in 5 of 100 cases
_TINY: Final = 1e-17
_NEGLIGIBLE: Final = 1e-3


@dataclass(frozen=True)
class Summary:
    """Of samples, in their unit.

    Attributes:
        n: how many.
        median: the middle one, or the mean of the two in the middle.
        low: where the 95 % interval of the median begins; None: fewer than `LEAST`.
        high: where it ends.
        mad: median absolute deviation from the median, not scaled.
        p5: 5 % of the samples are below; see `quantile`.
        p95: 95 % are below.
        p99: 99 % are below.
        effective: as how many independent samples these count.
        autocorrelation: of the blocks' levels (lag 1), -1 to 1; None: too few blocks.
    """

    n: int
    median: float
    low: float | None
    high: float | None
    mad: float
    p5: float
    p95: float
    p99: float
    effective: float
    autocorrelation: float | None

    @property
    def precision(self) -> float:
        """Half the interval, as a share of the median; infinite where there is none."""
        if self.low is None or self.high is None or self.median <= 0:
            return math.inf
        return (self.high - self.low) / 2 / self.median


def of(blocks: Sequence[Sequence[float]]) -> Summary:
    """Return what samples tell.

    Args:
        blocks: samples that were taken one right after another, block by block in the order of
            time; at least one sample. Those of one block are more alike than others, since the
            clock, the temperature and the placement were. Samples that are not so are blocks of 1.
    """
    ordered = sorted(itertools.chain.from_iterable(blocks))
    middle = median(ordered)
    below = [(sum(_below(x, middle) for x in block), len(block)) for block in blocks if block]
    effective = _effective(below)
    low, high = interval(ordered, effective) if len(ordered) >= LEAST else (None, None)
    return Summary(
        n=len(ordered),
        median=middle,
        low=low,
        high=high,
        mad=median(abs(x - middle) for x in ordered),
        p5=quantile(ordered, 0.05),
        p95=quantile(ordered, 0.95),
        p99=quantile(ordered, 0.99),
        effective=effective,
        autocorrelation=autocorrelation([count / size for count, size in below]),
    )


def interval(ordered: Sequence[float], effective: float) -> tuple[float, float]:
    """Return the bootstrap's 95 % interval of the median, by the percentile method.

    It is that of infinitely many resamples, so that no draw plays a part: the k-th smallest of m
    numbers drawn from n is at most the j-th smallest of these with the probability that at least k
    of m draws, each with probability j / n, do so (B. Efron, "Bootstrap methods: another look at
    the jackknife", Annals of Statistics 7, 1979, section 3). Of an even m, the lower of the two in
    the middle bounds the interval below, and the upper one above. Resamples of fewer than n stand
    for samples that tell less than as many independent ones would (P. J. Bickel, F. Götze,
    W. R. van Zwet, "Resampling fewer than n observations", Statistica Sinica 7, 1997). It is never
    narrower than the interval of the sign test, which holds for few samples of any distribution.

    Args:
        ordered: sorted, at least one.
        effective: how many are drawn; not more than there are.
    """
    n, m = len(ordered), max(1, round(effective))
    low = _rank(n, m, (m + 1) // 2, LEVEL / 2) - 1
    high = _rank(n, m, m // 2 + 1, 1 - LEVEL / 2) - 1
    outer = n * _outer(m) // m
    return ordered[min(low, outer)], ordered[max(high, n - 1 - outer)]


def quantile(ordered: Sequence[float], share: float) -> float:
    """Return the value below which a share of sorted samples lies, interpolated between two.

    This is type 7 of R. J. Hyndman and Y. Fan, "Sample quantiles in statistical packages", The
    American Statistician 50, 1996.
    """
    at = share * (len(ordered) - 1)
    index = int(at)
    above = ordered[min(index + 1, len(ordered) - 1)]
    return ordered[index] + (at - index) * (above - ordered[index])


def autocorrelation(levels: Sequence[float]) -> float | None:
    """Return how much each is like the one before it (lag 1), -1 to 1; None: fewer than 8."""
    if len(levels) < _ENOUGH:
        return None
    mean = fmean(levels)
    around = [x - mean for x in levels]
    whole = sum(x * x for x in around)
    if whole <= _TINY:
        return 0.0
    return sum(x * y for x, y in itertools.pairwise(around)) / whole


def _below(x: float, middle: float) -> float:
    return 1.0 if x < middle else 0.5 if x == middle else 0.0


def _effective(below: Sequence[tuple[float, int]]) -> float:
    """Return as how many independent samples those of some blocks count.

    The share of samples below the median has the variance 1 / 4n if they are independent; what it
    has is told by how the blocks' shares scatter, of which each is one observation (R. S. Woodruff,
    "Confidence intervals for medians and other position measures", JASA 47, 1952). What wanders
    slowly under much noise is only seen where neighbours are taken together, by two, by four, ...
    (H. Flyvbjerg and H. G. Petersen, "Error estimates on averages of correlated data", Journal of
    Chemical Physics 91, 1989); the least of what these say counts.

    Args:
        below: of each block, how many samples are below the median, and how many there are.
    """
    n, found = sum(size for _, size in below), _independent(below)
    if 1 < len(below) < n:
        found /= _widening(len(below) - 1) ** 2  # a scatter that few tell is not known well
    if (correlation := autocorrelation([count / size for count, size in below])) is not None:
        found /= _alike(min(0.99, correlation + (1 + 3 * correlation) / len(below)))
    while len(below) >= 2 * _MANY:
        pairs = zip(below[::2], below[1::2], strict=False)
        below = [(a + b, size + more) for (a, size), (b, more) in pairs]
        found = min(found, _independent(below) / _alike(_clear(below)))
    return max(1.0, found)


def _clear(below: Sequence[tuple[float, int]]) -> float:
    """Return how much blocks are like those before them, where that is more than chance."""
    correlation = autocorrelation([count / size for count, size in below]) or 0.0
    return correlation if correlation > _SURE / math.sqrt(len(below)) else 0.0


def _independent(below: Sequence[tuple[float, int]]) -> float:
    """Return the same where blocks are independent of one another."""
    n, blocks = sum(size for _, size in below), len(below)
    if blocks == 1:
        return 1.0
    spread = sum((count - size / 2) ** 2 for count, size in below) * blocks / (blocks - 1)
    return min(n, n * n / 4 / spread) if spread > 0 else n


def _alike(correlation: float) -> float:
    """Return by what factor a series' mean varies more than one of independent numbers.

    The series is one of shares below the median, of something normal that goes on from where it
    was: shares of numbers with correlation r have the correlation 2 / π · asin r (W. F. Sheppard,
    1899), and numbers that lie k apart r^k. An estimate from few is too low by (1 + 3 r) / n
    (M. G. Kendall, "Note on bias in the estimation of autocorrelation", Biometrika 41, 1954).
    """
    if correlation <= 0:
        return 1.0
    r = power = math.sin(math.pi / 2 * correlation)
    found = 1.0
    while power > _NEGLIGIBLE:
        found += 4 / math.pi * math.asin(power)
        power *= r
    return found


def _outer(m: int) -> int:
    """Return how many of m samples lie outside on either side by the sign test; 0 if m is few."""
    low, high = 0, m // 2
    while low < high:
        middle = (low + high + 1) // 2
        if _at_least(m - middle + 1, m, 0.5) <= LEVEL / 2:
            low = middle
        else:
            high = middle - 1
    return max(0, low - 1)


def _widening(freedom: int) -> float:
    """Return by how much Student's 95 % interval is wider than the normal one, to 1 %.

    By the expansion of E. A. Cornish and R. A. Fisher (1938; Abramowitz and Stegun 26.7.5).
    """
    z = NormalDist().inv_cdf(1 - LEVEL / 2)
    first = (z**2 + 1) / 4
    second = (5 * z**4 + 16 * z**2 + 3) / 96
    third = (3 * z**6 + 19 * z**4 + 17 * z**2 - 15) / 384
    return 1 + first / freedom + second / freedom**2 + third / freedom**3


def _rank(n: int, m: int, k: int, share: float) -> int:
    """Return the least j for which the k-th of m draws is at most the j-th of n, by a share."""
    low, high = 1, n
    while low < high:
        j = (low + high) // 2
        if _at_least(k, m, j / n) >= share:
            high = j
        else:
            low = j + 1
    return low


def _at_least(k: int, m: int, p: float) -> float:
    """Return the probability of at least k successes in m trials."""
    if p >= 1:
        return 1.0
    if k <= m * p:
        return 1 - _tail(m - k + 1, m, 1 - p)
    return _tail(k, m, p)


def _tail(k: int, m: int, p: float) -> float:
    """Return the same where k is above the mean, so that each term is less than the one before."""
    if k > m:
        return 0.0
    log = math.lgamma(m + 1) - math.lgamma(k + 1) - math.lgamma(m - k + 1)
    term = math.exp(log + k * math.log(p) + (m - k) * math.log1p(-p))
    odds, total = p / (1 - p), 0.0
    while k <= m and term > _TINY:
        total += term
        term *= (m - k) / (k + 1) * odds
        k += 1
    return total
