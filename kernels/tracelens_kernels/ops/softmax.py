"""Softmax of the rows of a matrix, forward and backward, each in one reading and one writing.

y = exp(x − max x) / Σ exp(x − max x), and dx = y · (dy − Σ y · dy), sums over the columns of a row.

A row of up to 8,192 columns stays in the registers of one program, so that memory is read once; of
short rows a program takes several at a time. Longer rows are read twice: once for the maximum and
the sum, which are kept up as the row goes by (M. Milakov and N. Gimelshein, "Online normalizer
calculation for softmax", 2018), and once more, mostly from L2, for the result.
"""

# pyright: reportGeneralTypeIssues=false, reportIncompatibleMethodOverride=false

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import torch
import triton
import triton.language as tl

from tracelens.kernel import Kernel, Operation
from tracelens_kernels import _checks, _configs, _rows
from tracelens_kernels import _rows_bench as bench
from tracelens_kernels._rows import LOG2E, VECTOR, running_power_sum

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from tracelens.kernel import Config


def softmax(x: Tensor, dim: int = -1) -> Tensor:
    """Return the softmax of a tensor over one of its dimensions.

    Computed in fp32 and rounded once. As in torch, a slice of −inf alone, or with a nan or +inf in
    it, becomes nan. Gradients of gradients are not defined.

    Args:
        x: of any shape, bf16, fp16 or fp32, on a GPU. The last dimension is fastest: another one,
            or one whose elements are not neighbours, is copied first.
        dim: over which the results sum to 1.

    Raises:
        ValueError: the tensor is empty, has no dimension, or is on no GPU.
        IndexError: it has no such dimension.
        TypeError: its format is another.
    """
    _checks.dtype_among(_rows.FLOATS, x=x)
    _checks.on_gpu(x=x)
    _checks.not_empty(x=x)
    _checks.shaped("at least one dimension", ok=x.ndim > 0, x=x)
    if not -x.ndim <= dim < x.ndim:
        raise IndexError(f"dim is {dim}; x has {x.ndim} dimensions.")
    last = dim in (-1, x.ndim - 1)
    moved = x if last else x.movedim(dim, -1)
    y = _Softmax.apply(moved) if _rows.needs_gradient(x) else _forward(_rows.as_rows(moved))
    y = y.view(moved.shape)
    return y if last else y.movedim(-1, dim)


class _Softmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = _forward(_rows.as_rows(x)).view(x.shape)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        _checks.once("softmax", "torch.softmax")
        (y,) = ctx.saved_tensors
        return _backward(_rows.as_rows(y), _rows.as_rows(dy)).view(y.shape)


def _forward(x: Tensor) -> Tensor:
    """Return the softmax of the rows of x[rows, columns]."""
    rows, columns = x.shape
    y = torch.empty((rows, columns), dtype=x.dtype, device=x.device)
    config = _config(x, "forward")
    with _rows.on(x.device):
        if config["block"]:
            _forward_long[(rows,)](
                x, y, columns, x.stride(0), BLOCK=config["block"], num_warps=config["num_warps"]
            )
        else:
            _forward_tile[(_rows.programs(rows, x.device, config),)](
                x, y, rows, columns, x.stride(0), **_rows.tile(x, config)
            )
    return y


def _backward(y: Tensor, dy: Tensor) -> Tensor:
    """Return the gradient of the rows of x, from the softmax of its rows and their gradients."""
    rows, columns = y.shape
    dx = torch.empty((rows, columns), dtype=y.dtype, device=y.device)
    config = _config(y, "backward")
    with _rows.on(y.device):
        if config["block"]:
            _backward_long[(rows,)](
                y,
                dy,
                dx,
                columns,
                dy.stride(0),
                BLOCK=config["block"],
                num_warps=config["num_warps"],
            )
        else:
            _backward_tile[(_rows.programs(rows, y.device, config),)](
                y, dy, dx, rows, columns, dy.stride(0), **_rows.tile(y, config, 2)
            )
    return dx


def _config(x: Tensor, operation: str) -> Config:
    columns = x.shape[1]
    key = _rows.columns_key(columns, _rows.NAMES[x.dtype])
    return _configs.chosen("softmax", operation, key, _default(columns, operation), x.device.index)


