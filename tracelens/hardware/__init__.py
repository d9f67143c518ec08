"""What GPUs can do at most, by their makers' data sheets, and how long work must take at least.

The figures are dense rates (without 2:4 sparsity) of matrix products with fp32 accumulation, at
boost clock, and the bandwidth of the memory. They are NVIDIA's, from the data sheets and
architecture white papers of each product; a real program on random data reaches 70 to 90 % of
them. A device that is not listed has no bound: nothing is guessed from a similar name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tracelens.workload import Cost, Work


@dataclass(frozen=True)
class Device:
    """The ceilings of a GPU.

    Attributes:
        name: what the maker calls it.
        matmul_flops_per_s: number format -> rate of matrix products.
        vector_flops_per_s: fp32 rate outside of the matrix units.
        bandwidth_bytes_per_s: of its memory.
    """

    name: str
    matmul_flops_per_s: Mapping[str, float]
    vector_flops_per_s: float
    bandwidth_bytes_per_s: float


def _device(
    name: str,
    fp32: float,
    bandwidth: float,
    *,
    half: float = 0.0,
    tf32: float = 0.0,
    bf16: bool = True,
) -> Device:
    """Return a device from TFLOP/s and TB/s."""
    rates = {"fp32": fp32, "tf32": tf32, "fp16": half, "bf16": half if bf16 else 0.0}
    return Device(
        name,
        MappingProxyType({dtype: rate * 1e12 for dtype, rate in rates.items() if rate}),
        fp32 * 1e12,
        bandwidth * 1e12,
    )


_DEVICES: Final = (
    (r"\bB200\b", _device("B200", 75, 8.0, half=2250, tf32=1125)),
    (r"\bH200\b", _device("H200", 66.9, 4.8, half=989.4, tf32=494.7)),
    (r"\bH100 NVL\b", _device("H100 NVL", 60, 3.9, half=835.5, tf32=417.5)),
    (r"\bH100 PCIe\b", _device("H100 PCIe", 51.2, 2.039, half=756.5, tf32=378)),
    (r"\bH100\b.*HBM3", _device("H100 SXM", 66.9, 3.35, half=989.4, tf32=494.7)),
    (r"\bA100-SXM\d?-40GB", _device("A100 SXM 40 GB", 19.5, 1.555, half=312, tf32=156)),
    (r"\bA100-PCIE-40GB", _device("A100 PCIe 40 GB", 19.5, 1.555, half=312, tf32=156)),
    (r"\bA100-SXM\d?-80GB", _device("A100 SXM 80 GB", 19.5, 2.039, half=312, tf32=156)),
    (r"\bA100 80GB PCIe", _device("A100 PCIe 80 GB", 19.5, 1.935, half=312, tf32=156)),
    (r"\bA30\b", _device("A30", 10.3, 0.933, half=165, tf32=82)),
    (r"\bA40\b", _device("A40", 37.4, 0.696, half=149.7, tf32=74.8)),
    (r"\bA10\b", _device("A10", 31.2, 0.6, half=125, tf32=62.5)),
    (r"\bL40S\b", _device("L40S", 91.6, 0.864, half=362, tf32=183)),
    (r"\bL40\b", _device("L40", 90.5, 0.864, half=181, tf32=90.5)),
    (r"\bL4\b", _device("L4", 30.3, 0.3, half=121, tf32=60)),
    (r"\bV100-SXM", _device("V100 SXM2", 15.7, 0.9, half=125, bf16=False)),
    (r"\bV100-PCIE", _device("V100 PCIe", 14, 0.9, half=112, bf16=False)),
    (r"\bT4\b", _device("T4", 8.1, 0.32, half=65, bf16=False)),
    (r"RTX 6000 Ada", _device("RTX 6000 Ada", 91.1, 0.96, half=364.2, tf32=182.1)),
    (r"RTX A6000", _device("RTX A6000", 38.7, 0.768, half=154.8, tf32=77.4)),
    (r"RTX 4090(?! ?D| Laptop)", _device("RTX 4090", 82.6, 1.008, half=165.2, tf32=82.6)),
    (r"RTX 3090(?! Ti)", _device("RTX 3090", 35.6, 0.936, half=71, tf32=35.6)),
)  # fmt: skip


def device(name: str) -> Device | None:
    """Return the ceilings of the GPU that calls itself so; None if they are not known."""
    return next((found for pattern, found in _DEVICES if re.search(pattern, name)), None)


@dataclass(frozen=True)
class Bound:
    """The least time that work takes on a device, and which ceiling holds it there.

    Attributes:
        seconds: the least time.
        limited_by: `compute` or `memory`: which of the two takes most of it.
    """

    seconds: float
    limited_by: str


def bound(parts: Iterable[Work], on: Device) -> Bound | None:
    """Return the roofline bound of parts that run one after another.

    Each part takes the longer of its operations at the device's rate and its bytes at the
    bandwidth (S. Williams, A. Waterman, D. Patterson, *Roofline*, CACM 52(4), 2009).

    Returns:
        None if the device has no rate for a format, so that no part of a bound is left out.
    """
    seconds = {"compute": 0.0, "memory": 0.0}
    for part in parts:
        rate = on.matmul_flops_per_s.get(part.dtype) if part.matmul else on.vector_flops_per_s
        if part.flops and not rate:
            return None
        compute = part.flops / rate if rate else 0.0
        memory = part.bytes / on.bandwidth_bytes_per_s
        seconds["compute" if compute >= memory else "memory"] += max(compute, memory)
    return Bound(sum(seconds.values()), max(seconds, key=lambda kind: seconds[kind]))


def step_bound(cost: Cost, on: Device) -> Bound | None:
    """Return the bound of a whole step."""
    return bound([part for parts in cost.phases.values() for part in parts], on)
