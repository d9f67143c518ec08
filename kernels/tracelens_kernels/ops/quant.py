r"""Row-wise symmetric quantisation to int8 or fp8, with a scale for each row.

.. math::
    s_m = \max(\max_k |x_{mk}| / L, 2^{-126}), \qquad q_{mk} = \mathrm{round}(x_{mk} / s_m)

L is 127 for int8 and 448 for fp8 (e4m3); see `_quantisation` for how it rounds. A row of up to
16384 columns is read once and stays in registers between its maximum and its quotients; a longer
one is read twice, the second time from the cache.

Source of the scheme: dynamic per-token quantisation, as in G. Xiao et al., "SmoothQuant", ICML
2023, section 2.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Final

import torch
import triton
import triton.language as tl

from tracelens.kernel import OURS, Implementation, Kernel, Operation, Tuning
from tracelens.workload import Work
from tracelens_kernels import _configs
from tracelens_kernels import _quantisation as q

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from torch import Tensor

    from tracelens.kernel import Config, Shape, Tensors

_IN_REGISTERS: Final = 16384
_STEP: Final = 4096


def quant(x: Tensor, dtype: torch.dtype | str = torch.int8) -> tuple[Tensor, Tensor]:
    """Return x as (values, scale), with x ≈ values · scale.

    Args:
        x: [..., K], bf16, fp16 or fp32; a last axis with gaps is copied first.
        dtype: `torch.int8` or `"int8"`; `torch.float8_e4m3fn` or `"fp8"`.

    Returns:
        values [..., K] of that format, contiguous, and scale [..., 1], fp32, positive, as
        `torch._scaled_mm` takes it. Bit by bit what PyTorch gives in fp32 (`_quantisation`). A
        row that holds an infinity or a NaN has scale NaN, and so is NaN once multiplied out; its
        values have no meaning.

    Raises:
        ValueError: x is empty or not on a GPU.
        TypeError: a format is none of these.
        RuntimeError: the GPU is older than 8.0, or than 8.9 for fp8.
    """
    to = q.format_of(dtype)
    if torch.compiler.is_compiling():
        values, scale = _operator(x, to)
        return values, scale
    return _quant(x, to)


def _quant(x: Tensor, to: torch.dtype) -> tuple[Tensor, Tensor]:
    rows = q.rows_of(x, to)
    count, columns = rows.shape
    values = torch.empty(x.shape, dtype=to, device=x.device)
    scale = torch.empty((*x.shape[:-1], 1), dtype=torch.float32, device=x.device)
    config = _configs.chosen("quant", q.name_of(to), _key(columns, x.dtype), _default(columns))
    kernel = _quant_rows if config["block"] >= columns else _quant_long_rows
    with q.on(x.device):
        kernel[(-(-count // config["rows"]),)](
            rows,
            values,
            scale,
            count,
            rows.stride(0),
            COLUMNS=columns,
            ROWS=config["rows"],
            BLOCK=config["block"],
            L=q.LARGEST[to],
            FP8=to.is_floating_point,
            ON_GPU=x.is_cuda,
            num_warps=config["num_warps"],
        )
    return values, scale


@torch.library.custom_op(
    "tracelens::quant", mutates_args=(), schema="(Tensor x, ScalarType to) -> (Tensor, Tensor)"
)
def _operator(x: Tensor, to: torch.dtype) -> tuple[Tensor, Tensor]:
    return _quant(x, to)


@_operator.register_fake
def _(x: Tensor, to: torch.dtype) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape, dtype=to), x.new_empty((*x.shape[:-1], 1), dtype=torch.float32)


@triton.jit
def _quant_rows(  # noqa: PLR0917
    x_ptr,
    values_ptr,
    scale_ptr,
    count,
    x_stride,
    COLUMNS: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    L: tl.constexpr,
    FP8: tl.constexpr,
    ON_GPU: tl.constexpr,
):
    """Rows that stay in registers."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, BLOCK)
    inside = (row < count)[:, None] & (column < COLUMNS)[None, :]
    at = x_ptr + row[:, None] * x_stride + column[None, :]
    x = tl.load(at, mask=inside, other=0.0).to(tl.float32)
    scale = q.scale_of(tl.max(q.magnitude(x), axis=1), L)
    tl.store(scale_ptr + row, scale, mask=row < count)
    value = _values(x, scale, FP8, ON_GPU)
    tl.store(values_ptr + row[:, None] * COLUMNS + column[None, :], value, mask=inside)


