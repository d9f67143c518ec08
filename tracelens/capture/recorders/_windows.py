"""How a recorded process tells a profiler around it where the recorded steps begin and end."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Final

from tracelens.capture.recorder import Session
from tracelens.marks import nvtx

if TYPE_CHECKING:
    from tracelens.capture.recorder import Made, Wanted

RANGE: Final = "tracelens-window"
"""The NVTX range around the recorded steps of a program that does not use CUDA."""

_UMASK: Final = 0o022


class Bounded(Session):
    """Opens the profiler's window at the first recorded step, and closes it after the last.

    Processes that belong together open and close it together, since the first of them does it for
    all. It is closed with the program, if that ends early.
    """

    def __init__(self, wanted: Wanted) -> None:
        self._has_others = (wanted.processes or 1) > 1
        self._is_open = False

    def open(self) -> None:
        """Set the umask, if nsys has left none: anybody could write to the program's files."""
        mask = os.umask(_UMASK)
        os.umask(mask or _UMASK)

    def begin(self) -> None:
        """Open the window."""
        self._together()
        self._is_open = True
        self.start()

    def end(self) -> None:
        """Close the window."""
        self._together()
        self._close()

    def close(self, error: BaseException | None) -> list[Made]:  # noqa: ARG002 (it is all the same)
        """Close the window, if the program ends within it."""
        self._close()
        return []

    def start(self) -> None:
        """Tell the profiler to start."""

    def stop(self) -> None:
        """Tell the profiler to stop."""

    def _close(self) -> None:
        if self._is_open:
            self._is_open = False
            self.stop()

    def _together(self) -> None:
        if self._has_others and (torch := sys.modules.get("torch")):
            distributed = torch.distributed
            if distributed.is_available() and distributed.is_initialized():
                distributed.barrier()


class CudaBounded(Bounded):
    """The window is what lies between cudaProfilerStart and cudaProfilerStop."""

    def start(self) -> None:
        """Call cudaProfilerStart."""
        import torch

        torch.cuda.profiler.start()  # type: ignore[no-untyped-call]

    def stop(self) -> None:
        """Call cudaProfilerStop."""
        import torch

        torch.cuda.profiler.stop()  # type: ignore[no-untyped-call]


class NvtxBounded(Bounded):
    """The window is a range of the whole process."""

    def start(self) -> None:
        """Open the range."""
        self._range = nvtx.start_range(RANGE)

    def stop(self) -> None:
        """Close the range."""
        nvtx.end_range(self._range)
