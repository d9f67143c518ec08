"""A decoder-only transformer: GPT-2, the course CS336's, Llama's and Qwen's from the same parts.

Letters in comments: B batch, S tokens of a sequence, C d_model, H heads, D head_dim, F d_ff.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from tracelens_workloads import _kernels
from tracelens_workloads._torch import TORCH_DTYPES
from tracelens_workloads.models.attention import choose, naive, output, past, scores, softmax

if TYPE_CHECKING:
    from collections.abc import Callable

    from tracelens_workloads.gpt2 import Gpt2
    from tracelens_workloads.models.architecture import Architecture
    from tracelens_workloads.models.attention import Attention

    Norm = Callable[[Architecture], nn.Module]

Rotation = tuple[torch.Tensor, torch.Tensor]
"""Cosines and sines, each (S, D / 2)."""


class Cache:
    """Keys and values of the tokens seen so far.

    Args:
        architecture: of the model.
        batch: sequences.
        length: tokens that fit.
        dtype: of keys and values.
        device: a torch device.
    """

    def __init__(
        self, architecture: Architecture, batch: int, length: int, dtype: torch.dtype, device: str
    ) -> None:
        shape = (architecture.layers, 2, batch, architecture.kv_heads, length)
        self.kv = torch.zeros(*shape, architecture.head_dim, dtype=dtype, device=device)
        self.seen = 0

    @property
    def nbytes(self) -> int:
        """Bytes of its one tensor, (layers, 2, B, kv_heads, length, D)."""
        return self.kv.nbytes

    def extend(
        self, layer: int, k: torch.Tensor, v: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append a layer's keys and values; return all of them."""
        end = self.seen + k.shape[2]
        keys, values = self.kv[layer]
        keys[:, :, self.seen : end] = k
        values[:, :, self.seen : end] = v
        return keys[:, :, :end], values[:, :, :end]


class Qkv(nn.Module):
    """Queries, keys and values of each token, by one matrix or by three."""

    def __init__(self, a: Architecture) -> None:
        super().__init__()
        self.head_dim = a.head_dim
        self.widths = [a.d_model, a.kv_dim, a.kv_dim]
        if a.fused_qkv:
            self.linear = nn.Linear(a.d_model, sum(self.widths), bias=a.qkv_biases)
        else:
            self.q, self.k, self.v = (
                nn.Linear(a.d_model, width, bias=a.qkv_biases) for width in self.widths
            )
        self.fused = a.fused_qkv

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """(B, S, C) -> q, k, v, each (B, its heads, S, D)."""
        parts = (
            self.linear(x).split(self.widths, dim=-1)
            if self.fused
            else (self.q(x), self.k(x), self.v(x))
        )
        return [part.unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for part in parts]


class Part(nn.Module):
    """A function as a module, which has a range of its own in both directions."""

    def __init__(self, function: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Any) -> torch.Tensor:
        """What the function returns."""
        return self.function(*args)


class NaiveAttention(nn.Module):
    """`attention.naive`, in its three parts."""

    def __init__(self) -> None:
        super().__init__()
        self.scores = Part(scores)
        self.softmax = Part(softmax)
        self.output = Part(output)

    def forward(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool
    ) -> torch.Tensor:
        """(B, H, S, D) of q, k and v -> the same."""
        out: torch.Tensor = self.output(self.softmax(self.scores(q, k, causal)), v)
        return out


class SelfAttention(nn.Module):
    """Attention of each token to itself and those before it, with both projections."""

    def __init__(self, a: Architecture, attend: Attention) -> None:
        super().__init__()
        self.qkv = Qkv(a)
        self.projection = nn.Linear(a.d_model, a.d_model, bias=a.biases)
        self.attend = NaiveAttention() if attend is naive else Part(attend)

    def forward(
        self,
        x: torch.Tensor,
        rotation: Rotation | None = None,
        cache: Cache | None = None,
        layer: int = 0,
    ) -> torch.Tensor:
        """(B, S, C) -> (B, S, C)."""
        q, k, v = self.qkv(x)
        if rotation is not None:
            q, k = rotate(q, rotation), rotate(k, rotation)
        causal = q.shape[2] > 1
        if cache is not None:
            k, v = cache.extend(layer, k, v)
        out = self.attend(q, k, v, causal)
        projected: torch.Tensor = self.projection(out.transpose(1, 2).flatten(2))
        return projected