@triton.jit
def _quant_long_rows(  # noqa: PLR0917
    x_ptr,
    values_ptr,
    scale_ptr,
    count,
    x_stride,
    COLUMNS: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    L: tl.constexpr,
    FP8: tl.constexpr,
    ON_GPU: tl.constexpr,
):
    """Rows that are read twice, BLOCK columns at a time."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    x_ptr += row[:, None] * x_stride
    values_ptr += row[:, None] * COLUMNS
    tops = tl.zeros((ROWS, BLOCK), tl.int32)
    for start in range(0, COLUMNS, BLOCK):
        column = start + tl.arange(0, BLOCK)
        inside = (row < count)[:, None] & (column < COLUMNS)[None, :]
        x = tl.load(x_ptr + column[None, :], mask=inside, other=0.0).to(tl.float32)
        tops = tl.maximum(tops, q.magnitude(x))
    scale = q.scale_of(tl.max(tops, axis=1), L)
    tl.store(scale_ptr + row, scale, mask=row < count)
    for start in range(0, COLUMNS, BLOCK):
        column = start + tl.arange(0, BLOCK)
        inside = (row < count)[:, None] & (column < COLUMNS)[None, :]
        x = tl.load(x_ptr + column[None, :], mask=inside, other=0.0).to(tl.float32)
        tl.store(values_ptr + column[None, :], _values(x, scale, FP8, ON_GPU), mask=inside)


@triton.jit
def _values(x, scale, FP8: tl.constexpr, ON_GPU: tl.constexpr):
    factor = q.factor_of(scale)
    if tl.max(factor, axis=0) > 1:
        x *= factor[:, None]
        scale *= factor
    inverse = tl.div_rn(1.0, scale)
    return q.quantised(x, scale[:, None], inverse[:, None], FP8, ON_GPU)


@functools.cache
def _key(columns: int, dtype: torch.dtype) -> str:
    return f"columns={columns} {str(dtype).removeprefix('torch.')}"


@functools.cache
def _default(columns: int) -> Config:
    if columns > _IN_REGISTERS:
        return {"rows": 1, "block": _STEP, "num_warps": 8}
    block = triton.next_power_of_2(columns)
    rows = max(1, 1024 // block)
    return {"rows": rows, "block": block, "num_warps": min(max(block // 1024, 4), 16)}


# What the bench knows of it.


def _work(to: str) -> Callable[[Shape, str], Work]:
    def work(shape: Shape, dtype: str) -> Work:
        rows, columns = shape["rows"], shape["columns"]
        moved = rows * columns * (q.TORCH[dtype].itemsize + q.TORCH[to].itemsize) + 4 * rows
        return Work("quant", flops=4 * rows * columns, bytes=moved, matmul=False)

    return work


def _inputs(shape: Shape, dtype: str, device: str, seed: int) -> Tensors:
    return {"x": q.random_rows(shape["rows"], shape["columns"], dtype, device, seed)}


def _named(result: tuple[Tensor, Tensor]) -> Tensors:
    return {"values": result[0], "scale": result[1]}


def _implementations(to: torch.dtype) -> dict[str, Implementation]:
    def ours(inputs: Tensors, _shape: Shape) -> Callable[[], Tensors]:
        return lambda: _named(quant(inputs["x"], to))

    def eager(inputs: Tensors, _shape: Shape) -> Callable[[], Tensors]:
        return lambda: _named(q.plain(inputs["x"], to))

    def compiled(inputs: Tensors, _shape: Shape) -> Callable[[], Tensors]:
        function = torch.compile(q.plain, dynamic=False)
        function(inputs["x"], to)
        return lambda: _named(function(inputs["x"], to))

    return {
        OURS: Implementation("quant", ours),
        "eager": Implementation("amax, division, rounding in PyTorch", eager),
        "compile": Implementation("the same by torch.compile", compiled),
    }


def _operation(to: str) -> Operation:
    return Operation(
        work=_work(to),
        inputs=_inputs,
        reference=lambda inputs, _shape: _named(q.reference(inputs["x"], q.TORCH[to])),
        implementations=_implementations(q.TORCH[to]),
        tolerance=dict.fromkeys(("bf16", "fp16", "fp32"), q.NEAR),
    )


def _coarse(shape: Shape, _dtype: str) -> Iterable[Config]:
    columns = shape["columns"]
    whole = triton.next_power_of_2(columns)
    for warps in (4, 8, 16):
        if whole <= 4096 * warps:
            yield {"rows": max(1, 1024 // whole), "block": whole, "num_warps": warps}
        for step in (_STEP, 2 * _STEP):
            if columns > step:
                yield {"rows": 1, "block": step, "num_warps": warps}


def _tuning() -> Tuning:
    return Tuning(
        key=lambda shape, dtype: _key(shape["columns"], q.TORCH[dtype]),
        default=lambda shape, _dtype: _default(shape["columns"]),
        coarse=_coarse,
    )


KERNEL = Kernel(
    axes={"rows": None, "columns": None},
    shapes=(
        {"rows": 16384, "columns": 8192},
        {"rows": 32768, "columns": 3584},
        {"rows": 65536, "columns": 18944},
        {"rows": 64, "columns": 8192},
        {"rows": 1823, "columns": 781},
        {"rows": 1000, "columns": 50257},
    ),
    dtypes=("bf16", "fp16", "fp32"),
    operations={"int8": _operation("int8"), "fp8": _operation("fp8")},
    tuning={"int8": _tuning(), "fp8": _tuning()},
    function=lambda: quant,
)
