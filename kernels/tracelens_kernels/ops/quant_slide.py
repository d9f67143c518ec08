r"""Row-wise quantisation fused with the copying of columns that slid sparse weights ask for.

Weights that have two zeros in every L columns are slid into 2:4 sparsity (`slide`), which makes
1.5 columns out of one for L = 8. The activations follow: with W = L/2 - 1 windows in a group,

.. math::
    y_{m,o} = \mathrm{round}(x_{m,c(o)} / s_m), \qquad
    c(o) = L \lfloor o / 4W \rfloor + 2 (\lfloor o / 4 \rfloor \bmod W) + (o \bmod 4)

A row is read for its maximum, and again, from the cache, for the copy; four bytes are written at
once.

Source of the scheme: "activation lifting" of SlideSparse ((2N-2):2N sparsity on 2:4 hardware).
"""
# pyright: reportGeneralTypeIssues=false, reportAssignmentType=false

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl
from torch.nn import functional

from tracelens.kernel import OURS, Implementation, Kernel, Operation, Tuning
from tracelens.workload import Work
from tracelens_kernels import _configs
from tracelens_kernels import _quantisation as q
from tracelens_kernels._slide import SlidePattern, slid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from torch import Tensor

    from tracelens.kernel import Config, Shape, Tensors

__all__ = ["KERNEL", "SlidePattern", "quant_slide"]


def quant_slide(
    x: Tensor,
    pattern: SlidePattern,
    dtype: torch.dtype | str = torch.int8,
    *,
    pad_rows: int = 1,
) -> tuple[Tensor, Tensor]:
    """Return the rows of x quantised and slid, and their scales.

    Args:
        x: [..., K], bf16, fp16 or fp32; a last axis with gaps is copied first.
        pattern: of the weights that it will be multiplied by.
        dtype: `torch.int8` or `"int8"`; `torch.float8_e4m3fn` or `"fp8"`.
        pad_rows: rows are added, of zeros and with scale 1, up to a multiple of this.

    Returns:
        values [M, pattern.columns(K)], contiguous, with M the rows of x and of what is added, and
        scale [M, 1], fp32. They are those of `quant`, bit by bit; columns beyond K are zeros.

    Raises:
        ValueError: x is empty or not on a GPU, or pad_rows is less than 1.
        TypeError: a format is none of these.
        RuntimeError: the GPU is older than 8.0, or than 8.9 for fp8.
    """
    to = q.format_of(dtype)
    if pad_rows < 1:
        raise ValueError(f"pad_rows is {pad_rows}; it must be at least 1.")
    if torch.compiler.is_compiling():
        values, scale = _operator(x, pattern.l or 0, to, pad_rows)
        return values, scale
    return _quant_slide(x, pattern, to, pad_rows)


def _quant_slide(
    x: Tensor, pattern: SlidePattern, to: torch.dtype, pad_rows: int
) -> tuple[Tensor, Tensor]:
    rows = _in_pairs(q.rows_of(x, to))
    count, columns = rows.shape
    padded, wide = count + -count % pad_rows, pattern.columns(x.shape[-1])
    values = torch.empty((padded, wide), dtype=to, device=x.device)
    scale = torch.empty((padded, 1), dtype=torch.float32, device=x.device)
    key = _key(columns, pattern, x.dtype)
    config = _configs.chosen("quant_slide", q.name_of(to), key, _default(columns))
    with q.on(x.device):
        _quant_slide_rows[(padded,)](
            rows,
            values,
            scale,
            count,
            rows.stride(0),
            PAIRS=columns // 2,
            WORDS=wide // 4,
            GROUP=pattern.group,
            WINDOWS=pattern.windows,
            BLOCK=config["block"],
            STEP=config["step"],
            L=q.LARGEST[to],
            FP8=to.is_floating_point,
            ON_GPU=x.is_cuda,
            num_warps=config["num_warps"],
        )
    return values, scale


def _in_pairs(rows: Tensor) -> Tensor:
    """Return rows whose neighbours may be loaded as one word: of even lengths, at even places."""
    if rows.shape[1] % 2:
        return functional.pad(rows, (0, 1))
    if rows.itemsize == 4 or not (rows.stride(0) % 2 or rows.data_ptr() % 4):
        return rows
    return rows.clone(memory_format=torch.contiguous_format)


