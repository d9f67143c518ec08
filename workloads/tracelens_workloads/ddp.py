"""Training a language model in several processes that average their gradients, in five ways."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Final

from tracelens.errors import UsageError
from tracelens.workload import DTYPES, Cost, Work, option
from tracelens_workloads._collective import BYTES_PER_MB
from tracelens_workloads.gpt2 import Gpt2

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tracelens_workloads.models.training import Training

STRATEGIES: Final = ("naive", "flat", "overlapped", "bucketed", "torch")
_FIRST_BUCKET: Final = 1 << 20  # bytes of DistributedDataParallel's first bucket
_AFTER_BACKWARD: Final = ("naive", "flat")
_COPIES: Final = {"flat": 1, "bucketed": 1, "torch": 2}
"""How often a gradient is copied for the sake of fewer all-reduces."""


@dataclass(frozen=True, kw_only=True)
class Ddp(Gpt2):
    """A step of training of `gpt2`, each rank on its share of every batch."""

    batch: int = option(4, "Sequences per micro-batch of all ranks together; they share equally.")
    strategy: str = option(
        "bucketed",
        "naive: an all-reduce per parameter after backward; flat: one for all; overlapped: per "
        "parameter during backward; bucketed: per bucket; torch: DistributedDataParallel.",
        choices=STRATEGIES,
    )
    bucket_mb: float = option(25.0, "Most of a bucket in MB of 10⁶ bytes (bucketed and torch).")
    world_size: int = option(2, "Processes, each on a GPU of its own if on GPUs.")

    @property
    def processes(self) -> int:
        """How many ranks train."""
        return self.world_size

    @property
    def bucket_bytes(self) -> int:
        """Most bytes of a bucket."""
        return int(self.bucket_mb * BYTES_PER_MB)

    @property
    def share(self) -> Gpt2:
        """What one rank does, as if it were alone."""
        options = {f.name: getattr(self, f.name) for f in fields(Gpt2)}
        return Gpt2(**{**options, "batch": max(1, self.batch // self.world_size)})

    def check(self) -> None:
        """Raise UsageError where the options contradict one another."""
        super().check()
        if self.world_size < 1:
            raise UsageError(f"--world-size is {self.world_size}; it must be at least 1.")
        if self.batch % self.world_size:
            more = math.ceil(self.batch / self.world_size) * self.world_size
            raise UsageError(
                f"--batch {self.batch} cannot be shared equally by {self.world_size} ranks; "
                f"take --batch {more}."
            )
        if self.bucket_bytes < 1:
            raise UsageError(f"--bucket-mb is {self.bucket_mb:g}; it must be more than 0.")
        if (
            self.strategy == "torch"
            and self.compile != "none"
            and self.bucket_bytes < _FIRST_BUCKET
        ):
            raise UsageError(
                f"--bucket-mb is {self.bucket_mb:g}, but torch.compile with "
                "DistributedDataParallel takes no buckets below 1 MiB; take --bucket-mb 1.05."
            )
        if self.mode == "forward":
            raise UsageError("--mode forward has no gradients to average; gpt2 runs it alone.")
        if self.cuda_graph:
            raise UsageError("--cuda-graph is not for several processes; leave it out.")

    def cost(self) -> Cost:
        """Count what one rank does: its share of the batch, and the all-reduce of gradients."""
        share = self.share.cost()
        size = 4 if self.autocast else DTYPES[self.dtype]
        phase = "communication" if self.strategy in _AFTER_BACKWARD else "backward"
        works = [*share.phases.get(phase, ()), *self._reduction(share.parameters, size)]
        phases = {**share.phases, phase: works}
        order = [name for name in (*share.phases, phase) if name != "optimizer"]
        order += [name for name in share.phases if name == "optimizer"]
        return replace(
            share,
            phases={name: phases[name] for name in order},
            memory=self._memory(share.memory, share.parameters * size),
            items=share.items * self.world_size,
        )

    def _reduction(self, parameters: int, size: int) -> list[Work]:
        """Return an all-reduce in a ring, and the copies that are made for it.

        Each rank sends 2·(n - 1)/n of the gradients, and adds up its n-th of them from all ranks.
        """
        held, others = parameters * size, self.world_size - 1
        dtype = "fp32" if self.autocast or self.dtype == "tf32" else self.dtype
        reduce = Work(
            "all-reduce",
            flops=parameters * others // self.world_size,
            bytes=2 * held,
            dtype=dtype,
            matmul=False,
            wire_bytes=2 * held * others // self.world_size,
        )
        copies = 2 * held * _COPIES.get(self.strategy, 0)
        return [Work("copy to buckets", bytes=copies, matmul=False), reduce] if copies else [reduce]

    def _memory(self, alone: Mapping[str, int], gradients: int) -> dict[str, int]:
        """Add the buckets to what stands at the peak.

        torch's are there all the time. The one of `flat` stands beside all gradients, when
        activations are gone; those of `bucketed` are where gradients are, and one of them is
        there before all of its gradients have come.
        """
        if self.strategy == "torch":
            return {**alone, "buckets": gradients}
        if self.strategy == "flat":
            kept = {
                kind: alone[kind] for kind in ("parameters", "optimizer state") if kind in alone
            }
            after = {**kept, "gradients": gradients, "buckets": gradients}
            return max(dict(alone), after, key=lambda moment: sum(moment.values()))
        to_come = gradients - alone.get("gradients", 0)
        if self.strategy == "bucketed" and to_come:
            return {**alone, "buckets": min(to_come, self.bucket_bytes)}
        return dict(alone)

    def program(self, device: str) -> Training:
        """Build this rank's copy of the model, with rank 0's weights."""
        from tracelens_workloads.models.data_parallel import DataParallelTraining

        return DataParallelTraining(self, device)

    def variants(self) -> list[Any]:
        """Give the smaller ones of `gpt2` whose batch can be shared."""
        return [one for one in super().variants() if one.batch % self.world_size == 0]


def overhead_s(gradient_bytes: float, buckets: float, bytes_per_s: float, call_s: float) -> float:
    """Return how long a step is kept by communication that overlaps with backward.

    The model of Stanford's CS336, assignment 2 (2025): an all-reduce costs `call_s` to start and
    then its bytes at the bandwidth, and a bucket takes as long to be computed as to be sent. All
    but the last bucket's bytes then hide behind backward: s / (n·w) + n·o remain.

    Args:
        gradient_bytes: s, of all gradients.
        buckets: n, of equal size.
        bytes_per_s: w, the algorithm bandwidth of the all-reduce.
        call_s: o, of each all-reduce.
    """
    return gradient_bytes / (buckets * bytes_per_s) + buckets * call_s


def best_buckets(gradient_bytes: float, bytes_per_s: float, call_s: float) -> float:
    """Return the number of buckets at which `overhead_s` is least: √(s / (w·o))."""
    return math.sqrt(gradient_bytes / (bytes_per_s * call_s))


def best_bucket_bytes(gradient_bytes: float, bytes_per_s: float, call_s: float) -> float:
    """Return the size of each of `best_buckets`: √(s·w·o)."""
    return math.sqrt(gradient_bytes * bytes_per_s * call_s)


WORKLOAD = Ddp
