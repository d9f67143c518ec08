"""LayerNorm of the rows of a matrix, forward and backward, each in one reading and one writing.

y = x̂ · weight + bias with x̂ = (x − mean x) / √(var x + ε), and, with g = dy · weight,
dx = (g − mean g − x̂ · mean(g · x̂)) / √(var x + ε); over the rows, dweight = Σ dy · x̂ and
dbias = Σ dy (J. L. Ba, J. R. Kiros and G. E. Hinton, "Layer Normalization", 2016). How it is done
is told in `_rows_norm`.
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


def layer_norm(
    x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """Return the rows of a tensor with mean 0 and variance 1, times a weight, plus a bias.

    Computed in fp32 and rounded once, to the format of x; so are the gradients, each to the format
    of its tensor. The variance is that of all columns, not of columns − 1, and is summed without
    cancellation. The gradients of weight and bias are the same in every run. Gradients of
    gradients are not defined.

    Backward of rows of more than 16,384 columns is a cooperative launch: it begins when the GPU
    has room for all of it.

    Args:
        x: [..., columns], bf16, fp16 or fp32, on a GPU; copied unless columns are neighbours.
        weight: [columns], in any of these formats; None for 1.
        bias: [columns], in any of these formats; None for 0.
        eps: added to the variance.

    Raises:
        ValueError: x is empty or has no dimension, weight or bias does not fit, or they are on no
            GPU, or on different ones.
        TypeError: a format is another.
    """
    return norm(x, weight, bias, eps, centred=True)


class LayerNorm(torch.nn.LayerNorm):
    """`torch.nn.LayerNorm` with our kernel: the same arguments, parameters and state."""

    def forward(self, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return x normalised over its last dimensions, `normalized_shape`."""
        if len(self.normalized_shape) == 1:
            return layer_norm(x, self.weight, self.bias, self.eps)
        rows = x.flatten(-len(self.normalized_shape))
        weight, bias = (None if one is None else one.flatten() for one in (self.weight, self.bias))
        return layer_norm(rows, weight, bias, self.eps).view(x.shape)


def _ours(tensors: Mapping[str, Any]) -> Tensor:
    return layer_norm(tensors["x"], tensors["weight"], tensors["bias"])


def _plain(tensors: Mapping[str, Any]) -> Tensor:
    x = tensors["x"]
    return torch.nn.functional.layer_norm(x, x.shape[-1:], tensors["weight"], tensors["bias"])


KERNEL = Kernel(
    axes={"rows": None, "columns": None},
    shapes=bench.SHAPES,
    dtypes=bench.FORMATS,
    operations={
        "forward": Operation(
            work=bench.traffic("layernorm", 7, 2, 2),
            inputs=bench.matrices("x", vectors=("weight", "bias")),
            reference=bench.in_float64(_plain, {"y": "y"}),
            implementations=bench.forward(_ours, _plain, "torch.nn.functional.layer_norm"),
        ),
        "backward": Operation(
            work=bench.traffic("layernorm", 13, 3, 3),
            inputs=bench.matrices("x", "dy", vectors=("weight", "bias")),
            reference=bench.in_float64(_plain, {"dx": "x", "dweight": "weight", "dbias": "bias"}),
            implementations=bench.backward(
                _ours, _plain, "torch.nn.functional.layer_norm", ("x", "weight", "bias")
            ),
        ),
    },
    tuning={
        name: bench.tuning(functools.partial(default, centred=True), name)
        for name in ("forward", "backward")
    },
    function=lambda: layer_norm,
)
