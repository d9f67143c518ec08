"""What the quantisers share: their formats, the scale of a row, and how a number is rounded.

A row x becomes values q and one scale s with x ≈ s q (symmetric, no zero point):

    s = max(max|x| / L, 2⁻¹²⁶)     q = round(x / s)     L = 127 (int8), 448 (fp8 e4m3)

in fp32, each operation rounded to nearest, ties to even: what `torch` computes by
`(x.float() / s).round()`, and for fp8 by `((x.float() + 0) / s).to(torch.float8_e4m3fn)`: a zero
has no sign. No value passes L, so there is nothing to clamp. A row of zeros has the
smallest scale, which is a normal number, and so has a finite reciprocal. A row that holds an
infinity or a NaN has scale NaN.
"""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Final

import torch
import triton
import triton.language as tl

from tracelens_kernels import _checks

if TYPE_CHECKING:
    from torch import Tensor

LARGEST: Final = {torch.int8: 127.0, torch.float8_e4m3fn: 448.0}
"""The largest value of each format."""

INPUTS: Final = (torch.bfloat16, torch.float16, torch.float32)
"""Formats of what is quantised."""

TORCH: Final = {
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp32": torch.float32,
    "int8": torch.int8,
    "fp8": torch.float8_e4m3fn,
}
"""Formats by the names that the bench has for them."""

NEAR: Final = 1e-3
"""Error that values may have if one in some thousands is rounded to the other side of a tie."""

_NAMES: Final = {
    "int8": torch.int8,
    "fp8": torch.float8_e4m3fn,
    torch.int8: torch.int8,
    torch.float8_e4m3fn: torch.float8_e4m3fn,
}
_SMALLEST: Final = 2.0**-126


def format_of(dtype: torch.dtype | str) -> torch.dtype:
    """Return the format that `int8`, `fp8`, or a torch format stands for."""
    if (found := _NAMES.get(dtype)) is None:
        raise TypeError(f"dtype is {dtype}; rows are quantised to int8 or fp8 (float8_e4m3fn).")
    return found


def name_of(to: torch.dtype) -> str:
    """Return what the bench calls a format: `int8` or `fp8`."""
    return "int8" if to is torch.int8 else "fp8"


def rows_of(x: Tensor, to: torch.dtype) -> Tensor:
    """Return x as a matrix whose rows are quantised, each without gaps; what cannot be is refused.

    Raises:
        ValueError: x is empty, has no rows, or is not on a GPU.
        TypeError: it is no floating-point format of these.
        RuntimeError: the GPU has no such format.
    """
    device = _checks.on_gpu(x=x)
    _checks.dtype_among(INPUTS, x=x)
    _checks.shaped("x [..., columns]", ok=x.ndim > 0, x=x)
    _checks.not_empty(x=x)
    if to is torch.float8_e4m3fn:
        needs_fp8(device)
    rows = x if x.ndim == 2 else x.reshape(-1, x.shape[-1])
    return rows if rows.stride(1) == 1 or rows.shape[1] == 1 else rows.contiguous()


def needs_fp8(device: torch.device) -> None:
    """Raise RuntimeError if a GPU is too old for fp8."""
    if device.type == "cuda" and _checks._capability(device) < (8, 9):
        raise RuntimeError(f"{device} has no fp8: that needs compute capability 8.9 or newer.")


def on(device: torch.device) -> AbstractContextManager[Any]:
    """Make a device the one that kernels are launched on."""
    if device.type != "cuda" or device.index == torch.cuda.current_device():
        return contextlib.nullcontext()
    return torch.cuda.device(device)


def reference(x: Tensor, to: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return values and scale [..., 1] by plain PyTorch, bit by bit what the kernels give."""
    exact = x.float() + 0.0  # no negative zeros
    # By a tensor: a number would be made a reciprocal on GPUs, and round twice.
    largest = torch.full((), LARGEST[to], device=x.device)
    scale = (exact.abs().amax(-1, keepdim=True) / largest).clamp_min(_SMALLEST)
    scale = scale.masked_fill(scale.isinf(), torch.nan)
    quotient = exact / scale
    return (quotient if to.is_floating_point else quotient.round()).to(to), scale


def plain(x: Tensor, to: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return values and scale as one would write it in PyTorch; what the kernels are held against.

    Its scales may differ from the `reference` in their last bit, and so may values near ties.
    """
    scale = x.abs().amax(-1, keepdim=True).float().div(LARGEST[to]).clamp(min=_SMALLEST)
    quotient = x.float() / scale
    return (quotient if to.is_floating_point else quotient.round()).to(to), scale


def random_rows(rows: int, columns: int, dtype: str, device: str, seed: int) -> Tensor:
    """Return normal numbers, each row of another size; for benches and tests."""
    random = torch.Generator(device).manual_seed(seed)
    x = torch.empty((rows, columns), dtype=TORCH[dtype], device=device).normal_(generator=random)
    return x.mul_(torch.rand((rows, 1), generator=random, device=device).add_(0.01).to(x.dtype))


@triton.jit
def magnitude(x):
    """|x| of fp32 as integers: in the same order, and NaN above all numbers."""
    return x.to(tl.int32, bitcast=True) & 0x7FFFFFFF


@triton.jit
def scale_of(top, L: tl.constexpr):
    """The scale of a row whose largest `magnitude` is this."""
    scale = tl.maximum(tl.div_rn(top.to(tl.float32, bitcast=True), L), 1.1754943508222875e-38)
    return tl.where(top < 0x7F800000, scale, float("nan"))


@triton.jit
def factor_of(scale):
    """What both sides of a division by a scale are multiplied by, so that nothing underflows."""
    return tl.where(scale < 8.673617379884035e-19, 18446744073709551616.0, 1.0)  # 2⁻⁶⁰, 2⁶⁴


@triton.jit
def quantised(x, scale, inverse, FP8: tl.constexpr, ON_GPU: tl.constexpr):
    """Divide x by scale in fp32, then take the nearest int8 or e4m3, both times ties to even.

    P. Markstein, "Computation of elementary functions on the IBM RISC System/6000 processor", IBM
    Journal of Research and Development 34, 1990: by a correctly rounded `inverse`, a quotient is
    correctly rounded after one correction by its remainder, which is exact unless subnormal. It
    makes +0 of -0.
    """
    if ON_GPU:
        guess = x * inverse
        quotient = tl.fma(tl.fma(guess, -scale, x), inverse, guess)
    else:  # the interpreter's fma rounds twice, and its division once
        quotient = (x + 0.0) / scale
    if FP8:
        if not ON_GPU:  # the interpreter does not round ties to even: leave it nothing to round
            quotient = _to_steps_of_e4m3(quotient)
        value = quotient.to(tl.float8e4nv)
    else:  # 1.5 · 2²³: sums with it have a step of 1, and their low byte is the integer
        value = (quotient + 12582912.0).to(tl.int32, bitcast=True).to(tl.int8)
    return value


@triton.jit
def _to_steps_of_e4m3(x):
    """Round to three bits of mantissa, or to multiples of 2⁻⁹ where e4m3 is subnormal."""
    bits = x.to(tl.int32, bitcast=True)
    size = bits & 0x7FFFFFFF
    normal = (size + 0x7FFFF + ((size >> 20) & 1)) & -0x100000
    small = (size.to(tl.float32, bitcast=True) + 24576.0) - 24576.0  # 1.5 · 2¹⁴: a step of 2⁻⁹
    size = tl.where(size < 0x3C800000, small.to(tl.int32, bitcast=True), normal)  # 2⁻⁶
    return (size | (bits & -0x80000000)).to(tl.float32, bitcast=True)
