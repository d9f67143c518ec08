"""What workloads ask of torch: number formats, random tensors, and waiting for the device."""

from __future__ import annotations

import importlib.util
import os
import shutil
import warnings
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Final

import torch

import tracelens
from tracelens.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

TORCH_DTYPES: Final = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


def number_format(dtype: str, device: str) -> torch.dtype:
    """Return torch's type of a format, and let fp32 products use TF32 or not, as it says.

    Raises:
        UsageError: the device cannot compute in it.
    """
    on_gpu = device.startswith("cuda")
    if dtype == "tf32" and not on_gpu:
        raise UsageError("--dtype tf32 needs an NVIDIA GPU; on the CPU use fp32 or bf16.")
    if on_gpu and dtype in ("tf32", "bf16") and torch.cuda.get_device_capability(device) < (8, 0):
        name = torch.cuda.get_device_name(device)
        raise UsageError(f"--dtype {dtype} needs compute capability 8.0; {name} has less.")
    _allow_tf32(dtype == "tf32")
    return TORCH_DTYPES[dtype]


def _allow_tf32(allowed: bool) -> None:
    """Set it by the older names, which torch 2.9 and 2.10 warn of, and which their compilers read.

    The names that they recommend (`fp32_precision`) are not in torch 2.8, and where only those are
    set, reading the older ones is an error.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        torch.set_float32_matmul_precision("high" if allowed else "highest")
        torch.backends.cudnn.allow_tf32 = allowed


def random(shape: Sequence[int], dtype: str, device: str) -> torch.Tensor:
    """Return normally distributed numbers; zeros would run faster than real data."""
    return torch.randn(*shape, dtype=TORCH_DTYPES[dtype], device=device)


def synchronize(device: str) -> None:
    """Wait until the device has done all that it was given."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def span(name: str) -> AbstractContextManager[Any]:
    """Return the range of a part of the work; none in compiled code, whose graph it would break."""
    return nullcontext() if torch.compiler.is_compiling() else tracelens.span(name)


def compiled(
    run: Callable[..., torch.Tensor], mode: str, device: str
) -> Callable[..., torch.Tensor]:
    """Return a module or function compiled in a mode of torch.compile; as it is for `none`.

    Raises:
        UsageError: this machine has no compiler for what torch.compile writes.
    """
    if mode == "none":
        return run
    named = os.environ.get("CXX")
    if not any(shutil.which(one) for one in ([named] if named else _COMPILERS)):
        raise UsageError(
            f"--compile {mode} needs a C++ compiler; install g++ or clang++, or set CXX to one."
        )
    if device.startswith("cuda") and importlib.util.find_spec("triton") is None:
        raise UsageError(f"--compile {mode} needs triton on a GPU: pip install triton.")
    fast: Callable[..., torch.Tensor] = torch.compile(run, mode=mode)
    if not device.startswith("cuda") or mode not in _GRAPH_MODES:
        return fast

    def marked(*args: Any, **options: Any) -> torch.Tensor:
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]  # torch's own
        return fast(*args, **options)

    return marked


_COMPILERS: Final = ("g++", "clang++", "c++", "cl")
_GRAPH_MODES: Final = ("reduce-overhead", "max-autotune")
"""Compiled code of these modes returns memory of a CUDA graph, which its next call uses again."""
