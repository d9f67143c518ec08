"""Cross-entropy of a linear layer's outputs that never holds them all: logits by chunks of tokens.

Of each chunk, the logits are computed, replaced by their gradient (see `cross_entropy`), and
multiplied into the gradients of hidden states and weight at once, in forward; the chunk's memory
then serves the next. The idea is that of P.-L. Hsu et al., "Liger Kernel: Efficient Triton Kernels
for LLM Training", 2024. The products are torch's.
"""

# pyright: reportIncompatibleMethodOverride=false

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch

from tracelens.kernel import OURS, Implementation, Kernel, Operation
from tracelens.workload import Work
from tracelens_kernels import _checks, _rows
from tracelens_kernels import _rows_bench as bench
from tracelens_kernels.ops import cross_entropy as whole

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from tracelens.kernel import Shape, Tensors

_LOGITS: Final = 1 << 27
"""Logits of a chunk, at most, unless a chunk is given: 256 MiB in a 16-bit format."""
_LEAST: Final = 256
"""Tokens of a chunk, at least: fewer would leave the products short of work."""


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor,
    ignore_index: int = -100,
    reduction: whole.Reduction = "mean",
    *,
    chunk: int | None = None,
) -> Tensor:
    """Return `cross_entropy(hidden @ weight.T, target)` without the logits ever being in memory.

    Gradients are made in forward, where they are needed: that of the weight is added up in fp32
    over the chunks, so that forward holds 4 bytes for each of its elements, and the logits of one
    chunk.

    Under autocast, both are cast to its format first, as for a linear layer.

    Args:
        hidden: [..., width], bf16, fp16 or fp32, on a GPU.
        weight: [classes, width] of the same format.
        target: [...], int64 or int32: see `cross_entropy`.
        ignore_index: see `cross_entropy`.
        reduction: `mean` or `sum`.
        chunk: tokens whose logits are in memory at a time; None for an eighth of them, but at
            least 256, and no more than 2**27 logits.

    Raises:
        ValueError: the shapes do not fit one another, something is empty, nothing is on a GPU, the
            chunk is not positive, or the reduction is none of the two.
        TypeError: a format is another, or those of hidden and weight differ.
    """
    kind = hidden.device.type
    if kind in {"cuda", "cpu"} and torch.is_autocast_enabled(kind):
        dtype = torch.get_autocast_dtype(kind)
        hidden, weight = hidden.to(dtype), weight.to(dtype)
        with torch.autocast(kind, enabled=False):
            return linear_cross_entropy(
                hidden, weight, target, ignore_index, reduction, chunk=chunk
            )
    _check(hidden, weight, target, reduction)
    rows, classes = _rows.as_rows(hidden), target.reshape(-1)
    tokens = rows.shape[0]
    if chunk is None:
        chunk = _chunk(tokens, weight.shape[0])
    if chunk < 1:
        raise ValueError(f"chunk is {chunk}; it must be at least 1.")
    loss: Tensor
    if _rows.needs_gradient(hidden, weight):
        loss = _LinearCrossEntropy.apply(rows, weight, classes, ignore_index, reduction, chunk)
        return loss
    room = _room(rows, weight, chunk)
    losses = [
        whole.losses_of(_logits(part, weight, room), some, ignore_index)[0]
        for part, some in zip(rows.split(chunk), classes.split(chunk), strict=True)
    ]
    share = whole.share_of(classes, ignore_index, reduction)
    return whole.reduced(torch.cat(losses), target, share, reduction)


