"""What the collectives share: options, and sizes and bandwidths as nccl-tests counts them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Final, Self

from tracelens.errors import UsageError
from tracelens.workload import DTYPES, Cost, Work, Workload, option
from tracelens_workloads._layers import ELEMENT_DTYPES

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    import torch.distributed as dist

    from tracelens.workload import Program
    from tracelens_workloads._ranks import Buffers, Pattern

BYTES_PER_MB: Final = 1_000_000


@dataclass(frozen=True)
class Bandwidths:
    """How fast a collective was, as nccl-tests defines it (its doc/PERFORMANCE.md).

    Attributes:
        algorithm_bytes_per_s: size of the collective over its time.
        bus_bytes_per_s: what one rank has to send, over the time: comparable with the speed of a
            link, whatever the number of ranks.
    """

    algorithm_bytes_per_s: float
    bus_bytes_per_s: float


@dataclass(frozen=True, kw_only=True)
class Collective(Workload):
    """One collective among all ranks, `repeats` times a step.

    Its size is that of a rank's larger buffer: what every rank holds before and after an
    all-reduce, what it has gathered, what it gives to be reduced and scattered.
    """

    collective: ClassVar[str]
    """What torch.distributed calls it, less the suffix for one tensor instead of a list."""
    in_place: ClassVar[bool] = False
    """Whether the result replaces what was given."""

    megabytes: float = option(
        100.0, "Size of each rank's buffer (the larger of input and output), in MB of 10⁶ bytes."
    )
    dtype: str = option("fp32", "Format of the elements.", choices=ELEMENT_DTYPES)
    world_size: int = option(2, "Processes that take part, each on a GPU of its own if on GPUs.")
    repeats: int = option(10, "Collectives in one step.")
    async_op: bool = option(
        False, "Start all collectives of a step, each on its own buffer, before waiting for any."
    )

    @property
    def processes(self) -> int:
        """How many ranks take part."""
        return self.world_size

    @property
    def elements(self) -> int:
        """Elements of the larger buffer: as many as fit, so that each rank has an equal share."""
        fit = int(self.megabytes * BYTES_PER_MB) // DTYPES[self.dtype]
        return fit - fit % self.world_size

    @property
    def share(self) -> int:
        """Elements of each rank's part of the larger buffer."""
        return self.elements // self.world_size

    @property
    def size_bytes(self) -> int:
        """Bytes of the larger buffer."""
        return self.elements * DTYPES[self.dtype]

    @property
    def given_elements(self) -> int:
        """Elements that a rank puts in."""
        return self.elements

    @property
    def got_elements(self) -> int:
        """Elements that a rank gets out."""
        return self.elements

    @property
    def wire_bytes(self) -> int:
        """Bytes that a rank has to send in one collective (the busiest, if they differ)."""
        return self.size_bytes * (self.world_size - 1) // self.world_size

    @property
    def additions(self) -> int:
        """Additions that fall to one rank if they are shared equally."""
        return 0

    @property
    def moved_bytes(self) -> int:
        """Bytes that a rank reads and writes in memory at least."""
        return (self.given_elements + self.got_elements) * DTYPES[self.dtype]

    @property
    def buffer_bytes(self) -> int:
        """Bytes of a rank's buffers for one collective."""
        return self.size_bytes if self.in_place else self.moved_bytes

    def check(self) -> None:
        """Raise UsageError unless there are two ranks, and an element for each."""
        if self.world_size < 2:
            raise UsageError(f"--world-size is {self.world_size}; a collective is among 2 or more.")
        if self.repeats < 1:
            raise UsageError(f"--repeats is {self.repeats}; it must be at least 1.")
        if self.elements < 1:
            least = self.world_size * DTYPES[self.dtype] / BYTES_PER_MB
            raise UsageError(
                f"--megabytes {self.megabytes:g} is no {self.dtype} element for each of "
                f"{self.world_size} ranks; give at least {least:g}."
            )

    def cost(self) -> Cost:
        """Count what one rank does; the items of a step are the bytes that nccl-tests counts."""
        work = Work(
            self.collective,
            flops=self.additions * self.repeats,
            bytes=self.moved_bytes * self.repeats,
            dtype=self.dtype,
            matmul=False,
            wire_bytes=self.wire_bytes * self.repeats,
        )
        return Cost(
            phases={"communication": (work,)},
            memory={"buffers": self.buffer_bytes * (self.repeats if self.async_op else 1)},
            items=self.size_bytes * self.repeats,
            unit="bytes",
        )

    def bandwidths(self, step_seconds: float) -> Bandwidths:
        """Return the bandwidths of the collectives of a step that took so long."""
        return Bandwidths(
            self.size_bytes * self.repeats / step_seconds,
            self.wire_bytes * self.repeats / step_seconds,
        )

    def variants(self) -> Iterator[Self]:
        """Take a tenth of the size, down to 1 MB."""
        smaller = self
        while smaller.megabytes > 1:
            smaller = replace(smaller, megabytes=max(1.0, smaller.megabytes / 10))
            yield smaller

    def program(self, device: str) -> Program:
        """Allocate the buffers, and do the collective once on numbers whose result is known."""
        from tracelens_workloads._ranks import CollectiveProgram

        return CollectiveProgram(self, device)

    def run(self, buffers: Buffers, *, async_op: bool) -> dist.Work | None:
        """Do it, or start it and return what to wait for."""
        raise NotImplementedError

    def expected(self, pattern: Pattern) -> torch.Tensor:
        """Return what this rank gets if each one gives its own pattern."""
        raise NotImplementedError
