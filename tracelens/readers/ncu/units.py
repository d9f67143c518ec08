"""The units that ncu prints, and what they are in base units."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_PREFIX: Final = {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}
"""ncu's Kbyte is 1,000 bytes."""
_TIMES: Final = {
    "ns": 1.0, "nsecond": 1.0, "us": 1e3, "usecond": 1e3, "ms": 1e6, "msecond": 1e6, "s": 1e9,
    "second": 1e9, "min": 6e10, "minute": 6e10, "h": 3.6e12, "hour": 3.6e12,
}  # fmt: skip
_NS_PER_S: Final = 1e9
_WORDS: Final = frozenset(
    (
        "block", "byte", "cluster", "cycle", "inst", "op", "pass", "register", "request", "sector",
        "sm", "tag", "thread", "transaction", "warp", "wavefront",
    )
)  # fmt: skip


@dataclass(frozen=True)
class Unit:
    """A unit in base units.

    Attributes:
        base: the base unit, such as byte/s; an unknown one as it was written.
        factor: what to multiply values by.
        known: whether it is known here.
        scaled: whether ncu chose it by the value's size, which it then rounds.
    """

    base: str
    factor: float = 1.0
    known: bool = True
    scaled: bool = False


def unit(text: str) -> Unit:
    """Return what a unit is in base units: byte, ns, hz, byte/s, or a thing that is counted."""
    text = text.strip()
    if text in ("", "%") or text.startswith("%/"):
        return Unit(text)
    over, _, under = text.partition("/")
    first, second = _one(over), _one(under) if under else Unit("")
    if not (first.known and second.known):
        return Unit(text, known=False)
    if not under:
        return first
    if second.base == "ns":
        factor = first.factor * _NS_PER_S / second.factor
        base = "hz" if first.base == "cycle" else f"{first.base}/s"
        return Unit(base, factor, scaled=first.scaled or second.factor != _NS_PER_S)
    return Unit(f"{first.base}/{second.base}", first.factor / second.factor, scaled=first.scaled)


def _one(text: str) -> Unit:
    if text in _TIMES:
        return Unit("ns", _TIMES[text], scaled=_TIMES[text] != 1)
    if text.casefold().endswith("hz") and text[:-2].upper() in _PREFIX:
        return Unit("hz", _PREFIX[text[:-2].upper()], scaled=len(text) > len("hz"))
    for prefix, word in (("", text), (text[:1], text[1:])):
        plain = word.casefold()
        plain = plain if plain in _WORDS else plain.removesuffix("s")
        if plain in _WORDS and prefix in _PREFIX:
            base = "SM" if plain == "sm" else plain
            return Unit(base, _PREFIX[prefix], scaled=bool(prefix))
    return Unit(text, known=False)
