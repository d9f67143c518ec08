"""Which steps count: not those that warm up, nor those that the recording cut off."""

from __future__ import annotations

import re
import statistics
from collections import Counter
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

_WARM_UP: Final = re.compile(r"(?i)warm[ _-]?up")
_SLOW: Final = 1.25
"""The first step warms up where it takes so many times the slowest of the others."""

_LEAST: Final = 3


def left_out(
    names: Sequence[str | None], durations_ns: Sequence[int], kernels: Sequence[int]
) -> list[str | None]:
    """Return for each step why it does not count, None where it does.

    A step is left out

    - where its name says that it warms up, unless all names do;
    - where the first steps, or the last one, launch another number of kernels than most steps;
    - where it is the first and takes a quarter more than the slowest of the others.

    What stands between counts, however slow: a slow step is noise that the verdict must know of.
    Of one or two steps all count.
    """
    count = len(names)
    reasons: list[str | None] = [None] * count
    named = [bool(name and _WARM_UP.search(name)) for name in names]
    if not all(named):
        reasons = ["warm-up, by its name" if warms else None for warms in named]
    _odd_work(kernels, reasons)
    kept = [i for i in range(count) if reasons[i] is None]
    if len(kept) >= _LEAST:
        first, *others = (durations_ns[i] for i in kept)
        if first > _SLOW * max(others):
            slower = first / statistics.median(others)
            reasons[kept[0]] = f"warm-up: it takes {slower:.1f} times the others' median"
    return reasons


def _odd_work(kernels: Sequence[int], reasons: list[str | None]) -> None:
    """Leave out what stands at either end and launches another number of kernels than most."""
    kept = [i for i in range(len(kernels)) if reasons[i] is None]
    if len(kept) < _LEAST:
        return
    usual, often = Counter(kernels[i] for i in kept).most_common(1)[0]
    if often * 2 <= len(kept):
        return
    for i in _until(kept, kernels, usual):
        reasons[i] = f"warm-up: {kernels[i]:,} kernels, where the others have {usual:,}"
    if kernels[kept[-1]] != usual:
        reasons[kept[-1]] = f"cut off: {kernels[kept[-1]]:,} kernels, where most have {usual:,}"


def _until(kept: Sequence[int], kernels: Sequence[int], usual: int) -> list[int]:
    """Return the first steps, up to the one that launches as many kernels as most."""
    place = next(n for n, i in enumerate(kept) if kernels[i] == usual)
    return list(kept[:place])
