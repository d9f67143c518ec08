"""Attention forward on Hopper: one warp loads by TMA, warpgroups multiply and weigh in turns.

By the algorithm of FlashAttention-3 (J. Shah et al., arXiv:2407.08608). As many programs as the
GPU has multiprocessors take tiles of queries, the longest first, until there are none. A producer
warp fills rings of keys and values in shared memory, ahead of its consumers and across the ends of
tiles. Each consumer warpgroup has 64 queries of a tile: their scores, weights and sums never leave
its registers. It has the scores of a block of keys multiplied while the weights of the block before
are multiplied with the values, so that the tensor cores work while it exponentiates.

Shapes in names: a tile is ROWS * GROUPS queries of one head, a block BLOCK_N keys.
"""

# pyright: reportAssignmentType=false, reportGeneralTypeIssues=false
# ruff: noqa: E501, PLR0917 (device code passes on all that it works with)
from __future__ import annotations

import dataclasses
import itertools
import math
from typing import TYPE_CHECKING, Any, Final

import torch
import triton
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from tracelens_kernels import _checks, _configs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from tracelens.kernel import Config

_ROWS: Final = 64
"""Queries of a warpgroup: the rows of one wgmma."""

_LN2: gl.constexpr = gl.constexpr(math.log(2))


@gluon.jit
def _place(tile, tiles_m, heads, section, CAUSAL: gl.constexpr):
    """Return the head (of all batches) and the tile of queries that a number stands for.

    Where tiles differ in length, the longest of a section of heads come first; a section is
    those whose keys and values stay in the L2 cache together.
    """
    head = tile // tiles_m
    m = tile % tiles_m
    if CAUSAL:
        first = head // section * section
        wide = min(section, heads - first)
        inside = tile - first * tiles_m
        head = first + inside % wide
        m = tiles_m - 1 - inside // wide
    return head, m


@gluon.jit
def _blocks(m, queries, keys, CAUSAL: gl.constexpr, BLOCK_M: gl.constexpr, BLOCK_N: gl.constexpr):  # fmt: skip
    """Return how many blocks of keys a tile sees; one, all of it masked, if it sees none."""
    seen = keys
    if CAUSAL:
        seen = min(keys, (m + 1) * BLOCK_M + keys - queries)
    return max(gl.cdiv(seen, BLOCK_N), 1)


