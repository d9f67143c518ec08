"""Attention as a module: naive, in three parts that have names, or by one function."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from torch import Tensor

    from tracelens_workloads.models.attention import Attention


class Naive(nn.Module):
    """softmax(Q·Kᵀ / √d)·V, of Q, K and V [batch, heads, seq, d], with its scores in memory."""

    def __init__(self, *, causal: bool) -> None:
        super().__init__()
        self.scores = Scores(causal=causal)
        self.softmax = nn.Softmax(dim=-1)
        self.output = Output()

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return the values of each query's keys, weighted: [batch, heads, seq, d]."""
        y: Tensor = self.output(self.softmax(self.scores(q, k)), v)
        return y


class Scores(nn.Module):
    """Q·Kᵀ / √d [batch, heads, seq, seq], minus infinity where a key comes after its query."""

    def __init__(self, *, causal: bool) -> None:
        super().__init__()
        self.causal = causal

    def forward(self, q: Tensor, k: Tensor) -> Tensor:
        """Return the scores of each query and key."""
        scores = q @ k.mT / math.sqrt(q.shape[-1])
        if self.causal:
            future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
            scores = scores.masked_fill(future, -math.inf)
        return scores


class Output(nn.Module):
    """P·V."""

    def forward(self, weights: Tensor, v: Tensor) -> Tensor:
        """Return the weighted values of each query."""
        return weights @ v


class Fused(nn.Module):
    """What a function of (q, k, v, causal) computes."""

    def __init__(self, function: Attention, *, causal: bool) -> None:
        super().__init__()
        self.function = function
        self.causal = causal

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return the values of each query's keys, weighted: [batch, heads, seq, d]."""
        return self.function(q, k, v, self.causal)
