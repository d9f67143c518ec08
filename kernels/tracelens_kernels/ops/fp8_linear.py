r"""A linear layer in fp8 (W8A8): weights and activations are quantised by rows, the latter on call.

.. math:: Y = s_x s_w^T \circ (X_q W_q^T) + bias

Weights take half the memory of bf16. Activations are quantised by one kernel (`quant`), and the
product is `torch._scaled_mm` by rows, that is, cuBLAS. Both operands are e4m3, so this is not a
weight-only format: what is rounded is the activations, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch
from torch import nn
from torch.nn import functional

from tracelens.kernel import OURS, Implementation, Kernel, Operation
from tracelens.workload import Work
from tracelens_kernels import _checks
from tracelens_kernels import _quantisation as q
from tracelens_kernels.ops.quant import quant

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from tracelens.kernel import Shape, Tensors

_FP8: Final = torch.float8_e4m3fn
_ALIGNED: Final = 16


def fp8_linear(
    x: Tensor,
    weight_fp8: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None = None,
    *,
    out_dtype: torch.dtype | None = None,
    fast_accum: bool = True,
) -> Tensor:
    """Return x Wᵀ + bias in fp8, x quantised by rows; no gradients.

    Args:
        x: [..., K], bf16, fp16 or fp32.
        weight_fp8: [N, K], float8_e4m3fn, by rows; N and K are multiples of 16.
        weight_scale: fp32, one for each row of it ([N], [N, 1] or [1, N]).
        bias: [N]; it is added in bf16.
        out_dtype: bf16, fp16 or fp32; that of x unless given. The product is rounded to bf16 first
            in any case.
        fast_accum: keep the running sum in the tensor cores' short format, which is quicker.

    Returns:
        [..., N].

    Raises:
        ValueError: shapes or devices do not fit, or x is empty or not on a GPU.
        TypeError: a format is none of these.
        RuntimeError: x needs gradients, or the GPU is older than 8.9.
    """
    if not torch.compiler.is_compiling():
        _check(x, weight_fp8, weight_scale, bias)
        if out_dtype is not None and out_dtype not in q.INPUTS:
            raise TypeError(f"out_dtype is {out_dtype}; it must be bfloat16, float16 or float32.")
    count, columns = weight_fp8.shape
    values, scale = quant(x, _FP8)
    out = torch._scaled_mm(  # pyright: ignore[reportPrivateImportUsage]
        values.view(-1, columns),
        weight_fp8.t(),
        scale.view(-1, 1),
        weight_scale.view(1, -1),
        bias=None if bias is None else bias.to(torch.bfloat16),
        out_dtype=torch.bfloat16,
        use_fast_accum=fast_accum,
    )
    return out.view(*x.shape[:-1], count).to(out_dtype or x.dtype)


def _check(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None) -> None:
    _checks.on_gpu(x=x, weight_fp8=weight, weight_scale=scale, bias=bias)
    _checks.dtype_among((_FP8,), weight_fp8=weight)
    _checks.dtype_among((torch.float32,), weight_scale=scale)
    _checks.dtype_among(q.INPUTS, bias=bias)
    _checks.shaped("a weight_fp8 [N, K]", ok=weight.ndim == 2, weight_fp8=weight)
    fits = not any(size % _ALIGNED for size in weight.shape)
    _checks.shaped("a weight_fp8 of multiples of 16", ok=fits, weight_fp8=weight)
    fits = x.ndim > 0 and x.shape[-1] == weight.shape[1]
    _checks.shaped("x [..., K] for a weight_fp8 [N, K]", ok=fits, x=x, weight_fp8=weight)
    fits = scale.numel() == weight.shape[0]
    _checks.shaped("a weight_scale for each row", ok=fits, weight_fp8=weight, weight_scale=scale)
    if bias is not None:
        fits = bias.shape == weight.shape[:1]
        _checks.shaped("bias [N] for a weight_fp8 [N, K]", ok=fits, weight_fp8=weight, bias=bias)
    if x.requires_grad and torch.is_grad_enabled():
        raise RuntimeError("x needs gradients, and this layer has none: use torch.no_grad().")


class Fp8Linear(nn.Module):
    """A linear layer for inference in fp8; see `fp8_linear`.

    Attributes:
        weight: buffer [N, K], float8_e4m3fn.
        weight_scale: buffer [1, N], fp32.
        bias: buffer [N], bf16, or None.
        fast_accum: as in `fp8_linear`.
    """

    weight: Tensor
    weight_scale: Tensor
    bias: Tensor | None

    def __init__(
        self,
        weight: Tensor,
        weight_scale: Tensor,
        bias: Tensor | None = None,
        *,
        fast_accum: bool = True,
    ) -> None:
        """Make it of a weight [N, K] that was quantised, and its scales, one for each row."""
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.register_buffer("weight", weight)
        self.register_buffer("weight_scale", weight_scale.view(1, -1))
        self.register_buffer("bias", None if bias is None else bias.detach().to(torch.bfloat16))
        self.fast_accum = fast_accum

    @classmethod
    def from_linear(cls, linear: nn.Linear, *, fast_accum: bool = True) -> Fp8Linear:
        """Return an fp8 copy of a linear layer, on the same device.

        Raises:
            ValueError: a size is no multiple of 16.
        """
        weight = linear.weight.detach()
        fits = not any(size % _ALIGNED for size in weight.shape)
        _checks.shaped("a weight [N, K] of multiples of 16", ok=fits, weight=weight)
        values, scale = quant(weight, _FP8) if weight.is_cuda else q.reference(weight, _FP8)
        return cls(values, scale, linear.bias, fast_accum=fast_accum)

    def forward(self, x: Tensor) -> Tensor:
        """Return x Wᵀ + bias, in the format of x."""
        scale, fast = self.weight_scale, self.fast_accum
        return fp8_linear(x, self.weight, scale, self.bias, fast_accum=fast)

    def extra_repr(self) -> str:
        """Sizes."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}"
        )


