"""All-gather: every rank gets the parts of all ranks, as FSDP does with weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from tracelens_workloads._collective import Collective

if TYPE_CHECKING:
    import torch
    import torch.distributed as dist

    from tracelens_workloads._ranks import Buffers, Pattern


@dataclass(frozen=True, kw_only=True)
class AllGather(Collective):
    """The size is that of what has been gathered; each rank gives an equal share of it."""

    collective: ClassVar[str] = "all_gather"

    @property
    def given_elements(self) -> int:
        """A share."""
        return self.share

    def run(self, buffers: Buffers, *, async_op: bool) -> dist.Work | None:
        """Put what the ranks give one after another."""
        from tracelens_workloads._ranks import all_gather

        return all_gather(buffers.got, buffers.given, async_op=async_op)

    def expected(self, pattern: Pattern) -> torch.Tensor:
        """The ranks' shares stand in their order."""
        import torch

        return torch.cat([pattern.of(one, self.share) for one in range(self.world_size)])


WORKLOAD = AllGather
