"""Floating-point operations of PyTorch's ops, from the shapes of their inputs.

A multiplication and the addition that follows it are two. The formulas are those of
torch.utils.flop_counter: products of matrices, convolutions and attention count, without regard to
masks (causal attention counts as if it were not) and without what is added or scaled besides.
One differs: the gradient of a grouped convolution's weight counts as its forward does, where
torch's formula lets every channel meet those of all groups.
"""

from __future__ import annotations

from fractions import Fraction
from math import prod
from typing import TYPE_CHECKING, Final

from tracelens.links.op_inputs import decoded

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Shapes = Sequence[Sequence[int]]
    Formula = Callable[[Shapes, Sequence[str]], int | None]

_MOST: Final = 2**63
_CAUSAL: Final = {
    "aten::scaled_dot_product_attention": 5,
    "aten::_scaled_dot_product_flash_attention": 4,
    "aten::_scaled_dot_product_flash_attention_for_cpu": 4,
    "aten::_scaled_dot_product_efficient_attention": 6,
    "aten::_scaled_dot_product_cudnn_attention": 6,
    "aten::_scaled_dot_product_fused_attention_overrideable": 5,
    "aten::_flash_attention_forward": 8,
    "aten::_efficient_attention_forward": 9,
    "aten::_cudnn_attention_forward": 10,
    "aten::_scaled_dot_product_flash_attention_backward": 11,
    "aten::_scaled_dot_product_flash_attention_for_cpu_backward": 7,
    "aten::_scaled_dot_product_efficient_attention_backward": 11,
    "aten::_scaled_dot_product_cudnn_attention_backward": 14,
    "aten::_scaled_dot_product_fused_attention_overrideable_backward": 13,
    "aten::_flash_attention_backward": 11,
    "aten::_efficient_attention_backward": 14,
    "aten::_cudnn_attention_backward": 14,
}
"""Op -> place of the input that tells whether it is causal (true, or a kind of mask: 1 or 2)."""
_BY_SEQUENCE: Final = (
    "aten::_flash_attention_forward",
    "aten::_flash_attention_backward",
    "aten::_efficient_attention_forward",
    "aten::_efficient_attention_backward",
)
"""Attention in (batch, sequence, head, size)."""


def flops(name: str, dims: str | None, inputs: str | None) -> int | None:
    """Return what one call of an op computes, or None where that is not known.

    Args:
        name: the op's name, such as aten::mm.
        dims: the shapes of its inputs, as JSON.
        inputs: its scalar inputs, as JSON; convolutions need theirs.
    """
    formula = FORMULAS.get(name)
    if formula is None:
        return None
    # What is no shape (a list of tensors, a scalar) fits no formula.
    shapes = [shape if _is_shape(shape) else [] for shape in decoded(dims)]
    found = formula(shapes, [str(value) for value in decoded(inputs)])
    return None if found is None or found >= _MOST else found


def _is_shape(value: object) -> bool:
    return isinstance(value, list) and all(type(size) is int and size >= 0 for size in value)


def _mm(shapes: Shapes) -> int | None:
    match shapes:
        case [[m, k], [same, n], *_] if k == same:
            return 2 * m * k * n
    return None


def _bmm(shapes: Shapes) -> int | None:
    match shapes:
        case [[b, m, k], [b2, same, n], *_] if b == b2 and k == same:
            return 2 * b * m * k * n
    return None


def _linear(shapes: Shapes) -> int | None:
    match shapes:
        case [[*rest, k], [n, same], *_] if k == same:
            return 2 * k * n * prod(rest)
    return None


def _attention(products: Sequence[str]) -> Callable[[Shapes], int | None]:
    """Return the formula of attention in (batch, head, sequence, size) that does these products.

    Each is between all queries and all keys: `q` over the size of a query, `v` of a value.
    """

    def count(shapes: Shapes) -> int | None:
        match shapes:
            case [[*batch, s_q, d_q], [*_, s_k, _], [*_, _, d_v], *_]:
                sizes = {"q": d_q, "v": d_v}
                return 2 * prod(batch) * s_q * s_k * sum(sizes[which] for which in products)
        return None

    return count


_FORWARD: Final = _attention("qv")
_BACKWARD: Final = _attention("qvvqq")
"""Backward computes the scores again; then the gradients of the scores, v, q and k."""


