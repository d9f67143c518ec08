"""How sure a step time is: the statistics of its samples, and a sentence on their noise."""

from __future__ import annotations

import random
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tracelens import units

if TYPE_CHECKING:
    from collections.abc import Sequence

_RESAMPLES: Final = 2000
_TAIL: Final = 0.025
_FEW: Final = 5
_OUTLIER: Final = 1.5
_SMALLEST: Final = 0.0005


@dataclass(frozen=True)
class Statistics:
    """Of the times of steps, in nanoseconds.

    Attributes:
        n: how many samples.
        mean_ns: arithmetic mean.
        median_ns: the typical step, which a few slow ones do not move.
        median_low_ns: where the 95 % confidence interval of the median begins.
        median_high_ns: where it ends.
        std_ns: standard deviation of the sample, by n - 1; 0 for a single one.
        mad_ns: median of the absolute deviations from the median, not scaled.
        min_ns: the fastest step.
        max_ns: the slowest.
        p5_ns: 5 % of the steps are faster.
        p95_ns: 5 % are slower.
        drift: by how much the median of the second half is above that of the first, as a share;
            None for fewer than 4 samples.
        drifts: whether that is more than noise: the halves' confidence intervals lie apart.
    """

    n: int
    mean_ns: float
    median_ns: float
    median_low_ns: float
    median_high_ns: float
    std_ns: float
    mad_ns: float
    min_ns: float
    max_ns: float
    p5_ns: float
    p95_ns: float
    drift: float | None
    drifts: bool

    @property
    def precision(self) -> float:
        """Half the confidence interval of the median, as a share of the median."""
        if self.median_ns <= 0:
            return 0.0
        return (self.median_high_ns - self.median_low_ns) / 2 / self.median_ns


def of(samples_ns: Sequence[float]) -> Statistics:
    """Return the statistics of samples, at least one, in the order in which they were taken."""
    ordered = sorted(samples_ns)
    median = statistics.median(ordered)
    low, high = median_interval(ordered)
    drift, drifts = _drift(samples_ns)
    return Statistics(
        n=len(ordered),
        mean_ns=statistics.fmean(ordered),
        median_ns=median,
        median_low_ns=low,
        median_high_ns=high,
        std_ns=statistics.stdev(ordered) if len(ordered) > 1 else 0.0,
        mad_ns=statistics.median(abs(sample - median) for sample in ordered),
        min_ns=ordered[0],
        max_ns=ordered[-1],
        p5_ns=quantile(ordered, 0.05),
        p95_ns=quantile(ordered, 0.95),
        drift=drift,
        drifts=drifts,
    )


def median_interval(samples: Sequence[float]) -> tuple[float, float]:
    """Return the bootstrap's 95 % confidence interval of the median, by the percentile method.

    The samples are resampled with replacement, and the interval holds the middle 95 % of the
    medians of the resamples (Efron, "Bootstrap methods: another look at the jackknife", Annals of
    Statistics 7, 1979). A resample need not be drawn as a whole: which sample is its k-th smallest
    is told by the k-th smallest of n uniform numbers, which has the distribution
    Beta(k, n + 1 - k) (Devroye, "Non-Uniform Random Variate Generation", 1986, section V.3). The
    order of the samples plays no part, and the same ones have the same interval.

    Args:
        samples: at least one.
    """
    ordered = sorted(samples)
    n = len(ordered)
    draw = random.Random(n)  # noqa: S311 (statistics, no secret)
    medians = sorted(_resampled_median(ordered, draw) for _ in range(_RESAMPLES))
    return quantile(medians, _TAIL), quantile(medians, 1 - _TAIL)


def quantile(ordered: Sequence[float], share: float) -> float:
    """Return the value below which a share of sorted samples lies, between two by interpolation.

    This is type 7 of Hyndman and Fan, "Sample quantiles in statistical packages", The American
    Statistician 50, 1996.
    """
    at = share * (len(ordered) - 1)
    index = int(at)
    above = ordered[min(index + 1, len(ordered) - 1)]
    return ordered[index] + (at - index) * (above - ordered[index])


def sentence(found: Statistics) -> str:
    """Return what is to be said of the noise beside the median, for people."""
    if found.n == 1:
        return "a single step: nothing is known of the noise"
    fastest, slowest = units.time(found.min_ns), units.time(found.max_ns)
    if found.n < _FEW:
        return f"median of {found.n} steps, {fastest} to {slowest}: too few to tell the noise"
    said = [
        f"median of {found.n} steps, known to {_percent(found.precision)} with 95 % confidence",
        f"90 % of them took {units.time(found.p5_ns)} to {units.time(found.p95_ns)}",
    ]
    if found.drifts and found.drift is not None:
        change = _percent(abs(found.drift))
        slower = f"{change} slower than the first, as on a GPU that grows hot"
        faster = f"{change} faster than the first, so that more warm-up may help"
        said.append(f"the second half was {slower if found.drift > 0 else faster}")
    if found.median_ns > 0 and found.max_ns > _OUTLIER * found.median_ns:
        said.append(f"the slowest took {found.max_ns / found.median_ns:.1f} times the median")
    return "; ".join(said)


def _resampled_median(ordered: Sequence[float], draw: random.Random) -> float:
    n = len(ordered)
    k = (n + 1) // 2
    below = draw.betavariate(k, n + 1 - k)
    low = ordered[min(int(below * n), n - 1)]
    if n % 2:
        return low
    # The next of the uniform numbers is the smallest of the n - k that lie above this one.
    above = below + (1 - below) * draw.betavariate(1, n - k)
    return (low + ordered[min(int(above * n), n - 1)]) / 2


def _drift(samples: Sequence[float]) -> tuple[float | None, bool]:
    half = len(samples) // 2
    if half < 2:
        return None, False
    first, second = samples[:half], samples[-half:]
    before = statistics.median(first)
    if before <= 0:
        return None, False
    drift = statistics.median(second) / before - 1
    (low, high), (low_after, high_after) = median_interval(first), median_interval(second)
    return drift, half >= _FEW and (high < low_after or high_after < low)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share >= _SMALLEST else "less than 0.1 %"
