"""What a call could take at the least, and whether it took less than is possible."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from tracelens import hardware

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tracelens.hardware import Ceilings
    from tracelens.workload import Work

_WORST: Final = ("", "above the measured ceiling", "above the data sheet", "impossible")


@dataclass(frozen=True)
class Roof:
    """A time held against the ceilings.

    Attributes:
        bound_s: the least time; None: not known, or it is the memory's and plays no part.
        limited_by: `compute` or `memory`; "" without a bound.
        origin: where the ceiling that holds it is from.
        share: bound over time.
        flag: what is wrong with the time, see `Ceilings.verdict`.
    """

    bound_s: float | None = None
    limited_by: str = ""
    origin: str = ""
    share: float | None = None
    flag: str = ""


def roof(work: Work, seconds: float, ceilings: Ceilings | None, *, in_cache: bool) -> Roof:
    """Return how a time is to the ceilings.

    With 2:4 sparsity work is that of what is not zero: the rate of dense products, which it is held
    against, is half of the sparse rate, which counts zeros.

    Args:
        work: of one call.
        seconds: that it took.
        ceilings: of the device; None: not known.
        in_cache: whether its bytes may lie in the cache, so that the memory's bandwidth is no
            bound of theirs.
    """
    if ceilings is None:
        return Roof()
    held = replace(work, bytes=0) if in_cache else work
    bound = hardware.bound([work], ceilings)
    if bound is None or not bound.seconds:
        return Roof()
    flag = max(
        (ceilings.verdict(*rate) for rate in _rates(held, seconds).items()),
        key=_WORST.index,
        default="",
    )
    if in_cache and bound.limited_by == "memory":
        return Roof(flag=flag)
    name = hardware.BANDWIDTH if bound.limited_by == "memory" else _compute(work)
    return Roof(
        bound_s=bound.seconds,
        limited_by=bound.limited_by,
        origin=ceilings.origin_of(name),
        share=bound.seconds / seconds,
        flag=flag,
    )


def _rates(work: Work, seconds: float) -> Mapping[str, float]:
    rates = {_compute(work): work.flops / seconds, hardware.BANDWIDTH: work.bytes / seconds}
    return {name: rate for name, rate in rates.items() if rate}


def _compute(work: Work) -> str:
    return f"{hardware.MATMUL}{work.dtype}" if work.matmul else hardware.VECTOR
