"""Attention of sequences of different lengths, one after another in one tensor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import triton

from tracelens_kernels import _checks
from tracelens_kernels._attention import dense, launching, portable

if TYPE_CHECKING:
    from torch import Tensor


_MOST_SEQUENCES = 8192
"""A program finds its sequence among all in its registers."""


def _rows_of(*tensors: Tensor) -> list[Tensor]:
    """Return [1, H, tokens, D] views of [tokens, H, D], the last stride 1."""
    for one in tensors:
        _checks.shaped("q, k, v [tokens, H, D]", ok=one.dim() == 3, given=one)
    return [
        (one if one.stride(-1) == 1 else one.contiguous()).transpose(0, 1).unsqueeze(0)
        for one in tensors
    ]


def _check_offsets(offsets: Tensor, name: str, rows: Tensor, other: Tensor) -> None:
    """Raise unless the offsets of sequences rise from 0 to the number of rows."""
    if offsets.dtype != torch.int32:
        raise TypeError(f"{name} is {offsets.dtype}; make it int32 by .to(torch.int32).")
    fits = offsets.dim() == 1 and offsets.numel() > 1 and offsets.shape == other.shape
    _checks.shaped("one offset more than there are sequences", ok=fits, **{name: offsets})
    if offsets.numel() > _MOST_SEQUENCES + 1:
        raise ValueError(
            f"{name} has {offsets.numel() - 1} sequences; at most {_MOST_SEQUENCES} are possible: "
            "split the batch."
        )
    _checks.on_gpu(q=rows, **{name: offsets})
    if rows.is_cuda and torch.cuda.is_current_stream_capturing():
        return
    seen = None if offsets.is_inference() else (offsets._version, rows.shape[0])
    if seen and getattr(offsets, "_tracelens_seen", None) == seen:
        return
    ends = offsets.tolist()
    if ends[0] != 0 or ends[-1] != rows.shape[0] or ends != sorted(ends):
        raise ValueError(
            f"{name} must rise from 0 to {rows.shape[0]}, the tokens; it goes from {ends[0]} "
            f"to {ends[-1]}{'' if ends == sorted(ends) else ', and falls between'}."
        )
    offsets._tracelens_seen = seen  # type: ignore[attr-defined]


def _offsets(cu_q: Tensor, cu_k: Tensor, max_q: int, max_k: int) -> portable.Offsets:
    # Tiles are of at most 128 rows: longer sequences are all the same to them.
    longest = (triton.next_power_of_2(min(max(one, 1), 128)) for one in (max_q, max_k))
    return portable.Offsets(cu_q.contiguous(), cu_k.contiguous(), *longest)


def _plan(
    q: Tensor, k: Tensor, v: Tensor, offsets: portable.Offsets, causal: bool
) -> tuple[portable.Forward, portable.Backward]:
    form = (*launching.form_of(q, k, v, offsets.q, offsets.k), offsets[2:], causal)
    found: tuple[portable.Forward, portable.Backward] = _plans.get(form) or _plans.add(
        form,
        (
            portable.Forward(q, causal=causal, offsets=offsets),
            portable.Backward(q, causal=causal, offsets=offsets),
        ),
    )
    return found


_plans = launching.Kept()


def forward(  # noqa: PLR0917
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_q: Tensor,
    cu_k: Tensor,
    max_q: int,
    max_k: int,
    causal: bool,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Return o [tokens, H, D] and lse [H, tokens] of tensors [tokens, H, D], which are checked."""
    q1, k1, v1 = _rows_of(q, k, v)
    dense.check(q1, k1, v1)
    _check_offsets(cu_q, "cu_seqlens_q", q, cu_k)
    _check_offsets(cu_k, "cu_seqlens_k", k, cu_q)
    offsets = _offsets(cu_q, cu_k, max_q, max_k)
    run, _ = _plan(q1, k1, v1, offsets, causal)
    o, lse = run(q1, k1, v1, causal=causal, scale=scale, offsets=offsets)
    return o[0].transpose(0, 1), lse[0]


def backward(  # noqa: PLR0917
    do: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    o: Tensor,
    lse: Tensor,
    cu_q: Tensor,
    cu_k: Tensor,
    max_q: int,
    max_k: int,
    causal: bool,
    scale: float,
) -> tuple[Tensor, ...]:
    """Return dq, dk and dv."""
    offsets = _offsets(cu_q, cu_k, max_q, max_k)
    do1, q1, k1, v1, o1 = _rows_of(do, q, k, v, o)
    _, run = _plan(q1, k1, v1, offsets, causal)
    gradients = run(do1, q1, k1, v1, o1, lse[None], causal=causal, scale=scale, offsets=offsets)
    return tuple(one[0].transpose(0, 1) for one in gradients if one is not None)


_HOW = "Tensor cu_q, Tensor cu_k, int max_q, int max_k, bool causal, float scale"
forward_op = torch.library.custom_op(
    "tracelens::flash_attention_varlen",
    lambda *given: tuple(one.contiguous() for one in forward(*given)),
    mutates_args=(),
    schema=f"(Tensor q, Tensor k, Tensor v, {_HOW}) -> (Tensor, Tensor)",
)
backward_op = torch.library.custom_op(
    "tracelens::flash_attention_varlen_backward",
    lambda *given: tuple(one.contiguous() for one in backward(*given)),
    mutates_args=(),
    schema=f"(Tensor do, Tensor q, Tensor k, Tensor v, Tensor o, Tensor lse, {_HOW})"
    " -> (Tensor, Tensor, Tensor)",
)


@forward_op.register_fake
def _(q: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    tokens, heads, _dim = q.shape
    return dense.like(q), q.new_empty((heads, tokens), dtype=torch.float32)


@backward_op.register_fake
def _(_do: Tensor, q: Tensor, k: Tensor, v: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    return dense.like(q), dense.like(k), dense.like(v)
