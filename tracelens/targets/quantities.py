"""Quantities as people write them, `< 4.5 ms` or `> 70 % of reference`, and what metrics mean."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from tracelens import units

if TYPE_CHECKING:
    from collections.abc import Mapping

Dimension = Literal[
    "time", "rate", "flops_per_s", "bytes_per_s", "bytes", "share", "ratio", "number"
]
"""What kind of quantity it is; in ns, 1/s, FLOP/s, B/s, B, parts of 1, times, and 1."""

METRICS: Final[dict[str, Dimension]] = {
    "step_time": "time",
    "latency": "time",
    "kernel_time": "time",
    "tokens_per_s": "rate",
    "items_per_s": "rate",
    "flops_per_s": "flops_per_s",
    "bytes_per_s": "bytes_per_s",
    "mfu": "share",
    "mbu": "share",
    "peak_memory": "bytes",
    "share": "share",
    "copy_share": "share",
    "busy_share": "share",
}
"""The metrics whose meaning is known; see docs/commands/grade.md. Others are what rows say."""

LOWER_IS_BETTER: Final[dict[Dimension, bool]] = {
    "time": True,
    "bytes": True,
    "rate": False,
    "flops_per_s": False,
    "bytes_per_s": False,
    "ratio": False,
}
"""Which way is better; for shares and plain numbers a threshold tells."""

_SI: Final = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}
_BINARY: Final = {f"{p}i": 1024.0**i for i, p in enumerate("KMGT", 1)}


def _scaled(
    unit: str, dimension: Dimension, prefixes: Mapping[str, float]
) -> dict[str, tuple[float, Dimension]]:
    return {f"{prefix}{unit}": (factor, dimension) for prefix, factor in prefixes.items()}


_FIXED: Final[dict[str, tuple[float, Dimension]]] = {
    "": (1.0, "number"),
    "ns": (1.0, "time"),
    "us": (1e3, "time"),
    "\N{MICRO SIGN}s": (1e3, "time"),
    "\N{GREEK SMALL LETTER MU}s": (1e3, "time"),
    "ms": (1e6, "time"),
    "s": (1e9, "time"),
    "%": (0.01, "share"),
    "x": (1.0, "ratio"),
    "×": (1.0, "ratio"),
    **_scaled("B", "bytes", _SI | _BINARY),
    **_scaled("B/s", "bytes_per_s", _SI),
    **_scaled("FLOP/s", "flops_per_s", _SI),
    **_scaled("FLOPS", "flops_per_s", _SI),
}
_RATE: Final = re.compile(r"(?:(k|M|G) ?)?(tokens|items|steps|samples|queries|elements)/s")
_QUANTITY: Final = re.compile(
    r"\s*([+-]?[\d_]*\.?\d+(?:[eE][+-]?\d+)?)\s*([^\d\s.<>=][^<>=]*?)?\s*", re.ASCII
)
_OF_REFERENCE: Final = re.compile(r"(.*[%x×])\s+(?:of\s+)?(?:the\s+)?reference\s*", re.DOTALL)
_OPERATOR: Final = re.compile(r"\s*(<=|>=|<|>|≤|≥)(.*)", re.DOTALL)
_SPELLED: Final = {"≤": "<=", "≥": ">="}
_NEAR: Final = 1e-9
_LONGEST: Final = 200
_LARGEST: Final = 1e30


@dataclass(frozen=True)
class Quantity:
    """A number in the base unit of its dimension."""

    value: float
    dimension: Dimension

    def __str__(self) -> str:
        return shown(self.value, self.dimension)


@dataclass(frozen=True)
class Threshold:
    """What a value is held against.

    ``relative`` tells that the limit is one of performance as a share of the reference's, for
    which more is better whatever the metric.
    """

    operator: Literal["<", "<=", ">", ">="]
    limit: Quantity
    relative: bool = False
    said: str = field(default="", compare=False)
    """As it was written, for people."""

    @property
    def is_upper(self) -> bool:
        """Whether values have to be below it."""
        return self.operator.startswith("<")

    def holds(self, value: float) -> bool:
        """Tell whether a value is on the right side; what differs by rounding alone is equal."""
        if math.isclose(value, self.limit.value, rel_tol=_NEAR):
            return self.operator.endswith("=")
        return (value < self.limit.value) == self.is_upper

    def __str__(self) -> str:
        return self.said or f"{self.operator} {self.limit}"


def quantity(text: str) -> Quantity:
    """Return a number with its unit, such as `4.5 ms`, `640 TFLOP/s`, `70 %`, `538 ktokens/s`.

    Raises:
        ValueError: it is no number, or its unit is not known; the message says so.
    """
    found = _QUANTITY.fullmatch(text) if len(text) <= _LONGEST else None
    if not found:
        raise ValueError(f"{text[:_LONGEST]!r} is no number with a unit, such as '4.5 ms'")
    number, unit = float(found[1]), found[2] or ""
    if not abs(number) < _LARGEST:
        raise ValueError(f"{text!r} is too large")
    return measured(number, unit)


def measured(value: float, unit: str) -> Quantity:
    """Return a value that was given with its unit apart; raises ValueError."""
    factor, dimension = _unit(unit.strip())
    # 70 * 0.01 is more than 0.7.
    return Quantity(value / 100 if dimension == "share" else value * factor, dimension)


def threshold(text: str) -> Threshold:
    """Return a threshold, such as `< 4.5 ms`, `>= 60 %` or `> 1.4 x reference`.

    Raises:
        ValueError: it cannot be understood; the message says how to write it.
    """
    found = _OPERATOR.fullmatch(text)
    if not found:
        raise ValueError(f"{text[:_LONGEST]!r} begins with none of <, <=, >, >=")
    operator: Literal["<", "<=", ">", ">="] = _SPELLED.get(found[1], found[1])  # type: ignore[assignment]
    relative = _OF_REFERENCE.fullmatch(found[2])
    limit = quantity(relative[1] if relative else found[2])
    made = Threshold(operator, limit, relative is not None, " ".join(text.split()))
    if relative and made.is_upper:
        raise ValueError(f"{text!r}: more of the reference is better; write > or >=")
    return made


def shown(value: float, dimension: Dimension) -> str:
    """Return a value as text, for people."""
    if dimension == "time":
        return units.time(value)
    if dimension == "bytes":
        return units.size(value)
    if dimension == "bytes_per_s":
        return units.rate(value)
    if dimension == "flops_per_s":
        return units.column("flops_per_s", [value])[0]
    if dimension == "share":
        return f"{100 * value:.4g} %"
    if dimension == "ratio":
        return f"{value:.3g} x"
    if dimension == "rate":
        return f"{value:,.0f}/s" if value >= 100 else f"{value:.3g}/s"
    return f"{value:.4g}"


def _unit(unit: str) -> tuple[float, Dimension]:
    if unit in _FIXED:
        return _FIXED[unit]
    if found := _RATE.fullmatch(unit):
        return _SI[found[1] or ""], "rate"
    raise ValueError(
        f"the unit {unit[:40]!r} is not known: write ms, GB/s, TFLOP/s, tokens/s, GiB, % or x"
    )
