"""Classify GPU kernel names into families, and shorten them for display."""

from __future__ import annotations

from functools import lru_cache

from tracelens.classify.decide import decide
from tracelens.classify.names import short_name

__all__ = ["FAMILIES", "family", "short_name"]

FAMILIES: tuple[str, ...] = (
    "gemm", "conv", "attention", "softmax", "normalization", "elementwise", "copy", "reduction",
    "sort_scan", "gather_scatter", "embedding", "optimizer", "loss", "rng", "quantization", "moe",
    "kv_cache", "pooling_resize", "linalg", "comm", "memcpy", "memset", "triton_pointwise",
    "triton_reduction", "triton_template", "triton_foreach", "triton_unnamed", "ssm", "cuda_graph",
    "other",
)  # fmt: skip
"""Every family there is, in the order of the design."""


@lru_cache(maxsize=65536)
def family(name: str, op: str | None = None) -> str:
    """Return the family of the kernel of this name, launched by the PyTorch operator `op` if that is known.

    What the name says outweighs the operator; a name that says nothing is judged by the operator.
    """
    return decide(name, op)
