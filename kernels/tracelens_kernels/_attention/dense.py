"""Attention of sequences of one length: its checks, and which kernels do it."""

from __future__ import annotations

import functools
import importlib
import math
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import torch

from tracelens_kernels import _checks
from tracelens_kernels._attention import launching, portable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from torch import Tensor

_DTYPES: Final = (torch.float32, torch.float16, torch.bfloat16)
_MAX_HEAD_DIM: Final = 256


_SHORT: Final = 8_000_000_000
"""Operations of a forward pass that is over before the kernels for Hopper are launched: these take
descriptors of tensors, which the host makes in some 60 µs."""


class Plan(NamedTuple):
    """Which kernels do inputs of one form, and why those for Hopper do not."""

    forward: Any
    backward: Any
    why_not: tuple[str, str]


_plans = launching.Kept()


def plan_of(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Plan:
    """Return the plan for inputs [B, H, S, D]; they are checked when their form is new."""
    form = (*launching.form_of(q, k, v), causal)
    found: Plan = _plans.get(form) or _plans.add(form, _planned(q, k, v, causal))
    return found


def _planned(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Plan:
    check(q, k, v)
    reasons = [_why_not(name, q, k, v, causal) for name in ("forward", "backward")]
    return Plan(
        portable.Forward(q, causal=causal) if reasons[0] else hopper("forward").forward,
        portable.Backward(q, causal=causal) if reasons[1] else hopper("backward").backward,
        (reasons[0], reasons[1]),
    )


def _why_not(name: str, q: Tensor, k: Tensor, v: Tensor, causal: bool) -> str:
    if is_short(q.numel(), k.shape[2], causal=causal):
        return "it is short"
    return why_not_hopper(name, q, k, v, causal=causal)


def is_short(elements: int, keys: int, *, causal: bool) -> bool:
    """Tell whether attention of a q of so many elements is over sooner than it is launched."""
    return 4 * elements * keys // (2 if causal else 1) < _SHORT


def why_not_hopper(name: str, q: Tensor, k: Tensor, v: Tensor, *, causal: bool) -> str:
    """Return why the kernel for Hopper, `forward` or `backward`, does not do this, or ""."""
    if (module := hopper(name)) is None:
        return "this Triton has no Gluon as it is used"
    reason: str = module.why_not(q, k, v, causal=causal)
    return reason


@functools.cache
def hopper(name: str) -> Any:
    """Return the module of a kernel for Hopper, or None where it cannot be imported."""
    try:
        return importlib.import_module(f"tracelens_kernels._attention.hopper_{name}")
    except ImportError:  # Gluon is experimental: another Triton may not have it as it is used
        return None


def check(q: Tensor, k: Tensor, v: Tensor) -> None:
    """Raise what `flash_attention` says it raises, unless [B, H, S, D] tensors fit together."""
    _checks.not_empty(q=q, k=k, v=v)
    fits = (
        k.shape == v.shape
        and q.shape[0] == k.shape[0]
        and q.shape[1] % k.shape[1] == 0
        and q.shape[-1] == k.shape[-1]
    )
    _checks.shaped(
        "q [B, H, Sq, D] and k, v [B, Hkv, Sk, D], with H a multiple of Hkv", ok=fits, q=q, k=k, v=v
    )
    if q.shape[-1] > _MAX_HEAD_DIM:
        raise ValueError(f"head_dim is {q.shape[-1]}; at most {_MAX_HEAD_DIM} is possible.")
    _checks.dtype_among(_DTYPES, q=q, k=k, v=v)
    _checks.same_dtype(q=q, k=k, v=v)
    _checks.on_gpu(q=q, k=k, v=v)


def is_differentiated(*tensors: Tensor) -> bool:
    """Tell whether autograd has to know of what is made of these."""
    return torch.is_grad_enabled() and any(one.requires_grad for one in tensors)


def with_heads(*tensors: Tensor) -> Sequence[Tensor]:
    """Return [B, H, S, D] views of [B, H, S, D] or [B, S, D], the last stride 1."""
    ranks = {one.dim() for one in tensors}
    if ranks == {3}:
        tensors = tuple(one.unsqueeze(1) for one in tensors)
    elif ranks != {4}:
        shapes = ", ".join(str(list(one.shape)) for one in tensors)
        raise ValueError(f"Expected q, k, v [B, H, S, D] or [B, S, D]; got {shapes}.")
    return [one if one.stride(-1) == 1 else one.contiguous() for one in tensors]


def forward(q: Tensor, k: Tensor, v: Tensor, causal: bool, scale: float) -> tuple[Tensor, Tensor]:
    """Return o and lse of [B, H, S, D] or [B, S, D] tensors, which are checked."""
    q4, k4, v4 = with_heads(q, k, v)
    o, lse = plan_of(q4, k4, v4, causal).forward(q4, k4, v4, causal=causal, scale=scale)
    return (o, lse) if q.dim() == 4 else (o.squeeze(1), lse.squeeze(1))


def backward(  # noqa: PLR0917
    do: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    o: Tensor,
    lse: Tensor,
    causal: bool,
    scale: float,
    *,
    needs_keys: bool = True,
) -> Sequence[Tensor | None]:
    """Return dq, dk and dv; these two may be None unless they are needed."""
    do4, q4, k4, v4, o4 = with_heads(do, q, k, v, o)
    run = plan_of(q4, k4, v4, causal).backward
    if not needs_keys and isinstance(run, portable.Backward):
        run = functools.partial(run, needs_keys=False)
    lse4 = lse if q.dim() == 4 else lse.unsqueeze(1)
    gradients: Sequence[Tensor | None] = run(do4, q4, k4, v4, o4, lse4, causal=causal, scale=scale)
    if q.dim() == 4:
        return gradients
    return [one if one is None else one.squeeze(1) for one in gradients]


def autocast(*tensors: Tensor) -> Sequence[Tensor]:
    """Return tensors in the format that autocast asks for, where it is on."""
    kind = tensors[0].device.type
    if kind not in {"cuda", "cpu"} or not torch.is_autocast_enabled(kind):
        return tensors
    dtype = torch.get_autocast_dtype(kind)
    return [one.to(dtype) for one in tensors]


def once(name: str) -> None:
    """Raise RuntimeError in a backward pass that shall be differentiated itself."""
    plain = "torch.nn.functional.scaled_dot_product_attention with the backend MATH"
    _checks.once(name, plain)


def scale_of(q: Tensor, scale: float | None) -> float:
    """Return the scale of the products of q; ValueError unless it is positive and finite."""
    if scale is None:
        return float(max(q.shape[-1], 1) ** -0.5)
    if not 0 < scale < math.inf:
        raise ValueError(f"scale is {scale}; it must be positive and finite.")
    return float(scale)


def needed(gradients: Iterable[Tensor | None], wanted: Iterable[bool]) -> Iterator[Tensor | None]:
    """Return the gradients that are wanted, and None for the others."""
    return (one if need else None for one, need in zip(gradients, wanted, strict=True))


# For torch.compile, to which these are single operations that it does not look into. What they
# return has the strides that were announced.


def like(one: Tensor) -> Tensor:
    """Return an empty contiguous tensor."""
    return torch.empty(one.shape, dtype=one.dtype, device=one.device)


def _forward_whole(
    q: Tensor, k: Tensor, v: Tensor, causal: bool, scale: float
) -> tuple[Tensor, Tensor]:
    o, lse = forward(q, k, v, causal, scale)
    return o.contiguous(), lse.contiguous()


def _backward_whole(*given: Any) -> tuple[Tensor, ...]:
    return tuple(one.contiguous() for one in backward(*given) if one is not None)


forward_op = torch.library.custom_op(
    "tracelens::flash_attention",
    _forward_whole,
    mutates_args=(),
    schema="(Tensor q, Tensor k, Tensor v, bool causal, float scale) -> (Tensor, Tensor)",
)
backward_op = torch.library.custom_op(
    "tracelens::flash_attention_backward",
    _backward_whole,
    mutates_args=(),
    schema="(Tensor do, Tensor q, Tensor k, Tensor v, Tensor o, Tensor lse, bool causal,"
    " float scale) -> (Tensor, Tensor, Tensor)",
)


@forward_op.register_fake
def _(q: Tensor, _k: Tensor, _v: Tensor, _causal: bool, _scale: float) -> tuple[Tensor, Tensor]:
    return like(q), q.new_empty(q.shape[:-1], dtype=torch.float32)


@backward_op.register_fake
def _(_do: Tensor, q: Tensor, k: Tensor, v: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    return like(q), like(k), like(v)