def _in_order(count: Callable[[Shapes], int | None], order: str) -> Callable[[Shapes], int | None]:
    """Return the formula for inputs of four dimensions: batch, head, sequence, d(epth) in an order.

    Inputs of three dimensions hold sequences of lengths that are not recorded.
    """
    places = [order.index(axis) for axis in "bhsd"]

    def turned(shapes: Shapes) -> int | None:
        if any(len(shape) != 4 for shape in shapes[:3]):
            return None
        return count([[shape[place] for place in places] for shape in shapes[:3]])

    return turned


def _convolution(shapes: Shapes, inputs: Sequence[str]) -> int | None:
    """Count a convolution: input, weight, bias, stride, padding, dilation, transposed, …."""
    match shapes, inputs:
        case (
            [[batch, _, *size], [_, _, *_] as weight, *_],
            [_, _, _, stride, padding, dilation, transposed, *_],
        ):
            if _is_true(transposed):
                return _windows(batch, size, weight)
            steps = [_numbers(text) for text in (stride, padding, dilation)]
            out = _out_size(size, weight[2:], *steps)
            return None if out is None else _windows(batch, out, weight)
    return None


def convolution_shape(shapes: Shapes, inputs: Sequence[str]) -> list[int] | None:
    """Return the shape of a convolution's result, of the inputs of `aten::convolution`."""
    match shapes, inputs:
        case (
            [[batch, _, *size], [rows, columns, *window], *_],
            [_, _, _, stride, padding, dilation, transposed, more, groups, *_],
        ):
            steps = [_numbers(text) for text in (stride, padding, dilation)]
            if not _is_true(transposed):
                out = _out_size(size, window, *steps)
                return None if out is None else [batch, rows, *out]
            wide = _per_axis((*steps, _numbers(more)), len(size))
            if len(window) != len(size) or wide is None or not groups.isdecimal():
                return None
            out = [
                (length - 1) * step - 2 * pad + spread * (taps - 1) + extra + 1
                for length, taps, step, pad, spread, extra in zip(size, window, *wide, strict=True)
            ]
            fits = all(length >= 0 for length in out)
            return [batch, columns * int(groups), *out] if fits else None
    return None


def _convolution_backward(shapes: Shapes, inputs: Sequence[str]) -> int | None:
    """Count the gradients that are asked for of a convolution's input and weight."""
    match shapes, inputs:
        case (
            [[batch, _, *out], [_, _, *size], [_, _, *_] as weight, *_],
            [_, _, _, _, _, _, _, transposed, _, _, mask, *_],
        ):
            places = size if _is_true(transposed) else out
            asked = sum(_is_true(flag) for flag in mask.strip("[]").split(",")[:2])
            return _windows(batch, places, weight) * asked
    return None


def _numbers(text: str) -> list[int]:
    return [number for number in decoded(text) if isinstance(number, int)]


def _windows(batch: int, places: Sequence[int], weight: Sequence[int]) -> int:
    return 2 * batch * prod(places) * prod(weight)


