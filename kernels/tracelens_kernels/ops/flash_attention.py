"""Attention that keeps its scores on the chip, forward and backward.

    O = softmax(scale · Q Kᵀ) V,        lse = ln Σⱼ exp(scale · qᵢ · kⱼ)

Queries are [B, H, Sq, D], keys and values [B, Hkv, Sk, D], where H is a multiple of Hkv: with
fewer heads of keys than of queries, H / Hkv of these share one. Without an axis of heads,
[B, S, D], there is one. Any Sq and Sk of at least 1, any D up to 256, float32, float16 and
bfloat16; any strides, but where the last is not 1 a copy is made. Sums are float32.

**Causal means that the last query sees the last key**: query i sees the keys j ≤ i + Sk − Sq. With
Sq ≠ Sk this differs from `scaled_dot_product_attention(is_causal=True)`, which lets the first
query see the first key alone; it is the mask that decoding with a cache of keys needs. A query
that sees no key has output 0, lse −∞ and no gradient.

By the algorithm of FlashAttention-2 (T. Dao, arXiv:2307.08691); on Hopper by that of
FlashAttention-3 (J. Shah et al., arXiv:2407.08608), where the sizes allow it and are large enough.
Products of float32 are as exact as its sums (up to D = 128 by three products of TF32 each), unless
`torch.backends.cuda.matmul.allow_tf32` lets one do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from tracelens.kernel import Kernel
from tracelens_kernels._attention import bench, dense, tuning, varlen

if TYPE_CHECKING:
    from torch import Tensor


def flash_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    causal: bool = False,
    *,
    scale: float | None = None,
    return_lse: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Return softmax(scale · Q Kᵀ) V; differentiable once.

    Under autocast the inputs are cast as those of PyTorch's own attention are.

    Args:
        q: [B, H, Sq, D] or [B, Sq, D].
        k: [B, Hkv, Sk, D] or [B, Sk, D], of the same format.
        v: as k.
        causal: query i sees the keys j ≤ i + Sk − Sq alone: **the last query sees the last key**.
        scale: of the products, positive; D ** -0.5 unless given.
        return_lse: return the logarithm of the sums, too, float32 [B, H, Sq] or [B, Sq], natural;
            it has no gradient.

    Raises:
        ValueError: shapes do not fit, a tensor is empty or on the wrong device, or scale is not
            positive.
        TypeError: formats differ, or are none of float32, float16, bfloat16.
        RuntimeError: the GPU is too old.
    """
    q, k, v = dense.autocast(q, k, v)
    if torch.compiler.is_compiling() or dense.is_differentiated(q, k, v):
        out: Tensor | tuple[Tensor, Tensor]
        out = FlashAttention.apply(q, k, v, causal, scale, return_lse)
        return out
    o, lse = dense.forward(q, k, v, causal, dense.scale_of(q, scale))
    return (o, lse) if return_lse else o


class FlashAttention(torch.autograd.Function):
    """`flash_attention` as autograd knows it: `FlashAttention.apply(q, k, v, is_causal=False)`.

    It keeps q, k, v, the output, and one float32 logarithm per query, [B, S] for [B, S, D].
    """

    @staticmethod
    def forward(  # noqa: PLR0917
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        is_causal: bool = False,
        scale: float | None = None,
        return_lse: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Return the output, and the logarithms if they are asked for."""
        scale = dense.scale_of(q, scale)
        run = dense.forward_op if torch.compiler.is_compiling() else dense.forward
        o, lse = run(q, k, v, is_causal, scale)
        ctx.save_for_backward(q, k, v, o, lse)
        ctx.causal, ctx.scale = is_causal, scale
        if not return_lse:
            return o
        ctx.mark_non_differentiable(lse)
        return o, lse

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of q, k and v, those that are needed."""
        dense.once("flash_attention")
        needed = ctx.needs_input_grad[:3]
        given = (grads[0], *ctx.saved_tensors, ctx.causal, ctx.scale)
        if torch.compiler.is_compiling():
            gradients = dense.backward_op(*given)
        else:
            gradients = dense.backward(*given, needs_keys=any(needed[1:]))
        return (*dense.needed(gradients, needed), None, None, None)


def flash_attention_varlen(  # noqa: PLR0917
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """Return `flash_attention` of sequences of different lengths, one after another.

    Sequence n has the queries cu_seqlens_q[n] … cu_seqlens_q[n + 1] and the keys
    cu_seqlens_k[n] … cu_seqlens_k[n + 1]; either may be none. Differentiable once.

    The offsets are read once, when a tensor of them is first seen, which waits for the GPU; not
    while a CUDA graph is recorded.

    Args:
        q: [tokens, H, D].
        k: [tokens of keys, Hkv, D], of the same format, with H a multiple of Hkv.
        v: as k.
        cu_seqlens_q: int32 [sequences + 1]: 0, then the end of each sequence.
        cu_seqlens_k: likewise, of keys.
        max_seqlen_q: queries of the longest sequence; the tiles are made for it, and a wrong one
            costs time and not the result.
        max_seqlen_k: likewise, of keys.
        causal: within a sequence the last query sees the last key, see `flash_attention`.
        scale: of the products, positive; D ** -0.5 unless given.

    Raises:
        ValueError: as `flash_attention`; or the offsets do not rise from 0 to the tokens, or are
            of more than 8,192 sequences.
        TypeError: as `flash_attention`, or the offsets are no int32.
        RuntimeError: the GPU is too old.
    """
    q, k, v = dense.autocast(q, k, v)
    given = (q, k, v, cu_seqlens_q, cu_seqlens_k)
    longest = (max_seqlen_q, max_seqlen_k)
    if torch.compiler.is_compiling() or dense.is_differentiated(q, k, v):
        out: Tensor = _Varlen.apply(*given, longest, causal, scale)
    else:
        out, _ = varlen.forward(*given, *longest, causal, dense.scale_of(q, scale))
    return out


class _Varlen(torch.autograd.Function):
    """Attention over sequences of different lengths; it keeps [H, tokens] logarithms."""

    @staticmethod
    def forward(  # noqa: PLR0917
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        cu_q: Tensor,
        cu_k: Tensor,
        longest: tuple[int, int],
        causal: bool,
        scale: float | None,
    ) -> Tensor:
        """Return the output [tokens, H, D]."""
        scale = dense.scale_of(q, scale)
        run = varlen.forward_op if torch.compiler.is_compiling() else varlen.forward
        o, lse = run(q, k, v, cu_q, cu_k, *longest, causal, scale)
        ctx.save_for_backward(q, k, v, o, lse, cu_q, cu_k)
        ctx.how = (*longest, causal, scale)
        return o

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of q, k and v, those that are needed."""
        dense.once("flash_attention_varlen")
        needed = ctx.needs_input_grad[:3]
        run = varlen.backward_op if torch.compiler.is_compiling() else varlen.backward
        gradients = run(grads[0], *ctx.saved_tensors, *ctx.how)
        return (*dense.needed(gradients, needed), None, None, None, None, None)


KERNEL = Kernel(
    axes=bench.AXES,
    shapes=bench.SHAPES,
    dtypes=("bf16", "fp16", "fp32"),
    operations={
        name: bench.operation(name) for name in ("forward", "backward", "forward_backward")
    },
    tuning={name: tuning.flash(name) for name in ("forward", "backward")},
    function=lambda: flash_attention,
)
