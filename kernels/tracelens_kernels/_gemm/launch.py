"""How the kernels for Hopper are launched: descriptors, and copies where TMA needs them."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import torch
import triton
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from tracelens_kernels._gemm import gated as gated_kernels
from tracelens_kernels._gemm import hopper, paths, portable

if TYPE_CHECKING:
    from torch import Tensor

    from tracelens.kernel import Config

_DENSE: Final = portable.DENSE.value
_ROWS: Final = portable.ROWS.value
_INNER: Final = portable.INNER.value

_DTYPES: Final = {
    torch.bfloat16: gl.bfloat16,
    torch.float16: gl.float16,
    torch.float32: gl.float32,
    torch.float8_e4m3fn: gl.float8e4nv,
    torch.float8_e5m2: gl.float8e5,
}
# Tensor cores take fp8 with the summed axis contiguous alone, and a group's end is cleared by rows.
_LEFT: Final = {(_DENSE, 1): paths.STRAIGHT, (_INNER, 2): paths.TURNED}
_RIGHT: Final = {(_DENSE, 1): paths.TURNED, (_INNER, 2): paths.STRAIGHT}
_CONSTANTS: Final = ("SPLIT", "STAGES", "BLOCK_M", "BLOCK_N", "BLOCK_K", "GROUP_M")
_MOST_LAUNCHES: Final = 4096


class _Blocks(NamedTuple):
    """What a compiled kernel asks of a tensor that it reads or writes in blocks."""

    base: Tensor
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    padding: str = "zero"


class _Launch(NamedTuple):
    """A compiled kernel and what it is launched with, whatever the tensors hold."""

    kernel: Any
    grid: tuple[int, int, int]
    constants: tuple[Any, ...]


_launches: dict[tuple[Any, ...], _Launch] = {}


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
    _run(_DENSE, a, b, out, None, config, bias=bias, scales=scales, fast=fast)


def grouped(a: Tensor, b: Tensor, offsets: Tensor, out: Tensor, config: Config) -> None:
    """Write a[rows of g] @ b[g] to the same rows of out; rows past the last group become 0."""
    _run(_ROWS, a, b, out, offsets, config)


def grouped_inner(a: Tensor, b: Tensor, offsets: Tensor, out: Tensor, config: Config) -> None:
    """Write a[:, columns of g] @ b[rows of g] to out[g].

    A NaN in the first rows of a group reaches the group before it, too.
    """
    _run(_INNER, a, b, out, offsets, config)


def gated(  # noqa: PLR0917
    x: Tensor,
    w_gate: Tensor,
    w_up: Tensor,
    offsets: Tensor,
    outs: tuple[Tensor, Tensor | None, Tensor | None],
    config: Config,
) -> None:
    """Write silu(gate) · up to the first of `outs`, and gate and up to the others, if any.

    Args:
        x: rows sorted by group.
        w_gate: [groups, K, N]; gate[rows of g] = x[rows of g] @ w_gate[g].
        w_up: likewise.
        offsets: the row after each group's last.
        outs: all of one size and format, contiguous.
        config: a tile of `paths.gated`.
    """
    x, _ = _readable(x, paths.STRAIGHT)
    gate, turned = _readable(w_gate)
    up, up_turned = _readable(w_up)
    if turned != up_turned:
        gate, up, turned = _copied(w_gate), _copied(w_up), False
    hidden = outs[0]
    numbers = (*hidden.shape, x.shape[1], len(offsets), hidden.stride(0))
    store = all(one is None or _stored(one) for one in outs)
    key = (
        numbers, turned, store, *config.values(), x.dtype, x.device,
        *[None if one is None else one.data_ptr() % paths.LINE_BYTES for one in (*outs, offsets)],
    )  # fmt: skip
    blocks = [_Blocks(one, one.shape, one.stride()) for one in (x, gate, up)]
    targets = [
        None if one is None or not store else _Blocks(one, one.shape, one.stride()) for one in outs
    ]
    with torch.cuda.device_of(x):
        if (launch := _launches.get(key)) is None:
            launch = _first_gated(blocks, targets, outs, offsets, numbers, turned, config)
            _remember(key, launch)
        else:
            launch.kernel[launch.grid](
                *blocks, *targets, *outs, offsets, *numbers, *launch.constants
            )


def _first_gated(  # noqa: PLR0917
    blocks: list[_Blocks],
    targets: list[_Blocks | None],
    outs: tuple[Tensor, Tensor | None, Tensor | None],
    offsets: Tensor,
    numbers: tuple[int, ...],
    turned: bool,
    config: Config,
) -> _Launch:
    """Compile, launch, and return what it takes to do so again."""
    high, wide, deep = config["BLOCK_M"], config["BLOCK_N"], config["BLOCK_K"]
    part = high // config["CONSUMERS"]
    rows, columns, _, groups, _ = numbers
    right = [1, wide, deep] if turned else [1, deep, wide]
    described = [
        _described(one.base, block)
        for one, block in zip(blocks, ([part, deep], right, right), strict=True)
    ]
    stored = [None if one is None else _described(one.base, [part, wide]) for one in targets]
    most = min(rows, rows // high + groups + 1) * triton.cdiv(columns, wide)
    grid = (min(most, _multiprocessors(offsets.device)), 1, 1)
    constants = {
        "SAVE": outs[1] is not None,
        "TURNED": turned,
        **{name: config[name] for name in ("CONSUMERS", "STAGES", *_CONSTANTS[-4:])},
    }
    kernel = gated_kernels.product[grid](
        *described, *stored, *outs, offsets, *numbers, **constants, num_warps=config["num_warps"]
    )
    return _Launch(kernel, grid, tuple(constants.values()))


def _run(  # noqa: PLR0917
    kind: int,
    a: Tensor,
    b: Tensor,
    out: Tensor,
    offsets: Tensor | None,
    config: Config,
    *,
    bias: Tensor | None = None,
    scales: tuple[Tensor, Tensor] | None = None,
    fast: bool = True,
) -> None:
    (rows, length), columns = a.shape, b.shape[-1]
    a, a_turned = _readable(a, _LEFT.get((kind, a.itemsize)))
    b, b_turned = _readable(b, _RIGHT.get((kind, a.itemsize)))
    scale_a, scale_b = scales or (None, None)
    pointers = (out, bias, scale_a, scale_b, offsets)
    numbers = (
        rows, columns, length, 0 if offsets is None else len(offsets),
        out.stride(0) if kind == _INNER else 0, out.stride(-2),
        0 if scale_a is None else scale_a.stride(0), 0 if scale_b is None else scale_b.stride(1),
    )  # fmt: skip
    store = _stored(out)
    key = (
        kind, a_turned, b_turned, fast, store, numbers, *config.values(), a.dtype, b.dtype,
        out.device,
        *[
            None if one is None else (one.dtype, one.data_ptr() % paths.LINE_BYTES)
            for one in pointers
        ],
    )  # fmt: skip
    blocks = [_Blocks(one, one.shape, one.stride()) for one in (a, b)]
    target = _Blocks(out, out.shape, out.stride()) if store else None
    with torch.cuda.device_of(a):
        if (launch := _launches.get(key)) is None:
            launch = _first_launch(
                kind, blocks, a_turned, b_turned, target, pointers, numbers, config, fast
            )
            _remember(key, launch)
        else:
            launch.kernel[launch.grid](*blocks, target, *pointers, *numbers, *launch.constants)


def _remember(key: tuple[Any, ...], launch: _Launch) -> None:
    if len(_launches) == _MOST_LAUNCHES:
        _launches.clear()
    _launches[key] = launch


def _first_launch(  # noqa: PLR0917
    kind: int,
    blocks: list[_Blocks],
    a_turned: bool,
    b_turned: bool,
    target: _Blocks | None,
    pointers: tuple[Tensor | None, ...],
    numbers: tuple[int, ...],
    config: Config,
    fast: bool,
) -> _Launch:
    """Compile, launch, and return what it takes to do so again."""
    rows, columns, _, groups, *_ = numbers
    high, wide, deep = config["BLOCK_M"], config["BLOCK_N"], config["BLOCK_K"]
    part = high // config["CONSUMERS"]
    left = [deep, part] if a_turned else [part, deep]
    right = [wide, deep] if b_turned else [deep, wide]
    piece = [part, wide // config["SPLIT"]]
    described = (
        _described(blocks[0].base, left),
        _described(blocks[1].base, [1, *right] if kind == _ROWS else right),
        target and _described(target.base, [1, *piece] if kind == _INNER else piece),
    )
    most = triton.cdiv(rows, high)
    if kind == _ROWS:  # each group, and what is left, may end in part of a tile
        most = min(rows, rows // high + groups + 1)
    if kind == _INNER:
        most *= groups
    most *= triton.cdiv(columns, wide)
    grid = (min(most, _multiprocessors(blocks[0].base.device)), 1, 1)
    constants = {
        "KIND": kind,
        "A_TURNED": a_turned,
        "B_TURNED": b_turned,
        "CONSUMERS": config["CONSUMERS"],
        "PROMOTE": not fast,
        **{name: config[name] for name in _CONSTANTS},
    }
    kernel = hopper.product[grid](
        *described, *pointers, *numbers, **constants, num_warps=config["num_warps"]
    )
    return _Launch(kernel, grid, tuple(constants.values()))


def _described(x: Tensor, block: list[int]) -> TensorDescriptor:
    """Describe a tensor to the hardware that copies blocks of it."""
    layout = gl.NVMMASharedLayout.get_default_for(block, _DTYPES[x.dtype])
    return TensorDescriptor.from_tensor(x, block, layout)


def _stored(out: Tensor) -> bool:
    """Tell whether TMA can write it."""
    return paths.way(out) == paths.STRAIGHT


def _readable(x: Tensor, wanted: int | None = None) -> tuple[Tensor, bool]:
    """Return what TMA can read of x, if need be a copy, and whether that is its transpose."""
    way = paths.way(x)
    if wanted is not None and way != wanted:
        way = paths.COPY
    if way == paths.STRAIGHT:
        return x, False
    if way == paths.TURNED:
        return x.mT, True
    return (_copied(x.mT), True) if wanted == paths.TURNED else (_copied(x), False)


def _copied(x: Tensor) -> Tensor:
    """Return a copy with rows that begin on multiples of 16 bytes."""
    per_line = paths.LINE_BYTES // x.itemsize
    width = x.shape[-1]
    padded = x.new_empty(*x.shape[:-1], triton.cdiv(width, per_line) * per_line)
    return padded[..., :width].copy_(x)


@functools.cache
def _multiprocessors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count
