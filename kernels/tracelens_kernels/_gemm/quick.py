"""A launch that costs the host little: what was compiled for the same arguments runs again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor

from tracelens_kernels import _checks

if TYPE_CHECKING:
    from collections.abc import Mapping

_MOST: Final = 4096
_ALIGNED: Final = 16
_compiled: dict[tuple[Any, ...], Any] = {}


class Right:
    """The sorts of arguments that were looked at before and found to be right."""

    def __init__(self) -> None:
        self._keys: set[tuple[Any, ...]] = set()

    def __contains__(self, key: tuple[Any, ...]) -> bool:
        return key in self._keys

    def add(self, key: tuple[Any, ...]) -> None:
        """Keep a key; a few thousand are kept."""
        if len(self._keys) == _MOST:
            self._keys.clear()
        self._keys.add(key)


def sort_of(*tensors: Tensor | None) -> tuple[Any, ...]:
    """Return what checks of tensors depend on: devices, formats, shapes."""
    return tuple([None if one is None else (one.device, one.dtype, one.shape) for one in tensors])


def launch(
    kernel: Any, grid: tuple[int, ...], args: tuple[Any, ...], constants: Mapping[str, Any]
) -> None:
    """Run a kernel where its tensors are.

    Triton looks at every argument of every launch, for some 15 µs. What it looks for is in the
    key here: formats, alignment, and numbers as they are.

    Args:
        kernel: a `triton.jit` function.
        grid: programs along one, two or three axes.
        args: all that are no constants, in order, a tensor first.
        constants: the others, in order, and options of the compiler (`num_warps`, ...) behind.
    """
    with torch.cuda.device_of(args[0]):
        if _checks.interpreted() or _checks.unknown_triton():
            kernel[grid](*args, **constants)
            return
        key = (
            id(kernel), grid, args[0].device, *constants.values(),
            *[
                (one.dtype, one.data_ptr() % _ALIGNED) if isinstance(one, Tensor) else one
                for one in args
            ],
        )  # fmt: skip
        if (compiled := _compiled.get(key)) is None:
            if len(_compiled) == _MOST:
                _compiled.clear()
            full = (*grid, 1, 1)[:3]
            count = len(kernel.arg_names) - len(args)
            constant = tuple(constants.values())[:count]
            _compiled[key] = kernel[grid](*args, **constants)[full], constant
        else:
            run, constant = compiled
            run(*args, *constant)
