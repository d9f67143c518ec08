"""What a mixture of experts does to rows, beside products: gate, combine, and their gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch
import triton
import triton.language as tl

from tracelens_kernels._gemm.quick import launch

if TYPE_CHECKING:
    from torch import Tensor

_BLOCK: Final = 1024


@triton.jit
def _swiglu(gate_ptr, up_ptr, out_ptr, size, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    there = at < size
    gate = tl.load(gate_ptr + at, mask=there, other=0.0).to(tl.float32)
    up = tl.load(up_ptr + at, mask=there, other=0.0).to(tl.float32)
    out = gate * tl.sigmoid(gate) * up
    tl.store(out_ptr + at, out.to(out_ptr.dtype.element_ty), mask=there)


@triton.jit
def _swiglu_backward(  # noqa: PLR0917
    grad_ptr, gate_ptr, up_ptr, out_ptr, grad_gate_ptr, grad_up_ptr, size, BLOCK: tl.constexpr
):  # fmt: skip
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    there = at < size
    grad = tl.load(grad_ptr + at, mask=there, other=0.0).to(tl.float32)
    gate = tl.load(gate_ptr + at, mask=there, other=0.0).to(tl.float32)
    up = tl.load(up_ptr + at, mask=there, other=0.0).to(tl.float32)
    open_ = tl.sigmoid(gate)
    silu = gate * open_
    to = out_ptr.dtype.element_ty
    tl.store(out_ptr + at, (silu * up).to(to), mask=there)
    tl.store(grad_gate_ptr + at, (grad * up * (open_ + silu * (1 - open_))).to(to), mask=there)
    tl.store(grad_up_ptr + at, (grad * silu).to(to), mask=there)


@triton.jit
def _combine(  # noqa: PLR0917
    rows_ptr, slots_ptr, weights_ptr, out_ptr, width, TOP_K: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    for choice in tl.static_range(TOP_K):
        slot = tl.load(slots_ptr + token * TOP_K + choice).to(tl.int64)
        row = tl.load(rows_ptr + slot * width + at, mask=at < width, other=0.0).to(tl.float32)
        if weights_ptr is not None:
            row *= tl.load(weights_ptr + token * TOP_K + choice).to(tl.float32)
        total += row
    tl.store(out_ptr + token * width + at, total.to(out_ptr.dtype.element_ty), mask=at < width)


@triton.jit
def _combine_backward(  # noqa: PLR0917
    grad_ptr, grad_token, grad_column, rows_ptr, slots_ptr, weights_ptr, grad_rows_ptr,
    grad_weights_ptr, width, TOP_K: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    choice = token * TOP_K + tl.program_id(1)
    slot = tl.load(slots_ptr + choice).to(tl.int64)
    weight = tl.load(weights_ptr + choice).to(tl.float32)
    total = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, width, BLOCK):
        at = start + tl.arange(0, BLOCK)
        there = at < width
        grad = tl.load(grad_ptr + token * grad_token + at * grad_column, mask=there, other=0.0)
        grad = grad.to(tl.float32)
        row = tl.load(rows_ptr + slot * width + at, mask=there, other=0.0).to(tl.float32)
        total += grad * row
        grad *= weight
        to = grad_rows_ptr.dtype.element_ty
        tl.store(grad_rows_ptr + slot * width + at, grad.to(to), mask=there)
    tl.store(grad_weights_ptr + choice, tl.sum(total, 0))


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """Return silu(gate) · up of contiguous tensors."""
    out = torch.empty_like(gate)
    grid = (triton.cdiv(gate.numel(), _BLOCK),)
    launch(_swiglu, grid, (gate, up, out, gate.numel()), {"BLOCK": _BLOCK})
    return out


def swiglu_backward(grad: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return silu(gate) · up once more, and the gradients of gate and up."""
    outs = (torch.empty_like(gate), torch.empty_like(gate), torch.empty_like(gate))
    grid = (triton.cdiv(gate.numel(), _BLOCK),)
    launch(_swiglu_backward, grid, (grad, gate, up, *outs, gate.numel()), {"BLOCK": _BLOCK})
    return outs


def combine(rows: Tensor, slots: Tensor, weights: Tensor | None) -> Tensor:
    """Return for each token the (weighted) sum of its rows: [T, D] from [T · k, D]."""
    tokens, top_k = slots.shape
    width = rows.shape[1]
    out = rows.new_empty(tokens, width)
    grid = (tokens, triton.cdiv(width, _BLOCK))
    launch(_combine, grid, (rows, slots, weights, out, width), {"TOP_K": top_k, "BLOCK": _BLOCK})
    return out


def combine_backward(
    grad: Tensor, rows: Tensor, slots: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the gradients of the rows and of the weights, which are fp32."""
    tokens, top_k = slots.shape
    grad_rows = torch.empty_like(rows)
    grad_weights = torch.empty(slots.shape, dtype=torch.float32, device=rows.device)
    args = (grad, *grad.stride(), rows, slots, weights, grad_rows, grad_weights, rows.shape[1])
    launch(_combine_backward, (tokens, top_k), args, {"TOP_K": top_k, "BLOCK": _BLOCK})
    return grad_rows, grad_weights
