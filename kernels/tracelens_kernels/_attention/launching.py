"""Launches of one kernel, over and over, with all but the tensors the same."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import torch

from tracelens_kernels import _checks

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor


class Launch:
    """A kernel, its grid, and all of its arguments but the first few.

    Triton reads the type and alignment of each argument in every launch, which takes longer than
    a short kernel. Here the first launch finds the compiled kernel, and others take it as it is:
    whoever keeps one of these answers for tensors of the same format, device, strides and
    alignment to 16 bytes.
    """

    def __init__(
        self, kernel: Any, grid: Sequence[int], fixed: Sequence[Any], options: Mapping[str, Any]
    ) -> None:
        """Note what to launch.

        Args:
            kernel: function of Triton.
            grid: programs along up to three axes.
            fixed: arguments after those that are given to each launch, in order.
            options: `num_warps`, `num_stages`.
        """
        self.kernel, self.fixed, self.options = kernel, tuple(fixed), options
        self.grid = (*grid, 1, 1)[:3]
        self.compiled: Any = None

    def __call__(self, *given: Any) -> None:
        """Launch it on the current device and stream."""
        if self.compiled is not None:
            self.compiled[self.grid](*given, *self.fixed)
            return
        compiled = self.kernel[self.grid](*given, *self.fixed, **self.options)
        if hasattr(compiled, "__getitem__") and not _checks.unknown_triton():
            self.compiled = compiled


def form_of(*tensors: Tensor) -> tuple[Any, ...]:
    """Return what launches with these tensors have in common with others of the same form."""
    at = 0
    found: list[Any] = []
    for one in tensors:
        at |= one.data_ptr()
        found += (one.shape, one.stride(), one.dtype, one.device)
    if tensors[0].dtype == torch.float32:
        found.append(torch.backends.cuda.matmul.allow_tf32)
    return (*found, at & 15)


def on(x: Tensor) -> contextlib.AbstractContextManager[object]:
    """Return a context in which kernels are launched on the device of x."""
    if x.is_cuda and x.device.index != torch.cuda.current_device():
        return torch.cuda.device(x.device)
    return _HERE


_HERE = contextlib.nullcontext()


class Kept(dict[Any, Any]):
    """What was made for each form, as long as there are not too many."""

    def add(self, form: Any, made: Any) -> Any:
        """Keep what was made for a form, and return it."""
        if len(self) >= 1024:
            self.clear()
        self[form] = made
        return made
