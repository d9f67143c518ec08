"""Which kernel multiplies, and in tiles of which size."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Final

import torch

from tracelens_kernels import _checks
from tracelens_kernels._gemm import portable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import ModuleType

    from torch import Tensor

    from tracelens.kernel import Config

_SHARED_BYTES: Final = 231_000
_MULTIPROCESSORS: Final = 132
_BY_TMA: Final = (torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.float8_e5m2)

LINE_BYTES: Final = 16
"""Rows that TMA reads or writes begin on multiples of it."""

STRAIGHT: Final = 0
"""TMA can read it as it is."""
TURNED: Final = 1
"""TMA can read its transpose."""
COPY: Final = 2
"""TMA can read a copy of it only."""

_COPY_PAYS_FLOPS: Final = 10**10
_COPY_PAYS_ROWS: Final = 128
"""From here on it is faster to copy what TMA cannot read than to read it by pointers."""

_TILES: Final = {
    (128, 256): 1.0,
    (128, 128): 1.08,
    (64, 256): 1.35,
    (64, 128): 1.5,
    (64, 64): 2.2,
}
"""Rows and columns of a tile, and how much longer than in the first an element of it takes."""


def by_tma(device: torch.device, dtype: torch.dtype) -> bool:
    """Tell whether the kernels for Hopper multiply this."""
    hopper = dtype in _BY_TMA and _checks.is_hopper(device)
    return hopper and not _checks.unknown_triton() and not _checks.interpreted()


def way(x: Tensor) -> int:
    """Tell how TMA can read a matrix, or several: `STRAIGHT`, `TURNED` or `COPY`."""
    return _way(x.stride(), x.itemsize, x.data_ptr() % LINE_BYTES)


@functools.lru_cache(maxsize=4096)
def _way(strides: tuple[int, ...], size: int, offset: int) -> int:
    def fits(*strides: int) -> bool:
        lines = all(stride > 0 and stride * size % LINE_BYTES == 0 for stride in strides[:-1])
        return offset == 0 and strides[-1] == 1 and lines

    *outer, to_row, to_column = strides
    if fits(*outer, to_row, to_column):
        return STRAIGHT
    return TURNED if fits(*outer, to_column, to_row) else COPY


def of(config: Config) -> ModuleType:
    """Return the module that a configuration is for."""
    if "CONSUMERS" not in config:
        return portable
    from tracelens_kernels._gemm import launch

    return launch


@functools.lru_cache(maxsize=4096)
def default(
    sizes: tuple[int, int, int, int],
    dtype: torch.dtype,
    device: torch.device,
    *,
    out_size: int = 2,
    fast: bool = True,
    copied: bool = False,
) -> Config:
    """Return a configuration that does well where none was tuned.

    Args:
        sizes: of each group's product: rows, columns, what is summed; and how many groups.
        dtype: of the operands.
        device: where they are.
        out_size: bytes of an element of the result.
        fast: let fp8 sums stay in the tensor cores.
        copied: TMA can read a copy of an operand only.
    """
    rows, columns, length, groups = sizes
    pays = rows >= _COPY_PAYS_ROWS and 2 * rows * columns * length * groups >= _COPY_PAYS_FLOPS
    few = rows <= 16 and groups == 1 and dtype.itemsize == 2  # pointers stream b a little faster
    if not by_tma(device, dtype) or few or (copied and not pays):
        return portable.default(rows, dtype)
    if not fast:
        return _tile(128, 128, dtype, out_size, depth=256)
    tile = min(_TILES, key=lambda tile: _waves(rows, columns, groups, *tile) * _TILES[tile])
    return _tile(*tile, dtype, out_size, band=8 if dtype.itemsize == 2 else 16)


def _tile(
    high: int, wide: int, dtype: torch.dtype, out_size: int, *, depth: int = 128, band: int = 8
) -> Config:
    """Return a tile's configuration; `depth` in bytes, the rest of shared memory for stages."""
    consumers = high // 64
    split = (2 if wide == 256 else 1) * max(1, out_size // 2)
    store = high * wide // split * out_size
    stages = min(12, (_SHARED_BYTES - store) // ((high + wide) * depth))
    return {
        "BLOCK_M": high,
        "BLOCK_N": wide,
        "BLOCK_K": depth // dtype.itemsize,
        "CONSUMERS": consumers,
        "STAGES": stages,
        "SPLIT": split,
        "GROUP_M": band,
        "num_warps": 4,
    }


_GATED_TILES: Final = {(128, 128): 1.0, (64, 128): 1.35, (64, 64): 1.6}
"""The same of two products at once."""


@functools.lru_cache(maxsize=4096)
def gated(
    rows: int, columns: int, dtype: torch.dtype, device: torch.device, groups: int
) -> Config | None:
    """Return the tiles of `launch.gated`; None where that kernel does not run."""
    if not by_tma(device, dtype):
        return None
    high, wide = min(
        _GATED_TILES, key=lambda tile: _waves(rows, columns, groups, *tile) * _GATED_TILES[tile]
    )
    left = _SHARED_BYTES - high * wide * dtype.itemsize
    return {
        "BLOCK_M": high,
        "BLOCK_N": wide,
        "BLOCK_K": 128 // dtype.itemsize,
        "CONSUMERS": high // 64,
        "STAGES": min(8, left // ((high + 2 * wide) * 128)),
        "GROUP_M": 8,
        "num_warps": 4,
    }


def _waves(rows: int, columns: int, groups: int, high: int, wide: int) -> int:
    """Return how many elements a multiprocessor computes, one tile after the other."""
    tiles = groups * -(-rows // high) * -(-columns // wide)
    return -(-tiles // _MULTIPROCESSORS) * high * wide


def here() -> torch.device:
    """Return the device that is tuned for."""
    return (
        torch.device("cuda", torch.cuda.current_device())
        if torch.cuda.is_available()
        else torch.device("cpu")
    )


def coarse(
    rows: int, dtype: torch.dtype, device: torch.device, *, out_size: int = 2
) -> Iterator[Config]:
    """Give every tile that is worth a try."""
    if by_tma(device, dtype):
        for tile in _TILES:
            yield _tile(*tile, dtype, out_size)
    yield portable.default(rows, dtype)


def fine(best: Config, dtype: torch.dtype, *, out_size: int = 2) -> Iterable[Config]:
    """Return other orders of tiles, and deeper blocks, for the best tile."""
    if "CONSUMERS" not in best:
        return [{**best, "GROUP_M": band} for band in (4, 16)]
    tile = best["BLOCK_M"], best["BLOCK_N"]
    orders = [{**best, "GROUP_M": band} for band in (2, 4, 16, 32)]
    deeper = _tile(*tile, dtype, out_size, depth=256)
    return [*orders, deeper] if deeper["STAGES"] > 1 else orders
