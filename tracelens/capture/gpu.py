"""The GPU that torch works on: waiting for it, times on it, and the most memory it handed out.

A program that has not set up CUDA has no GPU to ask; none of this sets it up, or imports torch.
"""

from __future__ import annotations

import sys
from typing import Any, Protocol


class Event(Protocol):
    """A moment on the GPU, as `torch.cuda.Event` is one."""

    def elapsed_time(self, end: Any, /) -> float:
        """Return the milliseconds until another moment, once the GPU has passed both."""
        ...


def wait() -> None:
    """Wait until the current GPU has done all that it was given."""
    if cuda := _cuda():
        cuda.synchronize()


def mark() -> Event | None:
    """Return the moment at which the current stream has done what it was given so far."""
    if not (cuda := _cuda()):
        return None
    event: Event = cuda.Event(enable_timing=True)
    event.record()  # type: ignore[attr-defined] # of torch's own; the protocol is what is read
    return event


def peak_bytes() -> int | None:
    """Return the most memory that torch's allocator had handed out on the current GPU."""
    cuda = _cuda()
    return int(cuda.max_memory_allocated()) if cuda else None


def _cuda() -> Any:
    torch = sys.modules.get("torch")
    cuda = getattr(torch, "cuda", None)  # not there yet while torch is being imported
    return cuda if cuda is not None and cuda.is_initialized() else None
