"""What PyTorch recorded of the inputs of its ops: decoded, and made readable."""

from __future__ import annotations

import json
from typing import Any, Final

import polars as pl

_TYPES: Final = {
    "float": "float32",
    "double": "float64",
    "Half": "float16",
    "BFloat16": "bfloat16",
    "long int": "int64",
    "long": "int64",
    "int": "int32",
    "short int": "int16",
    "short": "int16",
    "signed char": "int8",
    "unsigned char": "uint8",
    "short unsigned int": "uint16",
    "unsigned int": "uint32",
    "long unsigned int": "uint64",
    "char": "int8",
    "bool": "bool",
    "complex<float>": "complex64",
    "complex<double>": "complex128",
    "complex<Half>": "complex32",
}
"""C++ type, as recorded -> PyTorch's name."""

_LISTED: Final = 3
_NO_TENSOR: Final = ("", "Scalar", "ScalarList", "TensorList", "None")


def decoded(text: str | None) -> list[Any]:
    """Return a recorded list; empty where it is none. Some versions wrote lists as texts."""
    try:
        found = json.loads(text or "[]")
        found = json.loads(found) if isinstance(found, str) else found
    except (ValueError, RecursionError):
        return []
    return found if isinstance(found, list) else []


def dtype(types: pl.Series) -> pl.Series:
    """Return the type of the first tensor among the inputs, in PyTorch's words; null: none."""
    return _by_text(types, _dtype)


def shapes(dims: pl.Series) -> pl.Series:
    """Return the shapes of the inputs that have one, as in ``4x512x768, 768x2304``.

    Those of a list of tensors stand in brackets; of long lists the first few.
    """
    return _by_text(dims, _shapes)


def _by_text(texts: pl.Series, make: Any) -> pl.Series:
    """Return ``make`` of texts, once for each distinct one."""
    distinct = texts.drop_nulls().unique()
    made = {text: make(decoded(text)) for text in distinct}
    return texts.replace_strict(made, default=None, return_dtype=pl.String)


def type_name(recorded: object) -> str | None:
    """Return PyTorch's name of a recorded type; None for what is no tensor."""
    if not isinstance(recorded, str) or recorded in _NO_TENSOR:
        return None
    plain = recorded.replace("c10::", "")
    return _TYPES.get(plain, plain.lower())


def _dtype(types: list[Any]) -> str | None:
    return next((name for recorded in types if (name := type_name(recorded)) is not None), None)


def _shapes(dims: list[Any]) -> str:
    return ", ".join(_shape(shape) for shape in dims if isinstance(shape, list) and shape)


def _shape(sizes: list[Any]) -> str:
    if not any(isinstance(size, list) for size in sizes):
        return "x".join(map(str, sizes))
    more = [f"… ({len(sizes):,})"] if len(sizes) > _LISTED else []
    first = [_shape(size) if isinstance(size, list) else str(size) for size in sizes[:_LISTED]]
    return f"[{', '.join([*first, *more])}]"
