"""Where the fastest tiles of attention are looked for, on Hopper and elsewhere."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, Final

from tracelens.kernel import Tuning
from tracelens_kernels._attention import bench

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tracelens.kernel import Config, Shape

_MOST_SHARED: Final = 200 << 10
"""Bytes of shared memory that the tiles of a program may fill."""


def flash(operation: str) -> Tuning:
    """Return the tuning of `forward` or `backward` of flash attention."""

    def key(shape: Shape, dtype: str) -> str:
        if _on_hopper(operation, shape, dtype):
            return _hopper_key(operation, shape, dtype)
        form = bench.torch_dtype(dtype)
        found: str = _portable().key_of(shape["head_dim"], form, causal=_causal(shape))
        return found

    def default(shape: Shape, dtype: str) -> Config:
        if _on_hopper(operation, shape, dtype):
            return _hopper_default(operation, shape, dtype)
        make = getattr(_portable(), f"{operation}_default")
        found: Config = make(shape["head_dim"], bench.torch_dtype(dtype), causal=_causal(shape))
        return found

    def coarse(shape: Shape, dtype: str) -> Iterable[Config]:
        if _on_hopper(operation, shape, dtype):
            return _hopper_candidates(operation, shape)
        if operation == "forward":
            return _tiles(shape["head_dim"], dtype, tensors=2)
        one, other = itertools.tee(_tiles(shape["head_dim"], dtype, tensors=3))
        found: Iterable[Config] = _pairs(one, default(shape, dtype), other)
        return found

    return Tuning(key, default, coarse)


def block_sparse_tiles(default: Config, block: int, head_dim: int, dtype: str) -> Iterator[Config]:
    """Give tiles of block-sparse attention that divide a block, and splits around the default."""
    splits = default["SPLITS"]
    for one in _tiles(head_dim, dtype, tensors=2):
        if block % one["BLOCK_M"] == 0 and block % one["BLOCK_N"] == 0:
            for some in sorted({max(1, splits - 1), splits, splits + 1}):
                yield {**one, "SPLITS": some}


def _pairs(
    by_keys: Iterable[Config], default: Config, by_queries: Iterable[Config]
) -> Iterator[Config]:
    """Give tiles of one backward kernel with the default's of the other."""
    for one in by_keys:
        yield {**default, **one}
    for one in by_queries:
        yield {**default, **{f"DQ_{name}": size for name, size in one.items()}}


def _tiles(head_dim: int, dtype: str, tensors: int) -> Iterator[Config]:
    """Give tiles whose keys and values, `tensors` of them in each stage, fit into a program."""
    width = (4 if dtype == "fp32" else 2) * max(16, 1 << (head_dim - 1).bit_length())
    sides = (16, 32, 64) if dtype == "fp32" else (32, 64, 128)
    stages_there = (1, 2) if dtype == "fp32" or head_dim > 128 else (2, 3)
    for m, n, warps, stages in itertools.product(sides, sides, (4, 8), stages_there):
        shared = width * (m + tensors * n * stages) * (2 if dtype == "fp32" else 1)
        rows = max(m, n)  # of the tensor cores' products, 64 for each four warps
        if shared <= _MOST_SHARED and 32 * warps // 4 <= rows <= 128 and m + n < 256:
            yield {"BLOCK_M": m, "BLOCK_N": n, "num_warps": warps, "num_stages": stages}


def _causal(shape: Shape) -> bool:
    return bool(shape["causal"])


def _portable() -> Any:
    from tracelens_kernels._attention import portable

    return portable


def _on_hopper(operation: str, shape: Shape, dtype: str) -> bool:
    """Tell whether the kernels for Hopper do a shape."""
    import torch

    from tracelens_kernels._attention import dense

    if not torch.cuda.is_available():
        return False
    elements = shape["batch"] * shape["heads"] * shape["queries"] * shape["head_dim"]
    causal = _causal(shape)
    if dense.is_short(elements, bench.keys(shape), causal=causal):
        return False
    one = torch.empty((1, 1, 1, shape["head_dim"]), dtype=bench.torch_dtype(dtype), device="cuda")
    return not dense.why_not_hopper(operation, one, one, one, causal=causal)


def _hopper_key(operation: str, shape: Shape, dtype: str) -> str:
    from tracelens_kernels._attention import dense

    more = {"queries": shape["queries"]} if operation == "forward" else {}
    found: str = dense.hopper(operation).key_of(
        shape["head_dim"], bench.torch_dtype(dtype), causal=_causal(shape), **more
    )
    return found


def _hopper_default(operation: str, shape: Shape, dtype: str) -> Config:
    from tracelens import tuned
    from tracelens_kernels._attention import dense

    module, causal = dense.hopper(operation), _causal(shape)
    found: Config
    if operation == "forward":
        found = module.default_config(shape["head_dim"], causal=causal, queries=shape["queries"])
        return found
    with tuned.forced("flash_attention", "backward", None):
        found = module.config_of(shape["head_dim"], bench.torch_dtype(dtype), causal=causal)
    return found


def _hopper_candidates(operation: str, shape: Shape) -> Iterator[Config]:
    from tracelens_kernels._attention import dense

    if operation == "forward":
        yield from dense.hopper(operation).configs(shape["head_dim"])
    else:
        for m, stages, late in itertools.product((64, 128), (2, 3), (0, 1)):
            yield {"BLOCK_M": m, "STAGES": stages, "LATE": late}
