"""GPUs by their makers' documents: rates, memory and caches, read from `devices.toml`.

Rates are those of matrix products at the stated boost clock, accumulated in fp32 (int32 for
int8), and dense unless they are called sparse; a real program on random data reaches 70 to 90 %
of them. A GPU that is not listed is not known: nothing is guessed from a similar name, and what
is not stated is None.
"""

from __future__ import annotations

import functools
import importlib.resources
import re
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

BANDWIDTH: Final = "bandwidth"
VECTOR: Final = "vector"
MATMUL: Final = "matmul."
"""Names of ceilings: `bandwidth`, `vector`, and `matmul.bf16` for each number format."""

_TERA: Final = 1e12
_GIGA: Final = 1e9
_MAKER: Final = re.compile(r"(?:NVIDIA )?(?:Tesla |Quadro )?")
_LONGEST_NAME: Final = 100
_UNKNOWN_CLOCK: Final = 1.25  # an RTX 4090 runs at up to 3.1 GHz where 2.52 are stated: 1.23
_ROUNDED_BANDWIDTH: Final = 1.03  # 4.8 TB/s are 4.92 by the clock of an H200's memory: 1.024
_ROUNDED_RATE: Final = 1.01  # 14 TFLOP/s of a V100 are 14.13 by its clock


@dataclass(frozen=True)
class Source:
    """A document of the maker."""

    title: str
    url: str


@dataclass(frozen=True, kw_only=True)
class Device:
    """What is stated of a GPU; None: it is not stated, or not known for sure.

    Attributes:
        name: what we call it: `H100 SXM`.
        matmul_flops_per_s: number format (`fp64`, `fp32`, `tf32`, `bf16`, `fp16`, `fp8`, `int8`,
            `fp4`) -> rate of dense matrix products, by tensor cores where they have the format.
        vector_flops_per_s: fp32 rate outside of the tensor cores.
        bandwidth_bytes_per_s: of its memory.
        sparse_flops_per_s: the same formats with 2:4 sparsity, where there is any.
        acc16_flops_per_s: dense products accumulated in fp16 instead of fp32, where that is
            faster; torch does so for fp16 if it is allowed to, and for fp8 by fast accumulation.
        architecture: `Hopper`.
        capability: compute capability, `9.0`.
        sm_count: streaming multiprocessors.
        fp32_lanes: fp32 units in each of them.
        memory_bytes: of the board; programs find some 1 to 7 % less.
        l2_bytes: second-level cache.
        nvlink_bytes_per_s: both directions together.
        boost_hz: the clock at which the rates are stated.
        clock_headroom: by what factor the clock may exceed the stated one, 1 or more.
        sources: where the figures are from.
        note: what else is to be said of them.
    """

    name: str
    matmul_flops_per_s: Mapping[str, float]
    vector_flops_per_s: float | None
    bandwidth_bytes_per_s: float
    sparse_flops_per_s: Mapping[str, float] = field(default_factory=dict)
    acc16_flops_per_s: Mapping[str, float] = field(default_factory=dict)
    architecture: str = ""
    capability: str = ""
    sm_count: int | None = None
    fp32_lanes: int | None = None
    memory_bytes: int | None = None
    l2_bytes: int | None = None
    nvlink_bytes_per_s: float | None = None
    boost_hz: float | None = None
    clock_headroom: float = 1.0
    sources: tuple[Source, ...] = ()
    note: str = ""

    def rate(self, name: str) -> float | None:
        """Return a ceiling by its name: `bandwidth`, `vector`, `matmul.bf16`."""
        if name == BANDWIDTH:
            return self.bandwidth_bytes_per_s
        if name == VECTOR:
            return self.vector_flops_per_s
        return self.matmul_flops_per_s.get(name.removeprefix(MATMUL))

    def limit(self, name: str) -> float | None:
        """Return what no program can exceed, which may be somewhat above what is stated.

        Stated rates hold at a stated clock that boards may exceed, figures are rounded, and fp16
        and fp8 may be accumulated in fp16.
        """
        rate = self.rate(name)
        if rate is None:
            return None
        if name == BANDWIDTH:
            return rate * _ROUNDED_BANDWIDTH
        rate = max(rate, self.acc16_flops_per_s.get(name.removeprefix(MATMUL), 0.0))
        return rate * self.clock_headroom * _ROUNDED_RATE

    def ridge(self, dtype: str) -> float | None:
        """Return the FLOP per byte from which on matrix products are bound by arithmetic."""
        rate = self.matmul_flops_per_s.get(dtype)
        return rate / self.bandwidth_bytes_per_s if rate else None


def device(name: str) -> Device | None:
    """Return the GPU that CUDA calls so (`NVIDIA H100 80GB HBM3`); None if it is not known."""
    if len(name) > _LONGEST_NAME:
        return None
    said = name[found.end() :] if (found := _MAKER.match(name)) else name
    return next((one for pattern, one in _known() if pattern.fullmatch(said)), None)


def devices() -> tuple[Device, ...]:
    """Return every GPU that is known: for data centres, workstations and desktops."""
    return tuple(one for _, one in _known())


@functools.cache
def _known() -> tuple[tuple[re.Pattern[str], Device], ...]:
    import tomllib

    file = importlib.resources.files("tracelens.hardware") / "devices.toml"
    stated = tomllib.loads(file.read_text(encoding="utf-8"))
    sources = {key: Source(**one) for key, one in stated["source"].items()}
    return tuple((re.compile(one["said"]), _device(one, sources)) for one in stated["device"])


def _device(stated: Mapping[str, Any], sources: Mapping[str, Source]) -> Device:
    dense = _times(stated.get("dense", {}), _TERA)
    nvlink, boost_mhz = stated.get("nvlink_gb_per_s"), stated.get("boost_mhz")
    l2_mib = stated.get("l2_mib")
    return Device(
        name=stated["name"],
        matmul_flops_per_s=dense,
        vector_flops_per_s=dense.get("fp32"),
        bandwidth_bytes_per_s=stated["bandwidth_gb_per_s"] * _GIGA,
        sparse_flops_per_s=_times(stated.get("sparse", {}), _TERA),
        acc16_flops_per_s=_times(stated.get("acc16", {}), _TERA),
        architecture=stated["architecture"],
        capability=stated["capability"],
        sm_count=stated["sm_count"],
        fp32_lanes=stated["fp32_lanes"],
        memory_bytes=stated["memory_gib"] << 30,
        l2_bytes=int(l2_mib * 2**20) if l2_mib else None,
        nvlink_bytes_per_s=nvlink * _GIGA if nvlink else None,
        boost_hz=boost_mhz * 1e6 if boost_mhz else None,
        clock_headroom=_headroom(stated),
        sources=tuple(sources[key] for key in stated["sources"]),
        note=stated.get("note", ""),
    )


def _headroom(stated: Mapping[str, Any]) -> float:
    if "max_mhz" not in stated:
        return _UNKNOWN_CLOCK
    slowest = min(stated["boost_mhz"], stated.get("tensor_mhz", stated["boost_mhz"]))
    return float(stated["max_mhz"] / slowest)


def _times(rates: Mapping[str, float], factor: float) -> Mapping[str, float]:
    return MappingProxyType({dtype: rate * factor for dtype, rate in rates.items()})
