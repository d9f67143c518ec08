"""A place for nsys's own files, and the processes that it leaves behind when it is killed."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tracelens import tools

if TYPE_CHECKING:
    from collections.abc import Iterator

_PREFIX: Final = "tl-nsys-"
_GONE_S: Final = 2.0
_LONGEST: Final = 60
"""nsys makes sockets below TMPDIR, and a socket's path has at most 107 characters."""


def make(folder: Path) -> Path:
    """Make a place for the nsys that records into a Run folder, which `find` knows."""
    forget(folder)
    usual = Path(tempfile.gettempdir())
    short = usual if len(str(usual)) < _LONGEST else Path("/tmp")  # noqa: S108 (see `_LONGEST`)
    made = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=short))
    _pointer(folder).parent.mkdir(exist_ok=True)
    _pointer(folder).write_text(str(made), encoding="utf-8")
    return made


def find(folder: Path) -> Path | None:
    """Return the place that was made for a Run folder, if it is there."""
    path = Path(tools.read(_pointer(folder)) or "/nowhere")
    return path if path.name.startswith(_PREFIX) and path.is_dir() else None


def forget(folder: Path) -> None:
    """Remove the place, and end what still works in it."""
    if made := find(folder):
        end_strays(made)
        shutil.rmtree(made, ignore_errors=True)
    _pointer(folder).unlink(missing_ok=True)


def _pointer(folder: Path) -> Path:
    return folder / "passes" / "nsys.scratch"


def end_strays(scratch: Path) -> bool:
    """End what an nsys that was killed has left running; tell whether there was anything.

    The agent and the program run in sessions of their own, so that they outlive nsys and its
    process group; they are known by their environment. What a program leaves running on purpose is
    let live, unless nsys was killed.
    """
    deadline = time.monotonic() + _GONE_S
    while any(_is_nsys(pid) for pid in _started_with(scratch)):
        if time.monotonic() > deadline:
            break
        time.sleep(0.05)
    else:
        return False
    for pid in _started_with(scratch):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    return True


def _started_with(scratch: Path) -> Iterator[int]:
    """Give the numbers of the processes whose environment names the folder."""
    mark = os.fsencode(scratch)
    known = {b"TMPDIR=" + mark, b"NSYS_AGENT_TMP_DIR=" + mark}
    for place in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if known & set(place.read_bytes().split(b"\0")):
                yield int(place.parent.name)


def _is_nsys(pid: int) -> bool:
    with contextlib.suppress(OSError):
        program = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0]
        return os.path.basename(program).startswith(b"nsys")  # noqa: PTH119 (of bytes)
    return False
