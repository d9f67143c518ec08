"""The ceilings that a GPU's work is held against: measured where there are, else stated ones."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal

from tracelens.errors import UnreadableError
from tracelens.hardware import specs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tracelens.hardware.measured import Measured, Result
    from tracelens.hardware.specs import Device

FILE: Final = "TRACELENS_CEILINGS"
"""Names a file of measured ceilings in the environment."""

DATA_SHEET: Final = "data sheet"

Verdict = Literal["", "above the measured ceiling", "above the data sheet", "impossible"]

BANDWIDTHS: Final = ("copy", "read", "fill")


@dataclass(frozen=True)
class Collective:
    """How long a collective over all GPUs of the machine took.

    Attributes:
        ranks: how many GPUs took part.
        bytes: that each of them held.
        seconds: median.
        bus_bytes_per_s: what went over the busiest link by the ring algorithm: for an all-reduce
            2 (ranks - 1) / ranks of the bytes (as nccl-tests count it).
        note: the backend.
    """

    ranks: int
    bytes: int
    seconds: float
    bus_bytes_per_s: float
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Ceilings:
    """What work on a GPU is held against; each is a rate that was measured or is stated.

    Attributes:
        name: what CUDA calls the GPU.
        device: what is stated of it; None: the GPU is not known, and all there is was measured.
        matmul_flops_per_s: number format -> rate of matrix products.
        vector_flops_per_s: fp32 rate outside of the tensor cores; None: not known.
        bandwidth_bytes_per_s: of the memory; None: not known.
        launch_s: least time from one kernel launch to the next; None: not measured.
        collectives: `all_reduce` -> what was measured, by size; empty: not measured.
        origin: for notes: `data sheet`, or `measured 2026-11-20 on NVIDIA H200, driver 580.95`.
        measured: the names of the ceilings that were measured; the others are stated.
        caveats: what is wrong with the user's file, if anything.
    """

    name: str
    device: Device | None
    matmul_flops_per_s: Mapping[str, float]
    vector_flops_per_s: float | None
    bandwidth_bytes_per_s: float | None
    launch_s: float | None = None
    collectives: Mapping[str, tuple[Collective, ...]] = field(default_factory=dict)
    origin: str = DATA_SHEET
    measured: frozenset[str] = frozenset()
    caveats: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """What we call the GPU, or what it calls itself if it is not listed."""
        return self.device.name if self.device else self.name

    def is_measured(self, name: str) -> bool:
        """Tell whether a ceiling was measured: `bandwidth`, `matmul.bf16`, `launch`."""
        return name in self.measured

    def origin_of(self, name: str) -> str:
        """Return where one ceiling is from: `origin`, or `data sheet` if it was not measured."""
        return self.origin if self.is_measured(name) else DATA_SHEET

    def rate(self, name: str) -> float | None:
        """Return a ceiling by its name: `bandwidth`, `vector`, `matmul.bf16`; None: not known."""
        if name == specs.BANDWIDTH:
            return self.bandwidth_bytes_per_s
        if name == specs.VECTOR:
            return self.vector_flops_per_s
        return self.matmul_flops_per_s.get(name.removeprefix(specs.MATMUL))

    def ridge(self, dtype: str) -> float | None:
        """Return the FLOP per byte from which on matrix products are bound by arithmetic."""
        rate, bandwidth = self.matmul_flops_per_s.get(dtype), self.bandwidth_bytes_per_s
        return rate / bandwidth if rate and bandwidth else None

    def verdict(self, name: str, achieved_per_s: float) -> Verdict:
        """Say what is wrong with a rate that work is said to have reached; nothing if nothing is.

        `above the measured ceiling`: the measurement was not the best that the GPU can do.
        `above the data sheet`: its clock was above the stated one, or the stated figure is
        rounded. `impossible`: no clock explains it; operations or bytes were counted wrongly, or
        the time. Of bytes it is right only where they do not fit into the L2 cache.
        """
        stated = self.device.rate(name) if self.device else None
        limit = self.device.limit(name) if self.device else None
        if limit is not None and achieved_per_s > limit:
            return "impossible"
        if stated is not None and achieved_per_s > stated:
            return "above the data sheet"
        rate = self.rate(name)
        if self.is_measured(name) and rate is not None and achieved_per_s > rate:
            return "above the measured ceiling"
        return ""


def ceilings(name: str, file: Path | None = None) -> Ceilings | None:
    """Return the ceilings of the GPU that CUDA calls so; None if nothing is known of it.

    Measured ones are those of ``file``, else of `$TRACELENS_CEILINGS`, else of the user's own file
    of this GPU; what they do not hold is from the data sheet. A file that was made on another GPU
    says nothing of this one.

    Raises:
        UnreadableError: the file that was named cannot be read or is none of ceilings. (The
            user's own is passed over instead, and `caveats` say so.)
    """
    found, caveats = _read(name, file)
    stated = specs.device(name)
    if found is None:
        return _stated(name, stated, caveats) if stated else None
    return _measured(name, stated, found, caveats)


def of_device(stated: Device) -> Ceilings:
    """Return the stated ceilings of a GPU."""
    return _stated(stated.name, stated, ())


def _read(name: str, file: Path | None) -> tuple[Measured | None, tuple[str, ...]]:
    from tracelens.hardware import measured

    asked = file or (Path(said) if (said := os.environ.get(FILE)) else None)
    if asked is None:
        own = measured.place(name)
        if not os.path.lexists(own):
            return None, ()
        try:
            found = measured.load(own)
        except UnreadableError as error:
            return None, (f"{error} The data sheet takes its place.",)
    else:
        found = measured.load(asked)
    if found.device == name:
        return found, ()
    other = f"{asked.name} was measured on {found.device}, and is not used." if asked else ""
    return None, (other,) if other else ()


def _stated(name: str, stated: Device, caveats: tuple[str, ...]) -> Ceilings:
    return Ceilings(
        name=name,
        device=stated,
        matmul_flops_per_s=stated.matmul_flops_per_s,
        vector_flops_per_s=stated.vector_flops_per_s,
        bandwidth_bytes_per_s=stated.bandwidth_bytes_per_s,
        caveats=caveats,
    )


def _measured(
    name: str, stated: Device | None, found: Measured, caveats: tuple[str, ...]
) -> Ceilings:
    seen, more = _possible(_best(found), stated)
    matmul = dict(stated.matmul_flops_per_s) if stated else {}
    matmul |= {
        key.removeprefix(specs.MATMUL): rate
        for key, rate in seen.items()
        if key.startswith(specs.MATMUL)
    }
    launches = [one.median_s for one in found.results if one.name == "launch"]
    names = {*seen, *(["launch"] if launches else [])}
    if stated is None and "fp32" in matmul:
        names.add(specs.VECTOR)  # at least what products without tensor cores reach
    return Ceilings(
        name=name,
        device=stated,
        matmul_flops_per_s=MappingProxyType(matmul),
        vector_flops_per_s=stated.vector_flops_per_s if stated else matmul.get("fp32"),
        bandwidth_bytes_per_s=seen.get(
            specs.BANDWIDTH, stated.bandwidth_bytes_per_s if stated else None
        ),
        launch_s=min(launches, default=None),
        collectives=_collectives(found),
        origin=found.said if names else DATA_SHEET,
        measured=frozenset(names),
        caveats=(*caveats, *more),
    )


def _best(found: Measured) -> dict[str, float]:
    """Return the highest rate of each ceiling over all sizes."""
    best: dict[str, float] = {}
    for one in found.results:
        if one.name in BANDWIDTHS:
            name = specs.BANDWIDTH
        elif one.name.startswith(specs.MATMUL):
            name = one.name
        else:
            continue
        best[name] = max(best.get(name, 0.0), one.value)
    return best


def _possible(
    seen: dict[str, float], stated: Device | None
) -> tuple[dict[str, float], tuple[str, ...]]:
    """Leave out what no such GPU can have reached, and say so."""
    limits = {name: stated.limit(name) if stated else None for name in seen}
    wrong = [
        name for name, rate in seen.items() if (limit := limits[name]) is not None and rate > limit
    ]
    caveats = tuple(
        f"The measured {name} is above what this GPU can do: the data sheet takes its place."
        for name in wrong
    )
    return {name: rate for name, rate in seen.items() if name not in wrong}, caveats


def _collectives(found: Measured) -> Mapping[str, tuple[Collective, ...]]:
    rows = sorted(
        (one for one in found.results if "ranks" in one.size), key=lambda one: one.size["bytes"]
    )
    names = dict.fromkeys(one.name for one in rows)
    return MappingProxyType(
        {name: tuple(_collective(one) for one in rows if one.name == name) for name in names}
    )


def _collective(one: Result) -> Collective:
    return Collective(one.size["ranks"], one.size["bytes"], one.median_s, one.value, one.note)