@gluon.jit
def _copy(desc, head, row, heads, ready, memory):
    """Copy one block to shared memory; rows beyond the end of the head become 0."""
    mbarrier.expect(ready, desc.block_type.nbytes)
    at = [head // heads, head % heads, row, 0]
    to = memory._reinterpret(memory.dtype, desc.block_type.shape, desc.layout)
    tma.async_copy_global_to_shared(desc, at, ready, to)


@gluon.jit
def _load(
    q_desc, k_desc, v_desc, q_ring, k_ring, v_ring, tile_ring, counter_ptr, sizes, heads, kv_heads,
    CAUSAL: gl.constexpr, GROUPS: gl.constexpr, STAGES: gl.constexpr,
):  # fmt: skip
    """Load the queries, keys and values of tile after tile, and say which tile is next."""
    q_memory, q_ready, q_free = q_ring
    k_memory, k_ready, k_free = k_ring
    v_memory, v_ready, v_free = v_ring
    tile_memory, tile_ready, tile_free = tile_ring
    tiles, tiles_m, section, all_heads, queries, keys = sizes
    ROWS: gl.constexpr = q_memory.shape[1]
    BLOCK_M: gl.constexpr = ROWS * GROUPS
    BLOCK_N: gl.constexpr = k_memory.shape[1]
    ONE: gl.constexpr = gl.BlockedLayout([1], [32], [1], [0])
    tile = gl.program_id(0)
    turn = 0
    step = 0
    while tile < tiles:
        following = gl.atomic_add(counter_ptr, 1, sem="relaxed") + gl.num_programs(0)
        head, m = _place(tile, tiles_m, all_heads, section, CAUSAL)
        kv_head = head // heads * kv_heads + head % heads // (heads // kv_heads)
        blocks = _blocks(m, queries, keys, CAUSAL, BLOCK_M, BLOCK_N)
        for group in gl.static_range(GROUPS):
            mbarrier.wait(q_free.index(group), turn & 1 ^ 1)
            _copy(q_desc, head, m * BLOCK_M + group * ROWS, heads, q_ready.index(group), q_memory.index(group))  # fmt: skip
        for i in range(blocks + 1):  # the values of a block are wanted after the keys of the next
            if i < blocks:
                stage = (step + i) % STAGES
                mbarrier.wait(k_free.index(stage), (step + i) // STAGES & 1 ^ 1)
                _copy(k_desc, kv_head, (blocks - 1 - i) * BLOCK_N, kv_heads, k_ready.index(stage), k_memory.index(stage))  # fmt: skip
            if i > 0:
                stage = (step + i - 1) % STAGES
                mbarrier.wait(v_free.index(stage), (step + i - 1) // STAGES & 1 ^ 1)
                _copy(v_desc, kv_head, (blocks - i) * BLOCK_N, kv_heads, v_ready.index(stage), v_memory.index(stage))  # fmt: skip
        step += blocks
        slot = turn % 2
        mbarrier.wait(tile_free.index(slot), turn // 2 & 1 ^ 1)
        tile_memory.index(slot).store(gl.full([1], 0, gl.int32, ONE) + following)
        mbarrier.arrive(tile_ready.index(slot))
        if following == tiles - 1 + gl.num_programs(0):  # nobody asks again: ready for the next
            gl.store(counter_ptr, 0)
        tile = following
        turn += 1


@gluon.jit
def _weigh(scores, top, total, scale, CAUSAL: gl.constexpr):
    """Return the weights of one block, and the running maximum and sums.

    What was summed before is to be multiplied by the last of them. Each thread sums what it has.

    Args:
        scores: [ROWS, BLOCK_N], not scaled.
        top: [ROWS], the largest score so far, or -inf.
        total: [ROWS, 8], the weights so far, by the column modulo 8.
        scale: of the scores, times log2(e): powers of 2 are what the hardware has.
        CAUSAL: rows may have seen nothing at all.
    """
    ROWS: gl.constexpr = scores.shape[0]
    BLOCK_N: gl.constexpr = scores.shape[1]
    top_before = top
    top = gl.maximum(top, gl.max(scores, 1))
    shift = top * scale
    if CAUSAL:
        shift = gl.where(top == float("-inf"), 0.0, shift)
    weights = gl.exp2(scores * scale - shift[:, None])
    fade = gl.exp2(top_before * scale - shift)
    part = gl.sum(weights.reshape([ROWS, BLOCK_N // 8, 8]), 1)
    total_fade = gl.convert_layout(fade, gl.SliceLayout(1, total.type.layout))
    total = total * total_fade[:, None] + gl.convert_layout(part, total.type.layout)
    return weights, top, total, fade


@gluon.jit
def _mask(scores, first, limit, LAYOUT: gl.constexpr):
    """Return scores with -inf for the keys at or beyond the limit of each row."""
    columns = first + gl.arange(0, scores.shape[1], gl.SliceLayout(0, LAYOUT))
    return gl.where(columns[None, :] < limit[:, None], scores, float("-inf"))


@gluon.jit
def _attend(
    o_desc, lse_ptr, q_ring, k_ring, v_ring, o_memory, tile_ring, sizes, heads, scale,
    GROUP: gl.constexpr, CAUSAL: gl.constexpr, GROUPS: gl.constexpr, STAGES: gl.constexpr,
    OVERLAP: gl.constexpr,
):  # fmt: skip
    """Give the attention of one warpgroup's rows of tile after tile."""
    q_memory, q_ready, q_free = q_ring
    k_memory, k_ready, k_free = k_ring
    v_memory, v_ready, v_free = v_ring
    tile_memory, tile_ready, tile_free = tile_ring
    tiles, tiles_m, section, all_heads, queries, keys = sizes
    ROWS: gl.constexpr = q_memory.shape[1]
    BLOCK_M: gl.constexpr = ROWS * GROUPS
    BLOCK_N: gl.constexpr = k_memory.shape[1]
    HEAD_DIM: gl.constexpr = v_memory.shape[2]
    DTYPE: gl.constexpr = v_memory.dtype
    SCORES: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, BLOCK_N, 16])
    OUT: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, HEAD_DIM, 16])
    PARTS: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 8, 16])
    WEIGHTS: gl.constexpr = gl.DotOperandLayout(0, OUT, 2)  # the registers that scores are in
    BY_ROW: gl.constexpr = gl.SliceLayout(1, SCORES)
    ONE: gl.constexpr = gl.BlockedLayout([1], [32], [4], [0])
    SHARED: gl.constexpr = HEAD_DIM > 128
    q = q_memory.index(GROUP)
    o = o_memory.index(GROUP)
    none = gl.zeros([ROWS, BLOCK_N], gl.float32, SCORES)
    tile = gl.program_id(0)
    turn = 0
    step = 0
    while tile < tiles:
        head, m = _place(tile, tiles_m, all_heads, section, CAUSAL)
        blocks = _blocks(m, queries, keys, CAUSAL, BLOCK_M, BLOCK_N)
        first_row = m * BLOCK_M + GROUP * ROWS
        row = first_row + gl.arange(0, ROWS, BY_ROW)
        limit = gl.zeros_like(row) + keys
        whole = keys // BLOCK_N  # blocks that every row sees all of
        if CAUSAL:
            limit = gl.minimum(limit, row + (keys - queries + 1))
            whole = gl.maximum(gl.minimum(keys, first_row + keys - queries + 1), 0) // BLOCK_N
        top = gl.full([ROWS], float("-inf"), gl.float32, BY_ROW)
        total = gl.zeros([ROWS, 8], gl.float32, PARTS)
        out = gl.zeros([ROWS, HEAD_DIM], gl.float32, OUT)

        mbarrier.wait(q_ready.index(GROUP), turn & 1)
        stage = step % STAGES
        mbarrier.wait(k_ready.index(stage), step // STAGES & 1)
        scores = warpgroup_mma(q, k_memory.index(stage).permute((1, 0)), none, use_acc=False, is_async=True)  # fmt: skip
        scores = warpgroup_mma_wait(0, deps=[scores])
        mbarrier.arrive(k_free.index(stage))
        if blocks > whole:
            scores = _mask(scores, (blocks - 1) * BLOCK_N, limit, SCORES)
        weights, top, total, fade = _weigh(scores, top, total, scale, CAUSAL)
        weights = gl.convert_layout(weights.to(DTYPE), WEIGHTS)

        for i in range(1, blocks):
            stage = (step + i) % STAGES
            before = (step + i - 1) % STAGES
            before_turn = (step + i - 1) // STAGES & 1
            mbarrier.wait(k_ready.index(stage), (step + i) // STAGES & 1)
            scores = warpgroup_mma(q, k_memory.index(stage).permute((1, 0)), none, use_acc=False, is_async=True)  # fmt: skip
            mbarrier.wait(v_ready.index(before), before_turn)
            out = warpgroup_mma(weights, v_memory.index(before), out, is_async=True)
            scores = warpgroup_mma_wait(1, deps=[scores])
            mbarrier.arrive(k_free.index(stage))
            if blocks - i > whole:
                scores = _mask(scores, (blocks - 1 - i) * BLOCK_N, limit, SCORES)
            next_weights, top, total, fade = _weigh(scores, top, total, scale, CAUSAL)
            if OVERLAP:
                # It has long passed, but ptxas moves no wait for products across a branch: left
                # to itself it waits first and exponentiates then.
                mbarrier.wait(v_ready.index(before), before_turn)
            out, weights = warpgroup_mma_wait(0, deps=[out, weights])
            mbarrier.arrive(v_free.index(before))
            weights = gl.convert_layout(next_weights.to(DTYPE), WEIGHTS)
            out *= gl.convert_layout(fade, gl.SliceLayout(1, OUT))[:, None]

        step += blocks
        if not SHARED:
            mbarrier.arrive(q_free.index(GROUP))
        stage = (step - 1) % STAGES
        mbarrier.wait(v_ready.index(stage), (step - 1) // STAGES & 1)
        out = warpgroup_mma(weights, v_memory.index(stage), out, is_async=True)
        sums = gl.convert_layout(gl.sum(total, 1), BY_ROW)
        blind = sums == 0.0
        lse = gl.where(blind, float("-inf"), (top * scale + gl.log2(sums)) * _LN2)
        lse_at = lse_ptr + gl.to_tensor(head).to(gl.int64) * queries + row
        gl.store(lse_at, lse, mask=row < queries)
        inverse = gl.convert_layout(1.0 / gl.where(blind, 1.0, sums), gl.SliceLayout(1, OUT))
        out = warpgroup_mma_wait(0, deps=[out])
        mbarrier.arrive(v_free.index(stage))
        tma.store_wait(0)
        o.store((out * inverse[:, None]).to(DTYPE))
        fence_async_shared()
        to = [head // heads, head % heads, first_row, 0]
        tma.async_copy_shared_to_global(o_desc, to, o._reinterpret(DTYPE, o_desc.block_type.shape, o_desc.layout))  # fmt: skip
        if SHARED:
            tma.store_wait(0)
            mbarrier.arrive(q_free.index(GROUP))
        slot = turn % 2
        mbarrier.wait(tile_ready.index(slot), turn // 2 & 1)
        tile = gl.max(tile_memory.index(slot).load(ONE), 0)
        mbarrier.arrive(tile_free.index(slot))
        turn += 1
    tma.store_wait(0)


@gluon.jit
def _ring(
    blocks: gl.constexpr, rows: gl.constexpr, HEAD_DIM: gl.constexpr, DTYPE: gl.constexpr,
    readers: gl.constexpr,
):  # fmt: skip
    """Return shared memory for some blocks, what tells that each is filled, and that it is free."""
    BLOCK: gl.constexpr = gl.NVMMASharedLayout.get_default_for([rows, HEAD_DIM], DTYPE)
    memory = gl.allocate_shared_memory(DTYPE, [blocks, rows, HEAD_DIM], BLOCK)
    ready, free = _barriers(blocks, readers)
    return memory, ready, free


@gluon.jit
def _barriers(slots: gl.constexpr, readers: gl.constexpr):
    ready = gl.allocate_shared_memory(gl.int64, [slots, 1], mbarrier.MBarrierLayout())
    free = gl.allocate_shared_memory(gl.int64, [slots, 1], mbarrier.MBarrierLayout())
    for slot in gl.static_range(slots):
        mbarrier.init(ready.index(slot), count=1)
        mbarrier.init(free.index(slot), count=readers)
    return ready, free


@gluon.jit(do_not_specialize=[
    "tiles", "tiles_m", "section", "all_heads", "queries", "keys", "heads", "kv_heads",
])  # fmt: skip
def _forward(
    q_desc, k_desc, v_desc, o_desc, lse_ptr, counter_ptr,
    tiles, tiles_m, section, all_heads, queries, keys, heads, kv_heads, scale,
    CAUSAL: gl.constexpr, ROWS: gl.constexpr, HEAD_DIM: gl.constexpr,
    GROUPS: gl.constexpr, BLOCK_N: gl.constexpr, STAGES: gl.constexpr, OVERLAP: gl.constexpr, REGISTERS: gl.constexpr,
):  # fmt: skip
    DTYPE: gl.constexpr = k_desc.dtype
    q = _ring(GROUPS, ROWS, HEAD_DIM, DTYPE, 1)
    k = _ring(STAGES, BLOCK_N, HEAD_DIM, DTYPE, GROUPS)
    v = _ring(STAGES, BLOCK_N, HEAD_DIM, DTYPE, GROUPS)
    o = q[0]
    if HEAD_DIM <= 128:
        o = gl.allocate_shared_memory(DTYPE, [GROUPS, ROWS, HEAD_DIM], q[0].layout)
    next_memory = gl.allocate_shared_memory(gl.int32, [2, 1], gl.SwizzledSharedLayout(1, 1, 1, [0]))
    next_ready, next_free = _barriers(2, GROUPS)
    tile = (next_memory, next_ready, next_free)
    fence_async_shared()
    sizes = (tiles, tiles_m, section, all_heads, queries, keys)
    if GROUPS == 2:
        gl.warp_specialize([
            (_attend, (o_desc, lse_ptr, q, k, v, o, tile, sizes, heads, scale, 0, CAUSAL, GROUPS, STAGES, OVERLAP)),
            (_attend, (o_desc, lse_ptr, q, k, v, o, tile, sizes, heads, scale, 1, CAUSAL, GROUPS, STAGES, OVERLAP)),
            (_load, (q_desc, k_desc, v_desc, q, k, v, tile, counter_ptr, sizes, heads, kv_heads, CAUSAL, GROUPS, STAGES)),
        ], [4, 1], [REGISTERS, 24])  # fmt: skip
    else:
        gl.warp_specialize([
            (_attend, (o_desc, lse_ptr, q, k, v, o, tile, sizes, heads, scale, 0, CAUSAL, GROUPS, STAGES, OVERLAP)),
            (_attend, (o_desc, lse_ptr, q, k, v, o, tile, sizes, heads, scale, 1, CAUSAL, GROUPS, STAGES, OVERLAP)),
            (_attend, (o_desc, lse_ptr, q, k, v, o, tile, sizes, heads, scale, 2, CAUSAL, GROUPS, STAGES, OVERLAP)),
            (_load, (q_desc, k_desc, v_desc, q, k, v, tile, counter_ptr, sizes, heads, kv_heads, CAUSAL, GROUPS, STAGES)),
        ], [4, 4, 1], [REGISTERS, REGISTERS, 24])  # fmt: skip


_HEAD_DIMS: Final = (64, 128, 256)
_REGISTERS: Final = {2: (168, 240), 3: (128, 160)}
"""By warpgroups that attend: a thread's registers at the start, and those of a consumer's."""

_L2_BYTES: Final = 32 * 2**20
"""How much of the keys and values may be in use at once; about half of the L2 cache of Hopper."""

_LOG2E: Final = math.log2(math.e)


def why_not(q: Tensor, k: Tensor, v: Tensor, *, causal: bool) -> str:  # noqa: ARG001 (one form for all)
    """Return why this kernel cannot do these inputs, or "".

    Args:
        q: [B, H, Sq, D].
        k: [B, Hkv, Sk, D], where H is a multiple of Hkv.
        v: as k.
        causal: as in `forward`; it makes no difference.
    """
    if not _checks.is_hopper(q.device):
        return f"{q.device} is no Hopper GPU (compute capability 9.0)"
    if reason := _checks.unknown_triton():
        return reason
    if q.dtype not in {torch.bfloat16, torch.float16}:
        return f"{str(q.dtype).removeprefix('torch.')} is neither bfloat16 nor float16"
    if q.shape[-1] not in _HEAD_DIMS:
        return f"head_dim {q.shape[-1]} is none of {', '.join(map(str, _HEAD_DIMS))}"
    for name, one in (("q", q), ("k", k), ("v", v)):
        if one.data_ptr() % 16 or one.stride(-1) != 1 or not all(_fit(one)):
            return f"{name}'s rows are not on boundaries of 16 bytes, or share memory"
    return ""


def _fit(x: Tensor) -> Iterator[bool]:
    """Tell of each axis but the last whether TMA takes its stride."""
    for size, stride in zip(x.shape[:-1], x.stride()[:-1], strict=True):
        yield size == 1 or (stride > 0 and stride % 8 == 0 and stride < 2**39)


_NAMES: Final = ("GROUPS", "BLOCK_N", "STAGES", "OVERLAP")
_MULTIPROCESSORS: Final = 132
_LONG: Final = 4096


def key_of(head_dim: int, dtype: torch.dtype, *, causal: bool, queries: int) -> str:
    """Return what a tuned configuration is kept under."""
    name = str(dtype).removeprefix("torch.")
    return f"hopper head_dim={head_dim} {name} queries={queries}{' causal' if causal else ''}"


def default_config(head_dim: int, *, causal: bool, queries: int, heads: int = 64) -> Config:
    """Return what is used where nothing was tuned, as measured on an H200.

    Heads of 64 are done a tenth quicker by three warpgroups than by two. But their tiles are
    fewer and larger: the last round of tiles may leave more of the GPU idle, and along the
    diagonal of a causal mask more is calculated in vain.

    Args:
        head_dim: D.
        causal: as in `forward`.
        queries: of a head.
        heads: of all batches.
    """
    groups = 2
    if head_dim == 64:
        two, three = (_rounds(heads, queries, groups) * groups for groups in (2, 3))
        groups = 3 if (queries > _LONG if causal else three < 1.1 * two) else 2
    block_n = 64 if head_dim > 128 else 128
    return dict(zip(_NAMES, (groups, block_n, 2, int(head_dim > 64)), strict=True))


def _rounds(heads: int, queries: int, groups: int) -> int:
    """Return how many tiles a program takes."""
    tiles = heads * -(-queries // (_ROWS * groups))
    return -(-tiles // _MULTIPROCESSORS)


def configs(head_dim: int) -> Iterator[Config]:
    """Give the configurations that may be quickest; each fits into shared memory.

    `GROUPS` warpgroups have 64 queries each; `STAGES` blocks of `BLOCK_N` keys, and as many of
    values, are in shared memory at once; with `OVERLAP` a warpgroup's own products go on while it
    exponentiates, and not only the other's.
    """
    blocks = (64,) if head_dim == 256 else (64, 128)
    for groups, block_n, overlap in itertools.product((2, 3), blocks, (0, 1)):
        if groups == 2 or head_dim == 64:
            for stages in (2, 3, 4):
                if stages * block_n * head_dim <= 2 * 128 * 128:
                    sizes = (groups, block_n, stages, overlap)
                    yield dict(zip(_NAMES, sizes, strict=True))


def forward(
    q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float
) -> tuple[Tensor, Tensor]:
    """Return softmax(scale · Q Kᵀ) V, and the natural logarithm of the sums of the exponentials.

    It takes what `why_not` has nothing against, and checks no more.

    Args:
        q: [B, H, Sq, D] bfloat16 or float16.
        k: [B, Hkv, Sk, D].
        v: as k.
        causal: query i sees the keys j <= i + Sk - Sq alone. One that sees none gets o = 0 and
            lse = -inf.
        scale: positive.

    Returns:
        o [B, H, Sq, D] in the format of q, and lse [B, H, Sq] in float32, both contiguous.
    """
    device = q.device
    o = torch.empty(q.shape, dtype=q.dtype, device=device)
    lse = torch.empty(q.shape[:3], dtype=torch.float32, device=device)
    form = q.shape, k.shape, q.stride(), k.stride(), v.stride(), q.dtype, causal
    if (usual := _usual.get(form)) is None:
        usual = _usual[form] = _usually(q, causal=causal)
    with torch.cuda.device_of(q):
        config = _configs.chosen("flash_attention", "forward", *usual)
        _launch(form, config if "GROUPS" in config else usual[1], (q, k, v, o), lse, scale)
    return o, lse


def _usually(q: Tensor, *, causal: bool) -> tuple[str, Config]:
    """Return what a tuned configuration is kept under, and what is used if there is none."""
    batches, heads, queries, head_dim = q.shape
    return (
        key_of(head_dim, q.dtype, causal=causal, queries=queries),
        default_config(head_dim, causal=causal, queries=queries, heads=batches * heads),
    )


_MOST: Final = 1024
_usual: dict[Any, tuple[str, Config]] = {}


@dataclasses.dataclass
class _Plan:
    """What launches of one form have in common; making it takes longer than a launch.

    Attributes:
        grid: programs.
        described: q, k, v and o as the hardware that copies blocks knows them, without addresses.
        sizes: arguments of `_forward` that are numbers.
        constants: those that are compiled in, in order.
        registers: a thread's at the start.
        compiled: once it is.
    """

    grid: tuple[int, int, int]
    described: tuple[TensorDescriptor, ...]
    sizes: tuple[int, ...]
    constants: dict[str, int]
    registers: int
    compiled: Any = None


_plans: dict[Any, _Plan] = {}


def _launch(
    form: Any, config: Config, tensors: tuple[Tensor, ...], lse: Tensor, scale: float
) -> None:
    key = lse.device, form, *config.values()
    if (plan := _plans.get(key)) is None:
        if len(_plans) >= _MOST:
            _plans.clear()
            _usual.clear()
        plan = _plans[key] = _planned(config, *tensors, causal=form[-1])
    given = (
        *map(_at, plan.described, tensors), lse, _counter(lse.device), *plan.sizes, scale * _LOG2E
    )  # fmt: skip
    if plan.compiled is None:
        how = {"num_warps": 4, "maxnreg": plan.registers}
        plan.compiled = _forward[plan.grid](*given, **plan.constants, **how)
    else:
        plan.compiled[plan.grid](*given, *plan.constants.values())


def _planned(config: Config, q: Tensor, k: Tensor, v: Tensor, o: Tensor, *, causal: bool) -> _Plan:
    batches, heads, queries, head_dim = q.shape
    kv_heads, keys = k.shape[1:3]
    groups, block_n = config["GROUPS"], config["BLOCK_N"]
    tiles_m = triton.cdiv(queries, _ROWS * groups)
    tiles = tiles_m * batches * heads
    in_cache = max(1, _L2_BYTES // (2 * keys * head_dim * k.itemsize))
    at_start, registers = _REGISTERS[groups]
    programs = torch.cuda.get_device_properties(q.device).multi_processor_count
    return _Plan(
        grid=(min(tiles, programs), 1, 1),
        described=tuple(map(_described, (q, k, v, o), (_ROWS, block_n, block_n, _ROWS))),
        sizes=(tiles, tiles_m, in_cache * (heads // kv_heads), batches * heads, queries, keys,
               heads, kv_heads),
        constants={"CAUSAL": causal, "ROWS": _ROWS, "HEAD_DIM": head_dim,
                   **{name: config[name] for name in _NAMES}, "REGISTERS": registers},
        registers=at_start,
    )  # fmt: skip


def _described(x: Tensor, rows: int) -> TensorDescriptor:
    """Describe [B, H, S, D] to the hardware that copies some rows of a head."""
    whole = x.stride(-2) if x.shape[-2] > 1 else x.shape[-1]
    strides = [s if n > 1 else whole for n, s in zip(x.shape, x.stride(), strict=True)]
    block = [1, 1, rows, x.shape[-1]]
    described = TensorDescriptor(x, list(x.shape), [*strides[:-1], 1], block, _BLOCK)
    described.base = None  # it would be kept
    return described


def _at(described: TensorDescriptor, x: Tensor) -> TensorDescriptor:
    """Return the description of a tensor like another's; that nothing is checked saves time."""
    one = object.__new__(TensorDescriptor)
    one.__dict__.update(described.__dict__)
    one.base = x
    return one


_BLOCK: Final = gl.NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=16, rank=4)

_counters: dict[torch.device, Tensor] = {}


def _counter(device: torch.device) -> Tensor:
    """Return a 0 on the device that no other launch counts in at the same time.

    Launches of the default stream come one after another, and each leaves it at 0. Others may be
    recorded in a graph, which is played on any stream; or be the rehearsal of one, of whose memory
    nothing may be kept.
    """
    if torch.cuda.current_stream(device).cuda_stream:
        return torch.zeros(1, dtype=torch.int32, device=device)
    if (found := _counters.get(device)) is None:
        found = _counters[device] = torch.zeros(1, dtype=torch.int32, device=device)
    return found
