"""Large buffers: how large they are on a device, and random numbers to fill them with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracelens.bench.case import Target

_MIB: Final = 2**20
_SIZES_MIB: Final = {  # by whether it is a GPU, and whether it is quick
    (True, True): (1024,),
    (True, False): (256, 1024, 4096),
    (False, True): (64,),
    (False, False): (256, 1024),
}
_CACHES: Final = 4


def sizes(target: Target, buffers: int) -> Iterator[int]:
    """Give the bytes of one buffer of several that fit together into half of the free memory.

    Each is at least four times the L2 cache, so that the cache plays no part.
    """
    wanted = _SIZES_MIB[target.is_gpu, target.quick]
    room = target.free_bytes // 2 // buffers
    for size in sorted({min(mib * _MIB, room // _MIB * _MIB) for mib in wanted}):
        if size >= max(_MIB, _CACHES * target.l2_bytes):
            yield size


def floats(target: Target, size_bytes: int) -> Any:
    """Return a buffer of random fp32 numbers; zeros need less power, and may run faster."""
    torch = target.torch
    return torch.rand(size_bytes // 4, dtype=torch.float32, device=target.device)
