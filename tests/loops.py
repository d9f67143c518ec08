"""Loops of steps by hand, in the formats of nsys and of torch.profiler, to be compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.build import Nsys
from tests.kineto import Profile
from tracelens.tables.compare.reading import Task, read

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tracelens.analyses.compare.side import Side

LAUNCH = 2_000
"""What the CPU needs for a launch, in ns; the GPU follows so much later."""


@dataclass(frozen=True)
class Kernel:
    """A kernel that every step calls once: its time in each step, in ns.

    ``op`` and ``dims`` are the PyTorch op that launches it and its shapes (torch.profiler alone);
    ``grid`` the number of thread blocks (nsys alone).
    """

    name: str
    times: Sequence[int]
    phase: str = "forward"
    op: str = "aten::mm"
    dims: Sequence[Any] = ()
    grid: int = 1


@dataclass(frozen=True)
class Loop:
    """Steps that run kernels one after the other, each step beginning with ``pauses`` ns of idle.

    ``names`` are those of the steps.
    """

    kernels: Sequence[Kernel]
    pauses: Sequence[int] | None = None
    names: Sequence[str] | None = None
    gpu: str = "NVIDIA H200"

    @property
    def steps(self) -> int:
        """How many steps there are."""
        return len(self.kernels[0].times)

    def write_nsys(self, path: Path) -> Path:
        """Write the loop as an export of nsys."""
        trace = Nsys()
        trace.device(0, self.gpu)
        main = trace.thread("python")
        at = 1_000
        for step in range(self.steps):
            begin = at
            ends: dict[str, tuple[int, int]] = {}
            at += self.pauses[step] if self.pauses else 10_000
            for kernel in self._of(step):
                ran = (at + LAUNCH, at + LAUNCH + kernel.times[step])
                main.kernel(kernel.name, at=at, run=ran, columns={"gridX": kernel.grid})
                first, _ = ends.get(kernel.phase, (at, at))
                at = ran[1]
                ends[kernel.phase] = (first, at)
            for phase, (start, end) in ends.items():
                main.push(phase, start, end)
            main.push(self._name(step), begin, at + 100)
            at += 1_100
        return trace.write(path)

    def write_kineto(self, path: Path) -> Path:
        """Write the loop as a trace of torch.profiler."""
        trace = Profile()
        trace.device(0, self.gpu)
        main = trace.thread("python3")
        at = 1_000
        for step in range(self.steps):
            begin = at
            ends: dict[str, tuple[int, int]] = {}
            at += self.pauses[step] if self.pauses else 10_000
            for kernel in self._of(step):
                ran = (at + LAUNCH, at + LAUNCH + kernel.times[step])
                main.op(kernel.op, at - 500, at + 1_500, dims=kernel.dims or None)
                main.kernel(kernel.name, at=at, run=ran)
                first, _ = ends.get(kernel.phase, (at - 600, at))
                at = ran[1] + 1_000
                ends[kernel.phase] = (first, at)
            for phase, (start, end) in ends.items():
                main.annotation(phase, start, end)
            main.annotation(self._name(step), begin, at + 100)
            at += 1_100
        return trace.write(path)

    def _of(self, step: int) -> list[Kernel]:
        """Return the kernels of a step; one of time 0 is not called."""
        return [kernel for kernel in self.kernels if kernel.times[step]]

    def _name(self, step: int) -> str:
        return self.names[step] if self.names else f"step {step}"


def side(path: Path) -> Side:
    """Return a recording made ready to be compared."""
    found = read(Task(path, cache=False)).side
    assert found is not None
    return found