@torch.library.custom_op(
    "tracelens::quant_slide",
    mutates_args=(),
    schema="(Tensor x, int l, ScalarType to, int pad_rows) -> (Tensor, Tensor)",
)
def _operator(x: Tensor, l: int, to: torch.dtype, pad_rows: int) -> tuple[Tensor, Tensor]:  # noqa: E741
    return _quant_slide(x, SlidePattern(l or None), to, pad_rows)


@_operator.register_fake
def _(x: Tensor, l: int, to: torch.dtype, pad_rows: int) -> tuple[Tensor, Tensor]:  # noqa: E741
    count, columns = x.numel() // x.shape[-1], x.shape[-1]
    padded = (count + pad_rows - 1) // pad_rows * pad_rows
    values = x.new_empty((padded, SlidePattern(l or None).columns(columns)), dtype=to)
    return values, x.new_empty((padded, 1), dtype=torch.float32)


@triton.jit
def _quant_slide_rows(  # noqa: PLR0917
    x_ptr,
    values_ptr,
    scale_ptr,
    count,
    x_stride,
    PAIRS: tl.constexpr,
    WORDS: tl.constexpr,
    GROUP: tl.constexpr,
    WINDOWS: tl.constexpr,
    BLOCK: tl.constexpr,
    STEP: tl.constexpr,
    L: tl.constexpr,
    FP8: tl.constexpr,
    ON_GPU: tl.constexpr,
):
    """One row: its maximum, BLOCK pairs of columns at a time, then its windows."""
    row = tl.program_id(0).to(tl.int64)
    x_ptr += row * x_stride
    values_ptr += row * WORDS * 4
    if row >= count:
        tl.store(scale_ptr + row, 1.0)
        _nothing(values_ptr, WORDS, STEP)
    else:
        tops = tl.zeros((BLOCK,), tl.int32)
        for start in range(0, PAIRS, BLOCK):
            pair = start + tl.arange(0, BLOCK)
            tops = tl.maximum(tops, _top(x_ptr, pair, pair < PAIRS))
        scale = q.scale_of(_magnitude(tl.max(tops, axis=0), x_ptr.dtype.element_ty), L)
        tl.store(scale_ptr + row, scale)
        factor = q.factor_of(scale)
        if factor > 1:
            _slid(x_ptr, values_ptr, scale, factor, PAIRS, WORDS, GROUP, WINDOWS, STEP, FP8, ON_GPU)
        else:
            _slid(x_ptr, values_ptr, scale, None, PAIRS, WORDS, GROUP, WINDOWS, STEP, FP8, ON_GPU)


@triton.jit
def _nothing(values_ptr, WORDS: tl.constexpr, STEP: tl.constexpr):
    """A row of zeros."""
    words_ptr = values_ptr.to(tl.pointer_type(tl.int32))
    for start in range(0, WORDS, STEP):
        word = start + tl.arange(0, STEP)
        tl.store(words_ptr + word, tl.zeros((STEP,), tl.int32), mask=word < WORDS)


