"""Bytes that PyTorch's ops move at least, and their operations outside of matrix products.

Every operand is read once and every result written once, whatever caches and workspaces do; what
is expanded is read once; what an op overwrites without looking is not read. Operations are
counted per element as on paper: each of + - × ÷ max, exp, tanh and root is one, so that they say
which ceiling is near, and nothing finer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Final

from tracelens.links.flops import FORMULAS as PRODUCTS
from tracelens.links.flops import convolution_shape, grouped_shape
from tracelens.links.op_tensors import ITEM_BYTES, Call, Tensor, is_true, of, promoted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    Formula = Callable[[Call], "Moved | None"]
    Shape = Callable[[Sequence[int], Sequence[int]], list[int] | None]

LONGEST_LIST: Final = 30
"""Lists of more tensors PyTorch's profiler records as if they were empty."""

_INDEX: Final = "int64"


@dataclass(frozen=True)
class Moved:
    """What a call reads and writes, in bytes, and its operations that are no matrix products."""

    read: int
    written: int
    operations: int = 0
    alike: int = 0
    """Of what is read: bytes of operands that look like another one, and may be the same."""

    @property
    def bytes(self) -> int:
        """Bytes to and from memory."""
        return self.read + self.written


def moved(name: str, call: Call) -> Moved | None:
    """Return what a call moves; None where the op has no formula, or its inputs do not fit."""
    formula = formula_of(name)
    return formula(call) if formula is not None else None


def formula_of(name: str) -> Formula | None:
    """Return the formula of an op: its own, or that of the op that it does in place."""
    return FORMULAS.get(name) or IN_PLACE.get(name)


def _sum(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.bytes for tensor in tensors)


def _alike(tensors: Sequence[Tensor]) -> int:
    """Return the bytes of tensors that are like one before them: addcmul(grad, grad), say."""
    return _sum(one for place, one in enumerate(tensors) if one in tensors[:place])


def _broadcast(tensors: Sequence[Tensor]) -> list[int] | None:
    """Return the shape that the tensors are expanded to; None if they do not fit together."""
    shape: list[int] = []
    for tensor in tensors:
        sizes = list(tensor.shape)
        longest = max(len(shape), len(sizes))
        pairs = zip(_wide(shape, longest), _wide(sizes, longest), strict=True)
        merged = [a if b == 1 else b if a in (1, b) else -1 for a, b in pairs]
        if -1 in merged:
            return None
        shape = merged
    return shape


def _wide(shape: Sequence[int], axes: int) -> list[int]:
    return [1] * (axes - len(shape)) + list(shape)


def _elementwise(places: int, operations: int = 1, result: str = "") -> Formula:
    """Return the formula of an op of each element; what stands behind its inputs is its result.

    Args:
        places: how many inputs the op has, scalars included.
        operations: of one element.
        result: the type of the result: `bool`, `float` (of integers, too), or that of the inputs.
    """

    def count(call: Call) -> Moved | None:
        inputs = [*call.tensors(slice(places))]
        given = call.tensor(places)
        shape = _broadcast(inputs) if inputs else None
        if shape is None:
            return None
        # A result that is not as large yet as it will be is recorded as empty.
        fits = given is not None and list(given.shape) == shape
        dtype = given.dtype if given else _result(inputs, result)
        out = given if given and fits else of(shape, dtype)
        return Moved(_sum(inputs), out.bytes, operations * prod(shape), _alike(inputs))

    return count


def _result(inputs: Sequence[Tensor], kind: str) -> str:
    if kind in ITEM_BYTES:
        return kind
    dtype = promoted([one for one in inputs if one.dtype != "bool"] or inputs)
    return "float32" if kind == "float" and not dtype.startswith(("b", "f", "c")) else dtype


def _in_place(count: Formula) -> Formula:
    """Return the formula of an op that writes its result over its first input."""

    def over(call: Call) -> Moved | None:
        found, first = count(call), call.tensor(0)
        if found is None or first is None:
            return None
        return replace(found, written=first.bytes, alike=_alike([*call.tensors(slice(1, None))]))

    return over


