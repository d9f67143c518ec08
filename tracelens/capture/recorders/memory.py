"""torch's memory snapshots: every allocation on the GPU since the program began, with its stack."""

from __future__ import annotations

import contextlib
import inspect
import os
import pickle
from typing import TYPE_CHECKING, Any, Final

from tracelens.capture import failures
from tracelens.capture.imports import when_imported
from tracelens.capture.recorder import Made, Recorder, Session
from tracelens.errors import CaptureError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from tracelens.capture.recorder import Wanted

MAX_ENTRIES: Final = 1_000_000
_STACKS: Final = ("python", "all", "none")
_PROTOCOL: Final = 4
"""Python 3.14 would write 5, which older viewers do not read."""
_OOM_SNAPSHOTS: Final = 5
"""A program that tries sizes until one fits runs out of memory often; a snapshot takes seconds."""


class Memory(Recorder):
    """Records what torch's allocator hands out on GPUs, from the program's first allocation."""

    name = "memory"
    options: Mapping[str, str] = {
        "stacks": "stacks=python, the default: lines of Python, about 2 µs an allocation; "
        "stacks=all: those of C++, too, which also tell the ops of backward, and files five times "
        "as large; stacks=none: sizes and times alone.",
        "max-entries": f"Keep the last N allocations and releases ({MAX_ENTRIES:,} by default); "
        "each takes about 1 kB of the host's memory.",
    }

    def unusable(self, wanted: Wanted) -> str | None:
        """Return why it cannot record: only the allocator of GPUs keeps a history.

        Raises:
            UsageError: an option has no such value.
        """
        _settings(wanted)
        if wanted.device == "cpu":
            return (
                "torch keeps no memory history of the CPU. --with torch:memory records the "
                "allocations there."
            )
        return None

    def files(self, wanted: Wanted) -> list[str]:
        """Return the names of the snapshots."""
        count = wanted.processes or 1
        return [_name(None)] if count == 1 else [_name(rank) for rank in range(count)]

    def session(self, wanted: Wanted, rank: int | None) -> Session:
        """Return what records in a process."""
        return _Session(wanted, rank)

    def finish(
        self,
        wanted: Wanted,
        say: Callable[[str], None],  # noqa: ARG002 (recorders are called alike)
    ) -> list[Made]:
        """Check that there is a snapshot.

        Raises:
            CaptureError: there is none.
        """
        if not any(wanted.folder.glob("memory*.pickle")):
            raise CaptureError(
                "torch left no memory snapshot: the program allocated nothing on a GPU, or it was "
                "killed before its last step."
            )
        return []


class _Session(Session):
    """The memory history of one process.

    It begins when torch sets up CUDA, which nothing here brings about: a program may yet choose
    its GPUs, or fork. A snapshot is taken at the end of the window, and inside the allocator when
    memory runs out, since after that the error frees what it held.
    """

    def __init__(self, wanted: Wanted, rank: int | None) -> None:
        self._wanted = wanted
        self._rank = rank
        self._file = wanted.folder / _name(rank)
        self._is_recording = False
        self._oom_snapshots = 0
        self._is_written = False
        self._problem: Exception | None = None

    def open(self) -> None:
        # What a pass before this one left is not to be taken for its own.
        self._file.unlink(missing_ok=True)
        when_imported("torch", self._when_cuda_is_set_up)

    def end(self) -> None:
        self._take()
        self._stop()

    def close(self, error: BaseException | None) -> list[Made]:
        is_told = self._oom_snapshots and error is not None and failures.is_out_of_memory(error)
        if self._is_recording and not is_told:
            self._take()
        self._stop()
        if self._problem is not None:
            raise CaptureError(f"torch records no memory history: {self._problem}") from (
                self._problem
            )
        return [Made(self._file.name, self._rank)] if self._is_written else []

    def _when_cuda_is_set_up(self) -> None:
        import torch

        torch.cuda._lazy_call(self._start)  # type: ignore[no-untyped-call] # noqa: SLF001 (it has no other name)

    def _start(self) -> None:
        try:
            record(**_settings(self._wanted))
            _observe_out_of_memory(self._ran_out)
            self._is_recording = True
        except Exception as error:  # noqa: BLE001 (the program can do without it; `close` tells)
            self._problem = error

    def _ran_out(self, _device: int, _size: int, _allocated: int, _free: int) -> None:
        """Take a snapshot while memory is as it was when it ran out; must not raise."""
        if self._is_recording and self._oom_snapshots < _OOM_SNAPSHOTS:
            with contextlib.suppress(Exception):
                self._take()
                self._oom_snapshots += 1

    def _take(self) -> None:
        if self._is_recording:
            import torch

            write(torch.cuda.memory._snapshot(), self._file)  # noqa: SLF001 (documented so)
            self._is_written = True

    def _stop(self) -> None:
        if self._is_recording:
            import torch

            self._is_recording = False
            torch.cuda.memory._record_memory_history(enabled=None)  # noqa: SLF001 (documented so)


def record(**settings: Any) -> None:
    """Start torch's memory history with those settings that this version of torch knows."""
    import torch

    start = torch.cuda.memory._record_memory_history  # noqa: SLF001 (documented so)
    known = inspect.signature(start).parameters
    start(**{name: value for name, value in settings.items() if name in known})


def write(snapshot: Any, file: Path) -> None:
    """Write a snapshot as torch itself does; until it is whole it has another name.

    Raises:
        CaptureError: it cannot be written.
    """
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with beside.open("wb") as out:
            pickle.dump(snapshot, out, protocol=_PROTOCOL)
        beside.replace(file)
    except OSError as error:
        raise CaptureError(f"{file} could not be written: {error.strerror or error}.") from error
    finally:
        with contextlib.suppress(OSError):
            beside.unlink()


def _observe_out_of_memory(observer: Callable[[int, int, int, int], None]) -> None:
    import torch

    torch._C._cuda_attach_out_of_memory_observer(observer)  # type: ignore[attr-defined] # noqa: SLF001 (absent from builds without CUDA)


def _settings(wanted: Wanted) -> dict[str, Any]:
    """Return the arguments of `torch.cuda.memory._record_memory_history`."""
    stacks = str(wanted.options.get("stacks", _STACKS[0]))
    if stacks not in _STACKS:
        raise UsageError(f"memory:stacks={stacks}: it is one of {', '.join(_STACKS)}.")
    entries = str(wanted.options.get("max-entries", MAX_ENTRIES)).replace("_", "")
    if not entries.isdecimal() or int(entries) < 1:
        raise UsageError(f"memory:max-entries={entries}: it is a number, at least 1.")
    return {
        "enabled": "all",
        "context": None if stacks == "none" else "all",
        "stacks": "all" if stacks == "all" else "python",
        "max_entries": int(entries),
        # Marks of the autograd thread, too; torch 2.8 and later.
        "global_record_annotations": True,
    }


def _name(rank: int | None) -> str:
    return "memory.pickle" if rank is None else f"memory.rank{rank}.pickle"


RECORDER = Memory()