@triton.jit
def _slid(  # noqa: PLR0917
    x_ptr,
    values_ptr,
    scale,
    factor,
    PAIRS: tl.constexpr,
    WORDS: tl.constexpr,
    GROUP: tl.constexpr,
    WINDOWS: tl.constexpr,
    STEP: tl.constexpr,
    FP8: tl.constexpr,
    ON_GPU: tl.constexpr,
):
    """One row: after STEP groups of windows the same columns come again, so many pairs on."""
    if factor is not None:
        scale *= factor
    inverse = tl.div_rn(1.0, scale)
    # As far as all windows and the pair after each are there, nothing needs a mask.
    most: tl.constexpr = min(WORDS, (PAIRS * 2 // GROUP) * WINDOWS)
    full: tl.constexpr = most // (STEP * WINDOWS) if GROUP > 2 else 0
    for turn in tl.range(0, full, loop_unroll_factor=4):
        _turn(
            x_ptr,
            values_ptr,
            scale,
            inverse,
            factor,
            turn,
            PAIRS,
            WORDS,
            GROUP,
            WINDOWS,
            STEP,
            FP8,
            ON_GPU,
            False,
        )
    for turn in range(full, (WORDS + STEP * WINDOWS - 1) // (STEP * WINDOWS)):
        _turn(
            x_ptr,
            values_ptr,
            scale,
            inverse,
            factor,
            turn,
            PAIRS,
            WORDS,
            GROUP,
            WINDOWS,
            STEP,
            FP8,
            ON_GPU,
            True,
        )


@triton.jit
def _turn(  # noqa: PLR0917
    x_ptr,
    values_ptr,
    scale,
    inverse,
    factor,
    turn,
    PAIRS: tl.constexpr,
    WORDS: tl.constexpr,
    GROUP: tl.constexpr,
    WINDOWS: tl.constexpr,
    STEP: tl.constexpr,
    FP8: tl.constexpr,
    ON_GPU: tl.constexpr,
    MASKED: tl.constexpr,
):
    """STEP groups of WINDOWS windows, each two pairs of columns."""
    loaded = ()  # all of them before anything is stored, since loads do not pass stores
    for part in tl.static_range(WINDOWS):
        near = part * STEP + tl.arange(0, STEP)
        pair = near // WINDOWS * (GROUP // 2) + near % WINDOWS + turn * (STEP * GROUP // 2)
        if MASKED:
            inside = near + turn * (STEP * WINDOWS) < WORDS
            a, b = _pair(x_ptr, pair, inside & (pair < PAIRS))
            c, d = _pair(x_ptr, pair + 1, inside & (pair + 1 < PAIRS) & (GROUP > 2))
        else:
            a, b = _pair(x_ptr, pair, None)
            c, d = _pair(x_ptr, pair + 1, None)
        x = tl.reshape(tl.join(tl.join(a, c), tl.join(b, d)), (STEP, 4))
        loaded = loaded + (x,)  # type: ignore[assignment]  # noqa: RUF005 (Triton unpacks nothing)
    for part in tl.static_range(WINDOWS):
        x = loaded[part]
        if factor is not None:
            x *= factor
        value = q.quantised(x, scale, inverse, FP8, ON_GPU)
        window = turn * (STEP * WINDOWS) + part * STEP + tl.arange(0, STEP)
        at = values_ptr + window[:, None] * 4 + tl.arange(0, 4)[None, :]
        if MASKED:
            tl.store(at, value, mask=(window < WORDS)[:, None])
        else:
            tl.store(at, value)


@triton.jit
def _pair(x_ptr, pair, inside):
    """Two neighbours in a row, in fp32: those of 16 bits are loaded, and widened, as one word."""
    dtype: tl.constexpr = x_ptr.dtype.element_ty
    if dtype == tl.float32:
        low = _load(x_ptr + 2 * pair, inside)
        high = _load(x_ptr + 2 * pair + 1, inside)
    else:
        word = _load(x_ptr.to(tl.pointer_type(tl.int32)) + pair, inside)
        if dtype == tl.bfloat16:
            low = (word << 16).to(tl.float32, bitcast=True)
            high = (word & -0x10000).to(tl.float32, bitcast=True)
        else:
            low = word.to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32)
            high = (word >> 16).to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32)
    return low, high


@triton.jit
def _load(at, inside):
    return tl.load(at) if inside is None else tl.load(at, mask=inside, other=0)


@triton.jit
def _top(x_ptr, pair, inside):
    """The larger magnitude of two neighbours: in the upper half, where they have 16 bits."""
    if x_ptr.dtype.element_ty == tl.float32:
        low, high = _pair(x_ptr, pair, inside)
        top = tl.maximum(q.magnitude(low), q.magnitude(high))
    else:
        word = _load(x_ptr.to(tl.pointer_type(tl.int32)) + pair, inside)
        word &= 0x7FFF7FFF
        top = tl.maximum(word, word << 16)
    return top


@triton.jit
def _magnitude(top, dtype: tl.constexpr):
    """What `_top` found, as `q.magnitude` of fp32."""
    if dtype == tl.bfloat16:
        top &= -0x10000
    elif dtype == tl.float16:
        top = q.magnitude((top >> 16).to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32))
    return top


@functools.cache
def _key(columns: int, pattern: SlidePattern, dtype: torch.dtype) -> str:
    return f"columns={columns} {pattern} {str(dtype).removeprefix('torch.')}"


