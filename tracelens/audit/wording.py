"""Numbers of claims as people write them: 63,825 tok/s, 1.19 PFLOP/s, 82.2 GB, 1.03x, 98.0 %."""

from __future__ import annotations

import math
from typing import Final

from tracelens.audit import quantities

_SUFFIXES: Final = {
    quantities.TOKENS_PER_S: " tok/s",
    quantities.REQUESTS_PER_S: " requests/s",
    quantities.ITEMS_PER_S: " items/s",
    quantities.SPEEDUP: "x",
}
_STEPS: Final = (
    (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""),
)  # fmt: skip
_TIMES: Final = ((1.0, " s"), (1e-3, " ms"), (1e-6, " µs"), (1e-9, " ns"))
_SCALED: Final = {
    quantities.FLOPS_PER_S: "FLOP/s",
    quantities.FLOPS: "FLOP",
    quantities.BYTES_PER_S: "B/s",
    quantities.BYTES: "B",
}
_WHOLE: Final = 1000


def amount(quantity: str, number: float, *, percent: bool = False) -> str:
    """Return a number in base units as text."""
    if not math.isfinite(number):
        return "unbounded"
    if percent or quantity in {quantities.SHARE, quantities.EFFICIENCY}:
        return f"{figure(number * 100)} %"
    if quantity == quantities.TIME:
        step, suffix = next((s for s in _TIMES if abs(number) >= s[0]), _TIMES[-1])
        return f"{figure(number / step)}{suffix}"
    if quantity in _SCALED:
        step, prefix = next((s for s in _STEPS if abs(number) >= s[0]), _STEPS[-1])
        return f"{figure(number / step)} {prefix}{_SCALED[quantity]}"
    return f"{figure(number)}{_SUFFIXES.get(quantity, '')}"


def figure(number: float) -> str:
    """Return a number with four digits, or all before the point where there are more."""
    if number and abs(number) >= _WHOLE:
        whole = abs(number) >= 1e5 or float(number).is_integer()
        return f"{number:,.0f}" if whole else f"{number:,.1f}"
    return f"{number:.4g}"
