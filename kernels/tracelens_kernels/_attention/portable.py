"""Attention forward and backward in portable Triton, for every GPU that Triton compiles for.

The tiled, exact algorithm of FlashAttention-2 (T. Dao, "FlashAttention-2: Faster Attention with
Better Parallelism and Work Partitioning", arXiv:2307.08691). Forward, one program keeps a tile of
queries and passes over the keys that they see:

    S = scale · Q Kᵀ,   m ← max(m, rowmax S),   P = exp(S − m),   l ← l e^{m' − m} + rowsum P,
    O ← O e^{m' − m} + P V;   at the end O / l, and lse = m + ln l

Backward, with P = exp(S − lse) made again, and δ = rowsum(dO ∘ O):

    dV = Pᵀ dO,   dS = P ∘ (dO Vᵀ − δ),   dQ = scale · dS K,   dK = scale · dSᵀ Q

in two kernels, one that keeps queries and one that keeps keys. That is seven products for the
five that are needed, but each result has one writer: there are no atomics, and the same input
gives the same bits.

Every tensor is seen as [batches, heads, rows, head_dim] with any strides but the last. Sequences
of different lengths lie one after another in a batch of one; offsets say where each begins.
"""

# pyright: reportInvalidTypeForm=false, reportGeneralTypeIssues=false

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final, NamedTuple

import torch
import triton
import triton.language as tl

from tracelens_kernels import _checks, _configs

if TYPE_CHECKING:
    from torch import Tensor

    from tracelens.kernel import Config

_LOG2E: Final = 1.4426950408889634
_LN2: Final = tl.constexpr(0.6931471805599453)


class Offsets(NamedTuple):
    """Where sequences of different lengths begin, and the end of the last; and their longest."""

    q: Tensor
    k: Tensor
    max_q: int
    max_k: int


@triton.jit
def _tile_of(  # noqa: PLR0917
    cu_seqlens, sequences, rows, heads, section, VARLEN: tl.constexpr, BLOCK: tl.constexpr,
    SEQUENCES: tl.constexpr, LAST_FIRST: tl.constexpr,
):  # fmt: skip
    """Return which batch (or sequence), head and tile of rows this program does.

    Where attention is causal the tiles that take longest come first, so that what is left for the
    end is short. Heads go by `section`: so many as fit into L2 with what all tiles of them read.
    """
    pid = tl.program_id(0)
    if VARLEN:
        each = tl.arange(0, SEQUENCES)
        there = each < sequences
        begin = tl.load(cu_seqlens + each, mask=there, other=0)
        end = tl.load(cu_seqlens + each + 1, mask=there, other=0)
        tiles = (tl.maximum(end - begin, 0) + BLOCK - 1) // BLOCK
        batch = tl.sum((tl.cumsum(tiles, 0) <= pid).to(tl.int32), 0)
        before = tl.sum(tl.where(each < batch, tiles, 0), 0)
        count = tl.sum(tl.where(each == batch, tiles, 0), 0)
        tile = pid - before
        head = tl.program_id(1)
    else:
        count = (rows + BLOCK - 1) // BLOCK
        first = pid // (section * count) * section
        width = tl.minimum(section, sequences * heads - first)
        within = pid - first * count
        tile = within // width
        both = first + within % width
        batch = both // heads
        head = both % heads
    if LAST_FIRST:
        tile = count - 1 - tile
    return batch, head, tile


@triton.jit
def _extent(cu_seqlens, batch, rows, VARLEN: tl.constexpr):
    """Return where the rows of a sequence begin, and how many; never outside the tensor."""
    if VARLEN:
        begin = tl.minimum(tl.maximum(tl.load(cu_seqlens + batch), 0), rows)
        end = tl.minimum(tl.maximum(tl.load(cu_seqlens + batch + 1), begin), rows)
        return begin.to(tl.int64), end - begin
    return tl.full((), 0, tl.int64), rows


