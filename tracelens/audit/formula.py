"""Formulas of a mapping: arithmetic on printed numbers, settings, shapes and what a GPU can do.

Numbers with a decimal point are readings, rounded in their last digit; whole numbers are exact, and
so is `1/2`. Only arithmetic, names and the functions below are understood: nothing is executed.
"""

from __future__ import annotations

import ast
import math
import operator
from typing import TYPE_CHECKING, Final

from tracelens.audit import work
from tracelens.audit.gpus import BYTES_OF
from tracelens.audit.interval import EVERYTHING, Interval, exact
from tracelens.audit.printed import begin
from tracelens.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_LONGEST: Final = 2000
_DEEPEST: Final = 60
UNITS: Final[Mapping[str, float]] = {
    "ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "minutes": 60.0, "hours": 3600.0,
    "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30,
    "GFLOP": 1e9, "TFLOP": 1e12, "PFLOP": 1e15, "percent": 0.01,
}  # fmt: skip
"""Names of a formula that are numbers of base units."""

_OPERATORS: Final[Mapping[type, Callable[[Interval, Interval], Interval]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_SHAPES: Final[Mapping[str, Callable[..., float]]] = {
    "gemm_flops": work.gemm_flops,
    "attention_flops": work.attention_flops,
    "transformer_flops": work.transformer_flops,
    "transformer_parameters": work.transformer_parameters,
    "moe_flops": work.moe_flops,
}
FUNCTIONS: Final = (*_SHAPES, "min", "max", "sqrt", "bytes_of")
"""What a formula can call."""


def value(formula: str, names: Mapping[str, Interval]) -> Interval:
    """Return what a formula comes to.

    Raises:
        UsageError: it is no arithmetic, or has a name that is not known.
    """
    try:
        tree = ast.parse(formula[: _LONGEST + 1].strip(), mode="eval")
        if len(formula) > _LONGEST:
            raise UsageError(f"A formula is longer than {_LONGEST} characters.")
        return _Reading(formula.strip(), names).of(tree.body)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UsageError(f"The formula {formula[:80]!r} is no arithmetic: {error}.") from error
    except (OverflowError, ZeroDivisionError):
        return EVERYTHING


def unknown_names(formula: str, names: Mapping[str, object]) -> tuple[str, ...]:
    """Return the names of a formula that have no value, in their order.

    Raises:
        UsageError: it is no arithmetic.
    """
    try:
        tree = ast.parse(formula[:_LONGEST].strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UsageError(f"The formula {formula[:80]!r} is no arithmetic: {error}.") from error
    known = {*names, *UNITS, *FUNCTIONS, *BYTES_OF, "pi"}
    said = (node.id for node in ast.walk(tree) if isinstance(node, ast.Name))
    return tuple(dict.fromkeys(name for name in said if name not in known))


class _Reading:
    """One formula as it is worked out."""

    def __init__(self, text: str, names: Mapping[str, Interval]) -> None:
        self.text = text
        self.names = names

    def of(self, node: ast.expr, depth: int = 0) -> Interval:
        if depth > _DEEPEST:
            raise UsageError("A formula has too many brackets inside one another.")
        match node:
            case ast.Constant(value=bool() as flag):
                return exact(float(flag))
            case ast.Constant(value=int() as whole):
                return exact(float(whole))
            case ast.Constant(value=float()):
                return self.reading(node)
            case ast.Name(id=name):
                return self.named(name)
            case ast.UnaryOp(op=ast.USub(), operand=inner):
                return -self.of(inner, depth + 1)
            case ast.BinOp(left=left, op=ast.Pow(), right=ast.Constant(value=int() as power)):
                return self.of(left, depth + 1) ** power
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
                return _OPERATORS[type(op)](self.of(left, depth + 1), self.of(right, depth + 1))
            case ast.Call(func=ast.Name(id=name), args=args, keywords=keywords):
                return self.call(name, args, keywords, depth)
        raise UsageError(f"The formula {self.text[:80]!r} has more than arithmetic in it.")

    def reading(self, node: ast.Constant) -> Interval:
        written = ast.get_source_segment(self.text, node) or ""
        found, _ = begin(written)
        return found.span(1.0) if found else exact(float(str(node.value)))

    def named(self, name: str) -> Interval:
        if name in self.names:
            return self.names[name]
        if name in UNITS:
            return exact(UNITS[name])
        if name == "pi":
            return exact(math.pi)
        raise UsageError(f"The formula {self.text[:80]!r} has the name {name}, which has no value.")

    def call(
        self, name: str, args: list[ast.expr], keywords: list[ast.keyword], depth: int
    ) -> Interval:
        if name == "bytes_of":
            return self.bytes_of(args)
        values = [self.of(one, depth + 1) for one in args]
        named = {one.arg or "": self.of(one.value, depth + 1) for one in keywords}
        if name in {"min", "max"} and values and not named:
            pick = min if name == "min" else max
            return Interval(
                pick(v.low for v in values),
                pick(v.high for v in values),
                pick(v.at for v in values),
            )
        if name == "sqrt" and len(values) == 1 and not named:
            return values[0] ** (1 / 2)
        if name in _SHAPES:
            try:
                shape = (one.at for one in values)
                return exact(_SHAPES[name](*shape, **{k: v.at for k, v in named.items()}))
            except TypeError as error:
                raise UsageError(f"The formula {self.text[:80]!r}: {error}.") from error
        known = ", ".join(FUNCTIONS)
        raise UsageError(f"The formula {self.text[:80]!r} calls {name}, which is none of {known}.")

    def bytes_of(self, args: list[ast.expr]) -> Interval:
        match args:
            case [ast.Name(id=name)] if name in BYTES_OF:
                return exact(BYTES_OF[name])
        raise UsageError(f"bytes_of takes one of {', '.join(BYTES_OF)}.")
