"""NVTX, spoken to whatever a profiler injects into this process; without one, nothing happens.

NVTX is a protocol, not a library (nvtxImpl.h and nvtxInit.h of NVTX 3): a profiler names a library
of its own in the environment, its `InitializeInjectionNvtx2` is handed a function that gives out
tables, and it stores its functions into them. The package `nvtx` does the same, but from 0.2.12 on
it also sets up NVTX's extensions, and nsys then drops every range (tried with nsys 2022.4; reported
of 2023.2 in github.com/NVIDIA/NVTX/issues/126).
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

INJECTION: Final = "NVTX_INJECTION64_PATH"
"""Names the profiler's library in the environment of a program that it watches."""

_CALLBACKS, _VERSION = 1, 3
_CORE, _CORE_2 = 1, 5
_SIZES: Final = {_CORE: 16, _CORE_2: 16}
"""Modules that are offered, and the entries of their tables: number 0 stays empty."""
_START, _END, _PUSH, _POP = 5, 7, 9, 11
"""Numbers of functions in the core module: those that take a range's name as bytes."""


class _Profiler(NamedTuple):
    """The functions of a profiler that listens; `keeps` what it may still call or write to."""

    push: Callable[[bytes], int]
    pop: Callable[[], int]
    start: Callable[[bytes], int]
    end: Callable[[int], None]
    keeps: Any


def push_range(name: str) -> None:
    """Open a range of the calling thread."""
    if profiler := _profiler if _is_known else _known():
        profiler.push(name.encode("utf-8", "replace"))


def pop_range() -> None:
    """Close the range that the calling thread opened last."""
    if profiler := _profiler if _is_known else _known():
        profiler.pop()


def start_range(name: str) -> int:
    """Open a range of the process; return the number by which any thread can close it."""
    profiler = _known()
    return profiler.start(name.encode("utf-8", "replace")) if profiler else 0


def end_range(number: int) -> None:
    """Close a range of the process."""
    if profiler := _known():
        profiler.end(number)


_profiler: _Profiler | None = None
_is_known = False
_lock = threading.Lock()


def _known() -> _Profiler | None:
    """Return the profiler that the environment names, loaded at the first call of all."""
    global _profiler, _is_known  # noqa: PLW0603 (a process has one profiler, as it has in NVTX)
    with _lock:
        if not _is_known:
            path = os.environ.get(INJECTION)
            _profiler = _load(path) if path else None
            _is_known = True
    return _profiler


def _load(path: str) -> _Profiler | None:
    import ctypes

    pointer = ctypes.c_void_p
    tables: dict[int, Any] = {}

    def module_table(module: int, table: int, size: int) -> int:
        """Give out a table of places for a module's functions."""
        if module not in _SIZES:
            return 0
        entries = _SIZES[module]
        functions = (pointer * entries)()
        first, step = ctypes.addressof(functions), ctypes.sizeof(pointer)
        places = (pointer * entries)(None, *(first + step * n for n in range(1, entries)))
        tables[module] = functions, places
        pointer.from_address(table).value = ctypes.addressof(places)
        if size:
            ctypes.c_uint.from_address(size).value = entries
        return 1

    give = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, pointer, pointer)(module_table)
    accept = ctypes.CFUNCTYPE(None, ctypes.c_uint)(lambda _version: None)
    # Both structures begin with their size in bytes.
    word = ctypes.sizeof(pointer)
    callbacks = (pointer * 2)(2 * word, ctypes.cast(give, pointer))
    version = (pointer * 3)(3 * word, 3, ctypes.cast(accept, pointer))
    exports = {_CALLBACKS: ctypes.addressof(callbacks), _VERSION: ctypes.addressof(version)}
    export_table = ctypes.CFUNCTYPE(pointer, ctypes.c_uint)(exports.get)

    try:
        library = ctypes.CDLL(path)
        has_begun = library.InitializeInjectionNvtx2(export_table)
    except (OSError, AttributeError):
        return None
    functions = tables[_CORE][0] if _CORE in tables else ()
    if not has_begun or not functions or not all(functions[n] for n in (_START, _END, _PUSH, _POP)):
        return None
    # The fast ones keep Python's lock: letting go of it takes longer than they do.
    return _Profiler(
        push=ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_char_p)(functions[_PUSH]),
        pop=ctypes.PYFUNCTYPE(ctypes.c_int)(functions[_POP]),
        start=ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_char_p)(functions[_START]),
        end=ctypes.CFUNCTYPE(None, ctypes.c_uint64)(functions[_END]),
        keeps=(library, tables, callbacks, version, give, accept, export_table),
    )
