r"""A linear layer whose weights have two zeros in every L columns, on sparse (2:4) tensor cores.

Weights are pruned, quantised by rows, slid into 2:4 sparsity and compressed once; a call quantises
and slides its activations in one kernel, multiplies by cuSPARSELt, and scales in a third:

.. math:: Y = s_x s_w^T \circ (\mathrm{slide}(X_q) \, \mathrm{slide}(W_q)^T) + bias

The sum of products is that of the pruned weights, not an approximation of it. With K' = (2 - 4/L) K
slid columns and half of them skipped, the best that a product can do over a dense one is
L / (L - 2): 2 for 2:4, 1.33 for 6:8.

Source of sliding: SlideSparse, (2N-2):2N sparsity on 2:4 hardware. Of pruning by magnitude: S. Han
et al., "Learning both weights and connections for efficient neural networks", NeurIPS 2015.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from tracelens.kernel import OURS, Implementation, Kernel, Operation, Tuning
from tracelens.workload import Work
from tracelens_kernels import _checks, _cusparselt
from tracelens_kernels import _quantisation as q
from tracelens_kernels._slide import SlidePattern, is_2to4, prune, slid, slide
from tracelens_kernels.ops.dequant_bias import dequant_bias
from tracelens_kernels.ops.quant import quant
from tracelens_kernels.ops.quant_slide import quant_slide

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from tracelens.kernel import Shape, Tensors

__all__ = [
    "KERNEL",
    "SlidePattern",
    "SparseLinear",
    "SparseWeight",
    "compress",
    "is_2to4",
    "prune",
    "slide",
    "sparse_linear",
]


@dataclass(frozen=True)
class SparseWeight:
    """A weight [N, K], quantised by rows, slid, and compressed for sparse tensor cores.

    Attributes:
        packed: its non-zeros and where they are, as cuSPARSELt wants them: 10/16 of the slid size.
        scale: fp32 [N, 1].
        pattern: that it was slid by.
        shape: (N, K).
    """

    packed: Tensor
    scale: Tensor
    pattern: SlidePattern
    shape: tuple[int, int]

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return self.packed.nbytes + self.scale.nbytes

    def to(self, device: torch.device | str) -> SparseWeight:
        """Return it on another device."""
        packed, scale = self.packed.to(device), self.scale.to(device)
        return SparseWeight(packed, scale, self.pattern, self.shape)


def sparse_linear(
    x: Tensor,
    weight: SparseWeight,
    bias: Tensor | None = None,
    *,
    out_dtype: torch.dtype | None = None,
    search: bool = True,
) -> Tensor:
    """Return x Wᵀ + bias by sparse tensor cores, its operands quantised to 8 bits; no gradients.

    Args:
        x: [..., K], bf16, fp16 or fp32, quantised by rows.
        weight: from `compress`.
        bias: [N].
        out_dtype: bf16, fp16 or fp32; that of x unless given.
        search: try all algorithms of cuSPARSELt when a size is first met, which takes about half
            a second and may double the speed; never while a CUDA graph is recorded.

    Returns:
        [..., N]. In int8 the sum of products is exact.

    Raises:
        ValueError: shapes or devices do not fit, or x is empty or not on a GPU.
        TypeError: a format is none of these.
        RuntimeError: x needs gradients, or this torch or GPU has no cuSPARSELt.
    """
    _refuse_gradients(x)
    rows, columns = weight.shape
    fits = x.ndim > 0 and x.shape[-1] == columns
    _checks.shaped(f"x [..., {columns}], for a weight {[rows, columns]}", ok=fits, x=x)
    values, scale = quant_slide(x, weight.pattern, weight.packed.dtype, pad_rows=_cusparselt.ROWS)
    acc = _cusparselt.product(weight.packed, values, search=search)
    count = x.numel() // columns
    out_dtype = out_dtype or x.dtype
    out = dequant_bias(acc[:count, :rows], scale[:count], weight.scale, bias, out_dtype)
    return out.view(*x.shape[:-1], rows)


def _refuse_gradients(x: Tensor) -> None:
    if x.requires_grad and torch.is_grad_enabled():
        raise RuntimeError("x needs gradients, and this layer has none: use torch.no_grad().")


def compress(
    weight: Tensor, pattern: SlidePattern, dtype: torch.dtype | str = torch.int8
) -> SparseWeight:
    """Return a weight ready for `sparse_linear`.

    Args:
        weight: [N, K] on a GPU, bf16, fp16 or fp32, with the zeros of the pattern (see `prune`).
        pattern: that it has.
        dtype: `torch.int8` or `"int8"`; `torch.float8_e4m3fn` or `"fp8"`.

    Raises:
        ValueError: weight is no matrix, is empty, or has too few zeros.
        TypeError: a format is none of these.
        RuntimeError: this torch or GPU has no cuSPARSELt.
    """
    to = q.format_of(dtype)
    _checks.shaped("a weight [N, K]", ok=weight.ndim == 2, weight=weight)
    _checks.not_empty(weight=weight)
    _checks.dtype_among(q.INPUTS, weight=weight)
    if why := _cusparselt.why_not(weight.device):
        raise RuntimeError(why)
    values, scale = q.reference(weight, to)
    shape = (weight.shape[0], weight.shape[1])
    return SparseWeight(_packed(values, pattern), scale, pattern, shape)


def _packed(values: Tensor, pattern: SlidePattern) -> Tensor:
    """An 8-bit weight, slid, with rows of zeros up to what cuSPARSELt takes, and compressed."""
    slid_bits = slide(values, pattern).view(torch.int8)
    padded = functional.pad(slid_bits, (0, 0, 0, -values.shape[0] % _cusparselt.OUT))
    return torch._cslt_compress(padded.view(values.dtype))  # pyright: ignore[reportPrivateImportUsage]


class SparseLinear(nn.Module):
    """A linear layer for inference by sparse tensor cores; see `sparse_linear`.

    Attributes:
        packed: buffer, see `SparseWeight`.
        scale: buffer, likewise.
        bias: buffer [N], or None.
        pattern: of the zeros.
        search: as in `sparse_linear`.
    """

    packed: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(
        self, weight: SparseWeight, bias: Tensor | None = None, *, search: bool = True
    ) -> None:
        """Make it of a weight that was compressed."""
        super().__init__()
        self.register_buffer("packed", weight.packed)
        self.register_buffer("scale", weight.scale)
        self.register_buffer("bias", None if bias is None else bias.detach())
        self.pattern = weight.pattern
        self.out_features, self.in_features = weight.shape
        self.search = search

    @classmethod
    def from_linear(
        cls,
        linear: nn.Linear,
        pattern: SlidePattern | None = None,
        dtype: torch.dtype | str = torch.int8,
    ) -> SparseLinear:
        """Return a sparse copy of a linear layer on a GPU, its smallest weights left out.

        Args:
            linear: it stays as it is.
            pattern: `SlidePattern(8)`, which is 6:8, unless given; `SlidePattern(None)` prunes
                nothing.
            dtype: `torch.int8` or `"int8"`; `torch.float8_e4m3fn` or `"fp8"`.

        Raises:
            ValueError: the weight is empty.
            TypeError: a format is none of these.
            RuntimeError: this torch or GPU has no cuSPARSELt.
        """
        pattern = pattern or SlidePattern()
        weight = linear.weight.detach()
        pruned = weight if pattern.l is None else prune(weight, 2, pattern.l)
        return cls(compress(pruned, pattern, dtype), linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return x Wᵀ + bias, in the format of x."""
        shape = (self.out_features, self.in_features)
        weight = SparseWeight(self.packed, self.scale, self.pattern, shape)
        return sparse_linear(x, weight, self.bias, search=self.search)

    def extra_repr(self) -> str:
        """Sizes, zeros and format."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}, {self.pattern} {q.name_of(self.packed.dtype)}"
        )


# What the bench knows of it.


def _pattern(shape: Shape) -> SlidePattern:
    return SlidePattern(shape["of"] or None)


def _flops(shape: Shape) -> int:
    """Of what is not zero."""
    m, n, k = shape["rows"], shape["out"], shape["in"]
    return 2 * m * n * _kept(shape, k)


def _kept(shape: Shape, columns: int) -> int:
    return columns - 2 * (columns // shape["of"]) if shape["of"] else columns


def _product_work(to: str) -> Callable[[Shape, str], Work]:
    def work(shape: Shape, _dtype: str) -> Work:
        m, n, k = shape["rows"], shape["out"], shape["in"]
        moved = m * k + n * _kept(shape, k) + _cusparselt.SUMS[q.TORCH[to]].itemsize * m * n
        return Work("linear", flops=_flops(shape), bytes=moved, dtype=to)

    return work


def _work(to: str) -> Callable[[Shape, str], Work]:
    def work(shape: Shape, dtype: str) -> Work:
        m, n, k = shape["rows"], shape["out"], shape["in"]
        wide = q.TORCH[dtype].itemsize
        moved = wide * m * k + n * _kept(shape, k) + wide * m * n + 6 * n
        return Work("linear", flops=_flops(shape), bytes=moved, dtype=to)

    return work


def _inputs(shape: Shape, dtype: str, device: str, seed: int) -> Tensors:
    random = torch.Generator(device).manual_seed(seed + 2)
    weight = q.random_rows(shape["out"], shape["in"], dtype, device, seed + 1)
    return {
        "x": q.random_rows(shape["rows"], shape["in"], dtype, device, seed),
        "weight": prune(weight, 2, shape["of"]) if shape["of"] else weight,
        "bias": torch.randn(shape["out"], generator=random, device=device).to(weight.dtype),
    }


def _quantised_inputs(to: str) -> Callable[[Shape, str, str, int], Tensors]:
    def inputs(shape: Shape, dtype: str, device: str, seed: int) -> Tensors:
        given = _inputs(shape, dtype, device, seed)
        return {name: q.reference(given[name], q.TORCH[to])[0] for name in ("x", "weight")}

    return inputs


def _reference(inputs: Tensors, _shape: Shape) -> Tensors:
    x, weight, bias = (inputs[name].double() for name in ("x", "weight", "bias"))
    return {"out": functional.linear(x, weight, bias)}


def _product_reference(inputs: Tensors, _shape: Shape) -> Tensors:
    return {"out": inputs["x"].double() @ inputs["weight"].double().t()}


def _sparse_product(*, search: bool) -> Callable[[Tensors, Shape], Callable[[], Tensors]]:
    def build(inputs: Tensors, shape: Shape) -> Callable[[], Tensors]:
        rows, out = shape["rows"], shape["out"]
        packed = _packed(inputs["weight"], _pattern(shape))
        values = slid(inputs["x"], _pattern(shape))
        padded = functional.pad(values.view(torch.int8), (0, 0, 0, -rows % _cusparselt.ROWS))
        values = padded.view(values.dtype)
        return lambda: {"out": _cusparselt.product(packed, values, search=search)[:rows, :out]}

    return build


def _dense_product(inputs: Tensors, _shape: Shape) -> Callable[[], Tensors]:
    x, weight = inputs["x"], inputs["weight"]
    scale_x, scale_w = (torch.ones((len(one), 1), device=x.device) for one in (x, weight))
    return lambda: {"out": _dense(x, weight, scale_x, scale_w)}


def _dense(x: Tensor, weight: Tensor, scale_x: Tensor, scale_w: Tensor) -> Tensor:
    """int8: the sums as they are; fp8: scaled."""
    if x.dtype == torch.int8:
        return torch._int_mm(x, weight.t())  # pyright: ignore[reportPrivateImportUsage]
    half = torch.bfloat16
    return torch._scaled_mm(  # pyright: ignore[reportPrivateImportUsage]
        x, weight.t(), scale_x, scale_w.t(), out_dtype=half, use_fast_accum=True
    )


def _sparse(to: torch.dtype) -> Callable[[Tensors, Shape], Callable[[], Tensors]]:
    def build(inputs: Tensors, shape: Shape) -> Callable[[], Tensors]:
        weight = compress(inputs["weight"], _pattern(shape), to)
        return lambda: {"out": sparse_linear(inputs["x"], weight, inputs["bias"])}

    return build


def _quantised(
    to: torch.dtype, quantise: Callable[[Tensor, torch.dtype], tuple[Tensor, Tensor]]
) -> Callable[[Tensors, Shape], Callable[[], Tensors]]:
    """The same layer without using its zeros."""

    def build(inputs: Tensors, _shape: Shape) -> Callable[[], Tensors]:
        x, bias = inputs["x"], inputs["bias"]
        weight, scale_w = q.reference(inputs["weight"], to)

        def run() -> Tensors:
            values, scale_x = quantise(x, to)
            out = _dense(values, weight, scale_x, scale_w)
            if to.is_floating_point:
                return {"out": (out + bias).to(x.dtype)}
            if quantise is q.plain:
                return {"out": (out.float() * scale_x * scale_w.t() + bias).to(x.dtype)}
            return {"out": dequant_bias(out, scale_x, scale_w, bias, x.dtype)}

        return run

    return build


def _cublas(inputs: Tensors, _shape: Shape) -> Callable[[], Tensors]:
    x, weight, bias = (inputs[name] for name in ("x", "weight", "bias"))
    return lambda: {"out": functional.linear(x, weight, bias)}


def _cannot_sparse(_shape: Shape, _dtype: str) -> str:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return _cusparselt.why_not(device)


def _cannot_dense(shape: Shape, _dtype: str) -> str:
    wrong = [axis for axis in ("out", "in") if shape[axis] % 16]
    if wrong:
        return f"{' and '.join(wrong)} must be a multiple of 16"
    return "it needs more than 16 rows" if shape["rows"] <= 16 else ""


def _layer(to: str) -> Operation:
    dense = "_scaled_mm" if to == "fp8" else "_int_mm, dequant_bias"
    form = q.TORCH[to]
    return Operation(
        work=_work(to),
        inputs=_inputs,
        reference=_reference,
        implementations={
            OURS: Implementation(
                "quant_slide, cuSPARSELt, dequant_bias", _sparse(form), _cannot_sparse
            ),
            "eager": Implementation(
                f"dense: PyTorch alone, torch.{'_scaled_mm' if to == 'fp8' else '_int_mm'}",
                _quantised(form, q.plain),
                _cannot_dense,
            ),
            "dense": Implementation(
                f"dense: quant, torch.{dense}", _quantised(form, quant), _cannot_dense
            ),
            "cublas": Implementation("dense: torch linear in the format of x", _cublas),
        },
    )


def _product(to: str) -> Operation:
    dense = "_scaled_mm by rows, fast" if to == "fp8" else "_int_mm"
    return Operation(
        work=_product_work(to),
        inputs=_quantised_inputs(to),
        reference=_product_reference,
        implementations={
            OURS: Implementation(
                "cuSPARSELt, the quickest algorithm", _sparse_product(search=True), _cannot_sparse
            ),
            "default": Implementation(
                "cuSPARSELt, algorithm 0", _sparse_product(search=False), _cannot_sparse
            ),
            "eager": Implementation(f"dense: torch.{dense}", _dense_product, _cannot_dense),
        },
    )


def _tuning(to: str) -> Tuning:
    form = q.TORCH[to]

    def key(shape: Shape, _dtype: str) -> str:
        rows = shape["rows"] + -shape["rows"] % _cusparselt.ROWS
        out = shape["out"] + -shape["out"] % _cusparselt.OUT
        return _cusparselt.key_of(rows, out, _pattern(shape).columns(shape["in"]), form)

    return Tuning(
        key=key,
        default=lambda _shape, _dtype: _cusparselt.default(form, torch.device("cuda")),
        coarse=lambda _shape, _dtype: ({"algorithm": number} for number in range(24)),
    )


KERNEL = Kernel(
    axes={"rows": None, "out": None, "in": None, "of": 8},
    shapes=(
        {"rows": 8192, "out": 8192, "in": 8192, "of": 4},
        {"rows": 8192, "out": 8192, "in": 8192, "of": 8},
        {"rows": 16384, "out": 16384, "in": 16384, "of": 4},
        {"rows": 16384, "out": 16384, "in": 16384, "of": 8},
        {"rows": 8192, "out": 8192, "in": 8192, "of": 6},
        {"rows": 8192, "out": 8192, "in": 8192, "of": 10},
        {"rows": 8192, "out": 8192, "in": 8192, "of": 0},
        {"rows": 4096, "out": 37888, "in": 3584, "of": 8},
        {"rows": 4096, "out": 3584, "in": 18944, "of": 8},
        {"rows": 64, "out": 8192, "in": 8192, "of": 8},
        {"rows": 1823, "out": 784, "in": 336, "of": 8},
    ),
    dtypes=("bf16", "fp16"),
    operations={
        "int8": _layer("int8"),
        "fp8": _layer("fp8"),
        "int8_product": _product("int8"),
        "fp8_product": _product("fp8"),
    },
    tuning={"int8_product": _tuning("int8"), "fp8_product": _tuning("fp8")},
    function=lambda: sparse_linear,
)