def _chunk(tokens: int, classes: int) -> int:
    """Return how many tokens to take at a time: of 128 a multiple, if it is not fewer."""
    wanted = max(1, min(max(tokens // 8, _LEAST), _LOGITS // classes))
    return wanted // 128 * 128 or wanted


def _room(hidden: Tensor, weight: Tensor, chunk: int) -> Tensor:
    """Return memory for a chunk's logits; rows begin at multiples of 64, for fast products."""
    rows, classes = min(chunk, hidden.shape[0]), weight.shape[0]
    return hidden.new_empty((rows, -(-classes // 64) * 64))[:, :classes]


def _logits(hidden: Tensor, weight: Tensor, room: Tensor) -> Tensor:
    return torch.mm(hidden, weight.T, out=room[: hidden.shape[0]])


def _check(hidden: Tensor, weight: Tensor, target: Tensor, reduction: str) -> None:
    _checks.dtype_among(_rows.FLOATS, hidden=hidden)
    _checks.same_dtype(hidden=hidden, weight=weight)
    _checks.dtype_among((torch.int64, torch.int32), target=target)
    _checks.on_gpu(hidden=hidden, weight=weight, target=target)
    _checks.not_empty(hidden=hidden, weight=weight, target=target)
    _checks.shaped(
        "hidden [..., width], weight [classes, width] and target [...]",
        ok=hidden.ndim > 0
        and weight.shape[1:] == hidden.shape[-1:]
        and hidden.shape[:-1] == target.shape,
        hidden=hidden,
        weight=weight,
        target=target,
    )
    if reduction not in ("mean", "sum"):
        raise ValueError(
            f"reduction is {reduction!r}; it must be mean or sum: the gradients of single losses "
            "are not kept."
        )


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0917
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        target: Tensor,
        ignore_index: int,
        reduction: str,
        chunk: int,
    ) -> Tensor:
        of_hidden, of_weight = ctx.needs_input_grad[:2]
        tokens = hidden.shape[0]
        share = whole.share_of(target, ignore_index, reduction)
        losses = torch.empty(tokens, dtype=torch.float32, device=hidden.device)
        room = _room(hidden, weight, chunk)
        dhidden = torch.empty_like(hidden) if of_hidden else None
        dweight = None
        for start in range(0, tokens, chunk):
            here = slice(start, start + chunk)
            logits = _logits(hidden[here], weight, room)
            losses[here] = whole.gradient_in_place(logits, target[here], ignore_index, None)
            if dhidden is not None:
                torch.mm(logits, weight, out=dhidden[here])
            if of_weight:
                dweight = _add_product(dweight, logits.T, hidden[here])
        if dweight is not None:
            dweight = (dweight if share is None else dweight.mul_(share)).to(weight.dtype)
        ctx.save_for_backward(dhidden, dweight, share)
        return whole.reduced(losses, target, share, reduction)

    @staticmethod
    def backward(ctx: Any, dloss: Tensor) -> tuple[Tensor | None, ...]:
        _checks.once("linear_cross_entropy", "torch.nn.functional.cross_entropy of the logits")
        dhidden, dweight, share = ctx.saved_tensors
        if dhidden is not None:
            dhidden = dhidden * (dloss if share is None else dloss * share)
        if dweight is not None:
            dweight = dweight * dloss
        return dhidden, dweight, None, None, None, None


def _add_product(total: Tensor | None, left: Tensor, right: Tensor) -> Tensor:
    """Return total + left @ right in fp32, in place if there is a total."""
    if left.dtype == torch.float32:
        return left @ right if total is None else total.addmm_(left, right)
    if not left.is_cuda:
        left, right = left.float(), right.float()
        return left @ right if total is None else total.addmm_(left, right)
    if total is None:
        return torch.mm(left, right, out_dtype=torch.float32)
    return torch.addmm(total, left, right, out_dtype=torch.float32, out=total)


def _inputs(shape: Shape, dtype: str, device: str, seed: int) -> dict[str, Tensor]:
    generator = bench.source(device, seed)
    tokens, width, classes = shape["tokens"], shape["width"], shape["classes"]
    return {
        "hidden": bench.random((tokens, width), dtype, generator),
        "weight": bench.random((classes, width), dtype, generator).mul_(width**-0.5),
        "target": torch.randint(classes, (tokens,), generator=generator, device=device),
    }


def _work(shape: Shape, dtype: str) -> Work:
    """Count three products, and what goes in and comes out once; logits need not cross memory."""
    tokens, width, classes = shape["tokens"], shape["width"], shape["classes"]
    moved = 2 * (tokens + classes) * width * bench.SIZES[dtype] + 8 * tokens
    return Work("linear and cross-entropy", 6 * tokens * width * classes, moved, dtype)


def _reference(tensors: Tensors, shape: Shape) -> dict[str, Tensor]:
    """Return the loss and the gradients, computed in float64 some rows at a time."""
    step = max(1, (1 << 26) // shape["classes"])
    weight = tensors["weight"].double().requires_grad_()
    dweight, loss, dhidden = torch.zeros_like(weight), torch.zeros_like(weight[0, 0]), []
    for some, target in zip(
        tensors["hidden"].split(step), tensors["target"].split(step), strict=True
    ):
        hidden = some.double().requires_grad_()
        total = torch.nn.functional.cross_entropy(hidden @ weight.T, target, reduction="sum")
        of_hidden, of_weight = torch.autograd.grad(total / shape["tokens"], (hidden, weight))
        dhidden.append(of_hidden)
        dweight += of_weight
        loss = loss + total.detach() / shape["tokens"]
    return {"loss": loss, "dhidden": torch.cat(dhidden), "dweight": dweight}


def _implementation(
    summary: str, function: Callable[..., Tensor], *, compiles: bool = False
) -> Implementation:
    """Return what a loss and its way back to hidden states and weight make an implementation."""

    def build(tensors: Tensors, _shape: Shape) -> Callable[[], Tensors]:
        hidden, weight = (tensors[one].detach().requires_grad_() for one in ("hidden", "weight"))
        run = bench.compiled(function) if compiles else function

        def call() -> Tensors:
            loss = run(hidden, weight, tensors["target"])
            dhidden, dweight = torch.autograd.grad(loss, (hidden, weight))
            return {"loss": loss.detach(), "dhidden": dhidden, "dweight": dweight}

        if compiles:
            call()
        return call

    return Implementation(summary, build)


def _plain(hidden: Tensor, weight: Tensor, target: Tensor) -> Tensor:
    return torch.nn.functional.cross_entropy(hidden @ weight.T, target)


KERNEL = Kernel(
    axes={"tokens": None, "width": 768, "classes": 50257},
    shapes=(
        {"tokens": 8192, "width": 768, "classes": 50257},
        {"tokens": 8192, "width": 4096, "classes": 128256},
        {"tokens": 1823, "width": 520, "classes": 7813},
    ),
    dtypes=bench.FORMATS,
    operations={
        "forward-backward": Operation(
            work=_work,
            inputs=_inputs,
            reference=_reference,
            implementations={
                OURS: _implementation("Triton and torch.mm, by chunks", linear_cross_entropy),
                "eager": _implementation("torch.mm and torch's cross_entropy", _plain),
                "compile": _implementation("the same by torch.compile", _plain, compiles=True),
            },
        )
    },
    function=lambda: linear_cross_entropy,
)
