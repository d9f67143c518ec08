r"""Backward pass of flash attention on Hopper: one warp loads by TMA, two warpgroups multiply.

With :math:`S = \mathrm{scale}\, Q K^T`, :math:`P = \exp(S - \mathrm{lse})`, :math:`O = P V` and the
gradient :math:`dO` of O (Dao, FlashAttention-2, arXiv:2307.08691; Shah et al., FlashAttention-3,
arXiv:2407.08608, whose division of work this is):

.. math::
    \delta &= \mathrm{rowsum}(dO \circ O), \quad dP = dO\, V^T, \quad dS = P \circ (dP - \delta) \\
    dV &= P^T dO, \quad dK = \mathrm{scale}\, dS^T Q, \quad dQ = \mathrm{scale}\, dS\, K

Three kernels:

1. `_prepare`: :math:`\delta`, and lse to base 2 (+inf for a query that sees nothing, and beyond the
   last query, so that its P is 0 without a mask), as the main kernel loads them; and zeros for dQ.
2. `_gradients`: a program keeps 128 keys, of which each of two warpgroups has 64, and goes through
   the blocks of queries, of all query heads that share the keys. It works on transposed products:
   :math:`S^T` and :math:`dP^T` leave the tensor cores with keys as rows, so that :math:`P^T` and
   :math:`dS^T` are operands of dV and dK right from registers; dS alone passes through shared
   memory, for dQ. dQ is added up in fp32 in global memory, by vector reductions.
   The product S of the next block is begun before dK of this one, so that the tensor cores are
   busy while exponentials are taken.
3. `_finish`: dQ, scaled, in the format of q.

Accumulators are fp32; P and dS are rounded to the format of the inputs before they are multiplied.
dK and dV are added up in a fixed order; **dQ is not: its last bits differ between runs**, since
programs add to it in the order in which they come.
Memory beside the gradients: 4 bytes per element of q, 8 per query and head.
"""

from __future__ import annotations

import contextlib
import functools
import math
from typing import TYPE_CHECKING, Any, Final

import torch
import triton
import triton.language as tl
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language import NVMMASharedLayout
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_init,
    warpgroup_mma_wait,
)
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from tracelens_kernels import _checks, _configs

if TYPE_CHECKING:
    from torch import Tensor

    from tracelens.kernel import Config

# device code is typed by Triton
# pyright: reportAssignmentType=false, reportGeneralTypeIssues=false, reportInvalidTypeForm=false

HEAD_DIMS: Final = (64, 128)
_DTYPES: Final = (torch.float16, torch.bfloat16)
_LOG2E: Final = math.log2(math.e)
_BLOCK_N: Final = 128
_WARPS: Final = 8
_LOADER_REGISTERS: Final = 24
_L2_BYTES: Final = 48_000_000
"""What the heads that are worked on at a time may take of the L2 cache."""

_TILE: Final = NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=16, rank=4)
_ROW: Final = NVMMASharedLayout(swizzle_byte_width=0, element_bitwidth=32, rank=1)


def why_not(q: Tensor, k: Tensor, v: Tensor, *, causal: bool) -> str:  # noqa: ARG001 (either is done)
    """Return why `backward` cannot do these inputs, or ""."""
    if not _checks.is_hopper(q.device):
        return "it is written for compute capability 9.0"
    if reason := _checks.unknown_triton():
        return reason
    if q.dtype not in _DTYPES:
        return f"it does float16 and bfloat16, and not {q.dtype}"
    if q.shape[-1] not in HEAD_DIMS:
        return f"it does head dims {HEAD_DIMS}, and not {q.shape[-1]}"
    if not all(_loadable(one) for one in (q, k, v)):
        return "TMA loads tensors with a last stride of 1 and others of a multiple of 16 bytes"
    rows = q.shape[0] * q.shape[1] * (q.shape[2] + 128)
    if max(rows, k.shape[0] * k.shape[1] * k.shape[2]) >= 2**29:
        return "it counts rows in 32 bits"
    return ""


