"""A mixture of experts, as modules: router, dispatch, experts, combine.

Shapes: T tokens of width d, E experts of width f, k experts a token. Nothing is dropped: each of
the T·k copies of tokens reaches its expert, however many others do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch
from torch import nn
from torch.nn import functional

from tracelens_workloads._torch import span

if TYPE_CHECKING:
    from torch import Tensor

    from tracelens_workloads.moe import MixtureOfExperts


GROUPED_PRODUCT: Final[Any] = getattr(functional, "grouped_mm", getattr(torch, "_grouped_mm", None))
"""PyTorch's grouped product, public from 2.10 on; None where it has none."""


class Router(nn.Module):
    """Chooses k experts for each token, and how much each of them weighs.

    With skew s the logit of the e-th expert is lowered by s·log e; its probability, whatever the
    token, is then in proportion to e^-s, as in Zipf's law. The last experts, as many as are to be
    empty, are never chosen.
    """

    bias: Tensor

    def __init__(self, config: MixtureOfExperts, *, device: str, dtype: torch.dtype) -> None:
        super().__init__()
        experts = config.experts
        self.top_k = config.top_k
        self.linear = nn.Linear(config.d_model, experts, bias=False, device=device, dtype=dtype)
        bias = -config.skew * torch.arange(1, experts + 1, device=device).log()
        bias[experts - config.empty :] = -torch.inf
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return weights[T, k], which add up to 1, experts[T, k], and probabilities[T, E]."""
        probabilities = (self.linear(x).float() + self.bias).softmax(-1)
        weights, chosen = probabilities.topk(self.top_k, dim=-1)
        return weights / weights.sum(-1, keepdim=True), chosen, probabilities


class Experts(nn.Module):
    """E MLPs without biases, each on rows of its own: down(gelu(up(x))) or its SwiGLU.

    With SwiGLU, gate and up are one matrix. They run by a grouped product, one kernel for all
    experts, or one after another, which needs the counts on the host and so waits for the device.
    """

    def __init__(
        self, config: MixtureOfExperts, *, grouped: bool, device: str, dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.gated = config.activation == "swiglu"
        self.grouped = grouped
        wide = config.d_ff * (1 + self.gated)
        up, down = (config.d_model, wide), (config.d_ff, config.d_model)
        self.up = nn.Parameter(torch.empty(config.experts, *up, device=device, dtype=dtype))
        self.down = nn.Parameter(torch.empty(config.experts, *down, device=device, dtype=dtype))
        for weight in (self.up, self.down):
            nn.init.normal_(weight, std=weight.shape[1] ** -0.5)

    def forward(self, rows: Tensor, counts: Tensor) -> Tensor:
        """Map rows[T·k, d], sorted by expert, to the same shape; counts[E] says whose they are."""
        if self.grouped:
            with span("grouped"):
                return self._all(rows, counts.cumsum(0, dtype=torch.int32))
        with span("loop"):
            return self._one_by_one(rows, counts.tolist())

    def _all(self, rows: Tensor, ends: Tensor) -> Tensor:
        wide = GROUPED_PRODUCT(rows, self.up, offs=ends)
        y: Tensor = GROUPED_PRODUCT(self._activated(wide), self.down, offs=ends)
        return y

    def _one_by_one(self, rows: Tensor, counts: list[int]) -> Tensor:
        # One unbind, because each index into a parameter would get a gradient of the whole.
        split = torch.split(rows, counts)
        each = zip(split, self.up.unbind(), self.down.unbind(), strict=True)
        return torch.cat(
            [self._activated(some @ up) @ down for some, up, down in each if len(some)]
        )

    def _activated(self, wide: Tensor) -> Tensor:
        if not self.gated:
            return functional.gelu(wide)
        gate, up = wide.chunk(2, dim=-1)
        return functional.silu(gate) * up


class Dispatch(nn.Module):
    """Sorts the copies of tokens by their experts."""

    def __init__(self, experts: int) -> None:
        super().__init__()
        self.experts = experts

    def forward(self, x: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return rows[T·k, d], which copy each of them is: order[T·k], and counts[E]."""
        order = chosen.flatten().argsort(stable=True)
        counts = torch.bincount(chosen.flatten(), minlength=self.experts)
        return x.index_select(0, order // chosen.shape[1]), order, counts


class Combine(nn.Module):
    """Brings the copies of each token together again, and adds them up by weight."""

    def forward(self, rows: Tensor, order: Tensor, weights: Tensor) -> Tensor:
        """Return y[T, d]."""
        places = torch.arange(len(order), device=order.device)
        back = torch.empty_like(order).scatter_(0, order, places)
        copies = rows.index_select(0, back).view(*weights.shape, -1)
        return (copies * weights.to(rows.dtype)[:, :, None]).sum(1)


class MoE(nn.Module):
    """A layer of experts: every token goes to k of them, and gets the weighted sum of theirs."""

    def __init__(
        self, config: MixtureOfExperts, *, grouped: bool, device: str, dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.router = Router(config, device=device, dtype=dtype)
        self.dispatch = Dispatch(config.experts)
        self.experts = Experts(config, grouped=grouped, device=device, dtype=dtype)
        self.combine = Combine()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map x[T, d] to the same shape; the second result is the load-balance loss."""
        weights, chosen, probabilities = self.router(x)
        rows, order, counts = self.dispatch(x, chosen)
        y = self.combine(self.experts(rows, counts), order, weights)
        return y, load_balance_loss(counts, probabilities)


def load_balance_loss(counts: Tensor, probabilities: Tensor) -> Tensor:
    """Return E·Σ f·P: 1 where tokens and probabilities are spread evenly, E where one has all.

    f is an expert's share of the copies of tokens and P its mean probability (Fedus et al.,
    Switch Transformers, arXiv:2101.03961, equation 4, without the coefficient).

    Args:
        counts: copies of tokens by expert [E].
        probabilities: of each expert, by token [T, E].
    """
    shares = counts / counts.sum()
    return len(counts) * (shares * probabilities.mean(0)).sum()
