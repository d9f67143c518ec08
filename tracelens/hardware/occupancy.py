"""Occupancy: how many blocks of a kernel a streaming multiprocessor holds at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class _Limits:
    """What a multiprocessor has: threads, blocks and bytes of shared memory."""

    threads: int
    blocks: int
    shared_bytes: int


_KIB: Final = 1024
_LIMITS: Final = {
    "6.0": _Limits(2048, 32, 64 * _KIB),
    "6.1": _Limits(2048, 32, 96 * _KIB),
    "7.0": _Limits(2048, 32, 96 * _KIB),
    "7.5": _Limits(1024, 16, 64 * _KIB),
    "8.0": _Limits(2048, 32, 164 * _KIB),
    "8.6": _Limits(1536, 16, 100 * _KIB),
    "8.7": _Limits(1536, 16, 164 * _KIB),
    "8.9": _Limits(1536, 24, 100 * _KIB),
    "9.0": _Limits(2048, 32, 228 * _KIB),
    "10.0": _Limits(2048, 32, 228 * _KIB),
    "10.3": _Limits(2048, 32, 228 * _KIB),
    "12.0": _Limits(1536, 24, 100 * _KIB),
}
"""By compute capability: NVIDIA's CUDA C++ Programming Guide, technical specifications."""

_REGISTERS: Final = 65_536
_WARP: Final = 32
_REGISTERS_AT_ONCE: Final = 256
"""Registers are given to a warp so many at a time."""
_WARPS_AT_ONCE: Final = 4
"""A multiprocessor has four partitions, each with a quarter of its registers."""
_RESERVED_BYTES: Final = 1024
"""Of shared memory, for each block: since capability 8.0, the system's own."""
_SHARED_AT_ONCE: Final = 128


def blocks_per_sm(capability: str, threads: int, registers: int, shared_bytes: int) -> int | None:
    """Return how many blocks fit into a multiprocessor, as NVIDIA's occupancy calculator does.

    Args:
        capability: the compute capability, such as ``9.0``.
        threads: in a block.
        registers: of a thread.
        shared_bytes: static and dynamic shared memory of a block.

    Returns:
        None where the capability is not known, or no block fits (what was recorded is not right).
    """
    limits = _LIMITS.get(capability)
    if limits is None or threads <= 0:
        return None
    warps = -(-threads // _WARP)
    fits = [limits.blocks, limits.threads // (warps * _WARP)]
    if registers > 0:
        of_warp = _rounded(registers * _WARP, _REGISTERS_AT_ONCE)
        held = _REGISTERS // of_warp // _WARPS_AT_ONCE * _WARPS_AT_ONCE
        fits.append(held // warps)
    reserved = _RESERVED_BYTES if float(capability) >= 8 else 0
    needed = _rounded(shared_bytes, _SHARED_AT_ONCE) + reserved
    if needed:
        fits.append(limits.shared_bytes // needed)
    return min(fits) or None


def _rounded(number: int, step: int) -> int:
    return -(-number // step) * step