@functools.cache
def _default(columns: int) -> Config:
    # Rows that are worked on at the same time should fit into the 256 KB of L1.
    warps = 4 if columns <= 4096 else 8 if columns <= 12288 else 16
    return {"block": min(512 * warps, 4096), "step": 32 * warps, "num_warps": warps}


# What the bench knows of it.


def _work(to: str) -> Callable[[Shape, str], Work]:
    def work(shape: Shape, dtype: str) -> Work:
        rows, columns = shape["rows"], shape["columns"]
        wide = _pattern(shape).columns(columns)
        moved = rows * (columns * q.TORCH[dtype].itemsize + wide * q.TORCH[to].itemsize) + 4 * rows
        return Work("quant", flops=4 * rows * columns, bytes=moved, matmul=False)

    return work


def _pattern(shape: Shape) -> SlidePattern:
    return SlidePattern(shape["of"] or None)


def reference(x: Tensor, pattern: SlidePattern, to: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return the slid values and the scales by plain PyTorch, bit by bit what the kernel gives."""
    values, scale = q.reference(x, to)
    return slid(values, pattern), scale


def _plain(x: Tensor, pattern: SlidePattern, to: torch.dtype) -> tuple[Tensor, Tensor]:
    values, scale = q.plain(x, to)
    return slid(values, pattern), scale


def _inputs(shape: Shape, dtype: str, device: str, seed: int) -> Tensors:
    return {"x": q.random_rows(shape["rows"], shape["columns"], dtype, device, seed)}


def _named(result: tuple[Tensor, Tensor]) -> Tensors:
    return {"values": result[0], "scale": result[1]}


def _implementations(to: torch.dtype) -> dict[str, Implementation]:
    def ours(inputs: Tensors, shape: Shape) -> Callable[[], Tensors]:
        pattern = _pattern(shape)
        return lambda: _named(quant_slide(inputs["x"], pattern, to))

    def eager(inputs: Tensors, shape: Shape) -> Callable[[], Tensors]:
        pattern = _pattern(shape)
        return lambda: _named(_plain(inputs["x"], pattern, to))

    def compiled(inputs: Tensors, shape: Shape) -> Callable[[], Tensors]:
        pattern = _pattern(shape)
        function = torch.compile(_plain, dynamic=False)
        function(inputs["x"], pattern, to)
        return lambda: _named(function(inputs["x"], pattern, to))

    return {
        OURS: Implementation("quant_slide", ours),
        "eager": Implementation("quantising and indexing in PyTorch", eager),
        "compile": Implementation("the same by torch.compile", compiled),
    }


def _operation(to: str) -> Operation:
    return Operation(
        work=_work(to),
        inputs=_inputs,
        reference=lambda inputs, shape: _named(
            reference(inputs["x"], _pattern(shape), q.TORCH[to])
        ),
        implementations=_implementations(q.TORCH[to]),
        tolerance=dict.fromkeys(("bf16", "fp16", "fp32"), q.NEAR),
    )


def _coarse(_shape: Shape, _dtype: str) -> Iterable[Config]:
    for warps in (2, 4, 8, 16):
        for block in (1024, 2048, 4096):
            yield {"block": block, "step": 32 * warps, "num_warps": warps}


def _tuning() -> Tuning:
    return Tuning(
        key=lambda shape, dtype: _key(shape["columns"], _pattern(shape), q.TORCH[dtype]),
        default=lambda shape, _dtype: _default(shape["columns"]),
        coarse=_coarse,
    )


KERNEL = Kernel(
    axes={"rows": None, "columns": None, "of": 8},
    shapes=(
        {"rows": 16384, "columns": 8192, "of": 8},
        {"rows": 32768, "columns": 3584, "of": 8},
        {"rows": 65536, "columns": 18944, "of": 8},
        {"rows": 16384, "columns": 8192, "of": 6},
        {"rows": 16384, "columns": 8192, "of": 10},
        {"rows": 64, "columns": 8192, "of": 8},
        {"rows": 1823, "columns": 781, "of": 8},
    ),
    dtypes=("bf16", "fp16", "fp32"),
    operations={"int8": _operation("int8"), "fp8": _operation("fp8")},
    tuning={"int8": _tuning(), "fp8": _tuning()},
    function=lambda: quant_slide,
)
