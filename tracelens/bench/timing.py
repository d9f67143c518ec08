"""How long a call takes: warmed up, then sampled until the median is known well enough."""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from tracelens.bench.case import Clock, Target

_QUEUE: Final = 500
"""Calls that fit into a GPU's queue (1,024 launches), each of one or two launches."""

_BUSY_CYCLES: Final = 40_000_000
"""Some 20 ms of a GPU: within which the host makes `_QUEUE` calls of up to 40 µs."""

_SIGMA: Final = 1.4826
_MEDIAN: Final = 1.2533


@dataclass(frozen=True)
class Effort:
    """How much is done for a median.

    Attributes:
        warmup_s: work before the first sample, which brings the clocks up.
        sample_s: one sample is as many calls as take this long together.
        least: samples, at least.
        most: samples, at most.
        budget_s: samples end when they have taken this long together.
        precision: and when the standard error of the median is below this share of it.
        longest_s: a call that is likely to take longer is not made.
    """

    warmup_s: float
    sample_s: float
    least: int
    most: int
    budget_s: float
    precision: float
    longest_s: float


THOROUGH: Final = Effort(0.5, 0.01, 10, 200, 2.0, 0.001, 2.0)
QUICK: Final = Effort(0.15, 0.005, 7, 60, 0.4, 0.002, 0.5)
QUICK_CPU: Final = Effort(0.01, 0.005, 5, 30, 0.1, 0.01, 0.2)


@dataclass(frozen=True)
class Timing:
    """The samples of a call, each in seconds; ``settled``: they ended by `Effort.precision`."""

    samples_s: list[float]
    settled: bool

    @property
    def median_s(self) -> float:
        """The typical time."""
        return statistics.median(self.samples_s)

    @property
    def mad_s(self) -> float:
        """Median absolute deviation from the median, not scaled."""
        median = self.median_s
        return statistics.median(abs(sample - median) for sample in self.samples_s)


def effort(target: Target) -> Effort:
    """Return how much is to be done on a device."""
    if not target.quick:
        return THOROUGH
    return QUICK if target.is_gpu else QUICK_CPU


def sampled(run: Callable[[int], float], wanted: Effort, most_calls: int = 1_000_000) -> Timing:
    """Return the samples of a call.

    Args:
        run: makes a number of calls, and returns the seconds that they took together.
        wanted: how much is to be done.
        most_calls: in one sample.
    """
    run(1)  # loads kernels, and takes memory
    once = run(1)
    calls = min(max(1, math.ceil(wanted.sample_s / max(once, 1e-9))), most_calls)
    took = spent = 0.0
    while not spent or spent < wanted.warmup_s:
        took = run(calls)
        spent += max(took, 1e-6)
    # Warm calls are shorter than the first.
    calls = min(max(calls, math.ceil(wanted.sample_s / max(took / calls, 1e-9))), most_calls)
    samples: list[float] = []
    spent = 0.0
    while True:
        took = run(calls)
        samples.append(max(took, 1e-9) / calls)  # a clock may tick slowly
        spent += max(took, 1e-6)
        if len(samples) >= wanted.least:
            if standard_error(samples) <= wanted.precision:
                return Timing(samples, settled=True)
            if spent >= wanted.budget_s or len(samples) >= wanted.most:
                return Timing(samples, settled=False)


def standard_error(samples: list[float]) -> float:
    """Return the standard error of the median, as a share of it.

    By that of normal noise, 1.2533 σ / √n, with σ = 1.4826 times the median absolute deviation,
    which outliers do not move (P. J. Rousseeuw and C. Croux, "Alternatives to the median absolute
    deviation", JASA 88, 1993).
    """
    timing = Timing(samples, settled=False)
    return _MEDIAN * _SIGMA * timing.mad_s / math.sqrt(len(samples)) / timing.median_s


def runner(
    call: Callable[[], object], target: Target, clock: Clock
) -> tuple[Callable[[int], float], int]:
    """Return what makes a number of calls and tells their seconds, and how many at most."""
    if clock == "host":
        return _by_host(call, target), _QUEUE if target.is_gpu else 1_000_000
    if not target.is_gpu or clock == "wall":
        return _by_wall(call, target), 1_000_000
    if clock == "queued":
        return _by_events(call, target, queued=True), _QUEUE
    return _by_events(call, target, queued=False), 1_000_000


def _by_wall(call: Callable[[], object], target: Target) -> Callable[[int], float]:
    def run(calls: int) -> float:
        _wait(target)
        begin = time.perf_counter()
        for _ in range(calls):
            call()
        _wait(target)
        return time.perf_counter() - begin

    return run


def _by_host(call: Callable[[], object], target: Target) -> Callable[[int], float]:
    def run(calls: int) -> float:
        _wait(target)
        begin = time.perf_counter()
        for _ in range(calls):
            call()
        return time.perf_counter() - begin

    return run


def _by_events(
    call: Callable[[], object], target: Target, *, queued: bool
) -> Callable[[int], float]:
    cuda: Any = target.torch.cuda

    def run(calls: int) -> float:
        begin, end = cuda.Event(enable_timing=True), cuda.Event(enable_timing=True)
        _wait(target)
        if queued:
            cuda._sleep(_BUSY_CYCLES)  # noqa: SLF001 (keeps the GPU busy; it has no public name)
        begin.record()
        for _ in range(calls):
            call()
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end)) / 1e3

    return run


def _wait(target: Target) -> None:
    if target.is_gpu:
        target.torch.cuda.synchronize(target.device)
