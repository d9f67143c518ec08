"""Kernels by name: of the room of kernels (`flash-attention`), or your own (`module:function`)."""

from __future__ import annotations

import importlib
from typing import Any, Final

from tracelens import registry
from tracelens.errors import UsageError

ATTENTION: Final = ("flash_attention",)
"""Kernels whose function takes (q, k, v, causal)."""


def check(path: str) -> None:
    """Raise UsageError unless a path may name a kernel; torch is not needed to tell."""
    if ":" in path:
        return
    known = dict.fromkeys(name.replace("_", "-") for name in ATTENTION)
    if path.replace("_", "-") not in known:
        raise UsageError(
            f"--kernel: {registry.unknown('kernel', path, known)} A function of your own is "
            "module:function, such as my.attention:forward."
        )


def function(path: str) -> Any:
    """Return the function that a path names.

    Raises:
        UsageError: there is no such module or function, or triton is not installed.
    """
    return _own(path) if ":" in path else of_room(path)


def of_room(name: str) -> Any:
    """Return the public function of one of our kernels: `softmax`, `flash-attention`.

    Raises:
        UsageError: triton is not installed.
    """
    try:
        return registry.load("kernel", name).function()
    except ImportError as error:
        raise UsageError(
            f"The kernel {name} cannot be loaded ({error}): pip install 'tracelens-gpu[kernels]'."
        ) from error


def _own(path: str) -> Any:
    module, _, name = path.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise UsageError(f"--kernel {path}: {error}. Is its folder on PYTHONPATH?") from error
    except (AttributeError, ValueError) as error:
        raise UsageError(f"--kernel {path}: module {module!r} has no {name!r}.") from error
    if not callable(found):
        raise UsageError(f"--kernel {path} is no function of (q, k, v, causal).")
    return found
