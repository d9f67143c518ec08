"""What an error was that ended a recorded program: out of memory, a wrong request, or a bug."""

from __future__ import annotations

import traceback
from typing import Final

from tracelens.capture.job import Failure
from tracelens.errors import TracelensError, UsageError

INSTALL: Final = "pip install 'tracelens-gpu[capture]'"

_LONGEST: Final = 500
_OUT_OF_MEMORY: Final = (
    "defaultcpuallocator: can't allocate memory",
    "defaultcpuallocator: not enough memory",
    "cuda out of memory",
    "hip out of memory",
    "cuda error: out of memory",
    "hip error: out of memory",
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
)
_OTHERS_ENDED: Final = (
    "connection closed by peer",
    "connection reset by peer",
    "socket closed",
    "broken pipe",
    "remote process exited",
)


class Stopped(BaseException):
    """The process was told to end by a signal; like KeyboardInterrupt, no `except` swallows it."""


def failure(error: BaseException, at: str) -> Failure:
    """Return what an error says, and of which kind it is.

    The kinds are `out of memory`, `usage`, `stopped` (somebody ended the process, or another rank
    that it was waiting for went away: the cause is to be found elsewhere) and `error`.

    Args:
        error: what ended the program.
        at: `build`, `step 3`, or `the end`.
    """
    if is_out_of_memory(error):
        return Failure("out of memory", _words(error), at)
    if isinstance(error, ModuleNotFoundError) and error.name == "torch":
        return Failure("usage", f"torch is not installed here: {INSTALL}.", at)
    if isinstance(error, UsageError):
        return Failure("usage", _words(error), at)
    if isinstance(error, KeyboardInterrupt):
        return Failure("stopped", "interrupted", at)
    if isinstance(error, Stopped):
        return Failure("stopped", _words(error), at)
    if isinstance(error, TracelensError):
        return Failure("error", _words(error), at)
    text = traceback.format_exception_only(error)[-1].strip()
    kind = "stopped" if _is_of_others(text) else "error"
    return Failure(kind, _short(text), at)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on the GPU or on the host (torch need not be loaded)."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in text for words in _OUT_OF_MEMORY)


def _is_of_others(text: str) -> bool:
    return any(words in text.lower() for words in _OTHERS_ENDED)


def _words(error: BaseException) -> str:
    return _short(str(error).strip() or type(error).__name__)


def _short(text: str) -> str:
    """Return the first line; what follows in torch's errors is a C++ stack."""
    line = text.partition("\n")[0].strip()
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"
