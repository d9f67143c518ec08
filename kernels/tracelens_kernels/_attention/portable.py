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

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import torch
import triton
import triton.language as tl

from tracelens_kernels import _checks, _configs
from tracelens_kernels._attention import launching
from tracelens_kernels._attention.launching import Launch

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
    q_ptr, k_ptr, v_ptr, o_ptr, lse_ptr, cu_q, cu_k, scale,
    q_batch: tl.int64, q_head: tl.int64, q_row: tl.int64,
    k_batch: tl.int64, k_head: tl.int64, k_row: tl.int64,
    v_batch: tl.int64, v_head: tl.int64, v_row: tl.int64,
    o_batch: tl.int64, o_head: tl.int64, o_row: tl.int64,
    sequences, heads, queries, keys, section,
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
    q_ptr, k_ptr, v_ptr, o_ptr, do_ptr, dq_ptr, lse_ptr, delta_ptr, cu_q, cu_k, scale, scale_log2,
    q_batch: tl.int64, q_head: tl.int64, q_row: tl.int64,
    k_batch: tl.int64, k_head: tl.int64, k_row: tl.int64,
    v_batch: tl.int64, v_head: tl.int64, v_row: tl.int64,
    o_batch: tl.int64, o_head: tl.int64, o_row: tl.int64,
    do_batch: tl.int64, do_head: tl.int64, do_row: tl.int64,
    dq_batch: tl.int64, dq_head: tl.int64, dq_row: tl.int64,
    sequences, heads, queries, keys, section,
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
    q_ptr, k_ptr, v_ptr, do_ptr, dk_ptr, dv_ptr, lse_ptr, delta_ptr, cu_q, cu_k, scale, scale_log2,
    q_batch: tl.int64, q_head: tl.int64, q_row: tl.int64,
    k_batch: tl.int64, k_head: tl.int64, k_row: tl.int64,
    v_batch: tl.int64, v_head: tl.int64, v_row: tl.int64,
    do_batch: tl.int64, do_head: tl.int64, do_row: tl.int64,
    dk_batch: tl.int64, dk_head: tl.int64, dk_row: tl.int64,
    dv_batch: tl.int64, dv_head: tl.int64, dv_row: tl.int64,
    sequences, kv_heads, queries, keys, section,
    GROUP: tl.constexpr, HEAD_DIM: tl.constexpr, PADDED: tl.constexpr, CAUSAL: tl.constexpr,
    VARLEN: tl.constexpr, SEQUENCES: tl.constexpr, PRECISION: tl.constexpr, UPCAST: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, EVEN: tl.constexpr,
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


