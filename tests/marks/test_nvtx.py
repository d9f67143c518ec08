"""Our end of NVTX: what a profiler hears, and what happens where none listens."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

PROFILER = """
#include <stdint.h>
#include <stdio.h>
typedef void (*function)(void);
typedef struct { size_t size; int (*table)(int, function ***, unsigned *); } callbacks;

static int push(const char *name) { return fprintf(stderr, "push %s\\n", name); }
static int pop(void) { return fprintf(stderr, "pop\\n"); }
static uint64_t start(const char *name) { fprintf(stderr, "start %s\\n", name); return 1ull << 40; }
static void end(uint64_t id) { fprintf(stderr, "end %llu\\n", (unsigned long long)id); }

int InitializeInjectionNvtx2(const void *(*exports)(uint32_t)) {
    const callbacks *given = exports(1);
    function **places;
    unsigned size;
    if (given->size != sizeof *given || exports(2) || given->table(2, &places, &size)) return 0;
    if (!given->table(1, &places, &size) || size != 16 || places[0]) return 0;
    *places[9] = (function)push;
    *places[11] = (function)pop;
    if (LISTENS) { *places[5] = (function)start; *places[7] = (function)end; }
    return 1;
}
"""
PROGRAM = """
import threading
from tracelens.marks import nvtx
nvtx.push_range("größer")
number = nvtx.start_range("window")
thread = threading.Thread(target=nvtx.push_range, args=("in a thread",))
thread.start()
thread.join()
nvtx.end_range(number)
nvtx.pop_range()
"""


@pytest.fixture(params=[1])
def profiler(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Build a profiler that prints what it hears; it may take only a part of the functions."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler to build a profiler with")
    source, library = tmp_path / "profiler.c", tmp_path / "profiler.so"
    source.write_text(PROFILER)
    define = f"-DLISTENS={request.param}"
    subprocess.run(
        [compiler, "-shared", "-fPIC", define, "-o", str(library), str(source)], check=True
    )
    return library


def heard(library: Path | str | None) -> list[str]:
    """Run the program under a profiler, and return what that has heard."""
    variables = {k: v for k, v in os.environ.items() if k != "NVTX_INJECTION64_PATH"}
    if library is not None:
        variables["NVTX_INJECTION64_PATH"] = str(library)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=variables, capture_output=True, text=True, check=True
    )
    return done.stderr.splitlines()


def test_a_profiler_hears_ranges_of_threads_and_of_the_process(profiler: Path) -> None:
    assert heard(profiler) == [
        "push größer", "start window", "push in a thread", f"end {1 << 40}", "pop",
    ]  # fmt: skip


@pytest.mark.parametrize("profiler", [0], indirect=True)
def test_a_profiler_that_takes_a_part_of_the_functions_is_left_alone(profiler: Path) -> None:
    assert heard(profiler) == []


@pytest.mark.parametrize("library", [None, "", "/not/there.so", "/etc/passwd"])
def test_without_a_profiler_nothing_happens(library: str | None) -> None:
    assert heard(library) == []
