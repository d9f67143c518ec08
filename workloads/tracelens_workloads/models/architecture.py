"""The shape of a decoder-only transformer, and the families of models that share one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tracelens.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A decoder-only transformer that normalises before each part of a block.

    Attributes:
        layers: blocks of attention and MLP.
        d_model: width of the residual stream.
        heads: heads of queries.
        kv_heads: heads of keys and values, each shared by `heads / kv_heads` heads of queries.
        d_ff: width inside the MLP.
        vocab: tokens it knows.
        positions: how it knows them: `learned` vectors, `rope`, or not at all (`none`).
        max_positions: longest sequence.
        norm: `layer` (mean and variance, weight and bias) or `rms` (weight only).
        mlp: `gelu` (two matrices) or `swiglu` (three).
        fused_qkv: whether one matrix makes queries, keys and values.
        biases: whether linear layers add a bias.
        qkv_biases: whether those of queries, keys and values do.
        tied: whether the head is the transposed embedding.
    """

    layers: int
    d_model: int
    heads: int
    kv_heads: int
    d_ff: int
    vocab: int
    max_positions: int
    positions: str
    norm: str
    mlp: str
    fused_qkv: bool
    biases: bool
    qkv_biases: bool
    tied: bool

    @property
    def head_dim(self) -> int:
        """Width of one head."""
        return self.d_model // self.heads

    @property
    def kv_dim(self) -> int:
        """Width of the keys, and of the values, of one token in one layer."""
        return self.kv_heads * self.head_dim

    @property
    def linear(self) -> dict[str, tuple[int, int, int]]:
        """The dense layers: part -> (how many of them, width in, width out)."""
        return {
            "qkv": (self.layers, self.d_model, self.d_model + 2 * self.kv_dim),
            "projection": (self.layers, self.d_model, self.d_model),
            "mlp up": (self.layers, self.d_model, self.d_ff * (1 if self.mlp == "gelu" else 2)),
            "mlp down": (self.layers, self.d_ff, self.d_model),
            "head": (1, self.d_model, self.vocab),
        }

    def check(self) -> None:
        """Raise UsageError where no such model can be built."""
        sizes = (self.layers, self.d_model, self.heads, self.kv_heads, self.d_ff, self.vocab)
        if min(sizes) < 1:
            raise UsageError("Layers, heads, widths and the vocabulary are at least 1.")
        if self.d_model % self.heads:
            raise UsageError(
                f"{self.heads} heads do not divide --d-model {self.d_model}; "
                f"take --heads {_divisor(self.d_model, self.heads)}, or another width."
            )
        if self.heads % self.kv_heads:
            raise UsageError(
                f"--kv-heads {self.kv_heads} does not divide {self.heads} heads; "
                f"take --kv-heads {_divisor(self.heads, self.kv_heads)}."
            )
        if self.positions == "rope" and self.head_dim % 2:
            raise UsageError(
                f"RoPE turns pairs, and a head of {self.head_dim} numbers "
                f"(--d-model {self.d_model} / --heads {self.heads}) is odd; change one of them."
            )


_GPT2: Final[Mapping[str, Any]] = {
    "positions": "learned",
    "norm": "layer",
    "mlp": "gelu",
    "fused_qkv": True,
    "biases": True,
    "qkv_biases": True,
    "tied": True,
}
_LLAMA: Final[Mapping[str, Any]] = {
    "positions": "rope",
    "norm": "rms",
    "mlp": "swiglu",
    "fused_qkv": False,
    "biases": False,
    "qkv_biases": False,
    "tied": False,
}
FAMILIES: Final[Mapping[str, Mapping[str, Any]]] = {
    "gpt2": _GPT2,
    "gpt": {**_GPT2, "positions": "none", "tied": False},
    "cs336": _LLAMA,
    "llama": _LLAMA,
    "qwen2": {**_LLAMA, "qkv_biases": True},
}
"""Name of a family -> what its members share: GPT-2, the same without positions and with a head
of its own, Stanford's course CS336 (which is Llama's), and Qwen 2 and 2.5."""


def _divisor(whole: int, near: int) -> int:
    """Return the divisor of `whole` that is nearest to `near`."""
    divisors = (n for n in range(1, whole + 1) if whole % n == 0)
    return min(divisors, key=lambda n: abs(n - near))