class Forward:
    """The forward pass for inputs of one form (see `launching.form_of`)."""

    def __init__(self, q: Tensor, *, causal: bool, offsets: Offsets | None = None) -> None:
        """Prepare for inputs like these; see `forward`."""
        self.causal, self.offsets = causal, offsets
        self.config: Config | None = None
        self.key = key_of(q.shape[-1], q.dtype, causal=causal)
        self.default = forward_default(q.shape[-1], q.dtype, causal=causal)

    def __call__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        causal: bool,  # noqa: ARG002 (known)
        scale: float,
        offsets: Offsets | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return o and lse; see `forward`."""
        o = like(q)
        lse = torch.empty(q.shape[:3], dtype=torch.float32, device=q.device)
        config = _configs.chosen("flash_attention", "forward", self.key, self.default)
        if config is not self.config:
            self.launch, self.config = self._made(q, k, v, o, config), config
        cu_q, cu_k = (offsets.q, offsets.k) if offsets else (None, None)
        with launching.on(q):
            self.launch(q, k, v, o, lse, cu_q, cu_k, scale * _LOG2E)
        return o, lse

    def _made(self, q: Tensor, k: Tensor, v: Tensor, o: Tensor, config: Config) -> Launch:
        batches, heads, queries, head_dim = q.shape
        kv_heads, keys = k.shape[1:3]
        config = _fitting(config, self.default, _longest(q, k, self.offsets))
        grid, sequences = _grid(q, self.offsets, config["BLOCK_M"])
        read = 2 * head_dim * q.element_size() * keys * kv_heads // heads
        fixed = (
            *_strides(q, k, v, o), sequences, heads, queries, keys,
            _section(self.causal, batches * heads, read),
            *_constants(q, k, self.causal, self.offsets), config["BLOCK_M"], config["BLOCK_N"],
        )  # fmt: skip
        return Launch(_forward, grid, fixed, _options(config))


class Backward:
    """The backward pass for inputs of one form, as `Forward`."""

    def __init__(self, q: Tensor, *, causal: bool, offsets: Offsets | None = None) -> None:
        """Prepare for inputs like these; see `backward`."""
        self.causal, self.offsets = causal, offsets
        self.config: Config | None = None
        self.kept = launching.Kept()
        self.key = key_of(q.shape[-1], q.dtype, causal=causal)
        self.default = backward_default(q.shape[-1], q.dtype, causal=causal)

    def __call__(  # noqa: PLR0917
        self,
        do: Tensor,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        o: Tensor,
        lse: Tensor,
        *,
        causal: bool,  # noqa: ARG002 (known)
        scale: float,
        offsets: Offsets | None = None,
        needs_keys: bool = True,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return dq, dk and dv; see `backward`."""
        if do.stride(-1) != 1:
            do = do.contiguous()
        dq, delta = like(q), torch.empty_like(lse)
        config = _configs.chosen("flash_attention", "backward", self.key, self.default)
        if config is not self.config:
            self.kept, self.config = launching.Kept(), config
        form = (do.stride(), o.stride(), (do.data_ptr() | o.data_ptr()) & 15)
        by_queries, by_keys = self.kept.get(form) or self.kept.add(
            form, self._made(do, q, k, v, o, dq)
        )
        cu_q, cu_k = (offsets.q, offsets.k) if offsets else (None, None)
        scales = scale, scale * _LOG2E
        with launching.on(q):
            by_queries(q, k, v, o, do, dq, lse, delta, cu_q, cu_k, *scales)
            if not needs_keys:
                return dq, None, None
            dk, dv = like(k), like(v)
            by_keys(q, k, v, do, dk, dv, lse, delta, cu_q, cu_k, *scales)
        return dq, dk, dv

    def _made(  # noqa: PLR0917
        self, do: Tensor, q: Tensor, k: Tensor, v: Tensor, o: Tensor, dq: Tensor
    ) -> tuple[Launch, Launch]:
        batches, heads, queries, head_dim = q.shape
        kv_heads, keys = k.shape[1:3]
        group = heads // kv_heads
        assert self.config is not None  # noqa: S101 (set by the caller)
        config = _fitting(self.config, self.default, _longest(q, k, self.offsets))
        constants = _constants(q, k, self.causal, self.offsets)
        row = 2 * head_dim * q.element_size()
        tiles = {name[3:]: size for name, size in config.items() if name.startswith("DQ_")}
        grid, sequences = _grid(q, self.offsets, tiles["BLOCK_M"])
        fixed = (
            *_strides(q, k, v, o, do, dq), sequences, heads, queries, keys,
            _section(self.causal, batches * heads, keys * row // group),
            *constants, tiles["BLOCK_M"], tiles["BLOCK_N"],
        )  # fmt: skip
        by_queries = Launch(_backward_queries, grid, fixed, _options(tiles))
        tiles = {name: size for name, size in config.items() if not name.startswith("DQ_")}
        grid, sequences = _grid(k, self.offsets, tiles["BLOCK_N"])
        fixed = (
            *_strides(q, k, v, do, like(k), like(v)), sequences, kv_heads, queries, keys,
            _section(self.causal, batches * kv_heads, queries * row * group),
            *constants, tiles["BLOCK_M"], tiles["BLOCK_N"],
            self.offsets is None and queries % tiles["BLOCK_M"] == 0,
        )  # fmt: skip
        return by_queries, Launch(_backward_keys, grid, fixed, _options(tiles))


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
    once = Forward(q, causal=causal, offsets=offsets)
    return once(q, k, v, causal=causal, scale=scale, offsets=offsets)


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
    once = Backward(q, causal=causal, offsets=offsets)
    return once(
        do, q, k, v, o, lse, causal=causal, scale=scale, offsets=offsets, needs_keys=needs_keys
    )


def forward_default(head_dim: int, dtype: torch.dtype, *, causal: bool) -> Config:
    """Return the tiles of the forward kernel, its warps and stages, as measured on an H200."""
    if dtype == torch.float32:
        return _float32_tiles(head_dim)[0]
    if head_dim <= 64:
        return _tiles(64, 64, 4, 3) if causal else _tiles(128, 64, 4, 3)
    if head_dim < 128:
        return _tiles(64, 64, 4, 2)
    if head_dim == 128:
        return _tiles(128, 64, 8, 3) if causal else _tiles(128, 64, 4, 2)
    return _tiles(128, 64, 8, 2)


def backward_default(head_dim: int, dtype: torch.dtype, *, causal: bool) -> Config:
    """Return the tiles of both backward kernels, their warps and stages.

    `BLOCK_M` (queries) and `BLOCK_N` (keys) are those of the kernel that keeps keys; those of the
    kernel that keeps queries begin with `DQ_`.
    """
    if dtype == torch.float32:
        return _float32_tiles(head_dim)[1]
    if head_dim <= 64:
        by_keys = _tiles(128, 64, 4, 2) if causal else _tiles(64, 64, 4, 3)
        return by_keys | _tiles(64, 64, 4, 3, "DQ_")
    if head_dim < 128:
        return _tiles(64, 64, 4, 2) | _tiles(64, 64, 4, 2, "DQ_")
    if head_dim == 128:
        return _tiles(64, 64, 4, 2) | _tiles(128, 64, 8, 3, "DQ_")
    return _tiles(32, 32, 4, 1) | _tiles(64, 32, 4, 1, "DQ_")


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


def _longest(q: Tensor, k: Tensor, offsets: Offsets | None) -> tuple[int, int]:
    return (offsets.max_q, offsets.max_k) if offsets else (q.shape[2], k.shape[2])


def _fitting(config: Config, default: Config, longest: tuple[int, int]) -> Config:
    """Return a configuration whose tiles are not larger than short sequences need."""
    if config.keys() != default.keys():  # it is that of other kernels
        config = default
    most = {axis: max(16, triton.next_power_of_2(n)) for axis, n in zip("MN", longest, strict=True)}
    return {
        name: min(size, most[name[-1]]) if "BLOCK" in name else size
        for name, size in config.items()
    }


def _grid(rows: Tensor, offsets: Offsets | None, block: int) -> tuple[tuple[int, ...], int]:
    """Return the grid of a kernel that keeps tiles of rows, and how many sequences there are."""
    batches, heads, count = rows.shape[:3]
    if offsets is None:
        return (triton.cdiv(count, block) * batches * heads,), batches
    sequences = offsets.q.numel() - 1
    # Each sequence may have one tile that is not full.
    return (count // block + sequences, heads), sequences


def _strides(*tensors: Tensor) -> tuple[int, ...]:
    return tuple(stride for one in tensors for stride in one.stride()[:3])


def _options(config: Config) -> dict[str, int]:
    return {name: config[name] for name in ("num_warps", "num_stages")}


def _constants(q: Tensor, k: Tensor, causal: bool, offsets: Offsets | None) -> tuple[Any, ...]:
    """Return what all three kernels are compiled for, besides their tiles."""
    head_dim = q.shape[-1]
    sequences = 1 if offsets is None else triton.next_power_of_2(offsets.q.numel() - 1)
    padded, precision, upcast = numbers(q)
    group = q.shape[1] // k.shape[1]
    return (
        group, head_dim, padded, causal, offsets is not None, sequences, precision, upcast,
    )  # fmt: skip


def numbers(q: Tensor) -> tuple[int, str, bool]:
    """Return columns of a tile, how products are made, and whether to make them in float32.

    The interpreter has no bfloat16 arithmetic.
    """
    upcast = q.dtype == torch.bfloat16 and _checks.interpreted()
    return max(16, triton.next_power_of_2(q.shape[-1])), _precision(q.shape[-1]), upcast


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


def like(x: Tensor) -> Tensor:
    """Return an empty tensor with the order of axes of x, as `transpose(1, 2)` gave it."""
    empty = torch.empty_like(x)
    if empty.stride(-1) == 1:
        return empty
    return torch.empty_like(x, memory_format=torch.contiguous_format)
