"""Numbers with their units, for people: one unit and one number of decimals for a whole column.

`column` formats what stands under one heading, so that the numbers align and compare; `time`,
`count`, `size`, `rate` and `share` format one number for a sentence, by the same rules.
"""

from __future__ import annotations

import math
from decimal import Decimal
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

ABSENT: Final = "\N{EN DASH}"
"""A number that is not known; never a zero."""

NOTHING: Final = "(none)"
"""A name or a text that is not there, as the phase of a kernel that no phase launched."""

LADDERS: Final[dict[str, tuple[tuple[int, str], ...]]] = {
    "count": ((1, ""),),
    "ns": ((1, " ns"), (10**3, " µs"), (10**6, " ms"), (10**9, " s")),
    "bytes": tuple((1024**i, f" {u}") for i, u in enumerate(("B", "KiB", "MiB", "GiB", "TiB"))),
    "bytes_per_s": tuple((1000**i, f" {u}/s") for i, u in enumerate(("B", "kB", "MB", "GB", "TB"))),
    "flops": tuple((1000**i, f" {u}FLOP") for i, u in enumerate(("", "k", "M", "G", "T", "P"))),
    "flops_per_s": tuple((1000**i, f" {u}FLOP/s") for i, u in enumerate(("", "k", "M", "G", "T"))),
    "flops_per_byte": ((1, ""),),
}
"""The steps of each unit. Bytes go by 1024 (KiB, MiB, GiB), bytes per second by 1000 (GB/s), and
floating-point operations, too."""

SIGNED: Final = {"more_ns": "ns", "more_bytes": "bytes", "change": "share"}
"""Units of differences, and the unit that each is shown in: with a plus where it is more."""

NUMERIC: Final = frozenset({*LADDERS, "share", *SIGNED})
"""The units whose values are numbers; they are aligned to the right."""

_LARGEST_FIGURE = 100_000  # a column climbs a step before it shows six digits before the point
_ONE = 1 - 1e-9  # sums of shares are 1 only up to rounding


def column(unit: str, values: Iterable[object], beside: Iterable[object] = ()) -> list[str]:
    """Return the values of one column as text.

    The unit follows the column's typical value, not its largest, so that a table of kernels of
    some microseconds stays readable beside one of a millisecond. What is not zero never reads as
    zero: it is ``<0.1 ms``. ``None`` and NaN are a dash; a missing name is ``(none)``. Columns that
    are read across get one unit: ``beside`` are the values of the others.
    """
    if unit == "flag":
        return [ABSENT if value is None else "yes" if value else "no" for value in values]
    if unit in SIGNED:
        given = list(values)
        texts = column(SIGNED[unit], given, beside)
        return [_signed(_number(x), text) for x, text in zip(given, texts, strict=True)]
    if unit not in NUMERIC:
        return [NOTHING if value is None else str(value) for value in values]
    numbers = [_number(value) for value in values]
    all_numbers = [*numbers, *map(_number, beside)]
    finite = [abs(x) for x in all_numbers if x is not None and math.isfinite(x)]
    if unit == "share":
        decimals = _share_decimals(finite)
        return [_special(x) or _share(x, decimals) for x in numbers]
    factor, suffix = _step(LADDERS[unit], finite)
    decimals = _decimals(factor, finite)
    return [_special(x) or _figure(_in_steps(x, factor), decimals) + suffix for x in numbers]


def time(ns: float | None) -> str:
    """Return a time in nanoseconds as text, for example ``165.9 ms``."""
    return column("ns", [ns])[0]


def count(number: float | None) -> str:
    """Return a count as text, for example ``29,730``."""
    return column("count", [number])[0]


def size(in_bytes: float | None) -> str:
    """Return a number of bytes as text in binary units, for example ``1.50 GiB``."""
    return column("bytes", [in_bytes])[0]


def rate(bytes_per_s: float | None) -> str:
    """Return bytes per second as text in decimal units, for example ``1.56 TB/s``."""
    return column("bytes_per_s", [bytes_per_s])[0]


def share(fraction: float | None) -> str:
    """Return a part of one as text, for example ``27 %``, ``2.7 %`` or ``<0.1 %``."""
    return column("share", [fraction])[0]


def _number(value: object) -> float | None:
    if value is None or value != value:  # noqa: PLR0124 (NaN alone differs from itself)
        return None
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, int | float):
        return value
    raise TypeError(f"{value!r} is no number")


def _signed(x: float | None, text: str) -> str:
    """Return the text of a difference: with a plus where it is above zero and has a figure."""
    return f"+{text}" if x is not None and x > 0 and text[0].isdigit() else text


def _special(x: float | None) -> str:
    """Return the text of what has no figure, or an empty text."""
    if x is None:
        return ABSENT
    return ("∞" if x > 0 else "-∞") if math.isinf(x) else ""


def _step(ladder: Sequence[tuple[int, str]], magnitudes: Iterable[float]) -> tuple[int, str]:
    """Return the step that suits the median, or a higher one where the largest needs it."""
    ranked = sorted(x for x in magnitudes if x)
    if not ranked:
        return ladder[0]
    typical, largest = ranked[len(ranked) // 2], ranked[-1]
    suits = next((step for step in reversed(ladder) if step[0] <= typical), ladder[0])
    holds = next((step for step in ladder if largest / step[0] < _LARGEST_FIGURE), ladder[-1])
    return max(suits, holds)


def _decimals(factor: int, magnitudes: Sequence[float]) -> int:
    """Return how many decimals show the smallest, as far as the largest stays within five digits.

    It is one at least, and two where the largest has one digit before the point; whole numbers of
    the first step have none.
    """
    ranked = sorted(x / factor for x in magnitudes if x / factor)
    if not ranked or (factor == 1 and all(float(x).is_integer() for x in magnitudes)):
        return 0
    before_point = len(f"{ranked[-1]:.0f}")
    for_largest = 2 if ranked[-1] < 10 else 1
    for_smallest = math.ceil(-math.log10(ranked[0]))
    return max(for_largest, min(for_smallest, 3, 5 - before_point))


def _in_steps(x: float | None, factor: int) -> float:
    """Return a number in a step of its unit; whole numbers of the first step stay exact."""
    return (x if factor == 1 else x / factor) if x else 0


def _figure(x: float, decimals: int) -> str:
    text = f"{x:,.{decimals}f}" if decimals else f"{int(x):,}"
    if x and not text.strip("-0.,"):
        return f"{'<' if x > 0 else '>-'}{10**-decimals:.{decimals}f}"
    return text


def _share_decimals(fractions: Iterable[float]) -> int:
    """Return 1 where a share is small, or so large that it would round to all of it."""
    return int(any(0 < x < 0.1 or 0.995 <= x < _ONE for x in fractions))


def _share(x: float | None, decimals: int) -> str:
    percent = (x or 0) * 100
    text = _figure(round(percent) if not decimals else percent, decimals)
    whole = f"{100:.{decimals}f}"
    if text == whole and percent < 100 * _ONE:
        return ">99.9 %"
    return f"{text} %"
