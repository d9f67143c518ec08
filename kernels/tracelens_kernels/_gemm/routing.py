"""Which experts tokens go to, and where a token's row is once all are sorted by expert."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch
import triton
import triton.language as tl

from tracelens_kernels._gemm.quick import launch

if TYPE_CHECKING:
    from torch import Tensor

_PROGRAMS: Final = 256
"""At most; each counts its own tokens, and later adds up what those before it counted."""

_CHUNK: Final = 16
_LOWEST: Final = tl.constexpr(-(2**31))


@triton.jit
def _choose(  # noqa: PLR0917
    logits_ptr, to_row, to_column, experts_ptr, counts_ptr, tokens, experts, share,
    TOP_K: tl.constexpr, SLOTS: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """Write each token's `TOP_K` experts, and how many of a program's choices each expert got."""
    expert = tl.arange(0, SLOTS)
    counts = tl.zeros((SLOTS,), tl.int32)
    first = tl.program_id(0) * share
    for start in range(first, tl.minimum(first + share, tokens), CHUNK):
        token = start + tl.arange(0, CHUNK)
        there = (token < tokens)[:, None] & (expert < experts)[None, :]
        at = token.to(tl.int64)[:, None] * to_row + expert[None, :] * to_column
        bits = tl.load(logits_ptr + at, mask=there, other=0.0).to(tl.float32)
        bits = bits.to(tl.int32, bitcast=True)
        order = tl.maximum(bits ^ ((bits >> 31) & 0x7FFFFFFF), _LOWEST + 1)  # ascends, NaN too
        order = tl.where(there, order, _LOWEST)
        for choice in tl.static_range(TOP_K):
            best = tl.argmax(order, 1)
            to = experts_ptr + token.to(tl.int64) * TOP_K + choice
            tl.store(to, best.to(tl.int64), mask=token < tokens)
            taken = (expert[None, :] == best[:, None]) & there
            counts += tl.sum(taken.to(tl.int32), 0)
            order = tl.where(taken, _LOWEST, order)
    tl.store(counts_ptr + tl.program_id(0) * SLOTS + expert, counts)


@triton.jit
def _place(  # noqa: PLR0917
    experts_ptr, counts_ptr, slots_ptr, tokens_ptr, offsets_ptr, choices, experts, share,
    TOP_K: tl.constexpr, SLOTS: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """Write where each choice stands when all are sorted by expert, stably."""
    expert = tl.arange(0, SLOTS)
    total = tl.zeros((SLOTS,), tl.int32)
    before = tl.zeros((SLOTS,), tl.int32)
    for start in range(0, tl.num_programs(0), CHUNK):
        program = start + tl.arange(0, CHUNK)
        at = counts_ptr + program[:, None] * SLOTS + expert[None, :]
        counts = tl.load(at, mask=(program < tl.num_programs(0))[:, None], other=0)
        total += tl.sum(counts, 0)
        before += tl.sum(tl.where((program < tl.program_id(0))[:, None], counts, 0), 0)
    upto = tl.cumsum(total, 0)
    if tl.program_id(0) == 0:
        tl.store(offsets_ptr + expert, upto, mask=expert < experts)
    free = upto - total + before
    first = tl.program_id(0) * share
    for start in range(first, tl.minimum(first + share, choices), CHUNK):
        choice = start + tl.arange(0, CHUNK)
        theirs = tl.load(experts_ptr + choice, mask=choice < choices, other=SLOTS)
        taken = (theirs[:, None] == expert[None, :]).to(tl.int32)
        earlier = tl.cumsum(taken, 0) - taken
        slot = tl.sum(taken * (free[None, :] + earlier), 1)
        tl.store(slots_ptr + choice, slot, mask=choice < choices)
        tl.store(tokens_ptr + slot, choice // TOP_K, mask=choice < choices)
        free += tl.sum(taken, 0)


def choose(logits: Tensor, top_k: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return experts [T, k] (int64), slots [T, k], tokens [T · k] and offsets [E] (int32)."""
    tokens, experts = logits.shape
    device = logits.device
    share = triton.cdiv(triton.cdiv(tokens, _PROGRAMS), _CHUNK) * _CHUNK
    programs = triton.cdiv(tokens, share)
    places = max(2, triton.next_power_of_2(experts))
    chosen = torch.empty((tokens, top_k), dtype=torch.int64, device=device)
    counts, slots, of_slot, offsets = (
        torch.empty(shape, dtype=torch.int32, device=device)
        for shape in ((programs, places), (tokens, top_k), (tokens * top_k,), (experts,))
    )
    constants = {"TOP_K": top_k, "SLOTS": places, "CHUNK": _CHUNK}
    counted = (logits, *logits.stride(), chosen, counts, tokens, experts, share)
    launch(_choose, (programs,), counted, constants)
    placed = (chosen, counts, slots, of_slot, offsets, tokens * top_k, experts, share * top_k)
    launch(_place, (programs,), placed, constants)
    return chosen, slots, of_slot, offsets
