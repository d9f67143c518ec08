r"""What follows a product of int8 or fp8: scales of rows and columns, bias, rounding, in one pass.

.. math:: y_{mn} = \mathrm{round}(s^a_m s^b_n acc_{mn} + bias_n)

In fp32, from left to right, each operation rounded by itself: bit by bit what PyTorch gives for
`(acc.float() * scale_a * scale_b + bias).to(out_dtype)`.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Final

import torch
import triton
import triton.language as tl

from tracelens.kernel import OURS, Implementation, Kernel, Operation, Tuning
from tracelens.workload import Work
from tracelens_kernels import _checks, _configs
from tracelens_kernels import _quantisation as q

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from torch import Tensor

    from tracelens.kernel import Config, Shape, Tensors

_SUMS: Final = (torch.int32, torch.bfloat16, torch.float16, torch.float32)
_MANY: Final = 2**22
_RESULTS: Final = (torch.bfloat16, torch.float16, torch.float32)


def dequant_bias(
    acc: Tensor,
    scale_a: Tensor,
    scale_b: Tensor,
    bias: Tensor | None = None,
    out_dtype: torch.dtype = torch.bfloat16,
) -> Tensor:
    """Return acc · scale_a · scale_b + bias.

    Args:
        acc: [..., N], the product of quantised operands: int32, bf16, fp16 or fp32; copied first
            unless its rows follow one another without gaps in them.
        scale_a: fp32, one for each row ([..., 1] or [M]), or one number.
        scale_b: fp32, one for each column ([N], [1, N] or [N, 1]), or one number.
        bias: [N], in any of these floating-point formats.
        out_dtype: bf16, fp16 or fp32.

    Returns:
        [..., N], contiguous.

    Raises:
        ValueError: shapes or devices do not fit, or acc is empty.
        TypeError: a format is none of these.
    """
    _check(acc, scale_a, scale_b, bias, out_dtype)
    rows = acc if acc.ndim == 2 else acc.reshape(-1, acc.shape[-1])
    rows = rows if rows.stride(1) == 1 else rows.contiguous()
    out = torch.empty(acc.shape, dtype=out_dtype, device=acc.device)
    _launch(rows, scale_a, scale_b, bias, out)
    return out


def _check(
    acc: Tensor, scale_a: Tensor, scale_b: Tensor, bias: Tensor | None, out_dtype: torch.dtype
) -> None:
    _checks.on_gpu(acc=acc, scale_a=scale_a, scale_b=scale_b, bias=bias)
    _checks.dtype_among(_SUMS, acc=acc)
    _checks.dtype_among((torch.float32,), scale_a=scale_a, scale_b=scale_b)
    _checks.dtype_among(_RESULTS, bias=bias)
    if out_dtype not in _RESULTS:
        raise TypeError(f"out_dtype is {out_dtype}; it must be bfloat16, float16 or float32.")
    _checks.shaped("acc [..., N]", ok=acc.ndim > 0, acc=acc)
    _checks.not_empty(acc=acc)
    columns = acc.shape[-1]
    if scale_a.numel() not in {1, acc.numel() // columns}:
        _checks.shaped("a scale_a for each row of acc", ok=False, acc=acc, scale_a=scale_a)
    if scale_b.numel() not in {1, columns}:
        _checks.shaped("a scale_b for each column of acc", ok=False, acc=acc, scale_b=scale_b)
    if bias is not None and bias.numel() != columns:
        _checks.shaped("bias [N]", ok=False, acc=acc, bias=bias)


def _launch(
    acc: Tensor, scale_a: Tensor, scale_b: Tensor, bias: Tensor | None, out: Tensor
) -> None:
    count, columns = acc.shape
    key = _key(columns, acc.dtype, out.dtype)
    config = _configs.chosen(
        "dequant_bias", "forward", key, _default(columns, many=count * columns >= _MANY)
    )
    across = -(-columns // config["block"])
    with q.on(acc.device):
        _dequant_bias[(-(-count // config["rows"]) * across,)](
            acc,
            scale_a.contiguous(),
            scale_b.contiguous(),
            None if bias is None else bias.contiguous(),
            out,
            count,
            columns,
            acc.stride(0),
            across,
            EACH_ROW=scale_a.numel() > 1,
            EACH_COLUMN=scale_b.numel() > 1,
            ROWS=config["rows"],
            BLOCK=config["block"],
            num_warps=config["num_warps"],
            enable_fp_fusion=False,
        )


@triton.jit
def _dequant_bias(  # noqa: PLR0917
    acc_ptr,
    scale_a_ptr,
    scale_b_ptr,
    bias_ptr,
    out_ptr,
    count,
    columns,
    acc_stride,
    across,
    EACH_ROW: tl.constexpr,
    EACH_COLUMN: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """A tile of ROWS times BLOCK."""
    tile = tl.program_id(0)
    row = (tile // across).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tile % across * BLOCK + tl.arange(0, BLOCK)
    there = column < columns
    inside = (row < count)[:, None] & there[None, :]
    at = acc_ptr + row[:, None] * acc_stride + column[None, :]
    value = tl.load(at, mask=inside, other=0).to(tl.float32)
    if EACH_ROW:
        value *= tl.load(scale_a_ptr + row, mask=row < count, other=0.0)[:, None]
    else:
        value *= tl.load(scale_a_ptr)
    if EACH_COLUMN:
        value *= tl.load(scale_b_ptr + column, mask=there, other=0.0)[None, :]
    else:
        value *= tl.load(scale_b_ptr)
    if bias_ptr is not None:
        value += tl.load(bias_ptr + column, mask=there, other=0.0).to(tl.float32)[None, :]
    out = value.to(out_ptr.dtype.element_ty)
    tl.store(out_ptr + row[:, None] * columns + column[None, :], out, mask=inside)


@functools.cache
def _key(columns: int, acc: torch.dtype, out: torch.dtype) -> str:
    formats = f"{acc} {out}".replace("torch.", "")
    return f"columns={columns} {formats}"


@functools.cache
def _default(columns: int, *, many: bool) -> Config:
    block = min(triton.next_power_of_2(columns), 512)
    return {"rows": (8192 if many else 2048) // block, "block": block, "num_warps": 4}


# What the bench knows of it.

_TORCH: Final = {"int32": torch.int32, "bf16": torch.bfloat16, "fp32": torch.float32}


def _work(shape: Shape, dtype: str) -> Work:
    rows, columns = shape["rows"], shape["columns"]
    moved = rows * columns * (_TORCH[dtype].itemsize + 2) + 4 * rows + 6 * columns
    return Work("dequant", flops=3 * rows * columns, bytes=moved, matmul=False)


def _inputs(shape: Shape, dtype: str, device: str, seed: int) -> Tensors:
    rows, columns = shape["rows"], shape["columns"]
    random = torch.Generator(device).manual_seed(seed)
    top = 2**20
    acc = torch.randint(-top, top, (rows, columns), generator=random, device=device)
    return {
        "acc": acc.to(_TORCH[dtype]),
        "scale_a": torch.rand((rows, 1), generator=random, device=device) / top,
        "scale_b": torch.rand((1, columns), generator=random, device=device),
        "bias": torch.randn(columns, generator=random, device=device).to(torch.bfloat16),
    }


def _plain(acc: Tensor, scale_a: Tensor, scale_b: Tensor, bias: Tensor) -> Tensor:
    return (acc.float() * scale_a * scale_b + bias).to(torch.bfloat16)


def _reference(inputs: Tensors, _shape: Shape) -> Tensors:
    acc, scale_a, scale_b, bias = (inputs[name].double() for name in _ORDER)
    return {"out": acc * scale_a * scale_b + bias}


_ORDER: Final = ("acc", "scale_a", "scale_b", "bias")


def _ours(inputs: Tensors, _shape: Shape) -> Callable[[], Tensors]:
    given = [inputs[name] for name in _ORDER]
    return lambda: {"out": dequant_bias(*given)}


def _eager(inputs: Tensors, _shape: Shape) -> Callable[[], Tensors]:
    given = [inputs[name] for name in _ORDER]
    return lambda: {"out": _plain(*given)}


def _compiled(inputs: Tensors, _shape: Shape) -> Callable[[], Tensors]:
    given = [inputs[name] for name in _ORDER]
    function = torch.compile(_plain, dynamic=False)
    function(*given)
    return lambda: {"out": function(*given)}


def _tuning_key(shape: Shape, dtype: str) -> str:
    return _key(shape["columns"], _TORCH[dtype], torch.bfloat16)


def _coarse(shape: Shape, _dtype: str) -> Iterable[Config]:
    widest = triton.next_power_of_2(shape["columns"])
    for block in (512, 1024, 2048, 4096):
        for size in (4096, 8192):
            if block <= widest:
                yield {"rows": size // block, "block": block, "num_warps": size // 1024}


KERNEL = Kernel(
    axes={"rows": None, "columns": None},
    shapes=(
        {"rows": 16384, "columns": 8192},
        {"rows": 32768, "columns": 3584},
        {"rows": 64, "columns": 8192},
        {"rows": 1823, "columns": 781},
    ),
    dtypes=("int32", "bf16", "fp32"),
    operations={
        "forward": Operation(
            work=_work,
            inputs=_inputs,
            reference=_reference,
            implementations={
                OURS: Implementation("dequant_bias", _ours),
                "eager": Implementation("three operations of PyTorch", _eager),
                "compile": Implementation("the same by torch.compile", _compiled),
            },
            tolerance=dict.fromkeys(_TORCH, 8e-3),
        )
    },
    tuning={
        "forward": Tuning(
            key=_tuning_key,
            default=lambda shape, _dtype: _default(
                shape["columns"], many=shape["rows"] * shape["columns"] >= _MANY
            ),
            coarse=_coarse,
        )
    },
    function=lambda: dequant_bias,
)