def backward(  # noqa: PLR0917
    do: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    o: Tensor,
    lse: Tensor,
    *,
    causal: bool,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of q, k and v, in their formats and layouts.

    Key j is visible to query i unless `causal` and j > i + Sk - Sq.

    Args:
        do: gradient of o [B, H, Sq, D]; made contiguous where TMA cannot load it.
        q: [B, H, Sq, D], what `why_not` accepts; so are k and v.
        k: [B, Hkv, Sk, D], H a multiple of Hkv: consecutive query heads share keys.
        v: as k.
        o: output of the forward pass; made contiguous likewise.
        lse: [B, H, Sq], fp32: natural logarithm of the sum of exp(scale·q·k), -inf for a query that
            sees no key; its gradients are 0.
        causal: see above.
        scale: of the products of queries and keys.
    """
    batches, heads, queries, head_dim = q.shape
    kv_heads, keys = k.shape[1:3]
    group = heads // kv_heads
    o, do = (one if _loadable(one) else one.contiguous() for one in (o, do))
    config = config_of(head_dim, q.dtype, causal=causal)
    block, *other = (config[name] for name in ("BLOCK_M", "STAGES", "LATE", "STAGGER"))
    blocks, key_blocks = -(-queries // block), -(-keys // _BLOCK_N)
    pieces = batches * heads * blocks
    sums = torch.empty(pieces * block * head_dim, dtype=torch.float32, device=q.device)
    rows = torch.empty(pieces * block * 2, dtype=torch.float32, device=q.device)
    dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
    few, many = [1, 1, block, head_dim], [1, 1, _BLOCK_N, head_dim]
    prepared = (
        o, do, lse.contiguous(), rows, sums, queries, blocks, heads,
        *_eighths(o), *_eighths(do), block, head_dim,
    )  # fmt: skip
    given = (
        _described(q, few), _described(do, few), _described(k, many), _described(v, many),
        _made(rows, [rows.numel()], [1], [2 * block], _ROW),
        _described(dk, many), _described(dv, many), sums,
        heads, kv_heads, blocks, key_blocks, keys, keys - queries,
        _at_once(batches * kv_heads, queries * head_dim * group),
        float(scale), float(scale) * _LOG2E, 0,
        causal, group, block, _BLOCK_N, head_dim, *other, _LOADER_REGISTERS,
    )  # fmt: skip
    finished = (
        sums, dq, queries, blocks, heads, *_eighths(dq), float(scale), block, head_dim, _WARPS,
    )  # fmt: skip
    programs = batches * kv_heads * key_blocks
    with _on(q.device):
        key = (q.device.index, q.dtype, head_dim, group, causal, block, *other)
        if (compiled := _compiled.get(key)) is None:
            _compiled[key] = (
                _prepare[pieces, 1, 1](*prepared),
                _gradients[programs, 1, 1](*given, num_warps=_WARPS),
                _finish[pieces, 1, 1](*finished, num_warps=_WARPS),
            )
        else:
            prepare, gradients, finish = compiled
            prepare[pieces, 1, 1](*prepared)
            gradients[programs, 1, 1](*given)
            finish[pieces, 1, 1](*finished)
    return dq, dk, dv


def config_of(head_dim: int, dtype: torch.dtype, *, causal: bool) -> Config:
    """Return the configuration of the main kernel.

    `BLOCK_M`: queries of a block (64; 128 needs more registers than there are); `STAGES`: blocks of
    queries in shared memory; `LATE`: whether dK of one block may still be under way when
    exponentials of the next are taken (which needs 16 registers more); `STAGGER`: whether programs
    begin with different queries, so that fewer of them add to the same part of dQ at a time.
    """
    default = {"BLOCK_M": 64, "STAGES": 3, "LATE": 0, "STAGGER": int(not causal)}
    if head_dim == 64:
        default = {"BLOCK_M": 64, "STAGES": 3, "LATE": 1, "STAGGER": 0}
    key = key_of(head_dim, dtype, causal=causal)
    config = _configs.chosen("flash_attention", "backward", key, default)
    return config if config.keys() == default.keys() else default


def key_of(head_dim: int, dtype: torch.dtype, *, causal: bool) -> str:
    """Return what a tuned configuration is kept under."""
    name = str(dtype).removeprefix("torch.")
    return f"hopper head_dim={head_dim} {name}{' causal' if causal else ''}"


_compiled: Final[dict[Any, tuple[Any, Any, Any]]] = {}
"""The three kernels by all that they are compiled for: to have Triton find them takes 60 µs."""


def _on(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Return a context in which kernels are launched on a device."""
    if device.index != torch.cuda.current_device():
        return torch.cuda.device(device)
    return contextlib.nullcontext()


def _loadable(one: Tensor) -> bool:
    """Tell whether TMA can load a tensor [B, H, S, D]."""
    if one.stride(-1) != 1 or one.data_ptr() % 16 != 0:
        return False
    return all(
        size == 1 or (stride > 0 and stride % 8 == 0)
        for size, stride in zip(one.shape[:3], one.stride()[:3], strict=True)
    )


def _eighths(one: Tensor) -> tuple[int, int, int]:
    """Return the strides of a tensor [B, H, S, D] but the last, in units of 8 elements.

    So the kernels know that they are multiples of it, whatever the tensor.
    """
    batch, head, row, _ = one.stride()
    return batch // 8, head // 8, row // 8


def _described(one: Tensor, block: list[int]) -> TensorDescriptor:
    """Return what TMA has to know of a tensor; a stride that is never taken is made up."""
    strides = list(one.stride())
    if 1 in one.shape:
        strides = [
            8 if size == 1 else stride for size, stride in zip(one.shape, strides, strict=True)
        ]
    return _made(one, list(one.shape), strides, block, _TILE)


def _made(
    base: Tensor,
    shape: list[int],
    strides: list[int],
    block: list[int],
    layout: NVMMASharedLayout,
) -> TensorDescriptor:
    """Return a descriptor whose parts need no check, which would take 4 µs."""
    made = object.__new__(TensorDescriptor)
    made.base, made.shape, made.strides, made.block_shape = base, shape, strides, block
    made.layout, made.padding = layout, "zero"
    return made


@functools.lru_cache(maxsize=1024)
def _at_once(heads: int, elements: int) -> int:
    """Return how many heads of keys are worked on at a time: q, do and the sums of dq stay in L2.

    Args:
        heads: of keys, in all; the result divides them.
        elements: of q that go with one of them.
    """
    fitting = max(1, _L2_BYTES // (8 * elements))
    return next(count for count in range(min(heads, fitting), 0, -1) if heads % count == 0)


_SIZES: Final = (
    "queries", "keys", "heads", "kv_heads", "blocks", "key_blocks", "shift", "at_once", "zero",
    "o_batch", "o_head", "o_row", "do_batch", "do_head", "do_row", "dq_batch", "dq_head", "dq_row",
    "scale", "scale_log2",
)  # fmt: skip
"""Arguments whose values the kernels are not compiled for."""


@triton.jit(do_not_specialize=_SIZES, do_not_specialize_on_alignment=("lse_ptr",))
def _prepare(  # noqa: PLR0917
    o_ptr, do_ptr, lse_ptr, rows_ptr, sums_ptr, queries, blocks, heads,
    o_batch: tl.int64, o_head: tl.int64, o_row: tl.int64,
    do_batch: tl.int64, do_head: tl.int64, do_row: tl.int64,
    BLOCK: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    # read 2 tiles of D columns, lse ; write 4-byte zeros for a tile, 2 numbers per row
    piece = tl.program_id(0).to(tl.int64)
    head = piece // blocks
    row = (piece % blocks) * BLOCK + tl.arange(0, BLOCK)
    column = tl.arange(0, D)
    live = row < queries
    o_ptr += ((head // heads) * o_batch + (head % heads) * o_head) * 8
    do_ptr += ((head // heads) * do_batch + (head % heads) * do_head) * 8
    o = tl.load(o_ptr + row[:, None] * (o_row * 8) + column[None, :], mask=live[:, None], other=0.0)
    do = tl.load(
        do_ptr + row[:, None] * (do_row * 8) + column[None, :], mask=live[:, None], other=0.0
    )
    delta = tl.sum(o.to(tl.float32) * do.to(tl.float32), 1)
    lse = tl.load(lse_ptr + head * queries + row, mask=live, other=float("-inf"))
    blind = lse == float("-inf")
    rows_ptr += piece * (2 * BLOCK) + tl.arange(0, BLOCK)
    tl.store(rows_ptr, tl.where(blind, float("inf"), lse * 1.4426950408889634))
    tl.store(rows_ptr + BLOCK, tl.where(blind, 0.0, delta))
    sums_ptr += piece * (BLOCK * D) + tl.arange(0, BLOCK * D)
    tl.store(sums_ptr, tl.zeros((BLOCK * D,), tl.float32))


@gluon.jit
def _places(BLOCK: gl.constexpr, D: gl.constexpr, LAYOUT: gl.constexpr):
    """Return where the sums of dq keep each element: a part per thread, and a part per register.

    Four numbers that a thread holds in a row are side by side, and threads are, too.
    """
    ACROSS: gl.constexpr = 512 // (BLOCK * 4)  # warps side by side in a row
    COLUMNS: gl.constexpr = D // ACROSS
    row = gl.arange(0, BLOCK, gl.SliceLayout(1, LAYOUT))[:, None]
    column = gl.arange(0, D, gl.SliceLayout(0, LAYOUT))[None, :]
    four = (column & 1) | ((row >> 3) & 1) << 1
    lane = ((column >> 1) & 3) << 2 | (row & 7) << 4
    warp = (column // COLUMNS + (row >> 4) * ACROSS) << 7
    return (four | lane) + warp, ((column % COLUMNS) >> 3) * 1024


@gluon.jit
def _add(pointers, values):
    """Add to fp32 numbers in global memory, four at a time."""
    gl.inline_asm_elementwise(
        "red.relaxed.gpu.global.add.v4.f32 [$4], {$8, $9, $10, $11};"
        "mov.b32 $0, 0; mov.b32 $1, 0; mov.b32 $2, 0; mov.b32 $3, 0;",
        "=r,=r,=r,=r,l,l,l,l,f,f,f,f",
        [pointers.to(gl.int64), values],
        dtype=gl.int32,
        is_pure=False,
        pack=4,
    )


@gluon.constexpr_function
def _accumulator(BLOCK, D):
    """Return how 8 warps hold dq of a block of queries."""
    if BLOCK == 64:
        return gl.NVMMADistributedLayout([3, 0], [4, 2], [16, D // 2, 16])
    return gl.NVMMADistributedLayout([3, 0], [8, 1], [16, D, 16])


@gluon.jit
def _place(  # noqa: PLR0917
    kv_heads, blocks, key_blocks, shift, at_once,
    CAUSAL: gl.constexpr, BLOCK_M: gl.constexpr, BLOCK_N: gl.constexpr,
):  # fmt: skip
    """Return what a program does: batch, head and block of keys; its first block of queries.

    Those with most to do come first, and `at_once` heads before the next.
    """
    program = gl.program_id(0)
    rest = program % (at_once * key_blocks)
    n = rest // at_once
    head = program // (at_once * key_blocks) * at_once + rest % at_once
    first = 0
    if CAUSAL:
        # keys that no query sees have one block of queries, masked
        first = gl.minimum(gl.maximum(n * BLOCK_N - shift, 0) // BLOCK_M, blocks - 1)
    return head // kv_heads, head % kv_heads, n, first


@gluon.jit
def _turn(i, n, first, blocks, STAGGER: gl.constexpr):
    """Return the block of queries that comes i-th for a block of keys, of those from `first` on."""
    m = first + i
    if STAGGER:
        m += n % (blocks - first)
        if m >= blocks:
            m -= blocks - first
    return m


@gluon.jit
def _load(  # noqa: PLR0917
    q_desc, do_desc, k_desc, v_desc, rows_desc, k_smem, v_smem, q_smem, do_smem, rows_smem,
    kept, q_ready, do_ready, free, heads, kv_heads, blocks, key_blocks, shift, at_once,
    CAUSAL: gl.constexpr, GROUP: gl.constexpr, BLOCK_M: gl.constexpr, BLOCK_N: gl.constexpr,
    D: gl.constexpr, STAGES: gl.constexpr, STAGGER: gl.constexpr,
):  # fmt: skip
    """Bring keys and values, then blocks of queries, one after another where there is room."""
    b, kv_head, n, first = _place(
        kv_heads, blocks, key_blocks, shift, at_once, CAUSAL, BLOCK_M, BLOCK_N
    )
    mbarrier.expect(kept, 2 * BLOCK_N * D * 2)
    tma.async_copy_global_to_shared(k_desc, [b, kv_head, n * BLOCK_N, 0], kept, k_smem.index(0))
    tma.async_copy_global_to_shared(v_desc, [b, kv_head, n * BLOCK_N, 0], kept, v_smem.index(0))
    stage = 0
    phase = 1
    for member in range(GROUP):
        head = kv_head * GROUP + member
        piece = (b * heads + head) * blocks
        for turn in range(blocks - first):
            m = _turn(turn, n, first, blocks, STAGGER)
            mbarrier.wait(free.index(stage), phase)
            at = [b, head, m * BLOCK_M, 0]
            ready = q_ready.index(stage)
            mbarrier.expect(ready, BLOCK_M * D * 2 + BLOCK_M * 2 * 4)
            tma.async_copy_global_to_shared(q_desc, at, ready, q_smem.index(stage))
            at_rows = [(piece + m) * (2 * BLOCK_M)]
            tma.async_copy_global_to_shared(rows_desc, at_rows, ready, rows_smem.index(stage))
            ready = do_ready.index(stage)
            mbarrier.expect(ready, BLOCK_M * D * 2)
            tma.async_copy_global_to_shared(do_desc, at, ready, do_smem.index(stage))
            stage += 1
            if stage == STAGES:
                stage = 0
                phase ^= 1


@gluon.jit
def _multiply(  # noqa: PLR0917
    dk_desc, dv_desc, sums_ptr, k_smem, v_smem, q_smem, do_smem, rows_smem, ds_smem,
    kept, q_ready, do_ready, free, heads, kv_heads, blocks, key_blocks, keys, shift, at_once,
    scale, scale_log2, zero,
    CAUSAL: gl.constexpr, GROUP: gl.constexpr, BLOCK_M: gl.constexpr, BLOCK_N: gl.constexpr,
    D: gl.constexpr, STAGES: gl.constexpr, LATE: gl.constexpr, STAGGER: gl.constexpr,
):  # fmt: skip
    dtype: gl.constexpr = dk_desc.dtype
    S: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [8, 1], [16, BLOCK_M, 16])
    KV: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [8, 1], [16, D, 16])
    LEFT: gl.constexpr = gl.DotOperandLayout(0, KV, 2)
    QUERY: gl.constexpr = gl.SliceLayout(0, S)
    DQ: gl.constexpr = _accumulator(BLOCK_M, D)
    b, kv_head, n, first = _place(
        kv_heads, blocks, key_blocks, shift, at_once, CAUSAL, BLOCK_M, BLOCK_N
    )
    count = blocks - first
    total = count * GROUP
    # A loop that may not be entered would set dk where the last products are still under way:
    # ptxas then waits after each one.
    gl.assume(total > 0)
    key = n * BLOCK_N + gl.arange(0, BLOCK_N, gl.SliceLayout(1, S))
    query = gl.arange(0, BLOCK_M, QUERY)
    part, register = _places(BLOCK_M, D, DQ)
    no_s = gl.zeros([BLOCK_N, BLOCK_M], gl.float32, S)
    no_dq = gl.zeros([BLOCK_M, D], gl.float32, DQ)
    dk = warpgroup_mma_init(gl.zeros([BLOCK_N, D], gl.float32, KV))
    dv = warpgroup_mma_init(gl.zeros([BLOCK_N, D], gl.float32, KV))

    mbarrier.wait(kept, 0)
    mbarrier.wait(q_ready.index(0), 0)
    k = k_smem.index(0).reshape([BLOCK_N, D])
    v = v_smem.index(0).reshape([BLOCK_N, D])
    q = q_smem.index(0).reshape([BLOCK_M, D])
    s = warpgroup_mma(k, q.permute((1, 0)), no_s, use_acc=False)

    stage = 0
    phase = 0
    same = 0
    for i in range(total):
        member = 0
        if GROUP > 1:
            member = i // count
        head = kv_head * GROUP + member
        m = _turn(i - member * count, n, first, blocks, STAGGER)
        next_stage = stage + 1
        next_phase = phase
        if next_stage == STAGES:
            next_stage = 0
            next_phase ^= 1
        # `same` stays 0, which only we know: else addresses of every operand would be worked out
        # before the loop, and kept in 50 registers that there are not.
        same += zero
        k_now = k_smem.index(same).reshape([BLOCK_N, D])
        v_now = v_smem.index(same).reshape([BLOCK_N, D])
        ds_now = ds_smem.index(same)
        q = q_smem.index(stage).reshape([BLOCK_M, D])
        do = do_smem.index(stage).reshape([BLOCK_M, D])

        mbarrier.wait(do_ready.index(stage), phase)
        dp = warpgroup_mma(v_now, do.permute((1, 0)), no_s, use_acc=False, is_async=True)
        lse = rows_smem.index(stage).slice(0, BLOCK_M).load(QUERY)
        s = s * scale_log2 - lse[None, :]
        masked = (n + 1) * BLOCK_N > keys
        if CAUSAL:
            masked = masked | ((n + 1) * BLOCK_N - 1 > m * BLOCK_M + shift)
        if masked:
            seen = (key < keys)[:, None]
            if CAUSAL:
                seen = seen & (key[:, None] <= (m * BLOCK_M + shift + query)[None, :])
            s = gl.where(seen, s, float("-inf"))
        p = gl.exp2(s)
        dv = warpgroup_mma(gl.convert_layout(p.to(dtype), LEFT), do, dv, is_async=True)
        delta = rows_smem.index(stage).slice(BLOCK_M, BLOCK_M).load(QUERY)
        dp = warpgroup_mma_wait(1, [dp])
        ds = (p * (dp - delta[None, :])).to(dtype)
        gl.thread_barrier()
        if LATE:
            # all warps are through with what the block before this one read
            before = stage - 1
            if before < 0:
                before = STAGES - 1
            mbarrier.arrive(free.index(before), pred=i > 0)
        ds_now.store(ds)
        fence_async_shared()
        gl.thread_barrier()
        dv = warpgroup_mma_init(warpgroup_mma_wait(0, [dv]))
        dq = warpgroup_mma(ds_now.permute((1, 0)), k_now, no_dq, use_acc=False, is_async=True)
        mbarrier.wait(q_ready.index(next_stage), next_phase, pred=i + 1 < total)
        q_next = q_smem.index(next_stage).reshape([BLOCK_M, D])
        s = warpgroup_mma(k_now, q_next.permute((1, 0)), no_s, use_acc=False, is_async=True)
        dk = warpgroup_mma(gl.convert_layout(ds, LEFT), q, dk, is_async=True)
        dq = warpgroup_mma_wait(2, [dq])
        piece = ((b * heads + head) * blocks + m).to(gl.int64)
        _add(sums_ptr + piece * (BLOCK_M * D) + part + register, dq)
        if LATE:
            s = warpgroup_mma_wait(1, [s])
        else:
            s, dk = warpgroup_mma_wait(0, [s, dk])
            dk = warpgroup_mma_init(dk)
            gl.thread_barrier()
            mbarrier.arrive(free.index(stage))
        stage = next_stage
        phase = next_phase

    dk, dv = warpgroup_mma_wait(0, [dk, dv])
    gl.thread_barrier()
    k.store((dk * scale).to(dtype))
    v.store(dv.to(dtype))
    fence_async_shared()
    gl.thread_barrier()
    at = [b, kv_head, n * BLOCK_N, 0]
    tma.async_copy_shared_to_global(dk_desc, at, k_smem.index(0))
    tma.async_copy_shared_to_global(dv_desc, at, v_smem.index(0))
    tma.store_wait(0)


@gluon.jit(do_not_specialize=_SIZES)
def _gradients(  # noqa: PLR0917
    q_desc, do_desc, k_desc, v_desc, rows_desc, dk_desc, dv_desc, sums_ptr,
    heads, kv_heads, blocks, key_blocks, keys, shift, at_once, scale, scale_log2, zero,
    CAUSAL: gl.constexpr, GROUP: gl.constexpr, BLOCK_M: gl.constexpr, BLOCK_N: gl.constexpr,
    D: gl.constexpr, STAGES: gl.constexpr, LATE: gl.constexpr, STAGGER: gl.constexpr,
    REGISTERS: gl.constexpr,
):  # fmt: skip
    # of a block of 128 keys: read K, V, write dK, dV ; of each block of queries that sees it:
    # read Q, dO, add 4-byte numbers to a tile of dQ
    dtype: gl.constexpr = q_desc.dtype
    DS: gl.constexpr = gl.NVMMASharedLayout.get_default_for([BLOCK_N, BLOCK_M], dtype)
    BARRIER: gl.constexpr = mbarrier.MBarrierLayout()
    k_smem = gl.allocate_shared_memory(dtype, [1, 1, 1, BLOCK_N, D], k_desc.layout)
    v_smem = gl.allocate_shared_memory(dtype, [1, 1, 1, BLOCK_N, D], v_desc.layout)
    q_smem = gl.allocate_shared_memory(dtype, [STAGES, 1, 1, BLOCK_M, D], q_desc.layout)
    do_smem = gl.allocate_shared_memory(dtype, [STAGES, 1, 1, BLOCK_M, D], do_desc.layout)
    rows_smem = gl.allocate_shared_memory(gl.float32, [STAGES, 2 * BLOCK_M], rows_desc.layout)
    ds_smem = gl.allocate_shared_memory(dtype, [1, BLOCK_N, BLOCK_M], DS)
    kept = gl.allocate_shared_memory(gl.int64, [1], BARRIER)
    q_ready = gl.allocate_shared_memory(gl.int64, [STAGES, 1], BARRIER)
    do_ready = gl.allocate_shared_memory(gl.int64, [STAGES, 1], BARRIER)
    free = gl.allocate_shared_memory(gl.int64, [STAGES, 1], BARRIER)
    mbarrier.init(kept, count=1)
    for stage in gl.static_range(STAGES):
        mbarrier.init(q_ready.index(stage), count=1)
        mbarrier.init(do_ready.index(stage), count=1)
        mbarrier.init(free.index(stage), count=1)
    fence_async_shared()
    gl.thread_barrier()
    gl.warp_specialize(
        [
            (
                _multiply,
                (
                    dk_desc, dv_desc, sums_ptr, k_smem, v_smem, q_smem, do_smem, rows_smem, ds_smem,
                    kept, q_ready, do_ready, free, heads, kv_heads, blocks, key_blocks, keys, shift,
                    at_once, scale, scale_log2, zero, CAUSAL, GROUP, BLOCK_M, BLOCK_N, D, STAGES,
                    LATE, STAGGER,
                ),
            ),
            (
                _load,
                (
                    q_desc, do_desc, k_desc, v_desc, rows_desc, k_smem, v_smem, q_smem, do_smem,
                    rows_smem, kept, q_ready, do_ready, free, heads, kv_heads, blocks, key_blocks,
                    shift, at_once, CAUSAL, GROUP, BLOCK_M, BLOCK_N, D, STAGES, STAGGER,
                ),
            ),
        ],
        [1],
        [REGISTERS],
    )  # fmt: skip


@gluon.jit(do_not_specialize=_SIZES)
def _finish(  # noqa: PLR0917
    sums_ptr, dq_ptr, queries, blocks, heads,
    dq_batch: tl.int64, dq_head: tl.int64, dq_row: tl.int64, scale,
    BLOCK: gl.constexpr, D: gl.constexpr, WARPS: gl.constexpr,
):  # fmt: skip
    # read a tile of 4-byte numbers ; write one in the format of q
    SUMS: gl.constexpr = _accumulator(BLOCK, D)
    OUT: gl.constexpr = gl.BlockedLayout([1, 8], [256 // D, D // 8], [WARPS, 1], [1, 0])
    piece = gl.program_id(0).to(gl.int64)
    head = piece // blocks
    part, register = _places(BLOCK, D, SUMS)
    sums = gl.load(sums_ptr + piece * (BLOCK * D) + part + register)
    dq = gl.convert_layout((sums * scale).to(dq_ptr.dtype.element_ty), OUT)
    row = (piece % blocks) * BLOCK + gl.arange(0, BLOCK, gl.SliceLayout(1, OUT))
    column = gl.arange(0, D, gl.SliceLayout(0, OUT))
    dq_ptr += ((head // heads) * dq_batch + (head % heads) * dq_head) * 8
    live = row < queries
    gl.store(dq_ptr + row[:, None] * (dq_row * 8) + column[None, :], dq, mask=live[:, None])
