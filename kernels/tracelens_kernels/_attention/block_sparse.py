"""Attention of listed blocks of keys: the kernels, in one piece and in three, and their lists.

A structure holds, for each block of queries, the numbers of the blocks of keys that it sees, as
compressed rows (offsets, columns), and the same by blocks of keys for the gradients of these.
"""

# pyright: reportInvalidTypeForm=false, reportGeneralTypeIssues=false

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final

import torch
import triton
import triton.language as tl

from tracelens_kernels import _checks, _configs
from tracelens_kernels._attention import launching, portable
from tracelens_kernels._attention.launching import Launch

if TYPE_CHECKING:
    from torch import Tensor

    from tracelens.kernel import Config

_LOG2E: Final = 1.4426950408889634
_LN2: Final = tl.constexpr(0.6931471805599453)
_BLOCK_SIZES: Final = (16, 32, 64, 128, 256)


class BlockStructure:
    """Which blocks of keys each block of queries sees; built once, used by any number of calls.

    Building reads the lists on the host, and so waits for the GPU; calls do not.

    Attributes:
        block_size: rows of a block, of queries and of keys alike; the last may have fewer.
        lists: 1 where all heads share one list; otherwise one for each head, or for each head of
            each member of the batch.
        query_blocks: blocks of queries.
        key_blocks: blocks of keys.
        blocks: listed pairs of blocks, in all lists together.
        longest: listed pairs of the block of queries that has most.
        offsets: int32 [lists · query_blocks + 1]: where the list of each block of queries begins.
        columns: int32 [blocks]: numbers of blocks of keys, ascending in each list.
        rows: int32 [blocks]: the number of the list that each is in.
        by_keys: (offsets, blocks of queries) of the same, by blocks of keys.
        kept: what was prepared for inputs of each form that was held against it.
    """

    def __init__(
        self,
        offsets: Tensor,
        columns: Tensor,
        *,
        key_blocks: int,
        block_size: int = 128,
        device: torch.device | str | None = None,
    ) -> None:
        """Check compressed rows, and take them to a device.

        Args:
            offsets: integers, [query_blocks + 1], rising from 0 to the number of columns; or
                [lists, query_blocks + 1], where each row begins where the one before it ends.
            columns: integers; the blocks of keys of each block of queries, none twice.
            key_blocks: how many blocks of keys there are.
            block_size: 16, 32, 64, 128 or 256.
            device: where attention is computed; that of the columns unless given.

        Raises:
            ValueError: offsets fall or do not fit the columns, a column is listed twice or is
                not there, there are no blocks of keys, or the size of blocks is another.
            TypeError: offsets or columns are no integers.
        """
        device = columns.device if device is None else torch.device(device)
        for name, one in (("offsets", offsets), ("columns", columns)):
            if one.dtype.is_floating_point or one.dtype in {torch.bool, torch.complex64}:
                raise TypeError(f"{name} is {one.dtype}; it must be int32 or int64.")
        if block_size not in _BLOCK_SIZES:
            sizes = ", ".join(map(str, _BLOCK_SIZES))
            raise ValueError(f"block_size is {block_size}; it must be one of {sizes}.")
        if key_blocks < 1:
            raise ValueError(f"key_blocks is {key_blocks}; it must be at least 1.")
        _checks.shaped(
            "offsets [query_blocks + 1] or [lists, query_blocks + 1] and columns [blocks]",
            ok=offsets.dim() in {1, 2} and offsets.shape[-1] > 1 and columns.dim() == 1,
            offsets=offsets, columns=columns,
        )  # fmt: skip
        starts = offsets.detach().cpu().long().reshape(-1, offsets.shape[-1])
        numbers = columns.detach().cpu().long()
        self.block_size = block_size
        self.kept = launching.Kept()
        self.lists, self.query_blocks = len(starts), starts.shape[1] - 1
        self.key_blocks, self.blocks = key_blocks, len(numbers)
        lengths = _lengths(starts, self.blocks)
        rows = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
        at = _places(rows, numbers, key_blocks)
        self.longest = int(lengths.max())
        self.offsets = _starts(lengths).to(device)
        self.rows = rows.int().to(device)
        self.columns = (at % key_blocks).int().to(device)
        self.by_keys = self._turned(at, device)

    @classmethod
    def from_mask(
        cls, mask: Tensor, block_size: int = 128, device: torch.device | str | None = None
    ) -> BlockStructure:
        """Return the structure of a mask of blocks.

        Args:
            mask: bool [query_blocks, key_blocks] or [lists, query_blocks, key_blocks].
            block_size: see `BlockStructure`.
            device: that of the mask unless given.

        Raises:
            ValueError: it has another number of axes, or no blocks.
            TypeError: it is not bool.
        """
        _checks.dtype_among((torch.bool,), mask=mask)
        _checks.shaped(
            "mask [query_blocks, key_blocks] or [lists, query_blocks, key_blocks]",
            ok=mask.dim() in {2, 3} and mask.numel() > 0, mask=mask,
        )  # fmt: skip
        device = mask.device if device is None else device
        whole = mask.detach().cpu().reshape(-1, *mask.shape[-2:])
        ends = whole.sum(-1).flatten().cumsum(0).reshape(len(whole), -1)
        begins = torch.cat([torch.zeros(1, dtype=ends.dtype), ends[:-1, -1]])
        offsets = torch.cat([begins[:, None], ends], 1)
        columns = whole.nonzero()[:, -1]
        return cls(
            offsets, columns, key_blocks=mask.shape[-1], block_size=block_size, device=device
        )

    def mask(self) -> Tensor:
        """Return which blocks are listed: bool [lists, query_blocks, key_blocks]."""
        found = torch.zeros(
            self.lists * self.query_blocks, self.key_blocks,
            dtype=torch.bool, device=self.columns.device,
        )  # fmt: skip
        found[self.rows.long(), self.columns.long()] = True
        return found.reshape(self.lists, self.query_blocks, self.key_blocks)

    def _turned(self, at: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return offsets and query blocks by key blocks, for places in a mask of all lists."""
        size = self.query_blocks * self.key_blocks
        one, rest = at // size, at % size
        row, column = rest // self.key_blocks, rest % self.key_blocks
        turned = (one * size + column * self.query_blocks + row).sort().values
        lengths = torch.bincount(
            turned // self.query_blocks, minlength=self.lists * self.key_blocks
        )
        return _starts(lengths).to(device), (turned % self.query_blocks).int().to(device)


def _lengths(starts: Tensor, blocks: int) -> Tensor:
    lengths = starts.diff(dim=1)
    joined = bool((starts[1:, 0] == starts[:-1, -1]).all())
    if not (starts[0, 0] == 0 and starts[-1, -1] == blocks and joined and (lengths >= 0).all()):
        raise ValueError(
            f"offsets must rise from 0 to {blocks}, the number of columns, and each list begin "
            "where the one before it ends."
        )
    return lengths.flatten()


def _places(rows: Tensor, columns: Tensor, key_blocks: int) -> Tensor:
    """Return the places of blocks in a mask, ascending."""
    outside = (columns < 0) | (columns >= key_blocks)
    if outside.any():
        number = int(columns[outside][0])
        raise ValueError(f"columns lists block {number} of keys; there are {key_blocks}.")
    places = (rows * key_blocks + columns).sort().values
    twice = places.diff() == 0
    if twice.any():
        place = int(places[1:][twice][0])
        raise ValueError(
            f"columns lists block {place % key_blocks} of keys twice for row {place // key_blocks}."
        )
    return places


def _starts(lengths: Tensor) -> Tensor:
    return torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]).int()


@triton.jit
def _list_of(offsets, bh, lists, blocks, block, split, SPLITS: tl.constexpr):  # noqa: PLR0917
    """Return where the share of a split in the list of a block begins and ends."""
    at = (bh % lists) * blocks + block
    begin = tl.load(offsets + at)
    count = tl.load(offsets + at + 1) - begin
    if SPLITS == 1:
        return begin, begin + count
    return begin + count * split // SPLITS, begin + count * (split + 1) // SPLITS


@triton.jit(do_not_specialize=["heads", "lists", "blocks", "queries", "keys"])
def _fused(  # noqa: PLR0917
    q_ptr, k_ptr, v_ptr, o_ptr, lse_ptr, offsets, columns, scale,
    q_batch: tl.int64, q_head: tl.int64, q_row: tl.int64,
    k_batch: tl.int64, k_head: tl.int64, k_row: tl.int64,
    v_batch: tl.int64, v_head: tl.int64, v_row: tl.int64,
    o_split: tl.int64, o_batch: tl.int64, o_head: tl.int64, o_row: tl.int64,
    heads, lists, blocks, queries, keys,
    GROUP: tl.constexpr, HEAD_DIM: tl.constexpr, PADDED: tl.constexpr, BLOCK: tl.constexpr,
    EVEN: tl.constexpr, PRECISION: tl.constexpr, UPCAST: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, SPLITS: tl.constexpr,
):  # fmt: skip
    """Attend to a share of the listed blocks."""
    PARTS: tl.constexpr = BLOCK // BLOCK_N
    tile = tl.program_id(0)
    split = tl.program_id(1)
    bh = tl.program_id(2)
    batch = (bh // heads).to(tl.int64)
    head = bh % heads
    begin, end = _list_of(offsets, bh, lists, blocks, tile * BLOCK_M // BLOCK, split, SPLITS)
    q_ptr += batch * q_batch + head * q_head
    k_ptr += batch * k_batch + (head // GROUP) * k_head
    v_ptr += batch * v_batch + (head // GROUP) * v_head
    row = tile * BLOCK_M + tl.arange(0, BLOCK_M)
    across = tl.arange(0, PADDED)
    key = tl.arange(0, BLOCK_N)
    there = (row < queries)[:, None]
    q = portable._load(
        q_ptr + row[:, None] * q_row + across[None, :], there, across[None, :],
        HEAD_DIM, PADDED, not EVEN, UPCAST,
    )  # fmt: skip
    k_tile = k_ptr + key[None, :] * k_row + across[:, None]
    v_tile = v_ptr + key[:, None] * v_row + across[None, :]
    acc = tl.full((BLOCK_M, PADDED), 0, tl.float32)
    total = tl.full((BLOCK_M,), 0, tl.float32)
    m = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    for at in range(begin * PARTS, end * PARTS):
        start = tl.load(columns + at // PARTS) * BLOCK + at % PARTS * BLOCK_N
        inside = start + key < keys
        k = portable._load(
            k_tile + start * k_row, inside[None, :], across[:, None],
            HEAD_DIM, PADDED, not EVEN, UPCAST,
        )  # fmt: skip
        s = tl.dot(q, k, input_precision=PRECISION)
        if not EVEN:
            s = tl.where(inside[None, :], s, float("-inf"))
        new = tl.maximum(m, tl.max(s, 1) * scale)
        # A part of the last block may have no keys.
        safe = new if EVEN else tl.where(new == float("-inf"), 0.0, new)
        p = tl.math.exp2(s * scale - safe[:, None])
        shrink = tl.math.exp2(m - safe)
        total = total * shrink + tl.sum(p, 1)
        v = portable._load(
            v_tile + start * v_row, inside[:, None], across[None, :],
            HEAD_DIM, PADDED, not EVEN, UPCAST,
        )  # fmt: skip
        acc = tl.dot(p.to(v.dtype), v, acc * shrink[:, None], input_precision=PRECISION)
        m = new
    divisor = tl.where(total == 0.0, 1.0, total)
    lse = tl.where(total == 0.0, float("-inf"), m + tl.math.log2(divisor))
    if SPLITS == 1:
        lse = lse * _LN2
    o_ptr += split * o_split + batch * o_batch + head * o_head
    o = acc / divisor[:, None]
    tl.store(
        o_ptr + row[:, None] * o_row + across[None, :],
        o.to(o_ptr.dtype.element_ty),
        mask=there & (across < HEAD_DIM)[None, :],
    )
    lse_row = (split * tl.num_programs(2) + bh).to(tl.int64) * queries
    tl.store(lse_ptr + lse_row + row, lse, mask=row < queries)


@triton.jit(do_not_specialize=["heads", "queries"])
def _combine(  # noqa: PLR0917
    part_ptr, part_lse_ptr, o_ptr, lse_ptr,
    o_batch: tl.int64, o_head: tl.int64, o_row: tl.int64, heads, queries,
    HEAD_DIM: tl.constexpr, PADDED: tl.constexpr, SPLITS: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Add the splits: each with the share e^{lse of it} / Σ e^{lse} of the whole."""
    bh = tl.program_id(1)
    rows = tl.num_programs(1).to(tl.int64) * queries
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    there = row < queries
    at = bh.to(tl.int64) * queries + row
    across = tl.arange(0, PADDED)
    inside = there[:, None] & (across < HEAD_DIM)[None, :]
    m = tl.full((ROWS,), float("-inf"), tl.float32)
    for split in tl.static_range(SPLITS):
        m = tl.maximum(m, tl.load(part_lse_ptr + split * rows + at, mask=there, other=0.0))
    safe = tl.where(m == float("-inf"), 0.0, m)
    total = tl.full((ROWS,), 0, tl.float32)
    acc = tl.full((ROWS, PADDED), 0, tl.float32)
    for split in tl.static_range(SPLITS):
        lse = tl.load(part_lse_ptr + split * rows + at, mask=there, other=0.0)
        weight = tl.math.exp2(lse - safe)
        part = tl.load(
            part_ptr + (split * rows + at)[:, None] * HEAD_DIM + across[None, :],
            mask=inside, other=0.0,
        )  # fmt: skip
        acc += part * weight[:, None]
        total += weight
    divisor = tl.where(total == 0.0, 1.0, total)
    o_ptr += (bh // heads).to(tl.int64) * o_batch + (bh % heads) * o_head
    tl.store(
        o_ptr + row[:, None] * o_row + across[None, :],
        (acc / divisor[:, None]).to(o_ptr.dtype.element_ty),
        mask=inside,
    )
    lse = tl.where(total == 0.0, float("-inf"), (m + tl.math.log2(divisor)) * _LN2)
    tl.store(lse_ptr + at, lse, mask=there)


@triton.jit(do_not_specialize=["heads", "lists", "blocks", "queries", "keys"])
def _backward_queries(  # noqa: PLR0917
    q_ptr, k_ptr, v_ptr, o_ptr, do_ptr, dq_ptr, lse_ptr, delta_ptr, offsets, columns,
    q_batch: tl.int64, q_head: tl.int64, q_row: tl.int64,
    k_batch: tl.int64, k_head: tl.int64, k_row: tl.int64,
    v_batch: tl.int64, v_head: tl.int64, v_row: tl.int64,
    o_batch: tl.int64, o_head: tl.int64, o_row: tl.int64,
    do_batch: tl.int64, do_head: tl.int64, do_row: tl.int64,
    dq_batch: tl.int64, dq_head: tl.int64, dq_row: tl.int64,
    heads, lists, blocks, queries, keys, scale, scale_log2,
    GROUP: tl.constexpr, HEAD_DIM: tl.constexpr, PADDED: tl.constexpr, BLOCK: tl.constexpr,
    EVEN: tl.constexpr, PRECISION: tl.constexpr, UPCAST: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Make δ and dQ of a tile of queries."""
    PARTS: tl.constexpr = BLOCK // BLOCK_N
    tile = tl.program_id(0)
    bh = tl.program_id(1)
    batch = (bh // heads).to(tl.int64)
    head = bh % heads
    begin, end = _list_of(offsets, bh, lists, blocks, tile * BLOCK_M // BLOCK, 0, 1)
    q_ptr += batch * q_batch + head * q_head
    k_ptr += batch * k_batch + (head // GROUP) * k_head
    v_ptr += batch * v_batch + (head // GROUP) * v_head
    o_ptr += batch * o_batch + head * o_head
    do_ptr += batch * do_batch + head * do_head
    dq_ptr += batch * dq_batch + head * dq_head
    at_row = bh.to(tl.int64) * queries
    row = tile * BLOCK_M + tl.arange(0, BLOCK_M)
    across = tl.arange(0, PADDED)
    key = tl.arange(0, BLOCK_N)
    there = (row < queries)[:, None]
    wide = across[None, :]
    do = portable._load(
        do_ptr + row[:, None] * do_row + wide, there, wide, HEAD_DIM, PADDED, not EVEN, UPCAST
    )
    o = portable._load(
        o_ptr + row[:, None] * o_row + wide, there, wide, HEAD_DIM, PADDED, not EVEN, UPCAST
    )
    delta = tl.sum(do.to(tl.float32) * o.to(tl.float32), 1)
    tl.store(delta_ptr + at_row + row, delta, mask=row < queries)
    q = portable._load(
        q_ptr + row[:, None] * q_row + wide, there, wide, HEAD_DIM, PADDED, not EVEN, UPCAST
    )
    lse = tl.load(lse_ptr + at_row + row, mask=row < queries, other=float("inf")) / _LN2
    k_tile = k_ptr + key[None, :] * k_row + across[:, None]
    v_tile = v_ptr + key[None, :] * v_row + across[:, None]
    dq = tl.full((BLOCK_M, PADDED), 0, tl.float32)
    for at in range(begin * PARTS, end * PARTS):
        start = tl.load(columns + at // PARTS) * BLOCK + at % PARTS * BLOCK_N
        inside = (start + key < keys)[None, :]
        deep = across[:, None]
        k = portable._load(k_tile + start * k_row, inside, deep, HEAD_DIM, PADDED, not EVEN, UPCAST)
        v = portable._load(v_tile + start * v_row, inside, deep, HEAD_DIM, PADDED, not EVEN, UPCAST)
        s = tl.dot(q, k, input_precision=PRECISION) * scale_log2 - lse[:, None]
        if not EVEN:
            s = tl.where(inside, s, float("-inf"))
        p = tl.math.exp2(s)
        dp = tl.dot(do, v, input_precision=PRECISION)
        ds = (p * (dp - delta[:, None])).to(k.dtype)
        dq = tl.dot(ds, tl.trans(k), dq, input_precision=PRECISION)
    tl.store(
        dq_ptr + row[:, None] * dq_row + wide,
        (dq * scale).to(dq_ptr.dtype.element_ty),
        mask=there & (wide < HEAD_DIM),
    )


@triton.jit(do_not_specialize=["kv_heads", "lists", "blocks", "queries", "keys"])
def _backward_keys(  # noqa: PLR0917
    q_ptr, k_ptr, v_ptr, do_ptr, dk_ptr, dv_ptr, lse_ptr, delta_ptr, offsets, rows,
    q_batch: tl.int64, q_head: tl.int64, q_row: tl.int64,
    k_batch: tl.int64, k_head: tl.int64, k_row: tl.int64,
    v_batch: tl.int64, v_head: tl.int64, v_row: tl.int64,
    do_batch: tl.int64, do_head: tl.int64, do_row: tl.int64,
    dk_batch: tl.int64, dk_head: tl.int64, dk_row: tl.int64,
    dv_batch: tl.int64, dv_head: tl.int64, dv_row: tl.int64,
    kv_heads, lists, blocks, queries, keys, scale, scale_log2,
    GROUP: tl.constexpr, HEAD_DIM: tl.constexpr, PADDED: tl.constexpr, BLOCK: tl.constexpr,
    EVEN: tl.constexpr, PRECISION: tl.constexpr, UPCAST: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Make dK and dV of a tile of keys, summed over the heads of queries that share it."""
    PARTS: tl.constexpr = BLOCK // BLOCK_M
    tile = tl.program_id(0)
    both = tl.program_id(1)
    batch = (both // kv_heads).to(tl.int64)
    kv_head = both % kv_heads
    k_ptr += batch * k_batch + kv_head * k_head
    v_ptr += batch * v_batch + kv_head * v_head
    dk_ptr += batch * dk_batch + kv_head * dk_head
    dv_ptr += batch * dv_batch + kv_head * dv_head
    key = tile * BLOCK_N + tl.arange(0, BLOCK_N)
    across = tl.arange(0, PADDED)
    line = tl.arange(0, BLOCK_M)
    there = (key < keys)[:, None]
    wide = across[None, :]
    k = portable._load(
        k_ptr + key[:, None] * k_row + wide, there, wide, HEAD_DIM, PADDED, not EVEN, UPCAST
    )
    v = portable._load(
        v_ptr + key[:, None] * v_row + wide, there, wide, HEAD_DIM, PADDED, not EVEN, UPCAST
    )
    dk = tl.full((BLOCK_N, PADDED), 0, tl.float32)
    dv = tl.full((BLOCK_N, PADDED), 0, tl.float32)
    for member in range(GROUP):
        head = kv_head * GROUP + member
        bh = both * GROUP + member
        begin, end = _list_of(offsets, bh, lists, blocks, tile * BLOCK_N // BLOCK, 0, 1)
        at_row = bh.to(tl.int64) * queries
        q_tile = q_ptr + batch * q_batch + head * q_head + line[None, :] * q_row + across[:, None]
        do_tile = (
            do_ptr + batch * do_batch + head * do_head + line[:, None] * do_row + across[None, :]
        )
        for at in range(begin * PARTS, end * PARTS):
            start = tl.load(rows + at // PARTS) * BLOCK + at % PARTS * BLOCK_M
            inside = start + line < queries
            q = portable._load(
                q_tile + start * q_row, inside[None, :], across[:, None],
                HEAD_DIM, PADDED, not EVEN, UPCAST,
            )  # fmt: skip
            # A query that is not there has an infinite lse, and so no weights.
            lse = tl.load(lse_ptr + at_row + start + line, mask=inside, other=float("inf"))
            delta = tl.load(delta_ptr + at_row + start + line, mask=inside, other=0.0)
            s = tl.dot(k, q, input_precision=PRECISION) * scale_log2 - (lse / _LN2)[None, :]
            p = tl.math.exp2(s)
            do = portable._load(
                do_tile + start * do_row, inside[:, None], across[None, :],
                HEAD_DIM, PADDED, not EVEN, UPCAST,
            )  # fmt: skip
            dv = tl.dot(p.to(do.dtype), do, dv, input_precision=PRECISION)
            dp = tl.dot(v, tl.trans(do), input_precision=PRECISION)
            ds = (p * (dp - delta[None, :])).to(q.dtype)
            dk = tl.dot(ds, tl.trans(q), dk, input_precision=PRECISION)
    mask = there & (wide < HEAD_DIM)
    tl.store(
        dk_ptr + key[:, None] * dk_row + wide, (dk * scale).to(dk_ptr.dtype.element_ty), mask=mask
    )
    tl.store(dv_ptr + key[:, None] * dv_row + wide, dv.to(dv_ptr.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["heads", "lists", "blocks", "queries", "keys"])
def _scores(  # noqa: PLR0917
    q_ptr, k_ptr, s_ptr, rows, columns,
    q_batch: tl.int64, q_head: tl.int64, q_row: tl.int64,
    k_batch: tl.int64, k_head: tl.int64, k_row: tl.int64,
    heads, lists, blocks, queries, keys, scale,
    GROUP: tl.constexpr, HEAD_DIM: tl.constexpr, PADDED: tl.constexpr, BLOCK: tl.constexpr,
    PRECISION: tl.constexpr, UPCAST: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Write a part of the scores of one listed block, -inf where there is no key."""
    at = tl.program_id(0)
    PARTS: tl.constexpr = BLOCK // BLOCK_N
    part = tl.program_id(1) // PARTS * BLOCK_M + tl.arange(0, BLOCK_M)
    column = tl.program_id(1) % PARTS * BLOCK_N + tl.arange(0, BLOCK_N)
    listed = tl.load(rows + at)
    bh = tl.program_id(2) * lists + listed // blocks
    q_ptr += (bh // heads) * q_batch + (bh % heads) * q_head
    k_ptr += (bh // heads) * k_batch + (bh % heads // GROUP) * k_head
    row = listed % blocks * BLOCK + part
    key = tl.load(columns + at) * BLOCK + column
    across = tl.arange(0, PADDED)
    q = portable._load(
        q_ptr + row[:, None] * q_row + across[None, :], (row < queries)[:, None], across[None, :],
        HEAD_DIM, PADDED, True, UPCAST,
    )  # fmt: skip
    k = portable._load(
        k_ptr + key[None, :] * k_row + across[:, None], (key < keys)[None, :], across[:, None],
        HEAD_DIM, PADDED, True, UPCAST,
    )  # fmt: skip
    s = tl.dot(q, k, input_precision=PRECISION) * scale
    s = tl.where((key < keys)[None, :], s, float("-inf"))
    place = tl.program_id(2).to(tl.int64) * tl.num_programs(0) + at
    place = (place * BLOCK + part)[:, None] * BLOCK + column[None, :]
    tl.store(s_ptr + place, s.to(s_ptr.dtype.element_ty))


@triton.jit(do_not_specialize=["listed"])
def _segmented_softmax(
    s_ptr, offsets, listed, BLOCK: tl.constexpr, ROWS: tl.constexpr
):  # fmt: skip
    """Turn the scores of some rows into their weights, over all blocks of their list, in place."""
    row = tl.program_id(0)
    begin = tl.load(offsets + row).to(tl.int64)
    end = tl.load(offsets + row + 1).to(tl.int64)
    line = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    s_ptr += tl.program_id(2).to(tl.int64) * listed * BLOCK * BLOCK
    tile = s_ptr + line[:, None] * BLOCK + tl.arange(0, BLOCK)[None, :]
    m = tl.full((ROWS,), float("-inf"), tl.float32)
    total = tl.full((ROWS,), 0, tl.float32)
    for at in range(begin, end):
        s = tl.load(tile + at * BLOCK * BLOCK).to(tl.float32)
        new = tl.maximum(m, tl.max(s, 1))
        safe = tl.where(new == float("-inf"), 0.0, new)
        total = total * tl.exp(m - safe) + tl.sum(tl.exp(s - safe[:, None]), 1)
        m = new
    safe = tl.where(m == float("-inf"), 0.0, m)
    divisor = tl.where(total == 0.0, 1.0, total)
    for at in range(begin, end):
        place = tile + at * BLOCK * BLOCK
        p = tl.exp(tl.load(place).to(tl.float32) - safe[:, None]) / divisor[:, None]
        tl.store(place, p.to(s_ptr.dtype.element_ty))


@triton.jit(do_not_specialize=["heads", "lists", "blocks", "listed", "queries", "keys"])
def _weighted(  # noqa: PLR0917
    p_ptr, v_ptr, o_ptr, offsets, columns,
    v_batch: tl.int64, v_head: tl.int64, v_row: tl.int64,
    o_batch: tl.int64, o_head: tl.int64, o_row: tl.int64,
    heads, lists, blocks, listed, queries, keys,
    GROUP: tl.constexpr, HEAD_DIM: tl.constexpr, PADDED: tl.constexpr, BLOCK: tl.constexpr,
    PRECISION: tl.constexpr, UPCAST: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Add up the values of a list of blocks by their weights."""
    one = tl.program_id(0)
    part = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)
    begin = tl.load(offsets + one).to(tl.int64)
    end = tl.load(offsets + one + 1).to(tl.int64)
    bh = tl.program_id(2) * lists + one // blocks
    p_ptr += tl.program_id(2).to(tl.int64) * listed * BLOCK * BLOCK
    v_ptr += (bh // heads) * v_batch + (bh % heads // GROUP) * v_head
    o_ptr += (bh // heads) * o_batch + (bh % heads) * o_head
    across = tl.arange(0, PADDED)
    PARTS: tl.constexpr = BLOCK // BLOCK_N
    key = tl.arange(0, BLOCK_N)
    acc = tl.full((BLOCK_M, PADDED), 0, tl.float32)
    for step in range(begin * PARTS, end * PARTS):
        at = step // PARTS
        column = step % PARTS * BLOCK_N
        p = tl.load(p_ptr + (at * BLOCK + part)[:, None] * BLOCK + column + key[None, :])
        start = tl.load(columns + at) * BLOCK + column
        v = portable._load(
            v_ptr + (start + key)[:, None] * v_row + across[None, :],
            (start + key < keys)[:, None], across[None, :], HEAD_DIM, PADDED, True, UPCAST,
        )  # fmt: skip
        acc = tl.dot(p.to(v.dtype), v, acc, input_precision=PRECISION)
    row = one % blocks * BLOCK + part
    tl.store(
        o_ptr + row[:, None] * o_row + across[None, :],
        acc.to(o_ptr.dtype.element_ty),
        mask=(row < queries)[:, None] & (across < HEAD_DIM)[None, :],
    )


class Forward:
    """The forward pass for inputs of one form (see `launching.form_of`) and one structure."""

    def __init__(self, q: Tensor, structure: BlockStructure) -> None:
        """Prepare for inputs like q; see `forward`."""
        self.key, self.default = key_of(q, structure), default_forward(q, structure)
        self.config: Config | None = None

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, structure: BlockStructure, *, scale: float
    ) -> tuple[Tensor, Tensor]:
        """Return o and lse; see `forward`."""
        config = _configs.chosen("block_sparse_attention", "forward", self.key, self.default)
        splits = config["SPLITS"]
        o = portable.like(q)
        lse = torch.empty(q.shape[:3], dtype=torch.float32, device=q.device)
        out, out_lse = o, lse
        if splits > 1:
            out = torch.empty((splits, *q.shape), dtype=torch.float32, device=q.device)
            out_lse = torch.empty(out.shape[:-1], dtype=torch.float32, device=q.device)
        if config is not self.config:
            self.fused = self._fused(q, k, v, out, structure, config)
            self.combine = self._combine(q, o, splits)
            self.config = config
        with launching.on(q):
            self.fused(q, k, v, out, out_lse, structure.offsets, structure.columns, scale * _LOG2E)
            if splits > 1:
                self.combine(out, out_lse, o, lse)
        return o, lse

    def _fused(  # noqa: PLR0917
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        out: Tensor,
        structure: BlockStructure,
        config: Config,
    ) -> Launch:
        batches, heads, queries = q.shape[:3]
        splits = config["SPLITS"]
        fixed = (
            *q.stride()[:3], *k.stride()[:3], *v.stride()[:3],
            out.stride(0) if splits > 1 else 0, *out.stride()[-4:-1],
            heads, structure.lists, structure.query_blocks, queries, k.shape[2],
            *_common(q, k, structure).values(), config["BLOCK_M"], config["BLOCK_N"], splits,
        )  # fmt: skip
        grid = (triton.cdiv(queries, config["BLOCK_M"]), splits, batches * heads)
        options = {name: config[name] for name in ("num_warps", "num_stages")}
        return Launch(_fused, grid, fixed, options)

    def _combine(self, q: Tensor, o: Tensor, splits: int) -> Launch:
        batches, heads, queries, head_dim = q.shape
        padded, *_ = portable.numbers(q)
        rows = 16
        fixed = (*o.stride()[:3], heads, queries, head_dim, padded, splits, rows)
        grid = (triton.cdiv(queries, rows), batches * heads)
        return Launch(_combine, grid, fixed, {"num_warps": 4})


def forward(
    q: Tensor, k: Tensor, v: Tensor, structure: BlockStructure, *, scale: float
) -> tuple[Tensor, Tensor]:
    """Return o [B, H, Sq, D], 0 where a block of queries sees none, and lse float32 [B, H, Sq].

    Args:
        q: [B, H, Sq, D], the last stride 1; checked.
        k: [B, Hkv, Sk, D].
        v: as k.
        structure: on the same device.
        scale: of the products; positive.
    """
    return Forward(q, structure)(q, k, v, structure, scale=scale)


def backward(  # noqa: PLR0917
    do: Tensor, q: Tensor, k: Tensor, v: Tensor, o: Tensor, lse: Tensor, structure: BlockStructure,
    scale: float, config: Config,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Return the gradients of q, k and v; see `forward`."""
    batches, heads, queries = q.shape[:3]
    kv_heads, keys = k.shape[1:3]
    if do.stride(-1) != 1:
        do = do.contiguous()
    dq, dk, dv = portable.like(q), portable.like(k), portable.like(v)
    delta = torch.empty_like(lse)
    strides = (*q.stride()[:3], *k.stride()[:3], *v.stride()[:3])
    common = _common(q, k, structure)
    by_queries, by_keys = (
        {name.removeprefix(prefix): size for name, size in config.items() if own(name)}
        for prefix, own in (
            ("DQ_", lambda name: name.startswith("DQ_")),
            ("", lambda name: not name.startswith("DQ_")),
        )
    )
    with launching.on(q):
        _backward_queries[(triton.cdiv(queries, by_queries["BLOCK_M"]), batches * heads)](
            q, k, v, o, do, dq, lse, delta, structure.offsets, structure.columns,
            *strides, *o.stride()[:3], *do.stride()[:3], *dq.stride()[:3],
            heads, structure.lists, structure.query_blocks, queries, keys, scale, scale * _LOG2E,
            **common, **by_queries,
        )  # fmt: skip
        _backward_keys[(triton.cdiv(keys, by_keys["BLOCK_N"]), batches * kv_heads)](
            q, k, v, do, dk, dv, lse, delta, *structure.by_keys,
            *strides, *do.stride()[:3], *dk.stride()[:3], *dv.stride()[:3],
            kv_heads, structure.lists, structure.key_blocks, queries, keys, scale, scale * _LOG2E,
            **common, **by_keys,
        )  # fmt: skip
    return dq, dk, dv


def unfused(  # noqa: PLR0917
    q: Tensor, k: Tensor, v: Tensor, structure: BlockStructure, scale: float, config: Config
) -> Tensor:
    """Return the output, by three kernels with the weights in memory; see `forward`.

    config: BLOCK_M and BLOCK_N of the products; ROWS of the softmax that one program does;
    num_warps.
    """
    batches, heads, queries = q.shape[:3]
    size, keys, listed = structure.block_size, k.shape[2], structure.blocks
    repeats = batches * heads // structure.lists
    lists = structure.lists * structure.query_blocks
    scores = torch.empty((repeats, listed, size, size), dtype=q.dtype, device=q.device)
    o = portable.like(q)
    common = _common(q, k, structure)
    del common["EVEN"]
    warps: dict[str, Any] = {"num_warps": config["num_warps"]}
    tiles = {**common, **warps, "BLOCK_M": config["BLOCK_M"], "BLOCK_N": config["BLOCK_N"]}
    rows = config["ROWS"]
    parts = size // config["BLOCK_M"]
    about = (heads, structure.lists, structure.query_blocks)
    with launching.on(q):
        if listed:
            _scores[(listed, parts * (size // config["BLOCK_N"]), repeats)](
                q, k, scores, structure.rows, structure.columns, *q.stride()[:3], *k.stride()[:3],
                *about, queries, keys, scale, **tiles,
            )  # fmt: skip
            _segmented_softmax[(lists, size // rows, repeats)](
                scores, structure.offsets, listed, size, rows, **warps
            )
        _weighted[(lists, parts, repeats)](
            scores, v, o, structure.offsets, structure.columns, *v.stride()[:3], *o.stride()[:3],
            *about, listed, queries, keys, **tiles,
        )  # fmt: skip
    return o


def _common(q: Tensor, k: Tensor, structure: BlockStructure) -> dict[str, Any]:
    """Return what all kernels are compiled for, in the order in which they take it."""
    size = structure.block_size
    padded, precision, upcast = portable.numbers(q)
    return {
        "GROUP": q.shape[1] // k.shape[1],
        "HEAD_DIM": q.shape[-1],
        "PADDED": padded,
        "BLOCK": size,
        "EVEN": q.shape[2] % size == 0 and k.shape[2] % size == 0,
        "PRECISION": precision,
        "UPCAST": upcast,
    }


def key_of(q: Tensor, structure: BlockStructure) -> str:
    """Return what a tuned configuration is kept under."""
    name = str(q.dtype).removeprefix("torch.")
    tiles = structure.query_blocks * q.shape[0] * q.shape[1]
    each = structure.blocks // (structure.lists * structure.query_blocks)
    return (
        f"block={structure.block_size} head_dim={q.shape[-1]} {name} "
        f"query_blocks={triton.next_power_of_2(tiles)} "
        f"listed={triton.next_power_of_2(max(each, 1))}"
    )


@functools.cache
def _processors(device: torch.device) -> int:
    if device.type != "cuda":
        return 1
    return torch.cuda.get_device_properties(device).multi_processor_count


def default_forward(q: Tensor, structure: BlockStructure) -> Config:
    """Return tiles, and lists split so that every processor has four programs, if they can be."""
    size, (padded, *_) = structure.block_size, portable.numbers(q)
    wide = padded > 128 or q.dtype == torch.float32
    tile = min(size, 64)
    programs = triton.cdiv(q.shape[2], tile) * q.shape[0] * q.shape[1]
    splits = round(4 * _processors(q.device) / programs)
    return {
        "BLOCK_M": tile,
        "BLOCK_N": min(size, 32 if wide else 64),
        "SPLITS": max(1, min(splits, structure.longest // 2, 8)),
        "num_warps": 4,
        "num_stages": 2 if wide else 4 if padded <= 64 else 3,
    }


def default_backward(q: Tensor, structure: BlockStructure) -> Config:
    """Return the tiles of the kernel that keeps keys, and (`DQ_`) of that which keeps queries."""
    size = structure.block_size
    wide = q.shape[-1] > 128 or q.dtype == torch.float32
    tile = min(size, 32 if wide else 64)
    one = {"BLOCK_M": tile, "BLOCK_N": tile, "num_warps": 4, "num_stages": 1 if wide else 2}
    return one | {f"DQ_{name}": value for name, value in one.items()}


def default_unfused(q: Tensor, structure: BlockStructure) -> Config:
    """Return the tiles of the products, and the rows of a program of the softmax."""
    size, (padded, *_) = structure.block_size, portable.numbers(q)
    wide = padded > 128 or q.dtype == torch.float32
    return {
        "BLOCK_M": min(size, 64),
        "BLOCK_N": min(size, 32 if wide else 128),
        "ROWS": min(size, 16),
        "num_warps": 4,
    }
