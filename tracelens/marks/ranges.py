"""Ranges of the calling thread, in NVTX and in torch's `record_function` at once."""

from __future__ import annotations

import os
import sys
import threading
from typing import TYPE_CHECKING, Any, Final, Self

from tracelens.marks import nvtx

if TYPE_CHECKING:
    from types import TracebackType

RECORDING: Final = "TRACELENS_RECORDING"
"""Set to the recorder's name in the environment of a program that `tracelens capture` runs."""

_LISTENS: Final = (RECORDING, "NSYS_PROFILING_SESSION_ID", "NVTX_INJECTION64_PATH")


class Span:
    """A range with a name, around a block or a function's calls; it can be entered again."""

    __slots__ = ("_open", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self._open: list[Any] = []

    def __enter__(self) -> Self:
        if is_recording():
            self._open.append(_push(self.name))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._open:
            _pop(self._open.pop())


def span(name: str) -> Span:
    """Return a range of a part of the work: a layer, an attention's softmax."""
    return Span(name)


def phase(name: str) -> Span:
    """Return the range of a phase: `forward`, `loss`, `backward`, `optimizer`, or your own."""
    return Span(name)


def step() -> Span:
    """Return the range of one step."""
    return Span("step")


def is_recording() -> bool:
    """Whether a profiler may be listening."""
    if _listened_to:
        return True
    profiler = sys.modules.get("torch.autograd.profiler")
    return profiler is not None and profiler._is_profiler_enabled


_listened_to = any(name in os.environ for name in _LISTENS)
_local = threading.local()


def _push(name: str) -> Any:
    nvtx.push_range(name)
    torch = sys.modules.get("torch")
    if torch is None:
        return None
    record = torch.autograd.profiler.record_function(name)
    record.__enter__()
    return record


def _pop(record: Any) -> None:
    if record is not None:
        record.__exit__(None, None, None)
    nvtx.pop_range()
