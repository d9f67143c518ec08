"""Steps: each ends where the next begins, or with the block it is put around."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final, Self

from tracelens.marks.ranges import Span, is_compiling, is_recording, pop, push

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType


class Step:
    """The step that is open: as a context manager, it ends with the block."""

    __slots__ = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if is_compiling():
            return
        if error is None:
            end()
        else:
            abandon()


class _Listener:
    def __init__(self, begin: Callable[[], None], end: Callable[[], None]) -> None:
        self.begin = begin
        self.end = end


class _Thread(threading.local):
    open: Span | None = None


_STEP: Final = Step()
_thread: Final = _Thread()
_listeners: Final[list[_Listener]] = []
_is_marked = False


def step() -> Step:
    """End the step that is open on this thread, if one is, and begin the next.

    Call it at the start of each step (`for batch in data: tracelens.step(); ...`), or use it as
    `with tracelens.step():`, which ends the step with the block. A step that an exception leaves
    does not count.
    """
    global _is_marked  # noqa: PLW0603 (of the program: whether it says itself where steps begin)
    if not is_compiling():
        if not _is_marked:
            abandon()  # what hooks took for a step
        _is_marked = True
        begin()
    return _STEP


def is_marked() -> bool:
    """Whether the program has called `step`."""
    return _is_marked


def on_step(begin: Callable[[], None], end: Callable[[], None]) -> Callable[[], None]:
    """Have functions called when a step begins, and when one has ended, on the step's thread.

    `begin` is called before the step's range is begun and `end` after it has been ended, so that
    a profiler that they start and stop records it whole.

    Returns:
        What ends this.
    """
    listener = _Listener(begin, end)
    _listeners.append(listener)

    def stop() -> None:
        if listener in _listeners:
            _listeners.remove(listener)

    return stop


def begin() -> None:
    """Begin a step on this thread, and end the one before."""
    end()
    for listener in tuple(_listeners):
        listener.begin()
    _thread.open = Span("step")
    if is_recording():
        push(_thread.open, "step")


def end() -> None:
    """End the step that is open on this thread, if there is one."""
    if _thread.open is not None:
        abandon()
        for listener in tuple(_listeners):
            listener.end()


def abandon() -> None:
    """End the step's range, and tell nobody: it has not come to its end."""
    if _thread.open is not None:
        pop(_thread.open)
        _thread.open = None
