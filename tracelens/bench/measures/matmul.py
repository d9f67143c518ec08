"""Products of square matrices of random numbers, in every number format that the device has."""

from __future__ import annotations

import itertools
import warnings
from typing import TYPE_CHECKING, Any, Final

from tracelens.bench.case import Case, Measure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tracelens.bench.case import Target

_BYTES: Final = {
    "fp64": (8, 8), "fp32": (4, 4), "tf32": (4, 4), "bf16": (2, 2), "fp16": (2, 2),
    "int8": (1, 4), "fp8": (1, 2),
}  # fmt: skip
"""Bytes of an element of the operands, and of the result."""

_SINCE: Final = {"tf32": (8, 0), "bf16": (8, 0), "int8": (7, 5), "fp8": (8, 9)}
"""The compute capability from which tensor cores have a format."""

_ON_CPU: Final = ("fp64", "fp32", "bf16")
_TYPES: Final = {
    "fp64": "float64", "fp32": "float32", "tf32": "float32", "bf16": "bfloat16",
    "fp16": "float16", "int8": "int8", "fp8": "float8_e4m3fn",
}  # fmt: skip


def _cases(target: Target) -> Iterator[Case]:
    for dtype in _BYTES if target.is_gpu else _ON_CPU:
        if target.is_gpu and target.capability < _SINCE.get(dtype, (0, 0)):
            continue
        for n in _sizes(target):

            def build(on: Target, dtype: str = dtype, n: int = n) -> Callable[[], object]:
                return _product(on, dtype, n)

            yield Case(
                f"matmul.{dtype}", "flops_per_s", 2 * n**3, build,
                _sets(target, dtype, n) * _set_bytes(dtype, n), {"m": n, "n": n, "k": n},
            )  # fmt: skip


def _sizes(target: Target) -> tuple[int, ...]:
    if target.is_gpu:
        return (4096, 8192) if target.quick else (2048, 4096, 8192, 16384)
    return (256,) if target.quick else (512, 1024, 2048)


def _set_bytes(dtype: str, n: int) -> int:
    given, made = _BYTES[dtype]
    return (2 * given + made) * n * n


def _sets(target: Target, dtype: str, n: int) -> int:
    """Return how many sets of matrices take turns, so that none is still in the cache."""
    return 2 + int(2 * target.l2_bytes // _set_bytes(dtype, n)) if target.is_gpu else 2


def _product(on: Target, dtype: str, n: int) -> Callable[[], object]:
    """Return a call that multiplies the next set of matrices.

    Raises:
        RuntimeError: (of torch) the device or this torch cannot compute in the format.
    """
    torch = on.torch
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of names that torch 2.9 wanted to replace
        torch.set_float32_matmul_precision("high" if dtype == "tf32" else "highest")
    multiply = _multiply(torch, dtype, on.device)
    sets = itertools.cycle(
        [(_matrix(on, dtype, n), _matrix(on, dtype, n)) for _ in range(_sets(on, dtype, n))]
    )
    return lambda: multiply(*next(sets))


def _matrix(on: Target, dtype: str, n: int) -> Any:
    torch = on.torch
    kind = getattr(torch, _TYPES[dtype])
    if dtype == "int8":
        return torch.randint(-127, 128, (n, n), dtype=kind, device=on.device)
    first = torch.float32 if dtype == "fp8" else kind
    return torch.randn(n, n, dtype=first, device=on.device).to(kind)


def _multiply(torch: Any, dtype: str, device: str) -> Callable[[Any, Any], object]:
    """Return the product of two matrices; the 8-bit formats want the second one transposed."""
    if dtype == "int8":
        by_int8: Any = torch._int_mm  # noqa: SLF001 (torch has no public name for it)
        return lambda a, b: by_int8(a, b.t())
    if dtype == "fp8":
        by_fp8: Any = torch._scaled_mm  # noqa: SLF001 (likewise)
        one = torch.ones((), dtype=torch.float32, device=device)
        return lambda a, b: by_fp8(
            a, b.t(), scale_a=one, scale_b=one, out_dtype=torch.bfloat16, use_fast_accum=True
        )
    product: Callable[[Any, Any], object] = torch.mm
    return product


MEASURE = Measure(_cases)
