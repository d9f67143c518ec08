"""Intervals of numbers: what a printed number can stand for, and what follows from such numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

_SLACK: Final = 1e-9  # relative: floats carry 16 digits, and no table prints as many as nine


@dataclass(frozen=True)
class Interval:
    """All numbers from `low` to `high`, both included; `at` is the one that was printed.

    The arithmetic is that of R. E. Moore, *Interval Analysis* (1966), without outward rounding:
    `meets` allows for the last digits instead. `at` goes through the same arithmetic, to be shown.
    """

    low: float
    high: float
    at: float

    def __add__(self, other: Interval) -> Interval:
        return _hull((self.low + other.low, self.high + other.high), self.at + other.at)

    def __sub__(self, other: Interval) -> Interval:
        return _hull((self.low - other.high, self.high - other.low), self.at - other.at)

    def __mul__(self, other: Interval) -> Interval:
        ends = (a * b for a in (self.low, self.high) for b in (other.low, other.high))
        return _hull(ends, self.at * other.at)

    def __truediv__(self, other: Interval) -> Interval:
        if other.low <= 0 <= other.high or not other.at:
            return EVERYTHING
        ends = (a / b for a in (self.low, self.high) for b in (other.low, other.high))
        return _hull(ends, self.at / other.at)

    def __pow__(self, power: float) -> Interval:
        if self.low < 0 or abs(power) > _HIGHEST_POWER or (self.low == 0 and power < 0):
            return EVERYTHING
        try:
            return _hull((self.low**power, self.high**power), self.at**power)
        except (OverflowError, ZeroDivisionError):
            return EVERYTHING

    def __neg__(self) -> Interval:
        return Interval(-self.high, -self.low, -self.at)

    def times(self, factor: float) -> Interval:
        """Return the interval multiplied by an exact number."""
        return self * exact(factor)

    def into(self, amount: float) -> Interval:
        """Return an exact amount divided by the interval."""
        return exact(amount) / self

    def meets(self, other: Interval) -> bool:
        """Tell whether some number is in both, up to the last digits of floats."""
        slack = _SLACK * max(_size(self), _size(other))
        return self.low <= other.high + slack and other.low <= self.high + slack

    def below(self, limit: float) -> bool:
        """Tell whether some number of it is at most the limit."""
        return self.low <= limit + _SLACK * abs(limit)


_HIGHEST_POWER: Final = 64
EVERYTHING: Final = Interval(-math.inf, math.inf, math.nan)


def exact(number: float) -> Interval:
    """Return the interval of one number."""
    return Interval(number, number, number)


def common(intervals: Iterable[Interval]) -> Interval | None:
    """Return what all intervals have in common; None if there is nothing."""
    found = list(intervals)
    low, high = max(i.low for i in found), min(i.high for i in found)
    if low <= high:
        return Interval(low, high, (low + high) / 2)
    return exact((low + high) / 2) if exact(low).meets(exact(high)) else None


def _size(one: Interval) -> float:
    finite = [abs(x) for x in (one.low, one.high) if math.isfinite(x)]
    return max(finite, default=0.0)


def _hull(ends: Iterable[float], at: float) -> Interval:
    found = list(ends)
    if any(math.isnan(x) for x in found):
        return EVERYTHING
    return Interval(min(found), max(found), at)
