"""What a call of one of PyTorch's ops costs by its inputs: operations, bytes, number format."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tracelens.links import op_bytes
from tracelens.links.flops import FORMULAS, causal_share, flops
from tracelens.links.op_tensors import call

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tracelens.links.op_bytes import Moved
    from tracelens.links.op_tensors import Call

FORMATS: Final = {
    "float64": "fp64", "float32": "fp32", "float16": "fp16", "bfloat16": "bf16", "int8": "int8",
    "float8_e4m3fn": "fp8", "float8_e5m2": "fp8",
}  # fmt: skip
"""PyTorch's type -> the number format that ceilings of matrix products are listed under."""

_MOST: Final = 2**53
"""More than any GPU computes or moves in one call of some seconds; a number that big is wrong."""
_TRITON: Final = re.compile(r"triton_(?:poi|red|per)_fused_")
_PARTLY: Final = re.compile(r"embedding|gather|scatter|index|slice|select|split|nll_loss|roll")
"""What Triton kernels do that may not touch all of the tensors that they were given."""
_TENSOR_CORES: Final = re.compile(r"tf32|s1688|s16816|s161616")
_VECTOR_UNITS: Final = re.compile(r"sgemm|simt|ffma|gemv|gemmSN|gemmk1|f32f32_f32f32|dot_kernel")
_NAMED: Final = (
    ("fp8", re.compile(r"e4m3|e5m2|fp8|nvjet_(?:sm\d+_)?q")),
    ("tf32", re.compile(r"tf32")),
    ("bf16", re.compile(r"bf16|BFloat16|bfloat16|nvjet_(?:sm\d+_)?t")),
    ("fp16", re.compile(r"fp16|h16816|h884|hgemm|f16f16|__half|nvjet_(?:sm\d+_)?h")),
    ("fp32", _VECTOR_UNITS),
)
"""What names of kernels tell of a product's number format, where nothing else does."""
_ELEMENTS: Final = (
    ("float32", re.compile(r"OpaqueType<4u?>|<float[,> ]|, float[,> ]|lambda\(float\)")),
    ("bfloat16", re.compile(r"BFloat16|__nv_bfloat16|OpaqueType<2u?>")),
    ("float16", re.compile(r"Half|__half")),
    ("float64", re.compile(r"OpaqueType<8u?>|<double[,> ]")),
    ("uint8", re.compile(r"OpaqueType<1u?>")),
)


@dataclass(frozen=True)
class OpCost:
    """What one call costs.

    Attributes:
        flops: floating-point operations; None: not known.
        bytes: that it moves at least; None: not known.
        matmul: whether the operations are matrix products.
        causal: whether pairs of query and key that a causal mask hides were left out.
        alike_bytes: of `bytes`, what is of operands that look like another one and may be it:
            traces do not tell x·x from x·y.
        element: the type of the tensors in lists, which the kernels told.
    """

    flops: int | None
    bytes: int | None
    matmul: bool
    causal: bool = False
    alike_bytes: int = 0
    element: str = ""


def op_cost(
    name: str,
    dims: str | None,
    types: str | None,
    inputs: str | None,
    strides: str | None = None,
    *,
    element: str = "",
) -> OpCost | None:
    """Return what a call costs, or None where neither operations nor bytes are known.

    Args:
        name: the op's name, such as aten::mm.
        dims: the shapes of its inputs, as JSON.
        types: their types, as JSON.
        inputs: its scalar inputs, as JSON.
        strides: the strides of its inputs, as JSON, where one is 0.
        element: the type of the tensors in lists, which PyTorch does not record.
    """
    if not has_formula(name):
        return None
    made = call(dims, types, inputs, strides, "int64" if _takes_indices(name) else element)
    moves = None if made is None else _moved(name, made)
    size = moves.bytes if moves is not None and moves.bytes < _MOST else None
    if name in FORMULAS:
        counted = flops(name, dims, inputs)
        counted = counted if counted is not None and counted < _MOST else None
        share = causal_share(name, dims, inputs)
        if counted is None and size is None:
            return None
        return OpCost(
            None if counted is None else int(counted * share), size, matmul=True, causal=share < 1
        )
    if size is None or moves is None:
        return None
    operations = None if _TRITON.match(name) else moves.operations
    return OpCost(operations, size, matmul=False, alike_bytes=moves.alike, element=element)


def has_formula(name: str) -> bool:
    """Tell whether an op's cost can be known."""
    return name in FORMULAS or op_bytes.formula_of(name) is not None or _is_triton(name)


def element_of(kernels: Iterable[str]) -> str:
    """Return the type of what kernels work on, as their names tell it; empty if they do not."""
    names = list(kernels)
    return next((t for t, said in _ELEMENTS if any(said.search(name) for name in names)), "")


def product_format(dtype: str | None, kernels: Iterable[str]) -> tuple[str | None, bool]:
    """Return the number format in which kernels multiply, and whether that is certain.

    Single precision may be multiplied by tensor cores (tf32) or without them (fp32); the names
    of kernels tell. Where they do not, it counts as tf32, the higher ceiling. Names tell all of
    it where types were not recorded: torch.autograd.profiler.emit_nvtx writes shapes alone.
    """
    names = list(kernels)
    if dtype is None:
        said = (form for form, rule in _NAMED if any(rule.search(name) for name in names))
        return next(said, None), True
    found = FORMATS.get(dtype)
    if found != "fp32":
        return found, True
    if any(_TENSOR_CORES.search(name) for name in names):
        return "tf32", True
    if any(_VECTOR_UNITS.search(name) for name in names):
        return "fp32", True
    return "tf32", False


def _moved(name: str, made: Call) -> Moved | None:
    return op_bytes.triton(made) if _is_triton(name) else op_bytes.moved(name, made)


def _is_triton(name: str) -> bool:
    return bool(_TRITON.match(name)) and not _PARTLY.search(name)


def _takes_indices(name: str) -> bool:
    return name in ("aten::index", "aten::_index_put_impl_")
