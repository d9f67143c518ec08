"""Matrix products by pointers: every layout and format, every GPU, and the interpreter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch
import triton
import triton.language as tl

from tracelens_kernels import _checks
from tracelens_kernels._gemm import quick

if TYPE_CHECKING:
    from torch import Tensor

    from tracelens.kernel import Config

DENSE: Final = tl.constexpr(0)
"""One product: out = a @ b."""
ROWS: Final = tl.constexpr(1)
"""Rows of `a` and `out` belong to groups: out[rows of g] = a[rows of g] @ b[g]."""
INNER: Final = tl.constexpr(2)
"""The axis summed over belongs to groups: out[g] = a[:, those of g] @ b[those of g]."""

_DENSE: Final = DENSE.value
_ROWS: Final = ROWS.value
_INNER: Final = INNER.value


@triton.jit
def swizzled(tile, tiles_m, tiles_n, GROUP_M: tl.constexpr):
    """Return a tile's row and column: `GROUP_M` rows at a time, so that tiles share L2."""
    band = GROUP_M * tiles_n
    first = tile // band * GROUP_M
    rows = tl.minimum(tiles_m - first, GROUP_M)
    inside = tile % band
    return first + inside % rows, inside // rows


@triton.jit
def group_of(  # noqa: PLR0917
    tile, offsets_ptr, groups, rows, tiles_n, BLOCK_M: tl.constexpr, SLOTS: tl.constexpr
):  # fmt: skip
    """Return the group of a tile, its first and last row, and the tile's number within it.

    What comes after the last offset is one more group, `groups`; past it there is none.
    """
    group = tl.arange(0, SLOTS)
    end = tl.load(offsets_ptr + group, mask=group < groups, other=rows)
    start = tl.load(offsets_ptr + group - 1, mask=(group > 0) & (group <= groups), other=rows)
    end = tl.minimum(tl.maximum(end, 0), rows)
    start = tl.where(group == 0, 0, tl.minimum(tl.maximum(start, 0), rows))
    tiles = tl.cdiv(tl.maximum(end - start, 0), BLOCK_M) * tiles_n
    upto = tl.cumsum(tiles, 0)
    found = tl.sum((upto <= tile).to(tl.int32), 0)
    here = group == found
    before = tl.sum(tl.where(here, upto - tiles, 0), 0)
    return (
        found,
        tl.sum(tl.where(here, start, 0), 0),
        tl.sum(tl.where(here, end, 0), 0),
        tile - before,
    )


@triton.jit
def _product(  # noqa: PLR0917
    a_ptr, b_ptr, out_ptr, bias_ptr, scale_a_ptr, scale_b_ptr, offsets_ptr,
    M, N, K, groups,
    a_m, a_k, b_g, b_k, b_n, out_g, out_m, scale_a_m, scale_b_n,
    KIND: tl.constexpr, SLOTS: tl.constexpr, PRECISION: tl.constexpr, UPCAST: tl.constexpr,
    IMPRECISE: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP_M: tl.constexpr,
):  # fmt: skip
    tile = tl.program_id(0)
    tiles_n = tl.cdiv(N, BLOCK_N)
    group = 0
    first = 0  # of the rows
    last = M
    begin = 0  # of the axis summed over
    length = K
    if KIND == ROWS:
        group, first, last, tile = group_of(tile, offsets_ptr, groups, M, tiles_n, BLOCK_M, SLOTS)
        if group > groups:
            return
        length = tl.where(group < groups, K, 0)
        group = tl.minimum(group, groups - 1)
    if KIND == INNER:
        per_group = tl.cdiv(M, BLOCK_M) * tiles_n
        group = tile // per_group
        tile = tile % per_group
        begin = tl.load(offsets_ptr + group - 1, mask=group > 0, other=0)
        begin = tl.minimum(tl.maximum(begin, 0), K)
        length = tl.minimum(tl.load(offsets_ptr + group), K) - begin
    tile_m, tile_n = swizzled(tile, tl.cdiv(last - first, BLOCK_M), tiles_n, GROUP_M)

    row = first + tile_m * BLOCK_M + tl.arange(0, BLOCK_M)
    column = tile_n * BLOCK_N + tl.arange(0, BLOCK_N)
    k = tl.arange(0, BLOCK_K)
    row_there = row < last
    column_there = column < N
    far = row.to(tl.int64)[:, None]
    wide = column.to(tl.int64)[None, :]
    a_at = a_ptr + tl.cast(begin, tl.int64) * a_k if KIND == INNER else a_ptr
    b_at = b_ptr + tl.cast(begin, tl.int64) * b_k if KIND == INNER else b_ptr
    if KIND == ROWS:
        b_at += tl.cast(group, tl.int64) * b_g
    a_at += far * a_m + k[None, :] * a_k
    b_at += k[:, None] * b_k + wide * b_n

    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for done in range(0, length, BLOCK_K):
        left = length - done
        a = tl.load(a_at, mask=row_there[:, None] & (k[None, :] < left), other=0.0)
        b = tl.load(b_at, mask=(k[:, None] < left) & column_there[None, :], other=0.0)
        if UPCAST:
            a = a.to(tl.float32)
            b = b.to(tl.float32)
        total = tl.dot(a, b, total, input_precision=PRECISION, max_num_imprecise_acc=IMPRECISE)
        a_at += BLOCK_K * a_k
        b_at += BLOCK_K * b_k

    if scale_a_ptr is not None:
        total *= tl.load(scale_a_ptr + row * scale_a_m, mask=row_there, other=0.0)[:, None]
        total *= tl.load(scale_b_ptr + column * scale_b_n, mask=column_there, other=0.0)[None, :]
    if bias_ptr is not None:
        bias = tl.load(bias_ptr + column, mask=column_there, other=0.0)
        total += bias.to(tl.float32)[None, :]
    out_at = out_ptr + far * out_m + wide
    if KIND == INNER:
        out_at += tl.cast(group, tl.int64) * out_g
    there = row_there[:, None] & column_there[None, :]
    tl.store(out_at, total.to(out_ptr.dtype.element_ty), mask=there)


