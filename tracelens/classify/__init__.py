"""Classify GPU kernel names into families, and shorten them for display."""

from __future__ import annotations

from functools import lru_cache

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
    """Return the family of a kernel by its name, and by the operator `op` that launched it.

    What the name says outweighs the operator; a name that says nothing is judged by the operator,
    where that is known.
    """
    from tracelens.classify.decide import decide

    return decide(name, op)


@lru_cache(maxsize=65536)
def short_name(name: str) -> str:
    """Return a kernel's name as a table shows it: at most 60 characters, one for all spellings.

    That is `function<template arguments>`, without return type, namespaces, parameters and casts:

    - a namespace stays where the function's name is one plain word (`gemvx::kernel`);
    - of PyTorch's own kernels the functor is shown by what it does and for which type
      (`vectorized_elementwise<4, add<float>>`), and bookkeeping types are left out;
    - wrappers are left out (`Kernel2<X>` is `X`);
    - three and more equal arguments are counted (`softmax_warp_forward<float*3, 9>`).

    A name that is still too long is cut and ends in `~` and four hexadecimal digits of the whole,
    so that kernels that differ only in what was cut stay apart. So does a mangled name, whose
    template arguments are not all read.
    """
    from tracelens.classify.names import shorten

    return shorten(name)