class GeluMlp(nn.Module):
    """Two linear layers with a GELU between them."""

    def __init__(self, a: Architecture) -> None:
        super().__init__()
        self.up = nn.Linear(a.d_model, a.d_ff, bias=a.biases)
        self.gelu = nn.GELU(approximate="tanh")
        self.down = nn.Linear(a.d_ff, a.d_model, bias=a.biases)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, S, C) -> (B, S, C)."""
        down: torch.Tensor = self.down(self.gelu(self.up(x)))
        return down


class SwigluMlp(nn.Module):
    """Two linear layers, one of them a gate for the other, and a third."""

    def __init__(self, a: Architecture) -> None:
        super().__init__()
        self.gate = nn.Linear(a.d_model, a.d_ff, bias=a.biases)
        self.up = nn.Linear(a.d_model, a.d_ff, bias=a.biases)
        self.down = nn.Linear(a.d_ff, a.d_model, bias=a.biases)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, S, C) -> (B, S, C)."""
        gate = torch.nn.functional.silu(self.gate(x))
        down: torch.Tensor = self.down(gate * self.up(x))
        return down


class Block(nn.Module):
    """One layer: attention, then the MLP, each added to the residual stream."""

    def __init__(self, a: Architecture, attend: Attention, norm: Norm) -> None:
        super().__init__()
        self.norm1 = norm(a)
        self.attention = SelfAttention(a, attend)
        self.norm2 = norm(a)
        self.mlp = GeluMlp(a) if a.mlp == "gelu" else SwigluMlp(a)

    def forward(
        self,
        x: torch.Tensor,
        rotation: Rotation | None = None,
        cache: Cache | None = None,
        layer: int = 0,
    ) -> torch.Tensor:
        """(B, S, C) -> (B, S, C)."""
        x = x + self.attention(self.norm1(x), rotation, cache, layer)
        x = x + self.mlp(self.norm2(x))
        return x  # noqa: RET504 (a module returns Any)


