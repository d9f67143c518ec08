"""Ranges of the calling thread, in NVTX and in torch's `record_function` at once.

Each thread has one stack of open ranges. A range ends together with everything that was begun
after it, so ranges nest and every push has its pop, whatever raised, yielded or was forgotten in
between, and wherever a profiler started or stopped.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
from typing import TYPE_CHECKING, Any, Final, ParamSpec, Self, TypeVar

from tracelens.marks import nvtx, records

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

RECORDING: Final = "TRACELENS_RECORDING"
"""Set to the recorder's name in the environment of a program that `tracelens capture` runs."""

PHASES: Final = frozenset({"forward", "loss", "backward", "optimizer"})
"""The phases that hooks can put on a program; within one that it marks itself, they do not."""

_LISTENS: Final = (RECORDING, "NSYS_PROFILING_SESSION_ID", nvtx.INJECTION)

_P = ParamSpec("_P")
_R = TypeVar("_R")


class Span:
    """A range with a name: around a block, or around every call of a function."""

    __slots__ = ("has_begun", "is_phase", "name")

    def __init__(self, name: str, *, is_phase: bool = False) -> None:
        if not isinstance(name, str):
            raise TypeError(
                f"The name of a range is text, as in tracelens.span('attention'); this is {name!r}."
            )
        self.name = name
        self.is_phase = is_phase
        self.has_begun = False

    def __enter__(self) -> Self:
        if is_recording():
            self.has_begun = True
            push(self, self.name)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.has_begun and not is_compiling():
            pop(self)

    def __call__(self, function: Callable[_P, _R]) -> Callable[_P, _R]:
        """Return the function with this range around each call.

        Raises:
            TypeError: it is a generator or a coroutine function, whose call does no work yet.
        """
        import inspect

        if inspect.isgeneratorfunction(function) or inspect.iscoroutinefunction(function):
            raise TypeError(
                f"{function.__name__} is a generator or async: its call does no work yet. "
                f"Write `with tracelens.span({self.name!r}):` around the work inside it."
            )

        @functools.wraps(function)
        def marked(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            with Span(self.name, is_phase=self.is_phase):
                return function(*args, **kwargs)

        return marked


class Open:
    """A range that has begun: whose it is, and what has to be ended."""

    __slots__ = ("in_nvtx", "key", "record")

    def __init__(self, key: Any, in_nvtx: bool, record: Any) -> None:
        self.key = key
        self.in_nvtx = in_nvtx
        self.record = record


class _Thread(threading.local):
    def __init__(self) -> None:
        self.stack: list[Open] = []


_thread: Final = _Thread()
_listened_to: Final = any(name in os.environ for name in _LISTENS)


def span(name: str) -> Span:
    """Return the range of a part of the work, such as a layer or a softmax.

    Use it as `with tracelens.span("softmax"):` or as a decorator, `@tracelens.span("softmax")`.

    Raises:
        TypeError: the name is no text.
    """
    return Span(name)


def phase(name: str) -> Span:
    """Return the range of a phase: `forward`, `loss`, `backward`, `optimizer`, or your own.

    Hooks (`tracelens.instrument`, `tracelens capture -- python train.py`) put no phase of theirs
    within one of those four.

    Raises:
        TypeError: the name is no text.
    """
    return Span(name, is_phase=True)


def is_recording() -> bool:
    """Whether a profiler may be listening; False in code that torch is tracing."""
    torch = sys.modules.get("torch")
    if torch is None:
        return _listened_to
    try:
        # First of all: torch.compile takes that for a constant, and looks at nothing further.
        if torch.compiler.is_compiling():
            return False
        listened_to = _listened_to or records.is_wanted(torch)
        return listened_to and torch._C._get_tracing_state() is None
    except AttributeError:  # torch is only being imported
        return _listened_to


def is_compiling() -> bool:
    """Whether torch.compile is tracing the caller: what it compiles has no ranges inside."""
    compiler = getattr(sys.modules.get("torch"), "compiler", None)
    return compiler is not None and compiler.is_compiling()


def push(key: object, name: str) -> None:
    """Begin a range on this thread."""
    torch = sys.modules.get("torch")
    record = records.begin(name) if torch is not None and records.is_wanted(torch) else None
    in_nvtx = record is None or not records.nvtx_is_emitted()
    if in_nvtx:
        nvtx.push_range(name)
    _thread.stack.append(Open(key, in_nvtx, record))


def pop(key: object) -> None:
    """End the range of this key and all that were begun after it; nothing if it is not open."""
    stack = _thread.stack
    if not stack:
        return
    for place in range(len(stack) - 1, -1, -1):
        if stack[place].key is key:
            while len(stack) > place:
                pop_last()
            return


def pop_last() -> None:
    """End the range that was begun last."""
    last = _thread.stack.pop()
    if last.in_nvtx:
        nvtx.pop_range()
    if last.record is not None:
        records.end(last.record)


def opened() -> list[Open]:
    """Return the open ranges of this thread, the innermost last."""
    return _thread.stack