def _out_size(
    size: Sequence[int],
    window: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> list[int] | None:
    """Return the size of a convolution's output; one number may stand for all dimensions."""
    axes = len(window)
    wide = _per_axis((stride, padding, dilation), axes)
    if len(size) != axes or wide is None or not all(step > 0 for step in stride):
        return None
    out = [
        (length + 2 * pad - spread * (taps - 1) - 1) // step + 1
        for length, taps, step, pad, spread in zip(size, window, *wide, strict=True)
    ]
    return out if all(length >= 0 for length in out) else None


def _per_axis(parts: Sequence[Sequence[int]], axes: int) -> list[list[int]] | None:
    """Return of each part a number for each dimension, where one may stand for all."""
    if not all(len(part) in (1, axes) for part in parts):
        return None
    return [[*part] * (axes if len(part) == 1 else 1) for part in parts]


def grouped_shape(left: Sequence[int], right: Sequence[int], groups: int) -> list[int] | None:
    """Return the shape of products in groups: rows, columns or the inner dimension are grouped."""
    match left, right:
        case [m, k], [_, same, n] if k == same:
            return [m, n]
        case [_, m, k], [same, n] if k == same:
            return [m, n]
        case [m, k], [same, n] if k == same and groups:
            return [groups, m, n]
        case [b, m, k], [b2, same, n] if b == b2 and k == same:
            return [b, m, n]
    return None


def _grouped(shapes: Shapes) -> int | None:
    """Count products in groups, which together have every row (or column) that there is."""
    match shapes:
        case [[m, k], [_, same, n], *_] if k == same:
            return 2 * m * k * n
        case [[_, m, k], [same, n], *_] if k == same:
            return 2 * m * k * n
    return _mm(shapes) or _bmm(shapes)


def _mv(shapes: Shapes) -> int | None:
    match shapes:
        case [[m, k], [same], *_] if k == same:
            return 2 * m * k
        case [[k], [same], *_] if k == same:
            return 2 * k
    return None


def causal_share(name: str, dims: str | None, inputs: str | None) -> Fraction:
    """Return which part of the pairs of query and key attention needs: all, or fewer if causal.

    A causal query meets the keys up to its own place, as
    torch.nn.functional.scaled_dot_product_attention defines it.
    """
    place = _CAUSAL.get(name)
    scalars = [str(value) for value in decoded(inputs)]
    if place is None or place >= len(scalars) or scalars[place].lower() not in ("true", "1", "2"):
        return Fraction(1)
    shapes = [shape for shape in decoded(dims) if _is_shape(shape) and len(shape) == 4]
    first = int(name.endswith("_backward"))
    axis = 1 if name in _BY_SEQUENCE else 2
    if len(shapes) < first + 2:
        return Fraction(1)
    queries, keys = shapes[first][axis], shapes[first + 1][axis]
    seen = min(queries, keys)
    pairs = seen * (seen + 1) // 2 + max(queries - keys, 0) * keys
    return Fraction(pairs, queries * keys) if queries * keys else Fraction(1)


def _is_true(text: str) -> bool:
    return text.strip().lower() in ("true", "1")


def _of_shapes(count: Callable[[Shapes], int | None], skipped: int = 0) -> Formula:
    return lambda shapes, _: count(shapes[skipped:])


FORMULAS: Final[Mapping[str, Formula]] = {
    "aten::mm": _of_shapes(_mm),
    "aten::addmm": _of_shapes(_mm, 1),
    "aten::addmm_": _of_shapes(_mm, 1),
    "aten::_addmm_activation": _of_shapes(_mm, 1),
    "aten::_scaled_mm": _of_shapes(_mm),
    "aten::_int_mm": _of_shapes(_mm),
    "aten::bmm": _of_shapes(_bmm),
    "aten::baddbmm": _of_shapes(_bmm, 1),
    "aten::baddbmm_": _of_shapes(_bmm, 1),
    "aten::linear": _of_shapes(_linear),
    "aten::mv": _of_shapes(_mv),
    "aten::dot": _of_shapes(_mv),
    "aten::vdot": _of_shapes(_mv),
    "aten::addmv": _of_shapes(_mv, 1),
    "aten::addmv_": _of_shapes(_mv, 1),
    "aten::_grouped_mm": _of_shapes(_grouped),
    "aten::_scaled_grouped_mm": _of_shapes(_grouped),
    "aten::convolution": _convolution,
    "aten::_convolution": _convolution,
    "aten::convolution_overrideable": _convolution,
    "aten::convolution_backward": _convolution_backward,
    "aten::convolution_backward_overrideable": _convolution_backward,
    **{
        f"aten::{name}": _of_shapes(_FORWARD)
        for name in (
            "scaled_dot_product_attention",
            "_scaled_dot_product_efficient_attention",
            "_scaled_dot_product_flash_attention",
            "_scaled_dot_product_flash_attention_for_cpu",
            "_scaled_dot_product_cudnn_attention",
            "_scaled_dot_product_fused_attention_overrideable",
        )
    },
    **{
        f"aten::{name}": _of_shapes(_BACKWARD, 1)
        for name in (
            "_scaled_dot_product_efficient_attention_backward",
            "_scaled_dot_product_flash_attention_backward",
            "_scaled_dot_product_flash_attention_for_cpu_backward",
            "_scaled_dot_product_cudnn_attention_backward",
            "_scaled_dot_product_fused_attention_overrideable_backward",
        )
    },
    **{
        name: _of_shapes(_in_order(_FORWARD, order))
        for name, order in (
            ("aten::_cudnn_attention_forward", "bhsd"),
            ("aten::_flash_attention_forward", "bshd"),
            ("aten::_efficient_attention_forward", "bshd"),
            ("flash_attn::_flash_attn_forward", "bshd"),
        )
    },
    **{
        name: _of_shapes(_in_order(_BACKWARD, order), 1)
        for name, order in (
            ("aten::_cudnn_attention_backward", "bhsd"),
            ("aten::_flash_attention_backward", "bshd"),
            ("aten::_efficient_attention_backward", "bshd"),
            ("flash_attn::_flash_attn_backward", "bshd"),
        )
    },
}
"""Op -> its formula, of the shapes of its inputs and its scalar inputs as texts. Of ops inside one
another the innermost that has a number counts: aten::linear only where it calls no aten::addmm."""
