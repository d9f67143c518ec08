"""Ways to compute attention: plain matrices, PyTorch's fused kernels, FlexAttention, or your own.

Shapes: q is (batch, heads, queries, head_dim); k and v are (batch, kv_heads, keys, head_dim).
"""

from __future__ import annotations

import functools
import importlib.util
import math
from collections.abc import Callable
from typing import Any, Final

import torch

from tracelens.errors import UsageError
from tracelens_workloads import _kernels
from tracelens_workloads._torch import span

Attention = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, bool], torch.Tensor]
"""`(q, k, v, causal) -> out`, out shaped like q; scores are divided by the root of head_dim."""


def choose(name: str, kernel: str | None, device: str, dtype: torch.dtype) -> Attention:
    """Return a way to compute attention, once it is known that the device can.

    Args:
        name: one of `IMPLEMENTATIONS`, or `kernel`.
        kernel: what `_kernels.function` knows, where the name is `kernel`.
        device: a torch device.
        dtype: what q, k and v will be.

    Raises:
        UsageError: the device cannot compute it so, or there is no such kernel.
    """
    if name == "kernel":
        found: Attention = _kernels.function(kernel or "")
        return found
    on_gpu = device.startswith("cuda")
    if name in ("sdpa-cudnn", "flex") and not on_gpu:
        raise UsageError(f"{name} attention needs an NVIDIA GPU; on the CPU use sdpa or naive.")
    if name in ("sdpa-cudnn", "sdpa-flash") and on_gpu and dtype == torch.float32:
        raise UsageError(
            f"{name} attention takes only bf16 and fp16 on a GPU; add --dtype bf16, or use sdpa."
        )
    if name == "sdpa-cudnn" and not hasattr(torch.nn.attention.SDPBackend, "CUDNN_ATTENTION"):
        raise UsageError(f"sdpa-cudnn attention needs torch 2.5; this is {torch.__version__}.")
    if name == "flex" and not _has_flex():
        raise UsageError(f"flex attention needs torch 2.5; this is {torch.__version__}.")
    return IMPLEMENTATIONS[name]


def naive(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool = True) -> torch.Tensor:
    """Attention with its (batch, heads, queries, keys) scores in memory; masks, skips nothing."""
    return output(softmax(scores(q, k, causal)), v)


def scores(q: torch.Tensor, k: torch.Tensor, causal: bool) -> torch.Tensor:
    """Return the scores of each query and key, minus infinity where the key comes later."""
    with span("scores"):
        found = q @ _for_every_head(q, k).transpose(-2, -1) / math.sqrt(q.shape[-1])
        if causal:
            found = found.masked_fill(_future(q.shape[-2], k.shape[-2], q.device), -math.inf)
        return found


def softmax(scores: torch.Tensor) -> torch.Tensor:
    """Return the weights of the keys of each query."""
    with span("softmax"):
        return torch.softmax(scores, dim=-1)


def output(weights: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Return the weighted values of each query."""
    with span("output"):
        return weights @ _for_every_head(weights, v)


def sdpa(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool = True) -> torch.Tensor:
    """PyTorch's `scaled_dot_product_attention`, by the kernel that it chooses itself."""
    grouped: dict[str, Any] = {}
    if q.shape[1] != k.shape[1]:
        if _KNOWS_GROUPS:
            grouped = {"enable_gqa": True}
        else:
            k, v = _for_every_head(q, k), _for_every_head(q, v)
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal, **grouped)


def sdpa_flash(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool = True
) -> torch.Tensor:
    """FlashAttention-2, as PyTorch brings it."""
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.FLASH_ATTENTION):
        return sdpa(q, k, v, causal)


def sdpa_cudnn(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool = True
) -> torch.Tensor:
    """Fused attention of cuDNN."""
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.CUDNN_ATTENTION):
        return sdpa(q, k, v, causal)


def flex(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool = True) -> torch.Tensor:
    """FlexAttention: a kernel compiled for its mask, which skips the blocks above the diagonal."""
    from torch.nn.attention.flex_attention import flex_attention

    run: Callable[..., Any] = flex_attention
    if not torch.compiler.is_compiling():
        run = _compiled(flex_attention)
    mask = past(q.shape[-2], k.shape[-2], str(q.device)) if causal else None
    out: torch.Tensor = run(q, k, v, block_mask=mask, enable_gqa=q.shape[1] != k.shape[1])
    return out


def past(queries: int, keys: int, device: str) -> Any:
    """Return FlexAttention's mask of the keys that do not come after their query; made once.

    Compiled code makes it anew each time, unless it was made before.
    """
    found = _MASKS.get((queries, keys, device))
    if found is None:
        from torch.nn.attention.flex_attention import create_block_mask

        found = create_block_mask(_not_after, None, None, queries, keys, device=device)
        _MASKS[queries, keys, device] = found
    return found


IMPLEMENTATIONS: Final[dict[str, Attention]] = {
    "naive": naive,
    "sdpa": sdpa,
    "sdpa-flash": sdpa_flash,
    "sdpa-cudnn": sdpa_cudnn,
    "flex": flex,
}


def _for_every_head(q: torch.Tensor, kv: torch.Tensor) -> torch.Tensor:
    shared_by = q.shape[1] // kv.shape[1]
    return kv if shared_by == 1 else kv.repeat_interleave(shared_by, dim=1)


def _future(queries: int, keys: int, device: torch.device) -> torch.Tensor:
    """Return where a key comes after its query: (queries, keys)."""
    query = torch.arange(queries, device=device)[:, None]
    return torch.arange(keys, device=device)[None, :] > query


def _has_flex() -> bool:
    return importlib.util.find_spec("torch.nn.attention.flex_attention") is not None


def _not_after(_batch: Any, _head: Any, query: Any, key: Any) -> Any:
    return query >= key


@functools.cache
def _compiled(function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    return torch.compile(function, dynamic=False)


_KNOWS_GROUPS: Final = [int(n) for n in torch.__version__.split(".")[:2]] >= [2, 5]
_MASKS: Final[dict[tuple[int, int, str], Any]] = {}
