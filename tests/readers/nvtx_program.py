"""A program to record: it pushes NVTX ranges by the functions that the profiler injects.

NVTX is a header, so there is no library to load. A profiler names its own in the environment and
fills the tables that it is handed, one per module; module 1 holds the functions of ranges.
"""

from __future__ import annotations

import ctypes
import os
import threading
import time

POINTER = ctypes.c_void_p
FUNCTIONS = 16
"""As many functions as the largest module of NVTX has."""

modules: dict[int, tuple[ctypes.Array[POINTER], ctypes.Array[POINTER]]] = {}


@ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, POINTER, POINTER)
def module_table(module: int, table: int, size: int) -> int:
    """Hand out the addresses at which the profiler is to store a module's functions."""
    stored = (POINTER * FUNCTIONS)()
    places = (ctypes.addressof(stored) + ctypes.sizeof(POINTER) * n for n in range(1, FUNCTIONS))
    modules[module] = stored, (POINTER * FUNCTIONS)(None, *places)
    POINTER.from_address(table).value = ctypes.addressof(modules[module][1])
    if size:
        ctypes.c_uint.from_address(size).value = FUNCTIONS
    return 1


@ctypes.CFUNCTYPE(None, ctypes.c_uint)
def accept(_version: int) -> None:
    """Take any version of NVTX."""


callbacks = (POINTER * 2)(16, ctypes.cast(module_table, POINTER))
version = (POINTER * 3)(24, 3, ctypes.cast(accept, POINTER))


@ctypes.CFUNCTYPE(POINTER, ctypes.c_uint)
def export_table(number: int) -> int | None:
    """Return the structure of that number: 1 callbacks, 3 version."""
    return {1: ctypes.addressof(callbacks), 3: ctypes.addressof(version)}.get(number)


def work() -> None:
    """Do what a worker thread does while the main one waits."""
    push(b"worker")
    time.sleep(0.005)
    pop()


profiler = ctypes.CDLL(os.environ["NVTX_INJECTION64_PATH"])
if not profiler.InitializeInjectionNvtx2(export_table):
    raise SystemExit("The profiler does not know this way of calling NVTX.")
functions = modules[1][0]
range_start = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_char_p)(functions[5])
range_end = ctypes.CFUNCTYPE(None, ctypes.c_uint64)(functions[7])
push = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_char_p)(functions[9])
pop = ctypes.CFUNCTYPE(ctypes.c_int)(functions[11])

push(b"train")
for step in range(3):
    push(b"step %d" % step)
    push(b"forward")
    time.sleep(0.002)
    pop()
    push(b"backward")
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    pop()
    pop()
pop()
request = range_start(b"request 1")
other = range_start(b"request 2")
range_end(request)
range_end(other)
