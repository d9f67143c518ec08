"""GPUs that a text speaks of, and the most that any of them can do.

People write `H100` where there are three of that name. What is not said is taken at its most
generous: a claim is impossible only if it is so on every one of them, in every number format.
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Final

from tracelens import hardware

if TYPE_CHECKING:
    from collections.abc import Callable

    from tracelens.hardware import Device

_FORM: Final = re.compile(r"(?: (?:SXM\d?|PCIe|NVL|\d+ GB))+$")
_LONGEST: Final = 2000
_REMEMBERED: Final = 1024
DTYPES: Final = {
    "fp64": r"fp64|float64|double",
    "fp32": r"fp32|float32|f32",
    "tf32": r"tf32",
    "fp16": r"fp16|float16|f16|half",
    "bf16": r"bf16|bfloat16",
    "fp8": r"fp8\w*|float8\w*|e4m3\w*|e5m2\w*",
    "int8": r"int8|w8a8",
    "fp4": r"n?v?fp4",
}
BYTES_OF: Final = {
    "fp64": 8, "fp32": 4, "tf32": 4, "fp16": 2, "bf16": 2, "fp8": 1, "int8": 1, "fp4": 0.5
}  # fmt: skip
"""Bytes of one number in memory."""


@functools.lru_cache(_REMEMBERED)
def dtypes(text: str) -> tuple[str, ...]:
    """Return the number formats that a text names."""
    low = re.sub(r"[_\-/]", " ", text[:_LONGEST].lower())
    return tuple(name for name, said in DTYPES.items() if re.search(rf"\b(?:{said})\b", low))


@functools.lru_cache(_REMEMBERED)
def found(text: str) -> tuple[Device, ...]:
    """Return the GPUs that a text may mean: all of the name, less those that its words rule out."""
    said = text[:_LONGEST]
    if exactly := hardware.device(said.strip()):
        return (exactly,)
    family = _family().search(said.replace("_", " "))
    if family is None:
        return ()
    after = said[family.end() : family.end() + 40].upper()
    candidates = [one for one in hardware.devices() if _name(one).upper() == _key(family[0])]
    for fits in _narrowing(after):
        candidates = [one for one in candidates if fits(one)] or candidates
    return tuple(candidates)


@functools.lru_cache(_REMEMBERED)
def named(text: str) -> tuple[str, ...]:
    """Return the families that a text names, each once: `H100`, `RTX 5080`."""
    matches = _family().finditer(text[:_LONGEST].replace("_", " "))
    return tuple(dict.fromkeys(_key(one[0]) for one in matches))


def matmul_limit(gpus: tuple[Device, ...], dtypes: tuple[str, ...], *, sparse: bool) -> float:
    """Return the FLOP/s that none of the GPUs can exceed in any of the formats; 0: not known.

    Without formats it is the highest of all. fp32 has that of tf32 too: PyTorch may be told so.
    """
    return max((_of(one, dtypes, one.limit, sparse=sparse) for one in gpus), default=0.0)


def matmul_stated(gpus: tuple[Device, ...], dtypes: tuple[str, ...], *, sparse: bool) -> float:
    """Return the highest FLOP/s that is stated for any of the GPUs; 0: not known."""
    return max((_of(one, dtypes, one.rate, sparse=sparse) for one in gpus), default=0.0)


def bandwidth_limit(gpus: tuple[Device, ...]) -> float:
    """Return the bytes/s of memory that none of the GPUs can exceed; 0: not known."""
    return max((one.limit(hardware.BANDWIDTH) or 0.0 for one in gpus), default=0.0)


def say(gpus: tuple[Device, ...]) -> str:
    """Return the names of GPUs in a few words."""
    names = [one.name for one in gpus]
    return names[0] if len(names) == 1 else f"any {_name(gpus[0])}" if names else ""


def _of(
    one: Device,
    dtypes: tuple[str, ...],
    rate: Callable[[str], float | None],
    *,
    sparse: bool,
) -> float:
    formats = dtypes or tuple(one.matmul_flops_per_s)
    best = [rate(hardware.MATMUL + name) or 0.0 for name in formats]
    if sparse:
        best += [
            one.sparse_flops_per_s.get(name, 0.0) * (one.clock_headroom if rate == one.limit else 1)
            for name in formats
        ]
    return max(best, default=0.0)


@functools.cache
def _family() -> re.Pattern[str]:
    names = sorted({_name(one) for one in hardware.devices()}, key=len, reverse=True)
    spelt = "|".join(re.escape(name).replace(r"\ ", r"[ \-]?") for name in names)
    return re.compile(rf"(?<![A-Za-z0-9])(?:{spelt})(?![A-Za-z0-9])", re.IGNORECASE)


@functools.cache
def _spellings() -> dict[str, str]:
    return {re.sub(r"[ \-]", "", _name(one)).upper(): _name(one) for one in hardware.devices()}


def _key(said: str) -> str:
    return _spellings()[re.sub(r"[ \-]", "", said).upper()].upper()


def _name(one: Device) -> str:
    return _FORM.sub("", one.name)


def _narrowing(after: str) -> list[Callable[[Device], bool]]:
    found: list[Callable[[Device], bool]] = [
        (lambda one, form=form: form in one.name.upper())  # type: ignore[misc]
        for form in ("SXM", "PCIE", "NVL")
        if form in after
    ]
    if size := re.match(r"[^\d]{0,12}?(\d+) ?GI?B", after):
        wanted = int(size[1]) << 30
        found.append(lambda one: one.memory_bytes == wanted)
    return found
