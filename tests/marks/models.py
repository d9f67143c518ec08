"""Small models, each with something that hooks could stumble over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

WIDTH = 8


class Block(nn.Module):
    """A residual block of a normalization and two linear layers, as transformers have them."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mlp(self.norm(x))


class Tiny(nn.Module):
    """An embedding, two blocks and a head: a language model but for its attention."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(2))
        self.head = nn.Linear(WIDTH, 5, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


class Checkpointed(Tiny):
    """The same, with blocks that are computed again in backward."""

    def __init__(self, *, reentrant: bool) -> None:
        super().__init__()
        self.reentrant = reentrant

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=self.reentrant)
        return self.head(x)


class Tied(nn.Module):
    """A layer that is called twice, under one of its two names; and a weight in two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, WIDTH)
        self.first = nn.Linear(WIDTH, WIDTH)
        self.second = self.first
        self.head = nn.Linear(WIDTH, 5, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.second(self.first(self.embed(tokens)).relu()))


class InPlace(nn.Module):
    """Layers that change what they are given, and one that does nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, WIDTH)
        self.linear = nn.Linear(WIDTH, WIDTH)
        self.relu = nn.ReLU(inplace=True)
        self.nothing = nn.Identity()
        self.drop = nn.Dropout(0.5, inplace=True)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.relu(self.linear(self.embed(tokens)))
        x = x + 1
        return self.drop(self.nothing(x)).mul_(2)


@dataclass
class Answer:
    """What a model of Hugging Face's kind returns."""

    loss: Tensor
    hidden: dict[str, tuple[Tensor, ...]]
    cache: None = None


class Structured(nn.Module):
    """Takes and returns tensors inside dictionaries, tuples and dataclasses, by keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, WIDTH)
        self.split = Split()
        self.join = Join()

    def forward(self, tokens: Tensor) -> Answer:
        halves = self.split(hidden=self.embed(tokens))
        joined = self.join({"halves": halves})
        return Answer(joined.sum(), {"all": (joined, *halves)})


class Split(nn.Module):
    """One tensor in, two views of one operation out."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)

    def forward(self, hidden: Tensor) -> tuple[Tensor, ...]:
        return self.linear(hidden).chunk(2, dim=-1)


class Join(nn.Module):
    """A dictionary in, one tensor out."""

    def forward(self, given: dict[str, Any]) -> Tensor:
        left, right = given["halves"]
        return left.sin() * right


class Forces(nn.Module):
    """Differentiates one of its parts within its own forward, as models of physics do."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, WIDTH)
        self.energy = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh())

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        (force,) = torch.autograd.grad(self.energy(x).sum(), x, create_graph=True)
        return force


class Frozen(Tiny):
    """Its first block is not trained."""

    def __init__(self) -> None:
        super().__init__()
        self.embed.requires_grad_(False)
        self.blocks[0].requires_grad_(False)


MODELS: dict[str, Any] = {
    "tiny": Tiny,
    "checkpoint": lambda: Checkpointed(reentrant=False),
    "reentrant checkpoint": lambda: Checkpointed(reentrant=True),
    "tied": Tied,
    "in place": InPlace,
    "structured": Structured,
    "forces": Forces,
    "frozen": Frozen,
}


def tokens() -> Tensor:
    """Return the same few tokens each time."""
    return torch.tensor([[0, 1, 2], [3, 4, 0]])


def loss_of(output: Any) -> Tensor:
    """Return one number of whatever a model returns."""
    if isinstance(output, Answer):
        return output.loss
    return functional.softplus(output).sum()