class Transformer(nn.Module):
    """Logits from tokens.

    Args:
        architecture: its shape.
        attend: how attention is computed.
        recompute: keep only the input of each block for backward, which runs the block again.
        norm: makes the norms.
        headless: leave the head to the loss, and give what it would take.
    """

    rotation: torch.Tensor

    def __init__(
        self,
        architecture: Architecture,
        attend: Attention,
        *,
        recompute: bool = False,
        norm: Norm | None = None,
        headless: bool = False,
    ) -> None:
        super().__init__()
        a = architecture
        norm = norm or torch_norm
        self.architecture = a
        self.recompute = recompute
        self.headless = headless
        self.embedding = nn.Embedding(a.vocab, a.d_model)
        if a.positions == "learned":
            self.positions = nn.Embedding(a.max_positions, a.d_model)
        if a.positions == "rope":
            table = torch.empty(2, a.max_positions, a.head_dim // 2)
            self.register_buffer("rotation", table, persistent=False)
        self.blocks = nn.ModuleList(Block(a, attend, norm) for _ in range(a.layers))
        self.norm = norm(a)
        self.head = nn.Linear(a.d_model, a.vocab, bias=False)
        self.tie()

    def tie(self) -> None:
        """Make embedding and head one, where the architecture says so."""
        if self.architecture.tied:
            self.head.weight = self.embedding.weight

    def forward(
        self, tokens: torch.Tensor, cache: Cache | None = None, *, last_only: bool = False
    ) -> torch.Tensor:
        """(B, S) tokens -> (B, S, vocab) logits, or (B, 1, vocab) for `last_only`.

        A headless one gives (B, S, C).

        With a cache, the tokens follow those it has seen, and it grows: several at once only
        into an empty one, then one at a time.
        """
        start = cache.seen if cache else 0
        end = start + tokens.shape[1]
        x = self.embedding(tokens)
        rotation = None
        if self.architecture.positions == "learned":
            x = x + self.positions(torch.arange(start, end, device=tokens.device))
        elif self.architecture.positions == "rope":
            cos, sin = self.rotation[:, start:end]
            rotation = cos, sin
        for layer, block in enumerate(self.blocks):
            if self.recompute and torch.is_grad_enabled():
                # Nothing in a block is random: reading the generator's state, which a CUDA graph
                # could not capture, is not needed.
                x = checkpoint(block, x, rotation, use_reentrant=False, preserve_rng_state=False)
            else:
                x = block(x, rotation, cache, layer)
        if cache is not None:
            cache.seen = end
        x = self.norm(x[:, -1:] if last_only else x)
        found: torch.Tensor = x if self.headless else self.head(x)
        return found

    @torch.no_grad()
    def reset(self) -> None:
        """Draw the weights as GPT-2 did: N(0, 0.02²), biases zero, norms one."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.LayerNorm | nn.RMSNorm):
                nn.init.ones_(module.weight)
            if isinstance(module, nn.LayerNorm | nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        if self.architecture.positions == "rope":
            self.rotation.copy_(angles(self.architecture))


def build(config: Gpt2, device: str = "cpu") -> Transformer:
    """Return the model of a workload's options, with random weights, on a device.

    Raises:
        UsageError: the device cannot compute attention as the options ask, or a kernel of ours
            cannot be loaded.
    """
    computed_in = TORCH_DTYPES[config.dtype]
    attend = choose(config.attention, config.kernel, device, computed_in)
    if config.attention == "flex":
        past(config.ctx, config.ctx, str(torch.empty(0, device=device).device))
    model = on_meta(
        config.architecture,
        attend,
        recompute=config.checkpoint_activations,
        norm=kernel_norm() if config.norm == "kernel" else torch_norm,
        headless=config.loss == "linear-kernel" and config.mode != "forward",
    )
    return allocate(model, torch.float32 if config.autocast else computed_in, device)


def on_meta(architecture: Architecture, attend: Attention, **how: Any) -> Transformer:
    """Return a model without memory: its shapes only. ``how``: as of `Transformer`."""
    with torch.device("meta"):
        return Transformer(architecture, attend, **how)


def allocate(model: Transformer, dtype: torch.dtype, device: str) -> Transformer:
    """Give a model of shapes its memory, drawn at once where and as it will be used."""
    model = model.to(dtype).to_empty(device=device)
    model.tie()  # each had got a memory of its own
    model.reset()
    return model


def rotate(x: torch.Tensor, rotation: Rotation) -> torch.Tensor:
    """Turn each pair (x[i], x[i + D/2]) by its position's angle (Su et al. 2021, RoFormer)."""
    cos, sin = (table.to(x.dtype) for table in rotation)
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def angles(a: Architecture) -> torch.Tensor:
    """Return cosines and sines of position / 10000^(2i/D): (2, max_positions, D / 2), float32."""
    frequency = 10000.0 ** -(torch.arange(0, a.head_dim, 2, dtype=torch.float32) / a.head_dim)
    turned = torch.arange(a.max_positions, dtype=torch.float32)[:, None] * frequency
    return torch.stack([turned.cos(), turned.sin()])


def torch_norm(a: Architecture) -> nn.Module:
    """Return torch's norm of an architecture."""
    return nn.LayerNorm(a.d_model) if a.norm == "layer" else nn.RMSNorm(a.d_model, eps=1e-5)


def kernel_norm() -> Norm:
    """Return what makes our kernels' norms.

    Raises:
        UsageError: they cannot be loaded.
    """
    layer, rms = _kernels.of_room("layernorm"), _kernels.of_room("rmsnorm")

    class LayerNorm(nn.LayerNorm):
        def forward(  # pyright: ignore[reportIncompatibleMethodOverride]  # `input` shadows
            self, x: torch.Tensor
        ) -> torch.Tensor:
            return layer(x, self.weight, self.bias, self.eps)  # type: ignore[no-any-return]

    class RMSNorm(nn.RMSNorm):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return rms(x, self.weight, self.eps)  # type: ignore[no-any-return]

    return lambda a: LayerNorm(a.d_model) if a.norm == "layer" else RMSNorm(a.d_model, eps=1e-5)
