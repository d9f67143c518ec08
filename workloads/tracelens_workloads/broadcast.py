"""Broadcast: every rank gets what rank 0 has, as for weights at the start of training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from tracelens.workload import DTYPES
from tracelens_workloads._collective import Collective

if TYPE_CHECKING:
    import torch
    import torch.distributed as dist

    from tracelens_workloads._ranks import Buffers, Pattern


@dataclass(frozen=True, kw_only=True)
class Broadcast(Collective):
    """In place, from rank 0."""

    collective: ClassVar[str] = "broadcast"
    in_place: ClassVar[bool] = True

    @property
    def wire_bytes(self) -> int:
        """Along a chain of ranks, each hands on all of it, but for the last."""
        return self.size_bytes

    @property
    def moved_bytes(self) -> int:
        """Rank 0 reads the buffer, and the others write it."""
        return self.elements * DTYPES[self.dtype]

    def run(self, buffers: Buffers, *, async_op: bool) -> dist.Work | None:
        """Copy from rank 0."""
        import torch.distributed as dist

        work: dist.Work | None = dist.broadcast(buffers.got, src=0, async_op=async_op)
        return work

    def expected(self, pattern: Pattern) -> torch.Tensor:
        """Every rank gets what rank 0 had."""
        return pattern.of(0, self.elements)


WORKLOAD = Broadcast
