"""All-to-all: every rank gets a part from each, as tokens go to experts on other GPUs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from tracelens_workloads._collective import Collective

if TYPE_CHECKING:
    import torch
    import torch.distributed as dist

    from tracelens_workloads._ranks import Buffers, Pattern


@dataclass(frozen=True, kw_only=True)
class AllToAll(Collective):
    """Each rank gives an equal share of its buffer to each, itself included."""

    collective: ClassVar[str] = "all_to_all"

    def run(self, buffers: Buffers, *, async_op: bool) -> dist.Work | None:
        """Exchange a share with each rank."""
        import torch.distributed as dist

        work: dist.Work | None = dist.all_to_all_single(
            buffers.got, buffers.given, async_op=async_op
        )
        return work

    def expected(self, pattern: Pattern) -> torch.Tensor:
        """From each rank comes the share of this rank's number."""
        import torch

        start = pattern.rank * self.share
        return torch.cat([pattern.of(one, self.share, start) for one in range(self.world_size)])


WORKLOAD = AllToAll
