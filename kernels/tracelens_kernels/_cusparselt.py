"""Sparse (2:4) products by cuSPARSELt, through torch, each by the quickest of its algorithms.

What it takes was found on an H200 (cuSPARSELt 0.8): the sparse matrix has multiples of 32 rows and
columns, the dense one rows of such a length, and a multiple of 16 of them. int8 is summed to int32,
bf16 or fp16, fp8 to fp32, bf16 or fp16. Which algorithm is quickest differs from size to size, and
the worst takes three times as long as the best; that of number 0 is seldom the best. Their numbers
mean the same in every process.
"""

from __future__ import annotations

import functools
from ctypes import (
    PyDLL,
    byref,
    c_float,
    c_int32,
    c_int64,
    c_size_t,
    c_uint32,
    c_void_p,
    create_string_buffer,
    sizeof,
)
from typing import TYPE_CHECKING, Any, Final

import torch

from tracelens_kernels import _checks, _configs
from tracelens_kernels import _quantisation as q

if TYPE_CHECKING:
    from collections.abc import Callable
    from ctypes import Array, c_char

    from torch import Tensor

    from tracelens.kernel import Config

ROWS: Final = 16
"""Rows of the dense operand come in multiples of this."""

OUT: Final = 32
"""Rows of the sparse operand come in multiples of this, and so do columns."""

SUMS: Final = {torch.int8: torch.int32, torch.float8_e4m3fn: torch.bfloat16}
"""What a product is given out as: int8's is exact."""

_PLANNED: Final = (800,)
"""Versions whose structures and numbers are known."""

_CUDA: Final = {
    torch.int8: 3,
    torch.int32: 10,
    torch.bfloat16: 14,
    torch.float8_e4m3fn: 28,
}
"""Formats as `cudaDataType` numbers them; below, the numbers of cusparseLt.h."""

_COLUMN_MAJOR, _ROW_MAJOR = 1, 2
_AS_IT_IS, _TRANSPOSED = 0, 1
_IN_INT32, _IN_FP32 = 0, 2
_HALF_ZEROS, _ALGORITHM = 0, 0
_ALIGNMENT: Final = 16
_STRUCTURE: Final = 1 << 15

_ALGORITHMS: Final = 64
_BUSY_CYCLES: Final = 6_000_000
_CALLS: Final = 4
_HOPPER: Final = {torch.int8: 20, torch.float8_e4m3fn: 17}
"""Algorithms of version 0.8 that were among the best four for all of 4096 to 12288, on an H200."""

_found: dict[tuple[torch.device, str], Config] = {}


def why_not(device: torch.device) -> str:
    """Return why sparse products cannot be made on a device, or ""."""
    if device.type != "cuda":
        return f"Sparse products need an NVIDIA GPU, and the weight is on {device}: move it first."
    if not torch.backends.cusparselt.is_available():
        return "This build of torch has no cuSPARSELt: sparse products need it."
    return ""


def product(packed: Tensor, values: Tensor, *, search: bool) -> Tensor:
    """Return values [M, K'] times the transpose of a compressed matrix [N, K'], as `SUMS` says.

    Args:
        packed: from `torch._cslt_compress`.
        values: contiguous, M a multiple of `ROWS`.
        search: try all algorithms when the sizes are first met, unless a CUDA graph is recorded.
    """
    key = key_of(values.shape[0], packed.shape[0], values.shape[1], values.dtype)
    unknown = default(values.dtype, values.device)
    operation = f"{q.name_of(values.dtype)}_product"
    config = _configs.chosen("sparse_linear", operation, key, unknown)
    with q.on(values.device):
        if config is unknown and search:
            config = _searched(packed, values, key)
        return _multiply(packed, values, config["algorithm"])


def default(to: torch.dtype, device: torch.device) -> Config:
    """Return the algorithm for sizes that were not searched."""
    known = _checks.is_hopper(device) and torch.backends.cusparselt.version() == 800
    return {"algorithm": _HOPPER[to] if known else 0}


def key_of(rows: int, out: int, inner: int, to: torch.dtype) -> str:
    """Return the sizes of a product, as configurations are kept by."""
    return f"{rows}x{out}x{inner} {q.name_of(to)}"


def _multiply(packed: Tensor, values: Tensor, algorithm: int) -> Tensor:
    if torch.backends.cusparselt.version() in _PLANNED:
        sizes = (packed.shape[0], values.shape[0], values.shape[1])
        return _plan(values.device, sizes, values.dtype, algorithm)(packed, values)
    return torch._cslt_sparse_mm(  # pyright: ignore[reportPrivateImportUsage]
        packed,
        values.t(),
        out_dtype=SUMS[values.dtype],
        transpose_result=True,
        alg_id=algorithm,
    )