# What the bench knows of it.


def _work(shape: Shape, dtype: str) -> Work:
    m, n, k = shape["rows"], shape["out"], shape["in"]
    wide = q.TORCH[dtype].itemsize
    moved = wide * m * k + n * k + wide * m * n + 4 * n
    return Work("linear", flops=2 * m * n * k, bytes=moved, dtype="fp8")


def _inputs(shape: Shape, dtype: str, device: str, seed: int) -> Tensors:
    m, n, k = shape["rows"], shape["out"], shape["in"]
    values, scale = q.reference(q.random_rows(n, k, "fp32", device, seed + 1), _FP8)
    random = torch.Generator(device).manual_seed(seed + 2)
    return {
        "x": q.random_rows(m, k, dtype, device, seed),
        "weight": values,
        "scale": scale,
        "bias": torch.randn(n, generator=random, device=device).to(torch.bfloat16),
    }


_ORDER: Final = ("x", "weight", "scale", "bias")


def _reference(inputs: Tensors, _shape: Shape) -> Tensors:
    weight = inputs["weight"].double() * inputs["scale"]
    return {"out": functional.linear(inputs["x"].double(), weight, inputs["bias"].double())}


def _ours(inputs: Tensors, _shape: Shape) -> Callable[[], Tensors]:
    given = [inputs[name] for name in _ORDER]
    return lambda: {"out": fp8_linear(*given)}


def _plain(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    values, scale_x = q.plain(x, _FP8)
    half = torch.bfloat16
    out = torch._scaled_mm(  # pyright: ignore[reportPrivateImportUsage]
        values, weight.t(), scale_x, scale.t(), bias=bias, out_dtype=half, use_fast_accum=True
    )
    return out.to(x.dtype)


def _eager(inputs: Tensors, _shape: Shape) -> Callable[[], Tensors]:
    given = [inputs[name] for name in _ORDER]
    return lambda: {"out": _plain(*given)}


def _compiled(inputs: Tensors, _shape: Shape) -> Callable[[], Tensors]:
    given = [inputs[name] for name in _ORDER]
    function = torch.compile(_plain, dynamic=False)
    function(*given)
    return lambda: {"out": function(*given)}


def _cublas(inputs: Tensors, _shape: Shape) -> Callable[[], Tensors]:
    x, bias = inputs["x"], inputs["bias"].to(inputs["x"].dtype)
    weight = (inputs["weight"].float() * inputs["scale"]).to(x.dtype)
    return lambda: {"out": functional.linear(x, weight, bias)}


def _cannot(shape: Shape, _dtype: str) -> str:
    wrong = [axis for axis in ("out", "in") if shape[axis] % _ALIGNED]
    return f"{' and '.join(wrong)} must be a multiple of {_ALIGNED}" if wrong else ""


KERNEL = Kernel(
    axes={"rows": None, "out": None, "in": None},
    shapes=(
        {"rows": 8192, "out": 32768, "in": 8192},
        {"rows": 8192, "out": 8192, "in": 32768},
        {"rows": 8192, "out": 8192, "in": 8192},
        {"rows": 4096, "out": 37888, "in": 3584},
        {"rows": 64, "out": 8192, "in": 8192},
        {"rows": 1823, "out": 784, "in": 336},
    ),
    dtypes=("bf16", "fp16"),
    operations={
        "forward": Operation(
            work=_work,
            inputs=_inputs,
            reference=_reference,
            implementations={
                OURS: Implementation("quant, torch._scaled_mm", _ours, _cannot),
                "eager": Implementation("the same in PyTorch alone", _eager, _cannot),
                "compile": Implementation("the same by torch.compile", _compiled, _cannot),
                "cublas": Implementation("torch linear in the format of x", _cublas),
            },
        )
    },
    function=lambda: fp8_linear,
)