def _overwritten(call: Call) -> Moved | None:
    """Count what fills a tensor without looking at it."""
    first = call.tensor(0)
    return Moved(0, first.bytes) if first else None


def _copy(call: Call) -> Moved | None:
    """Count a copy: destination, source."""
    target, source = call.tensor(0), call.tensor(1)
    if target is None or source is None:
        return None
    return Moved(source.bytes, target.bytes)


def _reduced(at: int, operations: int = 1, result: str = "", *, keep: int = 1) -> Formula:
    """Return the formula of a reduction of its first input.

    Args:
        at: the place of the dimensions that go; without any, all go.
        operations: of one element of the input.
        result: the type of the result; else that of the input, and of integers int64.
        keep: how many results there are of each kind in ``result``.
    """

    def count(call: Call) -> Moved | None:
        first = call.tensor(0)
        if first is None or not call.scalars:
            return None
        axes = len(first.shape)
        # sum(tensor, dtype=…) has the type where others have dimensions.
        listed = call.scalar(at).startswith("[") or len(call.scalars) > at + 1
        gone = {axis % axes for axis in call.numbers(at)} if axes and listed else set()
        kept = [n for axis, n in enumerate(first.shape) if axis not in gone] if gone else []
        of_result = of(kept, result or _accumulated(first.dtype))
        return Moved(first.bytes, keep * of_result.bytes, operations * first.elements)

    return count


def _accumulated(dtype: str) -> str:
    return dtype if dtype.startswith(("bf", "f", "c")) else _INDEX


