"""Times of a Kineto trace: microseconds, as numbers or digits, to whole nanoseconds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
import polars as pl

if TYPE_CHECKING:
    from collections.abc import Sequence

_DIGITS: Final = r"^-?\d{1,16}(?:\.\d+)?(?:[eE]\+?\d{1,2})?$"
_LARGEST_US: Final = 2**63 // 1000
ABSOLUTE_NS: Final = 10**18
"""Later than 2001: a Unix time, not a time since the machine or the trace began."""


def nanoseconds(times: Sequence[Any]) -> pl.Series:
    """Return times in ns as Int64, null where they are none.

    Args:
        times: microseconds as ints and floats, or all of them as `msgspec.Raw` digits, whose
            every digit counts.
    """
    if times and isinstance(times[0], msgspec.Raw):
        return _of_digits(times)
    if all(isinstance(time, int) for time in times):
        whole = [time * 1000 if abs(time) <= _LARGEST_US else None for time in times]
        return pl.Series(whole, dtype=pl.Int64)
    return _of_floats(pl.Series(times, dtype=pl.Float64, strict=False))


def _of_floats(times: pl.Series) -> pl.Series:
    if (times.abs().max() or 0) <= _LARGEST_US:  # type: ignore[operator]
        return (times * 1000).round().cast(pl.Int64)
    fitting = pl.when(pl.col("t").abs() <= _LARGEST_US).then((pl.col("t") * 1000).round())
    return times.to_frame("t").select(fitting.cast(pl.Int64))["t"]


def _of_digits(times: Sequence[msgspec.Raw]) -> pl.Series:
    texts = pl.Series([bytes(time).decode(errors="replace") for time in times], dtype=pl.String)
    digits = texts.str.strip_chars('" ')
    plain = pl.when(pl.col("t").str.contains(_DIGITS)).then("t")
    exact = plain.cast(pl.Decimal(38, 3), strict=False) * 1000
    return digits.to_frame("t").select(exact.cast(pl.Int64, strict=False).alias("t"))["t"]
