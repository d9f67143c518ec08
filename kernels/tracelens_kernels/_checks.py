"""What every kernel asks of its tensors before it is launched; wrong input is a Python error."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Final

import torch
import triton

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

MIN_CAPABILITY: Final = (8, 0)
"""The oldest compute capability that the kernels are written for."""

TRITON: Final = "3.6."
"""Versions whose Gluon and whose compiled kernels are used as they are; both change with each."""


def unknown_triton() -> str:
    """Return why this Triton gets neither kernels in Gluon nor launches of its own, or ""."""
    known = triton.__version__.startswith(TRITON)
    return "" if known else f"it is written for Triton {TRITON}x, and this is {triton.__version__}"


def interpreted() -> bool:
    """Tell whether Triton interprets kernels on the CPU (TRITON_INTERPRET=1), as tests do."""
    return bool(triton.knobs.runtime.interpret)


def on_gpu(**tensors: Tensor | None) -> torch.device:
    """Return the one device of these tensors, a GPU that the kernels run on.

    Raises:
        ValueError: they are on several devices, or on none that Triton compiles for.
        RuntimeError: the GPU is too old.
    """
    there = {name: one.device for name, one in tensors.items() if one is not None}
    (first, device), *others = there.items()
    for name, other in others:
        if other != device:
            raise ValueError(f"{first} is on {device}, and {name} on {other}: move one of them.")
    if device.type == "cuda":
        capability = _capability(device)
        if capability < MIN_CAPABILITY:
            raise RuntimeError(
                f"{device} has compute capability {capability[0]}.{capability[1]}; "
                f"these kernels need {MIN_CAPABILITY[0]}.{MIN_CAPABILITY[1]} or newer."
            )
    elif not (device.type == "cpu" and interpreted()):
        raise ValueError(
            f"{first} is on {device}, and this kernel runs on an NVIDIA GPU: move it by "
            ".cuda(), or set TRITON_INTERPRET=1 before Python starts to try it, slowly, on the CPU."
        )
    return device


@functools.cache
def _capability(device: torch.device) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device)


def is_hopper(device: torch.device) -> bool:
    """Tell whether a device has Hopper's own instructions (compute capability 9.0)."""
    return device.type == "cuda" and _capability(device) == (9, 0)


def dtype_among(allowed: Iterable[torch.dtype], **tensors: Tensor | None) -> None:
    """Raise TypeError unless each tensor has one of these formats."""
    known = tuple(allowed)
    for name, one in tensors.items():
        if one is not None and one.dtype not in known:
            names = ", ".join(str(dtype).removeprefix("torch.") for dtype in known)
            given = str(one.dtype).removeprefix("torch.")
            raise TypeError(f"{name} is {given}; it must be one of {names}.")


def same_dtype(**tensors: Tensor | None) -> None:
    """Raise TypeError unless all tensors have the same format."""
    there = {name: one.dtype for name, one in tensors.items() if one is not None}
    (first, dtype), *others = there.items()
    for name, other in others:
        if other != dtype:
            raise TypeError(f"{first} is {dtype}, and {name} is {other}: they must be the same.")


def shaped(expected: str, *, ok: bool, **tensors: Tensor) -> None:
    """Raise ValueError, with what was expected and what was given, unless it is right."""
    if not ok:
        given = ", ".join(f"{name} {list(one.shape)}" for name, one in tensors.items())
        raise ValueError(f"Expected {expected}; got {given}.")


def not_empty(**tensors: Tensor) -> None:
    """Raise ValueError if a tensor has no elements."""
    for name, one in tensors.items():
        if one.numel() == 0:
            raise ValueError(f"{name} is empty: its shape is {list(one.shape)}.")


def once(name: str, plain: str) -> None:
    """Raise RuntimeError in a backward pass that shall be differentiated itself.

    `once_differentiable` says nothing to torch.autograd.grad, nor where the gradient of the output
    is a constant: what is missing would be taken for zero.

    Args:
        name: the function that has no second derivative.
        plain: what has one.
    """
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        raise RuntimeError(
            f"{name} has no second derivative: leave create_graph=True out, or use {plain}."
        )