@functools.cache
def _default(columns: int, operation: str) -> Config:
    """Return the configuration for rows so long, where none was tuned: the best on an H200."""
    block = _rows.power_of_2(columns)
    if block > 32768:
        return _rows.config(block=16384 if operation == "forward" else 32768, num_warps=32)
    if block == 32768:
        return _rows.config(block=16384, num_warps=32)
    if block == 16384:
        return _rows.config(block=8192, num_warps=16 if operation == "forward" else 32)
    if block == 8192:
        return _rows.config(num_warps=16)
    return _rows.config(rows=max(1, 2048 // block), num_warps=4)


@triton.jit
def _rows_of(tile, rows, ROWS: tl.constexpr):
    """Return the rows of a tile; those past the last row repeat it."""
    row = tile * ROWS + tl.arange(0, ROWS)[:, None]
    return tl.minimum(row, rows - 1).to(tl.int64)


@triton.jit
def _forward_tile(  # noqa: PLR0917
    x_ptr,
    y_ptr,
    rows,
    columns,
    x_stride,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    STAGES: tl.constexpr,
):
    # read rows · columns elements; write rows · columns elements
    column = tl.arange(0, BLOCK)[None, :]
    for tile in tl.range(
        tl.program_id(0), tl.cdiv(rows, ROWS), tl.num_programs(0), num_stages=STAGES
    ):
        row = _rows_of(tile, rows, ROWS)
        x = tl.load(x_ptr + row * x_stride + column, column < columns, other=float("-inf")).to(
            tl.float32
        )
        powers = tl.exp2((x - tl.max(x, 1)[:, None]) * LOG2E)
        y = powers / tl.sum(powers, 1)[:, None]
        tl.store(y_ptr + row * columns + column, y.to(y_ptr.dtype.element_ty), column < columns)


@triton.jit
def _forward_long(x_ptr, y_ptr, columns, x_stride, BLOCK: tl.constexpr):
    # read 2 · columns elements; write columns elements
    row = tl.program_id(0).to(tl.int64)
    x_ptr += row * x_stride
    y_ptr += row * columns
    highest, total = running_power_sum(x_ptr, columns, BLOCK)
    scale = 1.0 / total
    # From the end: what was read last is most likely still in a cache.
    last = (columns - 1) // BLOCK * BLOCK
    for done in range(0, columns, BLOCK):
        column = last - done + tl.arange(0, BLOCK)
        inside = column < columns
        x = tl.load(x_ptr + column, inside, other=float("-inf"), eviction_policy="evict_first")
        y = tl.exp2((x.to(tl.float32) - highest) * LOG2E) * scale
        tl.store(y_ptr + column, y.to(y_ptr.dtype.element_ty), inside)


@triton.jit
def _backward_tile(  # noqa: PLR0917
    y_ptr,
    dy_ptr,
    dx_ptr,
    rows,
    columns,
    dy_stride,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    STAGES: tl.constexpr,
):
    # read 2 · rows · columns elements; write rows · columns elements
    column = tl.arange(0, BLOCK)[None, :]
    for tile in tl.range(
        tl.program_id(0), tl.cdiv(rows, ROWS), tl.num_programs(0), num_stages=STAGES
    ):
        row = _rows_of(tile, rows, ROWS)
        y = tl.load(y_ptr + row * columns + column, column < columns, other=0.0).to(tl.float32)
        dy = tl.load(dy_ptr + row * dy_stride + column, column < columns, other=0.0).to(tl.float32)
        dx = y * (dy - tl.sum(y * dy, 1)[:, None])
        tl.store(dx_ptr + row * columns + column, dx.to(dx_ptr.dtype.element_ty), column < columns)


@triton.jit
def _backward_long(y_ptr, dy_ptr, dx_ptr, columns, dy_stride, BLOCK: tl.constexpr):  # noqa: PLR0917
    # read 4 · columns elements; write columns elements
    row = tl.program_id(0).to(tl.int64)
    y_ptr += row * columns
    dy_ptr += row * dy_stride
    dx_ptr += row * columns
    sums = tl.zeros((BLOCK // VECTOR,), tl.float32)
    column = tl.arange(0, BLOCK // VECTOR)[:, None] * VECTOR + tl.arange(0, VECTOR)[None, :]
    for start in range(0, columns, BLOCK):
        inside = start + column < columns
        y = tl.load(y_ptr + start + column, inside, other=0.0).to(tl.float32)
        dy = tl.load(dy_ptr + start + column, inside, other=0.0).to(tl.float32)
        sums += tl.sum(y * dy, 1)
    total = tl.sum(sums, 0)
    last = (columns - 1) // BLOCK * BLOCK
    for done in range(0, columns, BLOCK):
        place = last - done + column
        inside = place < columns
        y = tl.load(y_ptr + place, inside, other=0.0, eviction_policy="evict_first")
        dy = tl.load(dy_ptr + place, inside, other=0.0, eviction_policy="evict_first")
        dx = y.to(tl.float32) * (dy.to(tl.float32) - total)
        tl.store(dx_ptr + place, dx.to(dx_ptr.dtype.element_ty), inside)


def _ours(tensors: Mapping[str, Any]) -> Tensor:
    return softmax(tensors["x"])


def _plain(tensors: Mapping[str, Any]) -> Tensor:
    return torch.softmax(tensors["x"], -1)


KERNEL = Kernel(
    axes={"rows": None, "columns": None},
    shapes=bench.SHAPES,
    dtypes=bench.FORMATS,
    operations={
        "forward": Operation(
            work=bench.traffic("softmax", 5, 2),
            inputs=bench.matrices("x"),
            reference=bench.in_float64(_plain, {"y": "y"}),
            implementations=bench.forward(_ours, _plain, "torch.softmax"),
        ),
        "backward": Operation(
            work=bench.traffic("softmax", 4, 3),
            inputs=bench.matrices("x", "dy"),
            reference=bench.in_float64(_plain, {"dx": "x"}),
            implementations=bench.backward(_ours, _plain, "torch.softmax", ("x",)),
        ),
    },
    tuning={name: bench.tuning(_default, name) for name in ("forward", "backward")},
    function=lambda: softmax,
)
