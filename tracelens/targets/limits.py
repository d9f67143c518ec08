"""What no GPU can do: the least time of work, and the arithmetic that says so.

A limit is strict, so that nothing is called impossible that is not: operations of matrix products
at the highest rate that any clock of the GPU allows, or the bytes that have to cross the memory
bus. Bytes count where the work is one kernel, since several may keep to themselves what lies
between them, and less what the L2 cache can hold from one time to the next.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tracelens import hardware, units
from tracelens.targets.quantities import shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tracelens.hardware import Device
    from tracelens.targets.file import Needs
    from tracelens.targets.quantities import Dimension
    from tracelens.workload import Work


@dataclass(frozen=True)
class Limit:
    """The best value of a metric that a GPU can reach, and why, in a sentence without its verdict.

    For times it is the least, for rates and shares the most. Of a time, ``amount`` is the FLOP or
    bytes that it takes, which tells the rate that another time would take.
    """

    value: float
    says: str
    amount: float = 0.0
    of: Dimension = "flops_per_s"

    def rate(self, ns: float) -> str:
        """Return the rate at which the work would be done in a time, as text; or nothing."""
        return shown(self.amount / ns * 1e9, self.of) if self.amount and ns > 0 else ""


def gpus(name: str) -> tuple[Device, ...]:
    """Return the GPUs that a name may mean: that of a driver, ours, or words of it (`A100`)."""
    if found := hardware.device(name):
        return (found,)
    known = hardware.devices()
    if same := [one for one in known if one.name.lower() == name.strip().lower()]:
        return tuple(same)
    words = _words(name)
    return tuple(one for one in known if words and words <= _words(one.name))


def is_on(asked: str, measured: str | None) -> bool:
    """Tell whether a run's GPU is the one that a target is for."""
    if measured is None:
        return False
    meant, has = gpus(asked), hardware.device(measured)
    if has is not None and meant:
        return has.name in {one.name for one in meant}
    return _words(asked) <= _words(measured)


def limit(
    metric: str, dimension: Dimension | None, needs: Needs | None, on: Sequence[Device]
) -> Limit | None:
    """Return the best value that any of these GPUs can reach; None: nothing is known.

    Args:
        metric: whose values they are.
        dimension: of its values.
        needs: what the work takes.
        on: the GPUs; of several the best one counts.
    """
    found = [one for device in on if (one := _on(metric, dimension, needs, device))]
    if not found or len(found) < len(on):
        return None
    return min(found, key=_value) if dimension == "time" else max(found, key=_value)


def remark(value: float, dimension: Dimension, needs: Needs | None, gpu: str) -> str:
    """Return what is odd about a measurement that is possible: above a ceiling; or nothing."""
    found = hardware.ceilings(gpu)
    formats = _flops(needs.parts) if needs else {}
    if found is None or value <= 0:
        return ""
    name, rate = hardware.BANDWIDTH, value
    if dimension in ("time", "flops_per_s"):
        if len(formats) != 1:
            return ""
        ((dtype, flops),) = formats.items()
        name = f"{hardware.MATMUL}{dtype}"
        rate = flops / value * 1e9 if dimension == "time" else value
    elif dimension != "bytes_per_s" or _is_cached(needs, found.device):
        return ""
    verdict, ceiling = found.verdict(name, rate), found.rate(name)
    if not verdict or ceiling is None:
        return ""
    unit: Dimension = "bytes_per_s" if name == hardware.BANDWIDTH else "flops_per_s"
    of = "data sheet" if verdict == "above the data sheet" else found.origin_of(name)
    stated = found.device.rate(name) if found.device and of == "data sheet" else ceiling
    return f"{shown(rate, unit)} are {verdict} ({shown(stated or ceiling, unit)}, {of})"


def _is_cached(needs: Needs | None, device: Device | None) -> bool:
    """Tell whether the L2 cache may serve most of the work."""
    touched = needs.memory_bytes if needs else 0
    return 0 < touched <= 2 * ((device.l2_bytes if device else 0) or 0)


def _value(one: Limit) -> float:
    return one.value


