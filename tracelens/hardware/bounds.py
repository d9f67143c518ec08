"""The least time that work takes on a device: the roofline bound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tracelens.hardware.limits import Ceilings
    from tracelens.hardware.specs import Device
    from tracelens.workload import Cost, Work


@dataclass(frozen=True)
class Bound:
    """The least time that work takes on a device, and which ceiling holds it there.

    Attributes:
        seconds: the least time.
        limited_by: `compute` or `memory`: which of the two takes most of it.
    """

    seconds: float
    limited_by: str


def bound(parts: Iterable[Work], on: Device | Ceilings) -> Bound | None:
    """Return the roofline bound of parts that run one after another.

    Each part takes the longer of its operations at the device's rate and its bytes at the
    bandwidth (S. Williams, A. Waterman, D. Patterson, *Roofline*, CACM 52(4), 2009).

    Returns:
        None if the device has no rate for a format, so that no part of a bound is left out.
    """
    seconds = {"compute": 0.0, "memory": 0.0}
    for part in parts:
        rate = on.matmul_flops_per_s.get(part.dtype) if part.matmul else on.vector_flops_per_s
        bandwidth = on.bandwidth_bytes_per_s
        if (part.flops and not rate) or (part.bytes and not bandwidth):
            return None
        compute = part.flops / rate if rate else 0.0
        memory = part.bytes / bandwidth if bandwidth else 0.0
        seconds["compute" if compute >= memory else "memory"] += max(compute, memory)
    return Bound(sum(seconds.values()), max(seconds, key=lambda kind: seconds[kind]))


def step_bound(cost: Cost, on: Device | Ceilings) -> Bound | None:
    """Return the bound of a whole step."""
    return bound([part for parts in cost.phases.values() for part in parts], on)
