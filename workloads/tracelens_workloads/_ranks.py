"""What workloads of several processes ask of torch.distributed: their group, and collectives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import torch
import torch.distributed as dist

import tracelens
from tracelens.errors import CaptureError, UsageError
from tracelens_workloads._torch import TORCH_DTYPES, number_format, random, synchronize

if TYPE_CHECKING:
    from tracelens_workloads._collective import Collective

_EXACT_IN_BF16: Final = 256


class Buffers(NamedTuple):
    """What a rank puts into a collective and gets out; one tensor twice if it is in place."""

    given: torch.Tensor
    got: torch.Tensor


def joined(world_size: int, device: str) -> int:
    """Return this process's rank; a process that is to be alone becomes a group of one.

    Raises:
        UsageError: the process group that is there is not as large as the options say.
    """
    if not dist.is_available():
        raise UsageError(f"torch {torch.__version__} is built without torch.distributed.")
    if not dist.is_initialized() and world_size == 1:
        backend = "nccl" if device.startswith("cuda") else "gloo"
        dist.init_process_group(backend, store=_alone(), rank=0, world_size=1)
    there = dist.get_world_size() if dist.is_initialized() else 1
    if there != world_size:
        raise UsageError(
            f"--world-size is {world_size}, but this runs in {there} joined processes; start it "
            f"by tracelens capture, or by torchrun --nproc-per-node {world_size}."
        )
    return dist.get_rank()


def _alone() -> Any:
    return dist.HashStore()  # type: ignore[attr-defined]  # documented, but not in __all__


class Pattern:
    """Numbers that differ between ranks and places, and whose sums are exact in every format.

    Element i of rank r is (i + r) modulo a period: with n ranks a sum stays below 8·n, or 256.
    """

    def __init__(self, rank: int, world_size: int, dtype: str, device: str) -> None:
        self.rank = rank
        self.world_size = world_size
        self._period = max(2, min(8, _EXACT_IN_BF16 // world_size))
        self._dtype = TORCH_DTYPES[dtype]
        self._device = device

    def of(self, rank: int, elements: int, start: int = 0) -> torch.Tensor:
        """Return elements of a rank's numbers from `start` on."""
        return self._tiled(self._once(rank, start), elements)

    def total(self, elements: int, start: int = 0) -> torch.Tensor:
        """Return elements of the sum over all ranks from `start` on."""
        once = [self._once(rank, start) for rank in range(self.world_size)]
        return self._tiled(torch.stack(once).sum(dim=0), elements)

    def _once(self, rank: int, start: int) -> torch.Tensor:
        return (torch.arange(self._period, device=self._device) + rank + start) % self._period

    def _tiled(self, once: torch.Tensor, elements: int) -> torch.Tensor:
        return once.to(self._dtype).repeat(-(-elements // self._period))[:elements]


class CollectiveProgram:
    """A collective on buffers of random numbers.

    Raises:
        CaptureError: its result is wrong.
    """

    def __init__(self, collective: Collective, device: str) -> None:
        number_format(collective.dtype, device)
        self._collective = collective
        self._device = device
        self._rank = joined(collective.world_size, device)
        count = collective.repeats if collective.async_op else 1
        self.buffers = [self._buffers() for _ in range(count)]
        self._verify()

    def step(self) -> None:
        """Do it as often as asked."""
        with tracelens.step():
            with tracelens.phase("communication"):
                if self._collective.async_op:
                    self._overlapping()
                else:
                    for _ in range(self._collective.repeats):
                        self._collective.run(self.buffers[0], async_op=False)
            synchronize(self._device)

    def _overlapping(self) -> None:
        with tracelens.span("launch"):
            works = [self._collective.run(own, async_op=True) for own in self.buffers]
        with tracelens.span("wait"):
            for work in works:
                if work is not None:
                    work.wait()

    def _buffers(self) -> Buffers:
        one = self._collective
        given = random((one.given_elements,), one.dtype, self._device)
        return Buffers(given, given if one.in_place else given.new_empty(one.got_elements))

    def _verify(self) -> None:
        """Do it once on the pattern, and compare; what was given is random again afterwards."""
        one, buffers = self._collective, self.buffers[0]
        given, got = buffers
        pattern = Pattern(self._rank, one.world_size, one.dtype, self._device)
        given.copy_(pattern.of(self._rank, len(given)))
        one.run(buffers, async_op=False)
        expected = one.expected(pattern)
        if not torch.equal(got, expected):
            wrong = int((got != expected).sum())
            raise CaptureError(
                f"{one.collective} by {dist.get_backend()} gave rank {self._rank} {wrong:,} wrong "
                f"numbers of {len(got):,} ({one.dtype}); its times would mean nothing."
            )
        given.normal_()


def all_gather(got: torch.Tensor, given: torch.Tensor, *, async_op: bool) -> dist.Work | None:
    """Gather one tensor from each rank into one, by the name that this torch has for it."""
    run: Any = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
    work: dist.Work | None = run(got, given, async_op=async_op)
    return work


def reduce_scatter(got: torch.Tensor, given: torch.Tensor, *, async_op: bool) -> dist.Work | None:
    """Reduce one tensor to a share for each rank, by the name that this torch has for it."""
    run: Any = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor
    work: dist.Work | None = run(got, given, async_op=async_op)
    return work