def _on(
    metric: str, dimension: Dimension | None, needs: Needs | None, device: Device
) -> Limit | None:
    if metric == "mfu" or dimension == "flops_per_s":
        return _rate(needs, device, as_share=metric == "mfu")
    if metric == "mbu" or dimension == "bytes_per_s":
        return _bandwidth(needs, device, as_share=metric == "mbu")
    if metric == "peak_memory" or dimension not in ("time", "rate") or needs is None:
        return None
    least = _least(needs, device)
    if least is None or dimension == "time":
        return least
    if not needs.items:
        return None
    rate = needs.items / (least.value / 1e9)
    return Limit(rate, f"{least.says}, for {needs.items:,} items")


def _least(needs: Needs, device: Device) -> Limit | None:
    """Return the least time in ns."""
    found = [one for one in (_arithmetic(needs, device), _traffic(needs, device)) if one]
    return max(found, key=_value, default=None)


def _arithmetic(needs: Needs, device: Device) -> Limit | None:
    flops = _flops(needs.parts)
    if not flops:
        return None
    seconds = 0.0
    for dtype, count in flops.items():
        rate = device.limit(f"{hardware.MATMUL}{dtype}")
        if rate is None:
            return None
        seconds += count / rate
    total = sum(flops.values())
    formats = " and ".join(flops)
    least = seconds * 1e9
    says = (
        f"{_flop(total)} of {formats} matrix products ({needs.by}) take {shown(least, 'time')} at "
        f"{shown(total / seconds, 'flops_per_s')}, the most that {device.name} can do at any clock"
    )
    if len(flops) == 1 and (stated := device.rate(f"{hardware.MATMUL}{formats}")):
        says += f" ({shown(stated, 'flops_per_s')} by its data sheet)"
    return Limit(least, says, total)


def _traffic(needs: Needs, device: Device) -> Limit | None:
    bandwidth = device.limit(hardware.BANDWIDTH)
    if len(needs.parts) != 1 or bandwidth is None:
        return None
    moved = needs.parts[0].bytes
    touched = max(needs.memory_bytes, 1)
    moved = round(moved * max(0.0, 1 - (device.l2_bytes or 0) / touched))
    if not moved:
        return None
    least = moved / bandwidth * 1e9
    return Limit(
        least,
        f"{shown(moved, 'bytes')} through memory ({needs.by}, less what the L2 cache holds) take "
        f"{shown(least, 'time')} at {shown(bandwidth, 'bytes_per_s')}, the most that "
        f"{device.name} can do",
        moved,
        "bytes_per_s",
    )


def _rate(needs: Needs | None, device: Device, *, as_share: bool) -> Limit | None:
    """Return the highest FLOP/s, or that as a share of the stated rate."""
    formats = _flops(needs.parts) if needs else {}
    if needs and not formats:
        return None
    names = [f"{hardware.MATMUL}{dtype}" for dtype in formats or device.matmul_flops_per_s]
    rates = [(best, device.rate(name)) for name in names if (best := device.limit(name))]
    if not rates or (formats and len(rates) < len(formats)):
        return None
    said = f"in {' and '.join(formats)}" if formats else "in any format"
    if as_share:
        most = max(best / (stated or best) for best, stated in rates)
        return Limit(most, f"matrix products {said} reach {shown(most, 'share')} of the data sheet "
                     f"at the highest clock of {device.name}")  # fmt: skip
    most = max(best for best, _ in rates)
    return Limit(most, f"{device.name} does {shown(most, 'flops_per_s')} at most {said}")


def _bandwidth(needs: Needs | None, device: Device, *, as_share: bool) -> Limit | None:
    if _is_cached(needs, device):
        return None
    stated, most = device.rate(hardware.BANDWIDTH), device.limit(hardware.BANDWIDTH)
    if stated is None or most is None:
        return None
    if as_share:
        return Limit(most / stated, f"the memory of {device.name} does "
                     f"{shown(most / stated, 'share')} of its data sheet at most")  # fmt: skip
    return Limit(most, f"the memory of {device.name} does {shown(most, 'bytes_per_s')} at most")


def _flops(parts: Iterable[Work]) -> Counter[str]:
    """Return the operations of matrix products by format."""
    found: Counter[str] = Counter()
    for part in parts:
        if part.matmul and part.flops:
            found[part.dtype] += part.flops
    return found


def _flop(count: int) -> str:
    return units.column("flops", [count])[0]


def _words(name: str) -> set[str]:
    return set(re.findall(r"[a-z0-9]+", name.lower())) - {"nvidia", "gpu"}