def _kept_type(count: Formula) -> Formula:
    """Return the formula of a reduction whose result has the type of its input: max, min."""

    def narrowed(call: Call) -> Moved | None:
        found, first = count(call), call.tensor(0)
        if found is None or first is None:
            return None
        was = ITEM_BYTES[_accumulated(first.dtype)]
        return Moved(found.read, found.written // was * ITEM_BYTES[first.dtype], found.operations)

    return narrowed


def _extreme(call: Call) -> Moved | None:
    """Count max and min: of two tensors, of all of one, or along one dimension with the places."""
    if call.tensor(1) is not None:
        return _elementwise(2)(call)
    found, places = _kept_type(_reduced(1))(call), _reduced(1, result=_INDEX)(call)
    if found is None or places is None:
        return None
    along = len(call.scalars) > 1
    return Moved(found.read, found.written + along * places.written, found.operations)


def _softmax(call: Call) -> Moved | None:
    """Count a softmax: input, dimension, whether half precision becomes single."""
    first = call.tensor(0)
    if first is None:
        return None
    dtype = "float32" if call.is_true(2) else first.dtype
    return Moved(first.bytes, of(first.shape, dtype).bytes, 5 * first.elements)


def _softmax_backward(call: Call) -> Moved | None:
    """Count its gradient: gradient, result, dimension, type of the input."""
    gradient, result = call.tensor(0), call.tensor(1)
    if gradient is None or result is None:
        return None
    written = of(gradient.shape, call.dtype(3, gradient.dtype))
    return Moved(gradient.bytes + result.bytes, written.bytes, 4 * gradient.elements)


def _norm(operations: int, statistics: int) -> Formula:
    """Return the formula of layer and RMS norm: input, shape that is normalized, weight, ….

    Mean and reciprocal deviation are single precision, one of each for every row.
    """

    def count(call: Call) -> Moved | None:
        first, axes = call.tensor(0), len(call.numbers(1))
        if first is None or not 0 < axes <= len(first.shape):
            return None
        rows = prod(first.shape[: len(first.shape) - axes])
        written = of(first.shape, first.dtype).bytes + statistics * 4 * rows
        return Moved(_sum(call.tensors()), written, operations * first.elements)

    return count


def _norm_backward(operations: int, at: int, mask: int) -> Formula:
    """Return the formula of a norm's gradients: gradient, input, …, the weight ``at`` its place.

    ``mask`` is the place of what tells which of the gradients are asked for.
    """

    def count(call: Call) -> Moved | None:
        first = call.tensor(1)
        asked = [is_true(flag) for flag in call.scalar(mask).strip("[]").split(",")]
        if first is None or len(asked) < 2:
            return None
        weight = call.tensor(at)  # which the bias is as large as
        gradients = sum(asked[1:]) * (weight.bytes if weight else 0)
        written = asked[0] * of(first.shape, first.dtype).bytes + gradients
        return Moved(_sum(call.tensors()), written, operations * first.elements)

    return count


def _group_norm(call: Call) -> Moved | None:
    """Count it: input, weight, bias, N, C, pixels, groups; a mean and deviation of each group."""
    first, batch, groups = call.tensor(0), call.numbers(3), call.numbers(6)
    if first is None or not batch or not groups:
        return None
    written = of(first.shape, first.dtype).bytes + 2 * 4 * batch[0] * groups[0]
    return Moved(_sum(call.tensors()), written, 8 * first.elements)


def _batch_norm(*, trains: bool = False) -> Formula:
    """Return the formula of: input, weight, bias, running mean and deviation, whether in training.

    In training two statistics of each channel are written.
    """

    def count(call: Call) -> Moved | None:
        first = call.tensor(0)
        if first is None or len(first.shape) < 2:
            return None
        statistics = (trains or call.is_true(5)) * 2 * 4 * first.shape[1]
        written = of(first.shape, first.dtype).bytes + statistics
        return Moved(_sum(call.tensors(slice(5))), written, 8 * first.elements)

    return count


def _cudnn_batch_norm_backward(call: Call) -> Moved | None:
    """Count it: input, gradient, weight, running statistics (unread), those of the batch."""
    first, gradient, weight = (call.tensor(place) for place in range(3))
    if first is None or gradient is None or weight is None:
        return None
    read = first.bytes + gradient.bytes + weight.bytes + _sum(call.tensors(slice(5, 7)))
    written = of(first.shape, first.dtype).bytes + 2 * weight.bytes
    return Moved(read, written, 16 * first.elements)


def _dropout(call: Call) -> Moved | None:
    """Count it with its mask: input, probability, whether in training."""
    first = call.tensor(0)
    if first is None:
        return None
    written = of(first.shape, first.dtype).bytes + of(first.shape, "bool").bytes
    return Moved(first.bytes, written, 2 * first.elements)


def _embedding(call: Call) -> Moved | None:
    """Count it: weight, indices; rows that are not asked for are not read."""
    weight, indices = call.tensor(0), call.tensor(1)
    if weight is None or indices is None or len(weight.shape) != 2:
        return None
    rows = of([*indices.shape, weight.shape[1]], weight.dtype).bytes
    return Moved(rows + indices.bytes, rows)


def _embedding_backward(call: Call) -> Moved | None:
    """Count it: gradient, indices, rows of the weight.

    What no index names was filled with zeros by an op of its own before.
    """
    gradient, indices, rows = call.tensor(0), call.tensor(1), call.numbers(2)
    if gradient is None or indices is None or not gradient.shape or not rows or rows[0] < 0:
        return None
    touched = min(indices.elements, rows[0])
    written = of([touched, gradient.shape[-1]], gradient.dtype)
    return Moved(gradient.bytes + indices.bytes, written.bytes, gradient.elements)


def _index_select(call: Call) -> Moved | None:
    """Count it: input, dimension, index."""
    first, dim, index = call.tensor(0), call.numbers(1), call.tensor(2)
    if first is None or index is None or not dim or not first.shape:
        return None
    if not -len(first.shape) <= dim[0] < len(first.shape):
        return None
    shape = list(first.shape)
    shape[dim[0]] = index.elements
    picked = of(shape, first.dtype).bytes
    return Moved(picked + index.bytes, picked)


def _gather(call: Call) -> Moved | None:
    """Count it: input, dimension, index; one element for each index."""
    first, index = call.tensor(0), call.tensor(2)
    if first is None or index is None:
        return None
    picked = of(index.shape, first.dtype).bytes
    return Moved(picked + index.bytes, picked)


def _index(call: Call) -> Moved | None:
    """Count it: input, indices of its first dimensions."""
    first, indices = call.tensor(0), call.listed(1)
    shape = _broadcast(indices) if indices else None
    if first is None or shape is None or len(indices) > len(first.shape):
        return None
    picked = of([*shape, *first.shape[len(indices) :]], first.dtype).bytes
    return Moved(picked + _sum(indices), picked)


def _index_put(call: Call) -> Moved | None:
    """Count it: target, indices of its first dimensions, values, whether to add."""
    first, indices, values = call.tensor(0), call.listed(1), call.tensor(2)
    shape = _broadcast(indices) if indices else None
    if first is None or values is None or shape is None or len(indices) > len(first.shape):
        return None
    put = of([*shape, *first.shape[len(indices) :]], first.dtype)
    read = values.bytes + _sum(indices) + call.is_true(3) * put.bytes
    return Moved(read, put.bytes, call.is_true(3) * put.elements)


def _scattered(*, adds: bool) -> Formula:
    """Return the formula of scatter: target, dimension, index, source (or a number)."""

    def count(call: Call) -> Moved | None:
        first, index, source = call.tensor(0), call.tensor(2), call.tensor(3)
        if first is None or index is None:
            return None
        put = of(index.shape, first.dtype)
        read = index.bytes + (put.bytes if source and source.shape else 0) + adds * put.bytes
        return Moved(read, put.bytes, adds * put.elements)

    return count


def _index_add(call: Call) -> Moved | None:
    """Count it: target, dimension, index, source."""
    first, index, source = call.tensor(0), call.tensor(2), call.tensor(3)
    if first is None or index is None or source is None:
        return None
    put = of(source.shape, first.dtype)
    return Moved(source.bytes + index.bytes + put.bytes, put.bytes, put.elements)


def _nll(call: Call) -> Moved | None:
    """Count it: log-probabilities, targets; one of a row is read."""
    first, target = call.tensor(0), call.tensor(1)
    if first is None or target is None:
        return None
    return Moved(target.bytes + of(target.shape, first.dtype).bytes, 0, target.elements)


def _nll_backward(call: Call) -> Moved | None:
    """Count it: gradient, log-probabilities, targets; one of a row is written.

    The rest of the gradient was filled with zeros by an op of its own before.
    """
    first, target = call.tensor(1), call.tensor(2)
    if first is None or target is None:
        return None
    return Moved(target.bytes, of(target.shape, first.dtype).bytes, target.elements)


def _joined(call: Call) -> Moved | None:
    """Count what puts a list of tensors together: cat, stack."""
    parts = call.listed(0)
    if not parts:
        return None
    return Moved(_sum(parts), sum(of(part.shape, part.dtype).bytes for part in parts))


def _chunk_cat(call: Call) -> Moved | None:
    """Count it: tensors, dimension, chunks, and the result, which may be padded."""
    parts, out = call.listed(0), call.tensor(3)
    if not parts:
        return None
    return Moved(_sum(parts), out.bytes if out else _sum(parts))


def _split_copy(call: Call) -> Moved | None:
    """Count it: input, sizes, dimension."""
    first = call.tensor(0)
    return Moved(first.bytes, of(first.shape, first.dtype).bytes) if first else None


def _foreach(operations: int, *, in_place: bool) -> Formula:
    """Return the formula of an op on lists of tensors, element by element."""

    def count(call: Call) -> Moved | None:
        first = call.listed(0)
        lists = [call.listed(place) for place in range(len(call.operands))]
        if not first or any(one and len(one) != len(first) for one in lists):
            return None
        written = _sum(first) if in_place else sum(of(t.shape, t.dtype).bytes for t in first)
        elements = sum(tensor.elements for tensor in first)
        alike = sum(map(_alike, zip(*(one for one in lists[in_place:] if one), strict=True)))
        return Moved(_sum(call.tensors()), written, operations * elements, alike)

    return count


def _foreach_copy(call: Call) -> Moved | None:
    target, source = call.listed(0), call.listed(1)
    return Moved(_sum(source), _sum(target)) if target and source else None


def _foreach_zero(call: Call) -> Moved | None:
    first = call.listed(0)
    return Moved(0, _sum(first)) if first else None


def _foreach_norm(call: Call) -> Moved | None:
    first = call.listed(0)
    return Moved(_sum(first), 0, 2 * sum(t.elements for t in first)) if first else None


def _fused_optimizer(operations: int, states: int) -> Formula:
    """Return the formula of a fused optimizer: parameters, gradients, states.

    Gradients are read, the rest is read and written.
    """

    def count(call: Call) -> Moved | None:
        parts = [call.listed(place) for place in range(2 + states)]
        if not all(parts[:2]):
            return None
        written = _sum(parts[0]) + sum(_sum(state) for state in parts[2:])
        elements = sum(tensor.elements for tensor in parts[0])
        return Moved(sum(map(_sum, parts)), written, operations * elements)

    return count


def _product(shape_of: Shape, skipped: int = 0, *, result: str = "", at: int = -1) -> Formula:
    """Return the formula of a matrix product, whose operations `links.flops` counts.

    Args:
        shape_of: the shape of the result, of the shapes of both factors.
        skipped: inputs before the factors, which are read, too.
        result: the type of the result, if it is not that of the factors.
        at: the place of the scalar that names that type.
    """

    def count(call: Call) -> Moved | None:
        left, right = call.tensor(skipped), call.tensor(skipped + 1)
        shape = shape_of(left.shape, right.shape) if left and right else None
        if left is None or shape is None:
            return None
        dtype = result or left.dtype
        if at >= 0:
            dtype = call.dtype(at, "bfloat16" if dtype.startswith("float8") else dtype)
        # What is bigger than a factor's scale and stands behind the factors is mm.out's result.
        given = [t for t in call.tensors(slice(skipped + 2, None)) if list(t.shape) == shape]
        out = given[-1] if given and at < 0 else of(shape, dtype)
        read = _sum(call.tensors()) - (out.bytes if given and at < 0 else 0)
        return Moved(read, out.bytes)

    return count


def _mm_shape(left: Sequence[int], right: Sequence[int]) -> list[int] | None:
    """Return the shape of a product of matrices, batches of them, or a matrix and a vector."""
    match left, right:
        case [m, k], [same, n] if k == same:
            return [m, n]
        case [b, m, k], [b2, same, n] if b == b2 and k == same:
            return [b, m, n]
        case [m, k], [same] if k == same:
            return [m]
        case [k], [same] if k == same:
            return []
    return None


def _linear_shape(left: Sequence[int], right: Sequence[int]) -> list[int] | None:
    match left, right:
        case [*rest, k], [n, same] if k == same:
            return [*rest, n]
    return None


def _grouped(*, offsets: int, result: int) -> Formula:
    """Return the formula of products in groups, whose ends are a tensor at ``offsets``.

    ``result`` is the place of the scalar that names the type of the result.
    """

    def count(call: Call) -> Moved | None:
        left, right, ends = call.tensor(0), call.tensor(1), call.tensor(offsets)
        if left is None or right is None:
            return None
        groups = ends.elements if ends else 0
        shape = grouped_shape(left.shape, right.shape, groups)
        if shape is None:
            return None
        dtype = "bfloat16" if left.dtype.startswith("float8") else left.dtype
        return Moved(_sum(call.tensors()), of(shape, call.dtype(result, dtype)).bytes)

    return count


def _convolution(call: Call) -> Moved | None:
    first = call.tensor(0)
    shape = convolution_shape(_shapes(call), call.scalars)
    if first is None or shape is None:
        return None
    return Moved(_sum(call.tensors(slice(3))), of(shape, first.dtype).bytes)


def _convolution_backward(call: Call) -> Moved | None:
    """Count the gradients that are asked for of input, weight and bias."""
    gradient, first, weight = (call.tensor(place) for place in range(3))
    asked = [is_true(flag) for flag in call.scalar(10).strip("[]").split(",")]
    if gradient is None or first is None or weight is None or len(asked) != 3:
        return None
    if len(gradient.shape) < 2:
        return None
    bias = gradient.shape[1] * ITEM_BYTES[gradient.dtype]
    results = (of(first.shape, first.dtype).bytes, of(weight.shape, weight.dtype).bytes, bias)
    written = sum(flag * size for flag, size in zip(asked, results, strict=True))
    return Moved(_sum(call.tensors(slice(3))), written)


def _shapes(call: Call) -> list[list[int]]:
    return [list(one.shape) if isinstance(one, Tensor) else [] for one in call.operands]


def _attention(call: Call) -> Moved | None:
    """Count attention: query, key, value, and a logarithm of a sum for each query."""
    query, _, value = (call.tensor(place) for place in range(3))
    if query is None or value is None or not query.shape or not value.shape:
        return None
    rows = prod(query.shape[:-1])
    out = of([rows, value.shape[-1]], query.dtype)
    return Moved(_sum(call.tensors()), out.bytes + 4 * rows)


def _attention_backward(call: Call) -> Moved | None:
    """Count its gradients: gradient, query, key, value, …: all are read, three are written."""
    results = [call.tensor(place) for place in range(1, 4)]
    if not all(results):
        return None
    written = sum(of(t.shape, t.dtype).bytes for t in results if t)
    return Moved(_sum(call.tensors()), written)


def triton(call: Call) -> Moved | None:
    """Count a kernel that torch.compile made: every tensor that it was given, once."""
    read = _sum(call.tensors())
    return Moved(read, 0) if read else None


_UNARY: Final = {
    1: (
        "neg", "abs", "reciprocal", "sqrt", "exp", "exp2", "log", "log2", "log10", "log1p", "expm1",
        "sin", "cos", "tan", "tanh", "relu", "sign", "sgn", "floor", "ceil", "round", "trunc",
        "bitwise_not", "frac", "clone", "positive", "square", "triu", "tril", "asin", "acos",
        "atan", "sinh", "cosh",
    ),
    2: ("rsqrt", "hardtanh", "leaky_relu", "relu6", "clamp_min", "clamp_max", "threshold"),
    4: ("sigmoid", "silu", "logit", "softplus", "elu", "celu", "selu", "erf", "hardsigmoid",
        "hardswish", "erfinv", "erfc", "log_sigmoid_forward"),
    6: ("mish",),
}  # fmt: skip
"""Operations per element -> ops of one tensor, with numbers behind it or not."""
_OF_FLOATS: Final = frozenset({
    "reciprocal", "sqrt", "exp", "exp2", "log", "log2", "log10", "log1p", "expm1", "sin", "cos",
    "tan", "tanh", "rsqrt", "sigmoid", "logit", "erf", "erfc", "erfinv", "asin", "acos", "atan",
    "sinh", "cosh", "div", "true_divide", "atan2",
})  # fmt: skip
"""Ops whose result is a float of integers, too."""
_PLACES: Final = {
    "add": 3, "sub": 3, "rsub": 3, "leaky_relu": 2, "hardtanh": 3, "elu": 4, "softplus": 3,
    "clamp_min": 2, "clamp_max": 2, "threshold": 3, "triu": 2, "tril": 2, "logit": 2, "celu": 2,
    "clone": 2, "round": 1,
}  # fmt: skip
_BINARY: Final = (
    "mul", "div", "true_divide", "remainder", "fmod", "floor_divide", "maximum", "minimum",
    "fmax", "fmin", "atan2", "pow", "bitwise_and", "bitwise_or", "bitwise_xor", "copysign",
    "hypot", "add", "sub", "rsub", "bitwise_left_shift", "bitwise_right_shift",
    "__and__", "__or__", "__xor__", "__lshift__", "__rshift__", "heaviside",
)  # fmt: skip
_COMPARED: Final = (
    "eq", "ne", "lt", "le", "gt", "ge", "logical_and", "logical_or", "logical_xor", "logical_not",
    "isnan", "isinf", "isfinite", "signbit", "isposinf", "isneginf",
)  # fmt: skip
_MANY: Final = {
    "addcmul": (4, 3), "addcdiv": (4, 3), "lerp": (3, 3), "where": (3, 1), "masked_fill": (3, 1),
    "clamp": (3, 2), "gelu": (2, 9), "nan_to_num": (4, 3), "glu_jvp": (0, 0),
    "threshold_backward": (3, 1), "gelu_backward": (3, 16), "silu_backward": (2, 8),
    "sigmoid_backward": (2, 3), "tanh_backward": (2, 3), "native_dropout_backward": (3, 2),
    "leaky_relu_backward": (4, 2), "hardtanh_backward": (4, 2), "elu_backward": (6, 4),
    "hardswish_backward": (2, 4), "hardsigmoid_backward": (2, 2), "softplus_backward": (4, 4),
    "mish_backward": (2, 10), "_masked_scale": (3, 2), "mse_loss": (0, 0),
}  # fmt: skip
"""Op -> places of its inputs, operations per element."""
_FILLED: Final = (
    "fill", "zero", "uniform", "normal", "random", "exponential", "bernoulli", "log_normal",
    "geometric", "cauchy",
)  # fmt: skip
_FOREACH: Final = {
    1: ("add", "sub", "mul", "div", "maximum", "minimum", "neg", "abs", "sqrt", "exp", "log",
        "reciprocal", "pow", "clamp_min", "clamp_max", "sign", "floor", "ceil", "round", "trunc"),
    2: ("rsqrt",),
    3: ("addcmul", "addcdiv", "lerp"),
    4: ("sigmoid",),
}  # fmt: skip


def _pointwise() -> dict[str, Formula]:
    """Return the formulas of what is done to each element, by plain name."""
    found: dict[str, Formula] = {}
    for operations, names in _UNARY.items():
        for name in names:
            kind = "float" if name in _OF_FLOATS else ""
            count = 0 if name in ("clone", "triu", "tril", "positive") else operations
            found[name] = _elementwise(_PLACES.get(name, 1), count, kind)
    for name in _BINARY:
        found[name] = _elementwise(_PLACES.get(name, 2), 1, "float" if name in _OF_FLOATS else "")
    for name in _COMPARED:
        found[name] = _elementwise(2 if len(name) == 2 or "_" in name else 1, 1, "bool")
    for name, (places, operations) in _MANY.items():
        if places:
            found[name] = _elementwise(places, operations)
    return found


_POINTWISE: Final = _pointwise()
_REDUCTIONS: Final[Mapping[str, Formula]] = {
    "sum": _reduced(1),
    "nansum": _reduced(1),
    "mean": _reduced(1),
    "prod": _reduced(1),
    "amax": _kept_type(_reduced(1)),
    "amin": _kept_type(_reduced(1)),
    "max": _extreme,
    "min": _extreme,
    "argmax": _reduced(1, result=_INDEX),
    "argmin": _reduced(1, result=_INDEX),
    "any": _reduced(1, result="bool"),
    "all": _reduced(1, result="bool"),
    "var": _reduced(1, 3),
    "std": _reduced(1, 3),
    "var_mean": _reduced(1, 3, keep=2),
    "std_mean": _reduced(1, 3, keep=2),
    "norm": _reduced(2, 2),
    "linalg_vector_norm": _reduced(2, 2),
}

FORMULAS: Final[Mapping[str, Formula]] = {
    **{f"aten::{name}": formula for name, formula in (*_POINTWISE.items(), *_REDUCTIONS.items())},
    **{f"aten::{name}_": _overwritten for name in _FILLED},
    "aten::copy_": _copy,
    "aten::_softmax": _softmax,
    "aten::_log_softmax": _softmax,
    "aten::_softmax_backward_data": _softmax_backward,
    "aten::_log_softmax_backward_data": _softmax_backward,
    "aten::native_layer_norm": _norm(8, 2),
    "aten::native_layer_norm_backward": _norm_backward(16, 5, 7),
    "aten::_fused_rms_norm": _norm(4, 1),
    "aten::_fused_rms_norm_backward": _norm_backward(10, 4, 5),
    "aten::native_group_norm": _group_norm,
    "aten::native_group_norm_backward": _norm_backward(16, 4, 9),
    "aten::native_batch_norm": _batch_norm(),
    "aten::cudnn_batch_norm": _batch_norm(),
    "aten::_batch_norm_with_update": _batch_norm(trains=True),
    "aten::native_batch_norm_backward": _norm_backward(16, 2, 9),
    "aten::batch_norm_backward": _norm_backward(16, 2, 9),
    "aten::cudnn_batch_norm_backward": _cudnn_batch_norm_backward,
    "aten::native_dropout": _dropout,
    "aten::_fused_dropout": _dropout,
    "aten::embedding": _embedding,
    "aten::embedding_dense_backward": _embedding_backward,
    "aten::index_select": _index_select,
    "aten::gather": _gather,
    "aten::index": _index,
    "aten::_index_put_impl_": _index_put,
    "aten::scatter_": _scattered(adds=False),
    "aten::scatter_add_": _scattered(adds=True),
    "aten::index_add_": _index_add,
    "aten::nll_loss_forward": _nll,
    "aten::nll_loss_backward": _nll_backward,
    "aten::cat": _joined,
    "aten::stack": _joined,
    "aten::_chunk_cat": _chunk_cat,
    "aten::split_with_sizes_copy": _split_copy,
    **{
        f"aten::_foreach_{name}{end}": _foreach(operations, in_place=bool(end))
        for operations, names in _FOREACH.items()
        for name in names
        for end in ("", "_")
    },
    "aten::_foreach_copy_": _foreach_copy,
    "aten::_foreach_zero_": _foreach_zero,
    "aten::_foreach_norm": _foreach_norm,
    "aten::_amp_foreach_non_finite_check_and_unscale_": _foreach(2, in_place=True),
    "aten::_fused_adam_": _fused_optimizer(14, 3),
    "aten::_fused_adamw_": _fused_optimizer(14, 3),
    "aten::_fused_sgd_": _fused_optimizer(4, 1),
    "aten::_fused_adagrad_": _fused_optimizer(6, 1),
    "aten::mm": _product(_mm_shape),
    "aten::bmm": _product(_mm_shape),
    "aten::mv": _product(_mm_shape),
    "aten::dot": _product(_mm_shape),
    "aten::vdot": _product(_mm_shape),
    **{
        f"aten::{name}": _product(_mm_shape, 1)
        for name in (
            "addmm", "addmm_", "_addmm_activation", "baddbmm", "baddbmm_", "addmv", "addmv_",
        )
    },
    "aten::linear": _product(_linear_shape),
    "aten::_int_mm": _product(_mm_shape, result="int32"),
    "aten::_scaled_mm": _product(_mm_shape, at=6),
    "aten::_grouped_mm": _grouped(offsets=2, result=4),
    "aten::_scaled_grouped_mm": _grouped(offsets=4, result=7),
    "aten::convolution": _convolution,
    "aten::_convolution": _convolution,
    "aten::convolution_overrideable": _convolution,
    "aten::convolution_backward": _convolution_backward,
    "aten::convolution_backward_overrideable": _convolution_backward,
    **{
        name: _attention_backward if name.endswith("_backward") else _attention
        for name in PRODUCTS
        if "attention" in name or "flash_attn" in name
    },
}  # fmt: skip
"""Op -> its formula. Results of ops that write into a tensor they were given stand behind their
inputs."""

IN_PLACE: Final[Mapping[str, Formula]] = {
    **{f"aten::{name}_": _in_place(formula) for name, formula in _POINTWISE.items()},
    **{f"aten::__i{name[2:]}": _in_place(_POINTWISE[name]) for name in _POINTWISE
       if name.startswith("__")},
}  # fmt: skip
"""Ops that write their result over their first input."""
