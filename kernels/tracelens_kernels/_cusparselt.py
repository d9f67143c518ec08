"""Sparse (2:4) products by cuSPARSELt, through torch, each by the quickest of its algorithms.

What it takes was found on an H200 (cuSPARSELt 0.8): the sparse matrix has multiples of 32 rows and
columns, the dense one rows of such a length, and a multiple of 16 of them. int8 is summed to int32,
bf16 or fp16, fp8 to fp32, bf16 or fp16. Which algorithm is quickest differs from size to size, and
the worst takes three times as long as the best; that of number 0 is seldom the best. Their numbers
mean the same in every process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch

from tracelens_kernels import _checks, _configs
from tracelens_kernels import _quantisation as q

if TYPE_CHECKING:
    from torch import Tensor

    from tracelens.kernel import Config

ROWS: Final = 16
"""Rows of the dense operand come in multiples of this."""

OUT: Final = 32
"""Rows of the sparse operand come in multiples of this, and so do columns."""

SUMS: Final = {torch.int8: torch.int32, torch.float8_e4m3fn: torch.bfloat16}
"""What a product is given out as: int8's is exact."""

_ALGORITHMS: Final = 64
_BUSY_CYCLES: Final = 6_000_000
_CALLS: Final = 4
_HOPPER: Final = {torch.int8: 20, torch.float8_e4m3fn: 17}
"""Algorithms of version 0.8 that were among the best four for all of 4096 to 12288, on an H200."""

_found: dict[tuple[torch.device, str], Config] = {}


def why_not(device: torch.device) -> str:
    """Return why sparse products cannot be made on a device, or ""."""
    if device.type != "cuda":
        return f"Sparse products need an NVIDIA GPU, and the weight is on {device}: move it first."
    if not torch.backends.cusparselt.is_available():
        return "This build of torch has no cuSPARSELt: sparse products need it."
    return ""


def product(packed: Tensor, values: Tensor, *, search: bool) -> Tensor:
    """Return values [M, K'] times the transpose of a compressed matrix [N, K'], as `SUMS` says.

    Args:
        packed: from `torch._cslt_compress`.
        values: contiguous, M a multiple of `ROWS`.
        search: try all algorithms when the sizes are first met, unless a CUDA graph is recorded.
    """
    key = key_of(values.shape[0], packed.shape[0], values.shape[1], values.dtype)
    unknown = default(values)
    config = _configs.chosen("sparse_linear", "product", key, unknown)
    if config is unknown and search:
        config = _searched(packed, values, key)
    return _multiply(packed, values, config["algorithm"])


def default(values: Tensor) -> Config:
    """Return the algorithm for sizes that were not searched."""
    known = _checks.is_hopper(values.device) and torch.backends.cusparselt.version() == 800
    return {"algorithm": _HOPPER[values.dtype] if known else 0}


def key_of(rows: int, out: int, inner: int, to: torch.dtype) -> str:
    """Return the sizes of a product, as configurations are kept by."""
    return f"{rows}x{out}x{inner} {q.name_of(to)}"


def _multiply(packed: Tensor, values: Tensor, algorithm: int) -> Tensor:
    return torch._cslt_sparse_mm(  # pyright: ignore[reportPrivateImportUsage]
        packed,
        values.t(),
        out_dtype=SUMS[values.dtype],
        transpose_result=True,
        alg_id=algorithm,
    )


def _searched(packed: Tensor, values: Tensor, key: str) -> Config:
    """Return the quickest algorithm for these sizes, which is looked for once."""
    at = (values.device, key)
    if at not in _found:
        if torch.cuda.is_current_stream_capturing():
            return default(values)
        took = timed(packed, values)
        _found[at] = {"algorithm": min(took, key=took.__getitem__)} if took else default(values)
    return _found[at]


def timed(packed: Tensor, values: Tensor) -> dict[int, float]:
    """Return the milliseconds of the algorithms that cuSPARSELt has for a product.

    All are timed once, and the better half once more; the worse half is left out.
    """
    took: dict[int, float] = {}
    for algorithm in range(_ALGORITHMS):
        try:
            took[algorithm] = _milliseconds(packed, values, algorithm)
        except RuntimeError:  # there are no more
            break
    better = sorted(took, key=took.__getitem__)[: (len(took) + 1) // 2]
    return {one: min(took[one], _milliseconds(packed, values, one)) for one in better}


def _milliseconds(packed: Tensor, values: Tensor, algorithm: int) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    _multiply(packed, values, algorithm)
    # The host takes 0.3 ms to prepare a call; until it is through, the GPU is kept waiting.
    torch.cuda._sleep(_BUSY_CYCLES)
    start.record()
    for _ in range(_CALLS):
        _multiply(packed, values, algorithm)
    end.record()
    end.synchronize()
    took: float = start.elapsed_time(end)
    return took / _CALLS
