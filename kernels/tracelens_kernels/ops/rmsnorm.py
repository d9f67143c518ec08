"""RMSNorm of the rows of a matrix, forward and backward, each in one reading and one writing.

y = x̂ · weight with x̂ = x / √(mean x² + ε), and, with g = dy · weight, dx = (g − x̂ · mean(g · x̂)) /
√(mean x² + ε) and dweight = Σ dy · x̂ over the rows (B. Zhang and R. Sennrich, "Root Mean Square
Layer Normalization", NeurIPS 2019). How it is done is told in `_rows_norm`.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import torch

from tracelens.kernel import Kernel, Operation
from tracelens_kernels import _rows_bench as bench
from tracelens_kernels._rows_norm import default, norm

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


def rms_norm(x: Tensor, weight: Tensor | None = None, eps: float = 1e-6) -> Tensor:
    """Return the rows of a tensor, divided by their root mean square and multiplied by a weight.

    Computed in fp32 and rounded once, to the format of x; so are the gradients, each to the format
    of its tensor. The gradient of the weight is the same in every run. Gradients of gradients are
    not defined.

    Backward of rows of more than 16,384 columns is a cooperative launch: it begins when the GPU
    has room for all of it.

    Args:
        x: [..., columns], bf16, fp16 or fp32, on a GPU; copied unless columns are neighbours.
        weight: [columns], in any of these formats; None for 1.
        eps: added to the mean square.

    Raises:
        ValueError: x is empty or has no dimension, the weight does not fit, or they are on no GPU,
            or on different ones.
        TypeError: a format is another.
    """
    return norm(x, weight, None, eps, centred=False)


class RMSNorm(torch.nn.RMSNorm):
    """`torch.nn.RMSNorm` with our kernel: the same arguments, parameters and state."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x normalised over its last dimensions, `normalized_shape`."""
        eps = torch.finfo(x.dtype).eps if self.eps is None else self.eps
        if len(self.normalized_shape) == 1:
            return rms_norm(x, self.weight, eps)
        rows = x.flatten(-len(self.normalized_shape))
        weight = None if self.weight is None else self.weight.flatten()
        return rms_norm(rows, weight, eps).view(x.shape)


def _ours(tensors: Mapping[str, Any]) -> Tensor:
    return rms_norm(tensors["x"], tensors["weight"])


def _plain(tensors: Mapping[str, Any]) -> Tensor:
    x = tensors["x"]
    return torch.nn.functional.rms_norm(x, x.shape[-1:], tensors["weight"], 1e-6)


KERNEL = Kernel(
    axes={"rows": None, "columns": None},
    shapes=bench.SHAPES,
    dtypes=bench.FORMATS,
    operations={
        "forward": Operation(
            work=bench.traffic("rmsnorm", 4, 2, 1),
            inputs=bench.matrices("x", vectors=("weight",)),
            reference=bench.in_float64(_plain, {"y": "y"}),
            implementations=bench.forward(_ours, _plain, "torch.nn.functional.rms_norm"),
        ),
        "backward": Operation(
            work=bench.traffic("rmsnorm", 9, 3, 2),
            inputs=bench.matrices("x", "dy", vectors=("weight",)),
            reference=bench.in_float64(_plain, {"dx": "x", "dweight": "weight"}),
            implementations=bench.backward(
                _ours, _plain, "torch.nn.functional.rms_norm", ("x", "weight")
            ),
        ),
    },
    tuning={
        name: bench.tuning(functools.partial(default, centred=False), name)
        for name in ("forward", "backward")
    },
    function=lambda: rms_norm,
)
