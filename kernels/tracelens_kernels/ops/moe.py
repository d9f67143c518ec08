r"""Mixture of SwiGLU experts: every token goes to its top k, none is dropped.

.. math:: y_t = \sum_{e \in top_k(p_t)} w_{t,e}\,
    \bigl(silu(x_t W^{gate}_e) \odot x_t W^{up}_e\bigr) W^{down}_e,
    \qquad p_t = softmax(x_t R^T), \quad w_{t,e} = p_{t,e} / \sum_{e'} p_{t,e'}

Tokens are sorted by expert on the GPU (nothing waits for the counts), multiplied by grouped
products, and each token gathers its k rows, so that results are the same in every run. Routing by
softmax and top k is that of Shazeer et al. (2017) and Mixtral; the loss of balance that of the
Switch Transformer (Fedus et al., 2022), here of all k choices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch

from tracelens.kernel import OURS, Implementation, Kernel, Operation
from tracelens.workload import Work
from tracelens_kernels import _checks
from tracelens_kernels._gemm import paths, quick, routing, tokens
from tracelens_kernels.ops import grouped_matmul
from tracelens_kernels.ops.matmul import matmul

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from torch import Tensor

    from tracelens.kernel import Shape, Tensors

_FORMATS: Final = (torch.bfloat16, torch.float16, torch.float32)
_RIGHT: Final = quick.Right()
_TORCH: Final = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


@dataclass(frozen=True)
class Routing:
    """Which expert each token goes to; T tokens, E experts, k choices.

    Attributes:
        logits: [T, E], what was chosen by.
        experts: [T, k], the chosen, the likeliest first.
        weights: [T, k], fp32, of each choice's result; differentiable.
        slots: [T, k], int32: the row of a choice among all choices sorted by expert.
        tokens: [T · k], int32: the token in each of these rows.
        offsets: [E], int32: the row after each expert's last, as `grouped_matmul` takes it.
    """

    logits: Tensor
    experts: Tensor
    weights: Tensor
    slots: Tensor
    tokens: Tensor
    offsets: Tensor


@dataclass(frozen=True)
class Load:
    """How evenly experts are used; all of it on the GPU.

    Attributes:
        tokens: [E], how many choices fell on each expert.
        balance_loss: E · Σ (share of choices · mean probability), 1 where even; differentiable.
        variation: standard deviation of `tokens` over their mean; 0 where even.
        gini: Gini's coefficient of `tokens`; 0 where even, 1 − 1/E where one expert has all.
    """

    tokens: Tensor
    balance_loss: Tensor
    variation: Tensor
    gini: Tensor


def route(logits: Tensor, top_k: int, *, normalize: bool = True) -> Routing:
    """Choose experts by softmax and top k, and sort the choices by expert (stably).

    Of equal logits the first wins; NaN counts as the largest.

    Args:
        logits: [T, E], any floating-point format; computed in fp32.
        top_k: experts for each token.
        normalize: let the weights of a token's choices add up to 1.

    Raises:
        ValueError: there are no tokens or experts, or they are on no GPU, or `top_k` is not among
            1 … E.
        TypeError: logits are no floating-point numbers.
    """
    _checks.on_gpu(logits=logits)
    if not logits.is_floating_point():
        raise TypeError(f"logits is {logits.dtype}; it must be a floating-point format.")
    _checks.shaped("logits [T, E]", ok=logits.ndim == 2, logits=logits)
    _checks.not_empty(logits=logits)
    experts = logits.shape[1]
    if not 1 <= top_k <= experts:
        raise ValueError(f"top_k is {top_k}; with {experts} experts it is from 1 to {experts}.")
    chosen, slots, tokens_of, offsets = routing.choose(logits.detach(), top_k)
    if normalize:  # softmax of all, divided by the sum of the chosen, is softmax of the chosen
        weights = logits.gather(1, chosen).softmax(1, dtype=torch.float32)
    else:
        weights = logits.softmax(1, dtype=torch.float32).gather(1, chosen)
    return Routing(logits, chosen, weights, slots, tokens_of, offsets)


def load(chosen: Routing) -> Load:
    """Return how evenly a routing uses the experts."""
    counts = torch.diff(chosen.offsets, prepend=chosen.offsets.new_zeros(1))
    share = counts / chosen.offsets[-1]
    experts = len(counts)
    ranks = torch.arange(1, experts + 1, device=counts.device)
    return Load(
        tokens=counts,
        balance_loss=experts
        * (share * chosen.logits.softmax(1, dtype=torch.float32).mean(0)).sum(),
        variation=share.std(correction=0) * experts,
        gini=((2 * ranks - experts - 1) * share.sort().values).sum() / experts,
    )


def moe(  # noqa: PLR0917
    x: Tensor,
    router_weight: Tensor,
    w_gate: Tensor,
    w_up: Tensor,
    w_down: Tensor,
    top_k: int = 2,
    *,
    normalize: bool = True,
    return_load: bool = False,
) -> Any:
    """Send each token through its `top_k` experts; differentiable once in every tensor.

    Args:
        x: [..., D], bf16, fp16 or fp32.
        router_weight: [E, D], as of `torch.nn.Linear(D, E)`.
        w_gate: [E, D, F], any strides.
        w_up: [E, D, F], any strides.
        w_down: [E, F, D], any strides.
        top_k: experts for each token.
        normalize: let the weights of a token's experts add up to 1.
        return_load: return (out, `Load`) rather than out.

    Returns:
        [..., D], in the format of `x`.

    Raises:
        ValueError: shapes or devices do not fit, a size is 0, or `top_k` is not among 1 … E.
        TypeError: formats differ, or are none of the three.
    """
    if (sort := quick.sort_of(x, router_weight, w_gate, w_up, w_down)) not in _RIGHT:
        _check(x, router_weight, w_gate, w_up, w_down)
        _RIGHT.add(sort)
    rows = x.reshape(-1, x.shape[-1])
    logits = matmul(rows, router_weight.t(), out_dtype=torch.float32)
    chosen = route(logits, top_k, normalize=normalize)
    out: Tensor = _Experts.apply(
        rows, chosen.weights, w_gate, w_up, w_down, chosen.slots, chosen.tokens, chosen.offsets
    )
    out = out.view(x.shape)
    return (out, load(chosen)) if return_load else out


def _check(x: Tensor, router_weight: Tensor, w_gate: Tensor, w_up: Tensor, w_down: Tensor) -> None:
    there = {
        "x": x,
        "router_weight": router_weight,
        "w_gate": w_gate,
        "w_up": w_up,
        "w_down": w_down,
    }
    _checks.on_gpu(**there)
    _checks.dtype_among(_FORMATS, x=x)
    _checks.same_dtype(**there)
    _checks.not_empty(**there)
    experts, width = router_weight.shape if router_weight.ndim == 2 else (0, 0)
    fits = (
        x.shape[-1:] == (width,)
        and w_gate.ndim == 3
        and w_gate.shape[:2] == (experts, width)
        and w_up.shape == w_gate.shape
        and w_down.shape == (experts, w_gate.shape[2], width)
    )
    if not fits:
        expected = "x [..., D], router [E, D], gate and up [E, D, F], down [E, F, D]"
        _checks.shaped(expected, ok=False, **there)


class _Experts(torch.autograd.Function):
    """All that comes after routing, with its gradients."""

    @staticmethod
    def forward(  # noqa: PLR0917
        ctx: Any,
        x: Tensor,
        weights: Tensor,
        w_gate: Tensor,
        w_up: Tensor,
        w_down: Tensor,
        slots: Tensor,
        of_token: Tensor,
        offsets: Tensor,
    ) -> Tensor:
        rows = x.index_select(0, of_token)
        save = any(ctx.needs_input_grad)
        hidden, gate, up = _gated(rows, w_gate, w_up, offsets, save=save)
        results = grouped_matmul.rows_by_group(hidden, w_down, offsets)
        weights = weights.contiguous()
        if save:
            ctx.save_for_backward(
                rows, gate, up, results, weights, w_gate, w_up, w_down, slots, offsets
            )
        return tokens.combine(results, slots, weights)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        _checks.once("moe", "a loop of torch.matmul")
        rows, gate, up, results, weights, w_gate, w_up, w_down, slots, offsets = ctx.saved_tensors
        of_x, _, of_gate, of_up, of_down, *_ = ctx.needs_input_grad
        by_rows, by_group = grouped_matmul.rows_by_group, grouped_matmul.inner_by_group
        grad_results, grad_weights = tokens.combine_backward(grads[0], results, slots, weights)
        grad_hidden = by_rows(grad_results, w_down.transpose(1, 2), offsets)
        hidden, grad_gate, grad_up = tokens.swiglu_backward(grad_hidden, gate, up)
        grad_x = None
        if of_x:
            grad_rows = by_rows(grad_gate, w_gate.transpose(1, 2), offsets)
            grad_rows += by_rows(grad_up, w_up.transpose(1, 2), offsets)
            grad_x = tokens.combine(grad_rows, slots, None)
        return (
            grad_x,
            grad_weights,
            by_group(rows, grad_gate, offsets) if of_gate else None,
            by_group(rows, grad_up, offsets) if of_up else None,
            by_group(hidden, grad_results, offsets) if of_down else None,
            None,
            None,
            None,
        )


def _gated(
    rows: Tensor, w_gate: Tensor, w_up: Tensor, offsets: Tensor, *, save: bool
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Return silu(gate) · up, and, to `save` them for gradients, gate and up."""
    groups, _, columns = w_gate.shape
    each = -(-len(rows) // groups)
    if (config := paths.gated(each, columns, rows.dtype, rows.device, groups)) is None:
        gate = grouped_matmul.rows_by_group(rows, w_gate, offsets)
        up = grouped_matmul.rows_by_group(rows, w_up, offsets)
        return tokens.swiglu(gate, up), gate, up
    hidden = rows.new_empty(len(rows), columns)
    saved = (torch.empty_like(hidden), torch.empty_like(hidden)) if save else (None, None)
    paths.of(config).gated(rows, w_gate, w_up, offsets, (hidden, *saved), config)
    return hidden, *saved


# What the bench knows of it.


def _forward_work(shape: Shape, dtype: str) -> Work:
    count, width, hidden, experts = (shape[axis] for axis in ("tokens", "d", "d_ff", "experts"))
    rows = count * shape["top_k"]
    flops = 6 * rows * width * hidden + 2 * count * width * experts
    used = int(experts * (1 - (1 - 1 / experts) ** rows))  # on average; the rest is not read
    moved = 2 * count * width + experts * width + 3 * used * width * hidden
    return Work("linear", flops=flops, bytes=_TORCH[dtype].itemsize * moved, dtype=dtype)


def _backward_work(shape: Shape, dtype: str) -> Work:
    forward = _forward_work(shape, dtype)
    return Work("linear", flops=2 * forward.flops, bytes=2 * forward.bytes, dtype=dtype)


def _inputs(shape: Shape, dtype: str, device: str, seed: int) -> Tensors:
    count, width, hidden, experts = (shape[axis] for axis in ("tokens", "d", "d_ff", "experts"))
    random = torch.Generator(device).manual_seed(seed)
    form = _TORCH[dtype]

    def normal(*sizes: int, scale: float = 1.0) -> Tensor:
        return torch.randn(sizes, generator=random, device=device, dtype=form) * scale

    return {
        "x": normal(count, width),
        "router": normal(experts, width, scale=width**-0.5),
        "gate": normal(experts, width, hidden, scale=width**-0.5),
        "up": normal(experts, width, hidden, scale=width**-0.5),
        "down": normal(experts, hidden, width, scale=hidden**-0.5),
        "grad": normal(count, width),
    }


_MOST_FLOPS: Final = 2e13
_WEIGHTS: Final = ("x", "router", "gate", "up", "down")


def dense_loop(tensors: Iterable[Tensor], chosen: Routing) -> Tensor:
    """Return what `moe` does, expert by expert in plain PyTorch, in the format of the tensors."""
    x, router, gate, up, down = tensors
    out = torch.zeros_like(x)
    for expert in range(len(router)):
        token, choice = (chosen.experts == expert).nonzero(as_tuple=True)
        rows = x[token]
        hidden = torch.nn.functional.silu(rows @ gate[expert]) * (rows @ up[expert])
        weight = chosen.weights[token, choice].to(x.dtype)
        out = out.index_add(0, token, (hidden @ down[expert]) * weight[:, None])
    return out


def _routing(inputs: Tensors, shape: Shape) -> Routing:
    return route(inputs["x"].float() @ inputs["router"].float().t(), shape["top_k"])


def _plain(inputs: Tensors, shape: Shape) -> Tensor:
    tensors = [inputs[name] for name in _WEIGHTS]
    return dense_loop(tensors, _routing(inputs, shape))


def _reference(inputs: Tensors, shape: Shape) -> Tensors:
    tensors = [inputs[name].double() for name in _WEIGHTS]
    return {"out": dense_loop(tensors, _routing(inputs, shape))}


def _backward_reference(inputs: Tensors, shape: Shape) -> Tensors:
    """Return the gradients of float64, or of fp32 where that would not fit into memory."""
    form = torch.float64 if _forward_work(shape, "fp32").flops < _MOST_FLOPS else torch.float32
    wide = {name: one.to(form) for name, one in inputs.items()}
    chosen = _routing(inputs, shape).experts
    return _gradients(wide, lambda leaves: _loop_of(leaves, chosen))()


def _loop_of(tensors: Tensors, chosen: Tensor) -> Tensor:
    """Return the loop's result with experts that were chosen before; weights are its own."""
    logits = tensors["x"] @ tensors["router"].t()
    weights = logits.gather(1, chosen).softmax(1)
    routing_of = Routing(logits, chosen, weights, chosen, chosen, chosen)
    return dense_loop([tensors[name] for name in _WEIGHTS], routing_of)


def _gradients(inputs: Tensors, function: Callable[[Tensors], Tensor]) -> Callable[[], Tensors]:
    leaves = {name: inputs[name].detach().requires_grad_() for name in _WEIGHTS}
    out = function(leaves)

    def run() -> Tensors:
        grads = torch.autograd.grad(out, tuple(leaves.values()), inputs["grad"], retain_graph=True)
        return {f"grad_{name}": grad for name, grad in zip(leaves, grads, strict=True)}

    return run


def _differentiated(
    function: Callable[[Tensors, Shape], Tensor],
) -> Callable[[Tensors, Shape], Callable[[], Tensors]]:
    return lambda inputs, shape: _gradients(inputs, lambda leaves: function(leaves, shape))


def _torch_grouped(inputs: Tensors, shape: Shape) -> Tensor:
    x, router, gate, up, down = (inputs[name] for name in _WEIGHTS)
    logits = torch.mm(x, router.t(), out_dtype=torch.float32)
    chosen = route(logits, shape["top_k"])
    rows = x.index_select(0, chosen.tokens)
    product = torch._grouped_mm  # pyright: ignore[reportPrivateImportUsage]
    hidden = torch.nn.functional.silu(product(rows, gate, offs=chosen.offsets))
    hidden = hidden * product(rows, up, offs=chosen.offsets)
    results = product(hidden, down, offs=chosen.offsets)
    picked = results[chosen.slots.flatten()].view(*chosen.slots.shape, -1)
    return (picked * chosen.weights.to(x.dtype)[:, :, None]).sum(1)


def _timed(
    function: Callable[[Tensors, Shape], Tensor],
) -> Callable[[Tensors, Shape], Callable[[], Tensors]]:
    return lambda inputs, shape: lambda: {"out": function(inputs, shape)}


def _compiled(inputs: Tensors, shape: Shape) -> Callable[[], Tensors]:
    compiled = torch.compile(_torch_grouped, dynamic=False)
    compiled(inputs, shape)
    return lambda: {"out": compiled(inputs, shape)}


def _ours(inputs: Tensors, shape: Shape) -> Tensor:
    x, router, gate, up, down = (inputs[name] for name in _WEIGHTS)
    out: Tensor = moe(x, router, gate, up, down, top_k=shape["top_k"])
    return out


def _only_bf16(shape: Shape, dtype: str) -> str:
    if dtype != "bf16":
        return "it multiplies bf16 alone"
    wrong = [axis for axis in ("d", "d_ff") if shape[axis] % 8]
    return f"{' and '.join(wrong)} must be a multiple of 8" if wrong else ""


KERNEL = Kernel(
    axes={"tokens": None, "d": None, "d_ff": None, "experts": 8, "top_k": 2},
    shapes=(
        {"tokens": 512, "d": 1024, "d_ff": 4096, "experts": 8, "top_k": 2},
        {"tokens": 8192, "d": 2048, "d_ff": 8192, "experts": 16, "top_k": 2},
        {"tokens": 65536, "d": 4096, "d_ff": 11008, "experts": 32, "top_k": 2},
        {"tokens": 333, "d": 520, "d_ff": 1000, "experts": 7, "top_k": 3},
    ),
    dtypes=("bf16", "fp16", "fp32"),
    operations={
        "forward": Operation(
            work=_forward_work,
            inputs=_inputs,
            reference=_reference,
            implementations={
                OURS: Implementation("tracelens_kernels.moe", _timed(_ours)),
                "eager": Implementation("a loop over experts", _timed(_plain)),
                "grouped-mm": Implementation(
                    "torch._grouped_mm and eager PyTorch", _timed(_torch_grouped), _only_bf16
                ),
                "compile": Implementation(
                    "torch.compile of that with torch._grouped_mm", _compiled, _only_bf16
                ),
            },
        ),
        "backward": Operation(
            work=_backward_work,
            inputs=_inputs,
            reference=_backward_reference,
            implementations={
                OURS: Implementation("tracelens_kernels.moe", _differentiated(_ours)),
                "eager": Implementation("a loop over experts", _differentiated(_plain)),
                "grouped-mm": Implementation(
                    "torch._grouped_mm and eager PyTorch",
                    _differentiated(_torch_grouped),
                    _only_bf16,
                ),
            },
            tolerance={"fp32": 1e-5, "fp16": 3e-3, "bf16": 2e-2},
        ),
    },
    function=lambda: moe,
)