def default(rows: int, dtype: torch.dtype) -> Config:
    """Return a configuration that does well where none was tuned."""
    if dtype == torch.float32 and precision(dtype) == "ieee":  # without tensor cores
        tile = {"BLOCK_M": 64, "BLOCK_N": 64, "BLOCK_K": 32, "num_warps": 4, "num_stages": 3}
    elif dtype == torch.float32:
        tile = {"BLOCK_M": 128, "BLOCK_N": 128, "BLOCK_K": 32, "num_warps": 8, "num_stages": 3}
    elif rows <= 64:
        block_m = max(16, triton.next_power_of_2(rows))
        tile = {"BLOCK_M": block_m, "BLOCK_N": 64, "BLOCK_K": 128, "num_warps": 4, "num_stages": 4}
    else:
        tile = {"BLOCK_M": 128, "BLOCK_N": 128, "BLOCK_K": 64, "num_warps": 8, "num_stages": 3}
    return {**tile, "GROUP_M": 8}


def precision(dtype: torch.dtype) -> str:
    """Return what fp32 is multiplied in: as it is, unless torch was allowed to use tf32."""
    tf32 = dtype == torch.float32 and torch.backends.cuda.matmul.allow_tf32
    return "tf32" if tf32 else "ieee"


def product(
    a: Tensor,
    b: Tensor,
    out: Tensor,
    config: Config,
    *,
    bias: Tensor | None = None,
    scales: tuple[Tensor, Tensor] | None = None,
    fast: bool = True,
) -> None:
    """Write a [M, K] @ b [K, N], times row and column scales, plus a bias, to out [M, N]."""
    rows, length = a.shape
    columns = b.shape[1]
    tiles = triton.cdiv(rows, config["BLOCK_M"]) * triton.cdiv(columns, config["BLOCK_N"])
    scale_a, scale_b = scales or (None, None)
    imprecise = None if fast or a.itemsize > 1 else config["BLOCK_K"]
    _run(
        _DENSE, tiles, a, 1, imprecise, config,
        a, b, out, bias, scale_a, scale_b, None,
        rows, columns, length, 1,
        *a.stride(), 0, *b.stride(), 0, out.stride(0),
        0 if scale_a is None else scale_a.stride(0), 0 if scale_b is None else scale_b.stride(1),
    )  # fmt: skip


def grouped(a: Tensor, b: Tensor, offsets: Tensor, out: Tensor, config: Config) -> None:
    """Write a[rows of g] @ b[g] to the same rows of out; rows past the last group become 0."""
    rows, length = a.shape
    groups, _, columns = b.shape
    most = min(rows, rows // config["BLOCK_M"] + groups + 1)  # each group may end in part of a tile
    _run(
        _ROWS, most * triton.cdiv(columns, config["BLOCK_N"]), a,
        triton.next_power_of_2(groups + 1), None, config,
        a, b, out, None, None, None, offsets,
        rows, columns, length, groups,
        *a.stride(), *b.stride(), 0, out.stride(0), 0, 0,
    )  # fmt: skip


def grouped_inner(a: Tensor, b: Tensor, offsets: Tensor, out: Tensor, config: Config) -> None:
    """Write a[:, columns of g] @ b[rows of g] to out[g]."""
    rows, length = a.shape
    groups, _, columns = out.shape
    tiles = triton.cdiv(rows, config["BLOCK_M"]) * triton.cdiv(columns, config["BLOCK_N"])
    _run(
        _INNER, groups * tiles, a, 1, None, config,
        a, b, out, None, None, None, offsets,
        rows, columns, length, groups,
        *a.stride(), 0, *b.stride(), *out.stride()[:2], 0, 0,
    )  # fmt: skip


def _run(  # noqa: PLR0917
    kind: int, tiles: int, a: Tensor, slots: int, imprecise: int | None, config: Config, *args: Any
) -> None:
    constants = {
        "KIND": kind,
        "SLOTS": slots,
        "PRECISION": precision(a.dtype),
        "UPCAST": _upcast(a),
        "IMPRECISE": imprecise,
        **{name: config[name] for name in ("BLOCK_M", "BLOCK_N", "BLOCK_K", "GROUP_M")},
        "num_warps": config["num_warps"],
        "num_stages": config["num_stages"],
    }
    quick.launch(_product, (tiles,), args, constants)


def _upcast(a: Tensor) -> bool:
    """Tell whether the interpreter needs fp32, because it cannot multiply bf16."""
    return a.dtype == torch.bfloat16 and _checks.interpreted()
