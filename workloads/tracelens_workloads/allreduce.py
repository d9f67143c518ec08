"""All-reduce: every rank gets the sum of what all ranks have, as for gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from tracelens_workloads._collective import Collective

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    import torch.distributed as dist

    from tracelens_workloads._ranks import Buffers, Pattern


@dataclass(frozen=True, kw_only=True)
class AllReduce(Collective):
    """In place: sums take the place of what was summed, and grow until they are infinite."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "1mb": {"megabytes": 1.0},
        "10mb": {"megabytes": 10.0},
        "100mb": {"megabytes": 100.0},
        "1gb": {"megabytes": 1000.0},
    }
    collective: ClassVar[str] = "all_reduce"
    in_place: ClassVar[bool] = True

    @property
    def wire_bytes(self) -> int:
        """In a ring, n - 1 shares while reducing, and as many while the sums go round."""
        return 2 * self.size_bytes * (self.world_size - 1) // self.world_size

    @property
    def additions(self) -> int:
        """Each rank adds up one share of the elements, from all ranks."""
        return self.share * (self.world_size - 1)

    def run(self, buffers: Buffers, *, async_op: bool) -> dist.Work | None:
        """Sum over all ranks."""
        import torch.distributed as dist

        work: dist.Work | None = dist.all_reduce(buffers.got, async_op=async_op)
        return work

    def expected(self, pattern: Pattern) -> torch.Tensor:
        """Every rank gets the whole sum."""
        return pattern.total(self.elements)


WORKLOAD = AllReduce
