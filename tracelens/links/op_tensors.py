"""The tensors that one of PyTorch's ops was called with: shapes, types, and bytes in memory."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, Final

from tracelens.links.op_inputs import decoded, type_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ITEM_BYTES: Final = {
    "float64": 8, "float32": 4, "float16": 2, "bfloat16": 2,
    "float8_e4m3fn": 1, "float8_e5m2": 1, "float8_e4m3fnuz": 1, "float8_e5m2fnuz": 1,
    "float8_e8m0fnu": 1,
    "int64": 8, "int32": 4, "int16": 2, "int8": 1, "uint64": 8, "uint32": 4, "uint16": 2,
    "uint8": 1, "bool": 1,
    "complex128": 16, "complex64": 8, "complex32": 4,
}  # fmt: skip
"""Bytes of an element, by PyTorch's name of the type. Types of less than a byte are not here."""

_SCALAR_TYPES: Final = {
    0: "uint8", 1: "int8", 2: "int16", 3: "int32", 4: "int64", 5: "float16", 6: "float32",
    7: "float64", 8: "complex32", 9: "complex64", 10: "complex128", 11: "bool", 15: "bfloat16",
    23: "float8_e5m2", 24: "float8_e4m3fn", 25: "float8_e5m2fnuz", 26: "float8_e4m3fnuz",
    44: "float8_e8m0fnu",
}  # fmt: skip
"""c10::ScalarType, as scalar inputs give it."""

_MOST: Final = 2**63
_LIST: Final = "TensorList"
_FLOATS: Final = ("float8", "bfloat16", "float16", "float32", "float64")


@dataclass(frozen=True)
class Tensor:
    """One tensor.

    Attributes:
        shape: its sizes; () is a single number, which may as well be one of the CPU's.
        dtype: PyTorch's name of its type.
        stored: elements in memory: what is expanded is there once.
    """

    shape: tuple[int, ...]
    dtype: str
    stored: int

    @property
    def elements(self) -> int:
        """How many elements it stands for."""
        return prod(self.shape)

    @property
    def bytes(self) -> int:
        """Bytes in memory; none of single numbers."""
        return self.stored * ITEM_BYTES[self.dtype] if self.shape else 0


@dataclass(frozen=True)
class Call:
    """What an op was called with, place by place.

    ``operands`` has a Tensor, a tuple of them where a list was given, or None for what is no
    tensor; ``scalars`` the texts of what is none, or nothing where they were not recorded.
    """

    operands: tuple[Tensor | tuple[Tensor, ...] | None, ...]
    scalars: tuple[str, ...]

    def tensor(self, place: int) -> Tensor | None:
        """Return the tensor in a place."""
        found = self.operands[place] if place < len(self.operands) else None
        return found if isinstance(found, Tensor) else None

    def listed(self, place: int) -> tuple[Tensor, ...]:
        """Return the list of tensors in a place; empty if there is none."""
        found = self.operands[place] if place < len(self.operands) else None
        return found if isinstance(found, tuple) else ()

    def tensors(self, places: slice = slice(None)) -> Iterator[Tensor]:
        """Give the tensors in some places, those of lists one by one."""
        for operand in self.operands[places]:
            if isinstance(operand, Tensor):
                yield operand
            elif operand is not None:
                yield from operand

    def scalar(self, place: int) -> str:
        """Return the text of a scalar; empty where there is none, or none was recorded."""
        return self.scalars[place] if place < len(self.scalars) else ""

    def numbers(self, place: int) -> list[int]:
        """Return the integers of a list among the scalars, or of one alone."""
        text = self.scalar(place)
        found = decoded(text if text.startswith("[") else f"[{text}]")
        return [number for number in found if type(number) is int]

    def is_true(self, place: int) -> bool:
        """Tell whether a scalar is true."""
        return is_true(self.scalar(place))

    def dtype(self, place: int, otherwise: str) -> str:
        """Return the type that a scalar names."""
        text = self.scalar(place)
        return _SCALAR_TYPES.get(int(text), otherwise) if text.isdecimal() else otherwise


def call(
    dims: str | None, types: str | None, inputs: str | None, strides: str | None, element: str = ""
) -> Call | None:
    """Return what was recorded of a call; None where that does not tell its tensors.

    Args:
        dims: shapes of the inputs, as JSON.
        types: types of the inputs, as JSON; those of lists are not recorded.
        inputs: scalar inputs, as JSON.
        strides: strides of the inputs, as JSON, where one of them is 0.
        element: the type of the tensors in lists, if something else tells it.
    """
    shapes, names, steps = decoded(dims), decoded(types), decoded(strides)
    if not shapes or len(names) != len(shapes):
        return None
    if len(steps) != len(shapes):
        steps = [None] * len(shapes)
    operands: list[Tensor | tuple[Tensor, ...] | None] = []
    for shape, name, step in zip(shapes, names, steps, strict=True):
        if name == _LIST:
            found: Any = _tensors(shape, element, step)
        else:
            found = tensor(shape, type_name(name), step)
        if found is _BAD:
            return None
        operands.append(found)
    return Call(tuple(operands), tuple(str(value) for value in decoded(inputs)))


def is_true(text: str) -> bool:
    """Tell whether the text of a scalar is true."""
    return text.strip().lower() in ("true", "1")


def promoted(tensors: Sequence[Tensor]) -> str:
    """Return the type in which PyTorch computes with tensors; single numbers seldom decide."""
    named = [t.dtype for t in tensors if t.shape] or [t.dtype for t in tensors]
    return max(named, key=_rank)


def of(shape: Sequence[int], dtype: str) -> Tensor:
    """Return a tensor that fills its memory."""
    return Tensor(tuple(shape), dtype, prod(shape))


_BAD: Final = object()
"""A tensor of which nothing can be said."""


def tensor(shape: Any, dtype: str | None, step: Any = None) -> Any:
    """Return a Tensor, None for what is none, or `_BAD`."""
    if dtype is None:
        return None
    if dtype not in ITEM_BYTES or not _is_shape(shape):
        return _BAD
    known = isinstance(step, list) and len(step) == len(shape)
    sizes = [n for n, s in zip(shape, step, strict=True) if s != 0] if known else shape
    stored = prod(sizes) if all(shape) else 0
    return Tensor(tuple(shape), dtype, stored) if prod(shape) < _MOST else _BAD


def _tensors(shapes: Any, element: str, steps: Any) -> Any:
    """Return the tensors of a list; lists of more than 30 are recorded as if they were empty."""
    if not isinstance(shapes, list) or (shapes and not element):
        return _BAD
    known = isinstance(steps, list) and len(steps) == len(shapes)
    each = zip(shapes, steps if known else [None] * len(shapes), strict=True)
    found = [tensor(shape, element, step) for shape, step in each]
    return _BAD if any(one is _BAD for one in found) else tuple(found)


def _is_shape(value: Any) -> bool:
    return isinstance(value, list) and all(type(n) is int and 0 <= n < _MOST for n in value)


def _rank(dtype: str) -> tuple[int, int, int]:
    """Order types by how PyTorch promotes them: bool, integers, floats, complex; then by size."""
    kind = 3 if dtype.startswith("complex") else 2 if dtype.startswith(_FLOATS) else dtype != "bool"
    return int(kind), ITEM_BYTES[dtype], dtype == "float16"