@triton.jit
def _load(  # noqa: PLR0917
    pointers, rows, columns, HEAD_DIM: tl.constexpr, PADDED: tl.constexpr, BOUNDED: tl.constexpr,
    UPCAST: tl.constexpr,
):  # fmt: skip
    """Load a tile; `rows` are conditions, broadcast against `columns`, numbers of columns."""
    if PADDED == HEAD_DIM:
        x = tl.load(pointers, mask=rows, other=0.0) if BOUNDED else tl.load(pointers)
    elif BOUNDED:
        x = tl.load(pointers, mask=rows & (columns < HEAD_DIM), other=0.0)
    else:
        x = tl.load(pointers, mask=columns < HEAD_DIM, other=0.0)
    return x.to(tl.float32) if UPCAST else x


@triton.jit
def _attend(  # noqa: PLR0917
    acc, total, m, q, k_tile, v_tile, k_row, v_row, last, keys, lo, hi, scale,
    HEAD_DIM: tl.constexpr, PADDED: tl.constexpr, BLOCK_N: tl.constexpr, CAUSAL: tl.constexpr,
    MASKED: tl.constexpr, PRECISION: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """Attend to the keys lo … hi; query i sees those up to last[i]."""
    columns = tl.arange(0, PADDED)
    k_tile += lo * k_row
    v_tile += lo * v_row
    for start in range(lo, hi, BLOCK_N):
        key = start + tl.arange(0, BLOCK_N)
        k = _load(k_tile, (key < keys)[None, :], columns[:, None], HEAD_DIM, PADDED, MASKED, UPCAST)
        s = tl.dot(q, k, input_precision=PRECISION)
        if MASKED:
            if CAUSAL:
                # The last key that there is is never after `last`.
                s = tl.where(key[None, :] <= last[:, None], s, float("-inf"))
            else:
                s = tl.where((key < keys)[None, :], s, float("-inf"))
        new = tl.maximum(m, tl.max(s, 1) * scale)
        safe = tl.where(new == float("-inf"), 0.0, new) if MASKED else new
        p = tl.math.exp2(s * scale - safe[:, None])
        shrink = tl.math.exp2(m - safe)
        total = total * shrink + tl.sum(p, 1)
        v = _load(v_tile, (key < keys)[:, None], columns[None, :], HEAD_DIM, PADDED, MASKED, UPCAST)
        acc = tl.dot(p.to(v.dtype), v, acc * shrink[:, None], input_precision=PRECISION)
        m = new
        k_tile += BLOCK_N * k_row
        v_tile += BLOCK_N * v_row
    return acc, total, m


@triton.jit(do_not_specialize=["sequences", "heads", "queries", "keys", "section"])
def _forward(  # noqa: PLR0917
    q_ptr, k_ptr, v_ptr, o_ptr, lse_ptr, cu_q, cu_k,
    q_batch: tl.int64, q_head: tl.int64, q_row: tl.int64,
    k_batch: tl.int64, k_head: tl.int64, k_row: tl.int64,
    v_batch: tl.int64, v_head: tl.int64, v_row: tl.int64,
    o_batch: tl.int64, o_head: tl.int64, o_row: tl.int64,
    sequences, heads, queries, keys, section, scale,
    GROUP: tl.constexpr, HEAD_DIM: tl.constexpr, PADDED: tl.constexpr, CAUSAL: tl.constexpr,
    VARLEN: tl.constexpr, SEQUENCES: tl.constexpr, PRECISION: tl.constexpr, UPCAST: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    # reads (1 + 2/GROUP) QD elements, if K and V stay in L2 ; writes QD elements and Q fp32
    batch, head, tile = _tile_of(
        cu_q, sequences, queries, heads, section, VARLEN, BLOCK_M, SEQUENCES, True
    )
    if batch >= sequences:
        return
    lse_row = (0 if VARLEN else batch) * heads + head
    lse_ptr += lse_row.to(tl.int64) * queries
    q_begin, queries = _extent(cu_q, batch, queries, VARLEN)
    k_begin, keys = _extent(cu_k, batch, keys, VARLEN)
    batch = tl.full((), 0, tl.int64) if VARLEN else batch.to(tl.int64)
    q_ptr += batch * q_batch + head * q_head + q_begin * q_row
    k_ptr += batch * k_batch + (head // GROUP) * k_head + k_begin * k_row
    v_ptr += batch * v_batch + (head // GROUP) * v_head + k_begin * v_row
    o_ptr += batch * o_batch + head * o_head + q_begin * o_row

    row = tile * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = tl.arange(0, PADDED)
    key = tl.arange(0, BLOCK_N)
    there = (row < queries)[:, None]
    q = _load(
        q_ptr + row[:, None] * q_row + columns[None, :], there, columns[None, :],
        HEAD_DIM, PADDED, True, UPCAST,
    )  # fmt: skip
    k_tile = k_ptr + key[None, :] * k_row + columns[:, None]
    v_tile = v_ptr + key[:, None] * v_row + columns[None, :]
    acc = tl.full((BLOCK_M, PADDED), 0, tl.float32)
    total = tl.full((BLOCK_M,), 0, tl.float32)
    m = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    last = tl.minimum(row + keys - queries, keys - 1)
    if CAUSAL:
        hi = tl.minimum(tile * BLOCK_M + BLOCK_M + keys - queries, keys)
        whole = tl.minimum(tile * BLOCK_M + 1 + keys - queries, keys)
        whole = tl.maximum(whole, 0) // BLOCK_N * BLOCK_N
    else:
        hi = keys
        whole = keys // BLOCK_N * BLOCK_N
    acc, total, m = _attend(
        acc, total, m, q, k_tile, v_tile, k_row, v_row, last, keys, 0, whole, scale,
        HEAD_DIM, PADDED, BLOCK_N, CAUSAL, False, PRECISION, UPCAST,
    )  # fmt: skip
    acc, total, m = _attend(
        acc, total, m, q, k_tile, v_tile, k_row, v_row, last, keys, whole, hi, scale,
        HEAD_DIM, PADDED, BLOCK_N, CAUSAL, True, PRECISION, UPCAST,
    )  # fmt: skip
    divisor = tl.where(total == 0.0, 1.0, total)
    o = acc / divisor[:, None]
    tl.store(
        o_ptr + row[:, None] * o_row + columns[None, :],
        o.to(o_ptr.dtype.element_ty),
        mask=there & (columns < HEAD_DIM)[None, :],
    )
    lse = tl.where(total == 0.0, float("-inf"), (m + tl.math.log2(divisor)) * _LN2)
    tl.store(lse_ptr + q_begin + row, lse, mask=row < queries)


@triton.jit
def _dq_pass(  # noqa: PLR0917
    dq, q, do, lse, delta, k_tile, v_tile, k_row, v_row, last, keys, lo, hi,
    scale, HEAD_DIM: tl.constexpr, PADDED: tl.constexpr, BLOCK_N: tl.constexpr,
    MASKED: tl.constexpr, PRECISION: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    columns = tl.arange(0, PADDED)
    k_tile += lo * k_row
    v_tile += lo * v_row
    for start in range(lo, hi, BLOCK_N):
        key = start + tl.arange(0, BLOCK_N)
        there = (key < keys)[None, :]
        k = _load(k_tile, there, columns[:, None], HEAD_DIM, PADDED, MASKED, UPCAST)
        v = _load(v_tile, there, columns[:, None], HEAD_DIM, PADDED, MASKED, UPCAST)
        s = tl.dot(q, k, input_precision=PRECISION) * scale - lse[:, None]
        if MASKED:
            s = tl.where(key[None, :] <= last[:, None], s, float("-inf"))
        p = tl.math.exp2(s)
        dp = tl.dot(do, v, input_precision=PRECISION)
        ds = (p * (dp - delta[:, None])).to(k.dtype)
        dq = tl.dot(ds, tl.trans(k), dq, input_precision=PRECISION)
        k_tile += BLOCK_N * k_row
        v_tile += BLOCK_N * v_row
    return dq


@triton.jit(do_not_specialize=["sequences", "heads", "queries", "keys", "section"])
def _backward_queries(  # noqa: PLR0917
    q_ptr, k_ptr, v_ptr, o_ptr, do_ptr, dq_ptr, lse_ptr, delta_ptr, cu_q, cu_k,
    q_batch: tl.int64, q_head: tl.int64, q_row: tl.int64,
    k_batch: tl.int64, k_head: tl.int64, k_row: tl.int64,
    v_batch: tl.int64, v_head: tl.int64, v_row: tl.int64,
    o_batch: tl.int64, o_head: tl.int64, o_row: tl.int64,
    do_batch: tl.int64, do_head: tl.int64, do_row: tl.int64,
    dq_batch: tl.int64, dq_head: tl.int64, dq_row: tl.int64,
    sequences, heads, queries, keys, section, scale, scale_log2,
    GROUP: tl.constexpr, HEAD_DIM: tl.constexpr, PADDED: tl.constexpr, CAUSAL: tl.constexpr,
    VARLEN: tl.constexpr, SEQUENCES: tl.constexpr, PRECISION: tl.constexpr, UPCAST: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Make δ and dQ of a tile of queries."""
    batch, head, tile = _tile_of(
        cu_q, sequences, queries, heads, section, VARLEN, BLOCK_M, SEQUENCES, True
    )
    if batch >= sequences:
        return
    lse_row = (0 if VARLEN else batch) * heads + head
    lse_row = lse_row.to(tl.int64) * queries
    q_begin, queries = _extent(cu_q, batch, queries, VARLEN)
    k_begin, keys = _extent(cu_k, batch, keys, VARLEN)
    batch = tl.full((), 0, tl.int64) if VARLEN else batch.to(tl.int64)
    q_ptr += batch * q_batch + head * q_head + q_begin * q_row
    k_ptr += batch * k_batch + (head // GROUP) * k_head + k_begin * k_row
    v_ptr += batch * v_batch + (head // GROUP) * v_head + k_begin * v_row
    o_ptr += batch * o_batch + head * o_head + q_begin * o_row
    do_ptr += batch * do_batch + head * do_head + q_begin * do_row
    dq_ptr += batch * dq_batch + head * dq_head + q_begin * dq_row
    lse_ptr += lse_row + q_begin
    delta_ptr += lse_row + q_begin

    row = tile * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = tl.arange(0, PADDED)
    key = tl.arange(0, BLOCK_N)
    there = (row < queries)[:, None]
    across = columns[None, :]
    do = _load(
        do_ptr + row[:, None] * do_row + across, there, across, HEAD_DIM, PADDED, True, UPCAST
    )
    o = _load(o_ptr + row[:, None] * o_row + across, there, across, HEAD_DIM, PADDED, True, UPCAST)
    delta = tl.sum(do.to(tl.float32) * o.to(tl.float32), 1)
    tl.store(delta_ptr + row, delta, mask=row < queries)
    q = _load(q_ptr + row[:, None] * q_row + across, there, across, HEAD_DIM, PADDED, True, UPCAST)
    lse = tl.load(lse_ptr + row, mask=row < queries, other=float("inf")) / _LN2
    k_tile = k_ptr + key[None, :] * k_row + columns[:, None]
    v_tile = v_ptr + key[None, :] * v_row + columns[:, None]
    dq = tl.full((BLOCK_M, PADDED), 0, tl.float32)
    if CAUSAL:
        last = tl.minimum(row + keys - queries, keys - 1)
        hi = tl.minimum(tile * BLOCK_M + BLOCK_M + keys - queries, keys)
        whole = tl.minimum(tile * BLOCK_M + 1 + keys - queries, keys)
        whole = tl.maximum(whole, 0) // BLOCK_N * BLOCK_N
    else:
        last = tl.full((BLOCK_M,), 0, tl.int32) + keys - 1
        hi = keys
        whole = keys // BLOCK_N * BLOCK_N
    dq = _dq_pass(
        dq, q, do, lse, delta, k_tile, v_tile, k_row, v_row, last, keys, 0, whole, scale_log2,
        HEAD_DIM, PADDED, BLOCK_N, False, PRECISION, UPCAST,
    )  # fmt: skip
    dq = _dq_pass(
        dq, q, do, lse, delta, k_tile, v_tile, k_row, v_row, last, keys, whole, hi, scale_log2,
        HEAD_DIM, PADDED, BLOCK_N, True, PRECISION, UPCAST,
    )  # fmt: skip
    tl.store(
        dq_ptr + row[:, None] * dq_row + across,
        (dq * scale).to(dq_ptr.dtype.element_ty),
        mask=there & (across < HEAD_DIM),
    )


@triton.jit
def _dkdv_pass(  # noqa: PLR0917
    dk, dv, k, v, q_tile, do_tile, lse_ptr, delta_ptr, q_row, do_row,
    first, queries, lo, hi, scale,
    HEAD_DIM: tl.constexpr, PADDED: tl.constexpr, BLOCK_M: tl.constexpr, MASKED: tl.constexpr,
    EVEN: tl.constexpr, PRECISION: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """Add what the queries lo … hi give; key j is seen by those from first[j] on."""
    columns = tl.arange(0, PADDED)
    q_tile += lo * q_row
    do_tile += lo * do_row
    for start in range(lo, hi, BLOCK_M):
        row = start + tl.arange(0, BLOCK_M)
        there = row < queries
        q = _load(q_tile, there[None, :], columns[:, None], HEAD_DIM, PADDED, not EVEN, UPCAST)
        # A query that is not there has an infinite lse, and so no weights.
        if EVEN:
            lse = tl.load(lse_ptr + row)
            delta = tl.load(delta_ptr + row)
        else:
            lse = tl.load(lse_ptr + row, mask=there, other=float("inf"))
            delta = tl.load(delta_ptr + row, mask=there, other=0.0)
        s = tl.dot(k, q, input_precision=PRECISION) * scale - (lse / _LN2)[None, :]
        if MASKED:
            s = tl.where(first[:, None] <= row[None, :], s, float("-inf"))
        p = tl.math.exp2(s)
        do = _load(do_tile, there[:, None], columns[None, :], HEAD_DIM, PADDED, not EVEN, UPCAST)
        dv = tl.dot(p.to(do.dtype), do, dv, input_precision=PRECISION)
        dp = tl.dot(v, tl.trans(do), input_precision=PRECISION)
        ds = (p * (dp - delta[None, :])).to(q.dtype)
        dk = tl.dot(ds, tl.trans(q), dk, input_precision=PRECISION)
        q_tile += BLOCK_M * q_row
        do_tile += BLOCK_M * do_row
    return dk, dv


@triton.jit(do_not_specialize=["sequences", "kv_heads", "queries", "keys", "section"])
def _backward_keys(  # noqa: PLR0917
    q_ptr, k_ptr, v_ptr, do_ptr, dk_ptr, dv_ptr, lse_ptr, delta_ptr, cu_q, cu_k,
    q_batch: tl.int64, q_head: tl.int64, q_row: tl.int64,
    k_batch: tl.int64, k_head: tl.int64, k_row: tl.int64,
    v_batch: tl.int64, v_head: tl.int64, v_row: tl.int64,
    do_batch: tl.int64, do_head: tl.int64, do_row: tl.int64,
    dk_batch: tl.int64, dk_head: tl.int64, dk_row: tl.int64,
    dv_batch: tl.int64, dv_head: tl.int64, dv_row: tl.int64,
    sequences, kv_heads, queries, keys, section, scale, scale_log2,
    GROUP: tl.constexpr, HEAD_DIM: tl.constexpr, PADDED: tl.constexpr, CAUSAL: tl.constexpr,
    VARLEN: tl.constexpr, SEQUENCES: tl.constexpr, EVEN: tl.constexpr, PRECISION: tl.constexpr,
    UPCAST: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Make dK and dV of a tile of keys, summed over the heads of queries that share it."""
    batch, kv_head, tile = _tile_of(
        cu_k, sequences, keys, kv_heads, section, VARLEN, BLOCK_N, SEQUENCES, False
    )
    if batch >= sequences:
        return
    lse_row = (0 if VARLEN else batch) * kv_heads + kv_head
    lse_row = (lse_row * GROUP).to(tl.int64)
    all_queries = queries
    q_begin, queries = _extent(cu_q, batch, queries, VARLEN)
    k_begin, keys = _extent(cu_k, batch, keys, VARLEN)
    batch = tl.full((), 0, tl.int64) if VARLEN else batch.to(tl.int64)
    k_ptr += batch * k_batch + kv_head * k_head + k_begin * k_row
    v_ptr += batch * v_batch + kv_head * v_head + k_begin * v_row
    dk_ptr += batch * dk_batch + kv_head * dk_head + k_begin * dk_row
    dv_ptr += batch * dv_batch + kv_head * dv_head + k_begin * dv_row

    key = tile * BLOCK_N + tl.arange(0, BLOCK_N)
    row = tl.arange(0, BLOCK_M)
    columns = tl.arange(0, PADDED)
    there = (key < keys)[:, None]
    across = columns[None, :]
    k = _load(k_ptr + key[:, None] * k_row + across, there, across, HEAD_DIM, PADDED, True, UPCAST)
    v = _load(v_ptr + key[:, None] * v_row + across, there, across, HEAD_DIM, PADDED, True, UPCAST)
    dk = tl.full((BLOCK_N, PADDED), 0, tl.float32)
    dv = tl.full((BLOCK_N, PADDED), 0, tl.float32)
    first = key + queries - keys
    if CAUSAL:
        lo = tl.maximum(tile * BLOCK_N + queries - keys, 0) // BLOCK_M * BLOCK_M
        whole = tl.maximum(tile * BLOCK_N + BLOCK_N - 1 + queries - keys, 0)
        whole = tl.minimum((whole + BLOCK_M - 1) // BLOCK_M * BLOCK_M, queries)
    else:
        lo = 0
        whole = 0
    for member in range(GROUP):
        head = kv_head * GROUP + member
        q_head_ptr = q_ptr + batch * q_batch + head * q_head + q_begin * q_row
        do_head_ptr = do_ptr + batch * do_batch + head * do_head + q_begin * do_row
        rows = (lse_row + member) * all_queries + q_begin
        q_tile = q_head_ptr + row[None, :] * q_row + columns[:, None]
        do_tile = do_head_ptr + row[:, None] * do_row + across
        if CAUSAL:
            dk, dv = _dkdv_pass(
                dk, dv, k, v, q_tile, do_tile, lse_ptr + rows, delta_ptr + rows, q_row, do_row,
                first, queries, lo, whole, scale_log2,
                HEAD_DIM, PADDED, BLOCK_M, True, EVEN, PRECISION, UPCAST,
            )  # fmt: skip
        dk, dv = _dkdv_pass(
            dk, dv, k, v, q_tile, do_tile, lse_ptr + rows, delta_ptr + rows, q_row, do_row,
            first, queries, whole, queries, scale_log2,
            HEAD_DIM, PADDED, BLOCK_M, False, EVEN, PRECISION, UPCAST,
        )  # fmt: skip
    inside = there & (across < HEAD_DIM)
    tl.store(
        dk_ptr + key[:, None] * dk_row + across,
        (dk * scale).to(dk_ptr.dtype.element_ty),
        mask=inside,
    )
    tl.store(dv_ptr + key[:, None] * dv_row + across, dv.to(dv_ptr.dtype.element_ty), mask=inside)


def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool,
    scale: float,
    offsets: Offsets | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the output, and the natural logarithm of each query's sum of exponentials.

    Args:
        q: [B, H, Sq, D]; the last stride is 1, as of `k` and `v`.
        k: [B, Hkv, Sk, D], with H a multiple of Hkv.
        v: as k.
        causal: key j is seen by the queries i ≥ j − (Sk − Sq), so that the last sees all.
        scale: of Q Kᵀ; positive.
        offsets: of sequences of different lengths; B is 1, and Sq and Sk are all their rows.

    Returns:
        o: as q; 0 where a query sees no key.
        lse: float32 [B, H, Sq]; −∞ where a query sees no key.
    """
    batches, heads, queries, head_dim = q.shape
    kv_heads, keys = k.shape[1:3]
    row = head_dim * q.element_size() * 2
    o = _like(q)
    lse = torch.empty((batches, heads, queries), dtype=torch.float32, device=q.device)
    config = forward_config(q, k, causal, offsets)
    grid, sequences, cu_q, cu_k = _grid(offsets and offsets.q, offsets, q, config["BLOCK_M"])
    with on(q):
        _forward[grid](
            q, k, v, o, lse, cu_q, cu_k,
            *q.stride()[:3], *k.stride()[:3], *v.stride()[:3], *o.stride()[:3],
            sequences, heads, queries, keys,
            _section(causal, batches * heads, keys * row * kv_heads // heads),
            scale * _LOG2E,
            heads // kv_heads, CAUSAL=causal, **_common(q, head_dim, offsets, sequences), **config,
        )  # fmt: skip
    return o, lse


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
    offsets: Offsets | None = None,
    needs_keys: bool = True,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Return the gradients of q, k and v, for `do` of the output; see `forward`.

    Those of k and v are None unless they are needed.
    """
    batches, heads, queries, head_dim = q.shape
    kv_heads, keys = k.shape[1:3]
    group = heads // kv_heads
    if do.stride(-1) != 1:
        do = do.contiguous()
    dq = _like(q)
    delta = torch.empty_like(lse)
    config = backward_config(q, k, causal, offsets)
    row = head_dim * q.element_size() * 2
    with on(q):
        tiles = {name[3:]: size for name, size in config.items() if name.startswith("DQ_")}
        grid, sequences, cu_q, cu_k = _grid(offsets and offsets.q, offsets, q, tiles["BLOCK_M"])
        common = _common(q, head_dim, offsets, sequences)
        _backward_queries[grid](
            q, k, v, o, do, dq, lse, delta, cu_q, cu_k,
            *q.stride()[:3], *k.stride()[:3], *v.stride()[:3], *o.stride()[:3], *do.stride()[:3],
            *dq.stride()[:3],
            sequences, heads, queries, keys,
            _section(causal, batches * heads, keys * row * kv_heads // heads),
            scale, scale * _LOG2E,
            group, CAUSAL=causal, **common, **tiles,
        )  # fmt: skip
        if not needs_keys:
            return dq, None, None
        dk, dv = _like(k), _like(v)
        tiles = {name: size for name, size in config.items() if not name.startswith("DQ_")}
        grid, sequences, cu_q, cu_k = _grid(offsets and offsets.k, offsets, k, tiles["BLOCK_N"])
        _backward_keys[grid](
            q, k, v, do, dk, dv, lse, delta, cu_q, cu_k,
            *q.stride()[:3], *k.stride()[:3], *v.stride()[:3], *do.stride()[:3],
            *dk.stride()[:3], *dv.stride()[:3],
            sequences, kv_heads, queries, keys,
            _section(causal, batches * kv_heads, queries * row * group),
            scale, scale * _LOG2E,
            group, CAUSAL=causal, EVEN=offsets is None and queries % tiles["BLOCK_M"] == 0,
            **common, **tiles,
        )  # fmt: skip
    return dq, dk, dv


def forward_config(q: Tensor, k: Tensor, causal: bool, offsets: Offsets | None = None) -> Config:
    """Return the sizes of the tiles of the forward kernel, and its warps and stages."""
    key = key_of(q.shape[-1], q.dtype, causal=causal)
    if q.dtype == torch.float32:
        default = _float32_tiles(q.shape[-1])[0]
    elif q.shape[-1] <= 64:
        default = _tiles(64, 64, 4, 3)
    elif q.shape[-1] <= 128:
        default = _tiles(128, 64, 8, 3)
    else:
        default = _tiles(128, 64, 8, 2)
    longest = (offsets.max_q, offsets.max_k) if offsets else (q.shape[2], k.shape[2])
    return _fitting(_configs.chosen("flash_attention", "forward", key, default), default, *longest)


def backward_config(q: Tensor, k: Tensor, causal: bool, offsets: Offsets | None = None) -> Config:
    """Return the sizes of the tiles of both backward kernels, and their warps and stages.

    `BLOCK_M` (queries) and `BLOCK_N` (keys) are those of the kernel that keeps keys; those of the
    kernel that keeps queries begin with `DQ_`.
    """
    key = key_of(q.shape[-1], q.dtype, causal=causal)
    if q.dtype == torch.float32:
        default = _float32_tiles(q.shape[-1])[1]
    elif q.shape[-1] <= 64:
        default = _tiles(64, 64, 4, 2) | _tiles(64, 64, 4, 3, "DQ_")
    elif q.shape[-1] > 128:
        default = _tiles(32, 64, 8, 1) | _tiles(64, 32, 8, 1, "DQ_")
    else:
        default = _tiles(64, 128, 8, 2) | _tiles(128, 64, 8, 2, "DQ_")
    longest = (offsets.max_q, offsets.max_k) if offsets else (q.shape[2], k.shape[2])
    return _fitting(_configs.chosen("flash_attention", "backward", key, default), default, *longest)


def key_of(head_dim: int, dtype: torch.dtype, *, causal: bool) -> str:
    """Return what a tuned configuration is kept under."""
    name = str(dtype).removeprefix("torch.")
    return f"portable head_dim={head_dim} {name}{' causal' if causal else ''}"


def _float32_tiles(head_dim: int) -> tuple[Config, Config]:
    """Return the tiles forward and backward: what fits into registers and shared memory."""
    if head_dim <= 64:
        return _tiles(128, 64, 8, 1), _tiles(32, 64, 4, 1) | _tiles(64, 32, 4, 1, "DQ_")
    if head_dim <= 128:
        return _tiles(64, 32, 4, 2), _tiles(32, 32, 4, 1) | _tiles(32, 32, 4, 1, "DQ_")
    return _tiles(32, 16, 8, 1), _tiles(16, 32, 8, 1) | _tiles(16, 16, 4, 1, "DQ_")


def _tiles(m: int, n: int, warps: int, stages: int, prefix: str = "") -> dict[str, int]:
    names = ("BLOCK_M", "BLOCK_N", "num_warps", "num_stages")
    return {prefix + name: size for name, size in zip(names, (m, n, warps, stages), strict=True)}


def _fitting(config: Config, default: Config, queries: int, keys: int) -> Config:
    """Return a configuration whose tiles are not larger than short sequences need."""
    if config.keys() != default.keys():
        config = default
    if min(queries, keys) >= 128:
        return config
    longest = {"M": queries, "N": keys}
    return {
        name: min(size, max(16, triton.next_power_of_2(longest[name[-1]])))
        if "BLOCK" in name
        else size
        for name, size in config.items()
    }


def _grid(
    cu_seqlens: Tensor | None, offsets: Offsets | None, rows: Tensor, block: int
) -> tuple[tuple[int, ...], int, Tensor | None, Tensor | None]:
    """Return the grid of a kernel that keeps tiles of rows, the sequences, and where they begin."""
    batches, heads, count = rows.shape[:3]
    if offsets is None or cu_seqlens is None:
        return (triton.cdiv(count, block) * batches * heads,), batches, None, None
    sequences = cu_seqlens.numel() - 1
    # Each sequence may have one tile that is not full.
    return (count // block + sequences, heads), sequences, offsets.q, offsets.k


def _common(
    q: Tensor, head_dim: int, offsets: Offsets | None, sequences: int
) -> dict[str, int | bool | str]:
    upcast = q.dtype == torch.bfloat16 and _checks.interpreted()
    return {
        "HEAD_DIM": head_dim,
        "PADDED": max(16, triton.next_power_of_2(head_dim)),
        "VARLEN": offsets is not None,
        "SEQUENCES": 1 if offsets is None else triton.next_power_of_2(sequences),
        "PRECISION": _precision(head_dim),
        "UPCAST": upcast,
    }


def _precision(head_dim: int) -> str:
    """Return how products of float32 are made.

    By three of TF32 each, which tensor cores do, the error is that of float32 sums; but operands
    are in shared memory twice, and those of large heads do not fit.
    """
    if torch.backends.cuda.matmul.allow_tf32:
        return "tf32"
    return "tf32x3" if head_dim <= 128 else "ieee"


_SHARE_OF_L2: Final = 24 << 20


def _section(causal: bool, heads: int, bytes_each: int) -> int:
    return max(1, min(heads, _SHARE_OF_L2 // max(bytes_each, 1))) if causal else 1


def _like(x: Tensor) -> Tensor:
    """Return an empty tensor with the order of axes of x, as `transpose(1, 2)` gave it."""
    empty = torch.empty_like(x)
    return (
        empty
        if empty.stride(-1) == 1
        else torch.empty_like(x, memory_format=torch.contiguous_format)
    )


def on(x: Tensor) -> contextlib.AbstractContextManager[object]:
    """Return a context in which kernels are launched on the device of x."""
    if x.is_cuda and x.device.index != torch.cuda.current_device():
        return torch.cuda.device(x.device)
    return contextlib.nullcontext()
