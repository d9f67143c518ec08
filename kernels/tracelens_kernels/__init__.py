"""Triton kernels: attention, softmax, norms, losses, optimizers, quantisation, matrix products.

Each function is loaded, with torch and triton, when it is first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_HOMES: Final[Mapping[str, str]] = {
    "FlashAttention": "ops.flash_attention",
    "flash_attention": "ops.flash_attention",
    "flash_attention_varlen": "ops.flash_attention",
    "BlockStructure": "_attention.block_sparse",
    "block_sparse_attention": "ops.block_sparse_attention",
    "block_sparse_attention_unfused": "ops.block_sparse_attention",
    "softmax": "ops.softmax",
    "rms_norm": "ops.rmsnorm",
    "RMSNorm": "ops.rmsnorm",
    "layer_norm": "ops.layernorm",
    "LayerNorm": "ops.layernorm",
    "cross_entropy": "ops.cross_entropy",
    "linear_cross_entropy": "ops.linear_cross_entropy",
    "AdamW": "ops.adamw",
    "adamw_": "ops.adamw",
    "quant": "ops.quant",
    "quant_slide": "ops.quant_slide",
    "dequant_bias": "ops.dequant_bias",
    "SlidePattern": "_slide",
    "prune": "_slide",
    "slide": "_slide",
    "SparseWeight": "ops.sparse_linear",
    "compress": "ops.sparse_linear",
    "SparseLinear": "ops.sparse_linear",
    "sparse_linear": "ops.sparse_linear",
    "fp8_linear": "ops.fp8_linear",
    "Fp8Linear": "ops.fp8_linear",
    "matmul": "ops.matmul",
    "scaled_matmul": "ops.matmul",
    "grouped_matmul": "ops.grouped_matmul",
    "moe": "ops.moe",
    "route": "ops.moe",
    "Routing": "ops.moe",
}
"""Public name -> the file that defines it."""

__all__ = sorted(_HOMES)  # noqa: PLE0605  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if (home := _HOMES.get(name)) is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
