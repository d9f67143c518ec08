"""Reduce-scatter: every rank gets its part of the sum over all, as FSDP does with gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from tracelens_workloads._collective import Collective

if TYPE_CHECKING:
    import torch
    import torch.distributed as dist

    from tracelens_workloads._ranks import Buffers, Pattern


@dataclass(frozen=True, kw_only=True)
class ReduceScatter(Collective):
    """The size is that of what each rank gives; it gets an equal share of the sum.

    gloo sends twice as much as the formula: it all-reduces all, of which each rank takes its part.
    """

    collective: ClassVar[str] = "reduce_scatter"

    @property
    def got_elements(self) -> int:
        """A share."""
        return self.share

    @property
    def additions(self) -> int:
        """Each rank adds up its share, from all ranks."""
        return self.share * (self.world_size - 1)

    def run(self, buffers: Buffers, *, async_op: bool) -> dist.Work | None:
        """Sum over all ranks, a share for each."""
        from tracelens_workloads._ranks import reduce_scatter

        return reduce_scatter(buffers.got, buffers.given, async_op=async_op)

    def expected(self, pattern: Pattern) -> torch.Tensor:
        """A rank gets the share of its number."""
        return pattern.total(self.share, start=pattern.rank * self.share)


WORKLOAD = ReduceScatter
