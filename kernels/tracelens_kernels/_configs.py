"""Which configuration a kernel is compiled with: forced, or tuned on this GPU, or its default."""

from __future__ import annotations

import contextlib
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tracelens.kernel import Config

_NONE: Final[Mapping[tuple[str, str], Config]] = {}
_forced: ContextVar[Mapping[tuple[str, str], Config]] = ContextVar("forced", default=_NONE)


def chosen(kernel: str, operation: str, key: str, default: Config) -> Config:  # noqa: ARG001 (for the store)
    """Return the configuration for a kernel's operation.

    Args:
        kernel: file name in `ops`: `flash_attention`.
        operation: as in `Kernel.operations`.
        key: as `Tuning.key` makes it.
        default: where nothing was forced or tuned.
    """
    return _forced.get().get((kernel, operation), default)


@contextlib.contextmanager
def forced(kernel: str, operation: str, config: Config) -> Iterator[None]:
    """Let a kernel's operation use this configuration, whatever was tuned; for tuning."""
    token = _forced.set({**_forced.get(), (kernel, operation): config})
    try:
        yield
    finally:
        _forced.reset(token)