class Plan:
    """A product of fixed sizes, prepared once.

    `torch._cslt_sparse_mm` prepares each call anew, which takes the host 0.3 ms; this takes 0.02.
    The library's structures are opaque, and so only of versions that were tried. What it keeps of
    a plan stays until the process ends; `_plan` keeps those of a thousand sizes.
    """

    def __init__(
        self, device: torch.device, sizes: tuple[int, int, int], to: torch.dtype, algorithm: int
    ) -> None:
        """Prepare sparse [out, inner] times the transpose of dense [rows, inner]."""
        out, rows, inner = sizes
        self._shape, self._sums, self._device = (rows, out), SUMS[to], device
        kind, sums = _CUDA[to], _CUDA[self._sums]
        handle = _handle(device)
        sparse, dense, result, product, choice, plan = (_opaque() for _ in range(6))
        call = _library()
        call(
            "StructuredDescriptorInit",
            handle,
            sparse,
            *map(c_int64, (out, inner, inner)),
            c_uint32(_ALIGNMENT),
            kind,
            _ROW_MAJOR,
            _HALF_ZEROS,
        )
        call(
            "DenseDescriptorInit",
            handle,
            dense,
            *map(c_int64, (rows, inner, inner)),
            c_uint32(_ALIGNMENT),
            kind,
            _ROW_MAJOR,
        )
        call(
            "DenseDescriptorInit",
            handle,
            result,
            *map(c_int64, (out, rows, out)),
            c_uint32(_ALIGNMENT),
            sums,
            _COLUMN_MAJOR,
        )
        call(
            "MatmulDescriptorInit",
            handle,
            product,
            _AS_IT_IS,
            _TRANSPOSED,
            sparse,
            dense,
            result,
            result,
            _IN_INT32 if to == torch.int8 else _IN_FP32,
        )
        call("MatmulAlgSelectionInit", handle, choice, product, 0)
        number = c_int32(algorithm)
        call(
            "MatmulAlgSetAttribute",
            handle,
            choice,
            _ALGORITHM,
            byref(number),
            c_size_t(sizeof(number)),
        )
        call("MatmulPlanInit", handle, plan, product, choice)
        room = c_size_t()
        call("MatmulGetWorkspace", handle, plan, byref(room))
        self._room = room.value
        self._kept = (handle, plan, sparse, dense, result, product, choice)
        self._one, self._zero = c_float(1.0), c_float(0.0)

    def __call__(self, packed: Tensor, values: Tensor) -> Tensor:
        """Return the product [rows, out], on the current stream."""
        out = torch.empty(self._shape, dtype=self._sums, device=self._device)
        room = torch.empty(self._room, dtype=torch.uint8, device=self._device)
        stream = c_void_p(torch.cuda.current_stream(self._device).cuda_stream)
        at = c_void_p(out.data_ptr())
        _library()(
            "Matmul",
            *self._kept[:2],
            byref(self._one),
            c_void_p(packed.data_ptr()),
            c_void_p(values.data_ptr()),
            byref(self._zero),
            at,
            at,
            c_void_p(room.data_ptr()),
            byref(stream),
            1,
        )
        return out


@functools.lru_cache(maxsize=1024)
def _plan(
    device: torch.device, sizes: tuple[int, int, int], to: torch.dtype, algorithm: int
) -> Plan:
    return Plan(device, sizes, to, algorithm)


@functools.cache
def _handle(device: torch.device) -> Array[c_char]:  # noqa: ARG001 (one for each)
    handle = _opaque()
    _library()("Init", handle)
    return handle


def _opaque() -> Array[c_char]:
    """Room for any of the library's structures, of which the largest has 11 KB."""
    return create_string_buffer(_STRUCTURE)


@functools.cache
def _library() -> Callable[..., None]:
    """What calls a function of cuSPARSELt, which torch has loaded, by name."""
    library = PyDLL("libcusparseLt.so.0")

    def call(name: str, *arguments: Any) -> None:
        status = getattr(library, f"cusparseLt{name}")(*arguments)
        if status:
            raise RuntimeError(f"cuSPARSELt: {name} answered {status}.")

    return call


def _searched(packed: Tensor, values: Tensor, key: str) -> Config:
    """Return the quickest algorithm for these sizes, which is looked for once."""
    at = (values.device, key)
    if at not in _found:
        if torch.cuda.is_current_stream_capturing():
            return default(values.dtype, values.device)
        took = timed(packed, values)
        _found[at] = (
            {"algorithm": min(took, key=took.__getitem__)}
            if took
            else default(values.dtype, values.device)
        )
    return _found[at]


def timed(packed: Tensor, values: Tensor) -> dict[int, float]:
    """Return the milliseconds of the algorithms that cuSPARSELt has for a product.

    All are timed once, and the better half once more; the worse half is left out.
    """
    took: dict[int, float] = {}
    for algorithm in range(_ALGORITHMS):
        try:
            took[algorithm] = _milliseconds(packed, values, algorithm)
        except RuntimeError:  # there are no more
            break
    better = sorted(took, key=took.__getitem__)[: (len(took) + 1) // 2]
    return {one: min(took[one], _milliseconds(packed, values, one)) for one in better}


def _milliseconds(packed: Tensor, values: Tensor, algorithm: int) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    _multiply(packed, values, algorithm)
    # Until the host is through with the calls, the GPU is kept waiting.
    torch.cuda._sleep(_BUSY_CYCLES)
    start.record()
    for _ in range(_CALLS):
        _multiply(packed, values, algorithm)
    end.record()
    end.synchronize()
    took: float = start.elapsed_time(end)
    return took / _CALLS
