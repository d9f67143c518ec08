"""Data parallelism: four ways, and torch's own, to make every gradient the mean over the ranks."""

from __future__ import annotations

import abc
import inspect
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Final

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import tracelens
from tracelens_workloads._ranks import joined
from tracelens_workloads._torch import compiled, number_format
from tracelens_workloads.models.training import Training

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from torch import Tensor, nn

    from tracelens_workloads.ddp import Ddp

    Parameters = list[nn.Parameter]

_BYTES_PER_MIB: Final = 1 << 20


class DataParallel(abc.ABC):
    """A model of which each rank has a copy, trained on its own part of the batch.

    Weights and buffers start as those of rank 0. A tied weight is one parameter, with one
    gradient. Each optimizer step takes one backward pass, or several of which all but the last
    are `alone`, then `finish`.

    Args:
        module: the model, on its device.
        find_unused: let parameters get no gradient. Where another rank has one, it counts as
            zero; where none has, there is none afterwards, as in a process alone. Costs a small
            all-reduce in each step.

    Raises:
        ValueError: the ranks' models differ.
    """

    def __init__(self, module: nn.Module, *, find_unused: bool = False) -> None:
        self.module = module
        self.world_size = dist.get_world_size()
        self._find_unused = find_unused
        self._named = {p: n for n, p in module.named_parameters() if p.requires_grad}
        self._parameters = list(self._named)
        _agree([(n, tuple(p.shape), str(p.dtype)) for p, n in self._named.items()])
        with torch.no_grad():
            for tensor in (*module.parameters(), *module.buffers()):
                dist.broadcast(tensor, src=0)

    @property
    def model(self) -> nn.Module:
        """What to call for a forward pass."""
        return self.module

    def alone(self) -> AbstractContextManager[None]:
        """Return a context whose backward passes add up gradients of this rank only."""
        return nullcontext()

    def finish(self) -> None:
        """Make every gradient the mean over the ranks, or wait until it is.

        Raises:
            RuntimeError: a parameter has no gradient, and that was not allowed for.
        """
        missing = [p for p in self._parameters if p.grad is None]
        if missing and not self._find_unused:
            names = ", ".join(self._named[p] for p in missing[:3])
            raise RuntimeError(
                f"No gradient in this backward pass for {names}"
                f"{' and others' if len(missing) > 3 else ''}; find_unused=True allows that."
            )
        for parameter in missing:
            parameter.grad = torch.zeros_like(parameter)
        self._reduce()
        if self._find_unused:
            self._forget_unused(missing)

    @abc.abstractmethod
    def _reduce(self) -> None:
        """Make all gradients the mean; each parameter has one."""

    def _forget_unused(self, missing: Parameters) -> None:
        """Take the gradients away again that no rank had; every rank says which it had."""
        mine = set(missing)
        had = [p not in mine for p in self._parameters]
        counts = torch.tensor(had, dtype=torch.int32, device=self._parameters[0].device)
        dist.all_reduce(counts)
        if missing:  # only then is it worth waiting for the device
            for parameter, count in zip(self._parameters, counts.tolist(), strict=True):
                if count == 0:
                    parameter.grad = None


class Naive(DataParallel):
    """One all-reduce per parameter, one after another, when backward has ended."""

    def _reduce(self) -> None:
        for parameter in self._parameters:
            dist.all_reduce(_gradient(parameter).div_(self.world_size))


class Flat(DataParallel):
    """One all-reduce per number format, of all gradients copied into one tensor after backward."""

    def _reduce(self) -> None:
        for group in _buckets(self._parameters):
            flat = torch.cat([_gradient(p).reshape(-1) for p in group])
            dist.all_reduce(flat.div_(self.world_size))
            for parameter, part in zip(group, _views(flat, group), strict=True):
                parameter.grad = part


class _DuringBackward(DataParallel):
    """All-reduces start while backward goes on, by hooks that follow each gradient's last sum.

    All ranks must start them in one order, though gradients may come in another on each. So
    groups of parameters start in a fixed order, each when it and those before it are complete:
    in the first step the reverse of the parameters' order, then that in which rank 0 got its
    gradients (after S. Li et al., *PyTorch Distributed*, VLDB 2020, section 3.2.3).
    """

    def __init__(self, module: nn.Module, *, find_unused: bool = False) -> None:
        super().__init__(module, find_unused=find_unused)
        self._is_alone = False
        self._is_first = True
        self._use(self._parameters[::-1])
        for parameter in self._parameters:
            parameter.register_post_accumulate_grad_hook(self._hook)  # type: ignore[no-untyped-call]  # torch's own

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Let backward passes in this context add up gradients of this rank only."""
        self._is_alone = True
        try:
            yield
        finally:
            self._is_alone = False

    def _hook(self, parameter: nn.Parameter) -> None:
        if not self._is_alone:
            self._arrive(parameter)

    @torch.no_grad()
    def _arrive(self, parameter: nn.Parameter) -> None:
        """Take a gradient that is complete on this rank; start what can be started now."""
        if parameter in self._arrived:
            raise RuntimeError(
                f"A second gradient of {self._named[parameter]} before finish(); "
                "run all backward passes but the last in alone()."
            )
        self._arrived[parameter] = None
        number = self._group_of[parameter]
        self._prepare(number, parameter)
        self._awaited[number] -= 1
        while self._next < len(self._groups) and not self._awaited[self._next]:
            work = dist.all_reduce(self._complete(self._next), async_op=True)
            self._works += [work] if work else []
            self._next += 1

    def _reduce(self) -> None:
        for parameter in self._parameters:
            if parameter not in self._arrived:
                self._arrive(parameter)
        for work in self._works:
            work.wait()
        if self._is_first:
            self._use(self._order_on_rank_0())
            self._is_first = False
        self._begin()

    def _order_on_rank_0(self) -> Parameters:
        number = {p: i for i, p in enumerate(self._parameters)}
        came = [number[p] for p in self._arrived]
        order = torch.tensor(came, device=self._parameters[0].device)
        dist.broadcast(order, src=0)
        return [self._parameters[i] for i in order.tolist()]

    def _use(self, order: Parameters) -> None:
        """Form groups of parameters whose gradients are expected in this order."""
        self._groups = self._grouped(order)
        self._group_of = {p: i for i, group in enumerate(self._groups) for p in group}
        self._begin()

    def _begin(self) -> None:
        """Wait for all gradients again."""
        self._awaited = [len(group) for group in self._groups]
        self._arrived: dict[nn.Parameter, None] = {}
        self._works: list[dist.Work] = []
        self._next = 0

    @abc.abstractmethod
    def _grouped(self, order: Parameters) -> list[Parameters]:
        """Return the groups whose gradients are reduced together, the earliest complete first."""

    @abc.abstractmethod
    def _prepare(self, number: int, parameter: nn.Parameter) -> None:
        """Divide a gradient by the number of ranks, where its group will be reduced."""

    @abc.abstractmethod
    def _complete(self, number: int) -> Tensor:
        """Return the tensor to reduce for a group whose gradients have all been prepared."""


class Overlapped(_DuringBackward):
    """One all-reduce per parameter, started as soon as its gradient is there."""

    def _grouped(self, order: Parameters) -> list[Parameters]:
        return [[parameter] for parameter in order]

    def _prepare(self, number: int, parameter: nn.Parameter) -> None:  # noqa: ARG002 (a base's)
        _gradient(parameter).div_(self.world_size)

    def _complete(self, number: int) -> Tensor:
        return _gradient(self._groups[number][0])


class Bucketed(_DuringBackward):
    """One all-reduce per bucket of gradients, started as soon as all of them are there.

    A gradient that comes moves into its bucket, and stays there: the optimizer reads it in place,
    and the bucket goes when the gradients are set to None.

    Args:
        module: the model, on its device.
        bucket_bytes: most of a bucket, unless one gradient alone is larger.
        find_unused: see `DataParallel`.
    """

    def __init__(self, module: nn.Module, bucket_bytes: int, *, find_unused: bool = False) -> None:
        self._bucket_bytes = bucket_bytes
        super().__init__(module, find_unused=find_unused)

    @property
    def buckets(self) -> list[int]:
        """The bytes of each bucket, in the order of their all-reduces."""
        return [sum(p.nbytes for p in group) for group in self._groups]

    def _begin(self) -> None:
        super()._begin()
        self._filled: dict[int, Tensor] = {}
        self._place_of: dict[nn.Parameter, Tensor] = {}

    def _grouped(self, order: Parameters) -> list[Parameters]:
        return _buckets(order, self._bucket_bytes)

    def _prepare(self, number: int, parameter: nn.Parameter) -> None:
        if number not in self._filled:
            group = self._groups[number]
            bucket = parameter.new_empty(sum(p.numel() for p in group))
            self._filled[number] = bucket
            self._place_of |= zip(group, _views(bucket, group), strict=True)
        place = self._place_of[parameter]
        torch.div(_gradient(parameter), self.world_size, out=place)
        parameter.grad = place

    def _complete(self, number: int) -> Tensor:
        return self._filled[number]


class Torch(DataParallel):
    """torch's DistributedDataParallel, for comparison; its buckets are there all the time."""

    def __init__(self, module: nn.Module, bucket_bytes: int, *, find_unused: bool = False) -> None:
        super().__init__(module, find_unused=find_unused)
        known = inspect.signature(DistributedDataParallel).parameters
        newer = "forward_sync_buffers"  # of torch 2.13, which warns of the older name
        never: dict[str, Any] = {newer if newer in known else "broadcast_buffers": False}
        self._wrapped = DistributedDataParallel(
            module,
            bucket_cap_mb=bucket_bytes / _BYTES_PER_MIB,
            find_unused_parameters=find_unused,
            **never,
        )

    @property
    def model(self) -> nn.Module:
        """What to call for a forward pass."""
        return self._wrapped

    def alone(self) -> AbstractContextManager[None]:
        """Return a context whose backward passes add up gradients of this rank only."""
        return self._wrapped.no_sync()

    def finish(self) -> None:
        """Do nothing: backward ends when the gradients are the mean."""

    def _reduce(self) -> None:
        pass


def choose(
    strategy: str, module: nn.Module, bucket_bytes: int, *, find_unused: bool = False
) -> DataParallel:
    """Return the model with a strategy of the workload `ddp`."""
    match strategy:
        case "naive":
            return Naive(module, find_unused=find_unused)
        case "flat":
            return Flat(module, find_unused=find_unused)
        case "overlapped":
            return Overlapped(module, find_unused=find_unused)
        case "bucketed":
            return Bucketed(module, bucket_bytes, find_unused=find_unused)
    return Torch(module, bucket_bytes, find_unused=find_unused)


class DataParallelTraining(Training):
    """The steps of one rank: its part of the batch, and the mean of all ranks' gradients.

    Raises:
        UsageError: the ranks that are there are not those of the options.
    """

    def __init__(self, config: Ddp, device: str) -> None:
        number_format(config.dtype, device)
        rank = joined(config.world_size, device)
        super().__init__(config, device)
        self.parallel = choose(config.strategy, self.model, config.bucket_bytes)
        self._model = compiled(self.parallel.model, config.compile, device)
        # All ranks draw the same numbers, from the same seed: those that one process alone would.
        self._data = self._data.chunk(config.world_size, dim=2)[rank].contiguous()

    def _run(self) -> None:
        if self.optimizer is None:
            self.model.zero_grad()
        with self.parallel.alone():
            for tokens, targets in self._data[:-1]:
                self._micro_batch(tokens, targets)
        self._micro_batch(*self._data[-1])
        with tracelens.phase("communication"):
            self.parallel.finish()
        if self.optimizer is not None:
            with tracelens.phase("optimizer"):
                self.optimizer.step()
                self.optimizer.zero_grad()


def _agree(mine: list[tuple[str, tuple[int, ...], str]]) -> None:
    """Raise ValueError on all ranks unless all have the same parameters in the same order."""
    of_rank: list[list[tuple[str, tuple[int, ...], str]]] = [
        [] for _ in range(dist.get_world_size())
    ]
    dist.all_gather_object(of_rank, mine)
    for rank, other in enumerate(of_rank):
        if other != of_rank[0]:
            theirs, first = ({*one} for one in (other, of_rank[0]))
            example = next(iter(sorted(theirs ^ first)), "their order")
            raise ValueError(f"The models of rank {rank} and rank 0 differ, as in {example}.")


def _buckets(parameters: Parameters, most_bytes: int | None = None) -> list[Parameters]:
    """Group parameters of one number format and device, in their order, the first full first."""
    found: list[Parameters] = []
    last: dict[tuple[torch.dtype, torch.device], Parameters] = {}
    for parameter in parameters:
        kind = parameter.dtype, parameter.device
        group = last.get(kind)
        held = sum(p.nbytes for p in group or ())
        if group is None or (most_bytes is not None and held + parameter.nbytes > most_bytes):
            group = last[kind] = []
            found.append(group)
        group.append(parameter)
    place = {p: i for i, p in enumerate(parameters)}
    return sorted(found, key=lambda group: place[group[-1]])


def _views(flat: Tensor, group: Parameters) -> list[Tensor]:
    """Return the parts of a flat tensor that have the parameters' shapes, in their order."""
    parts = torch.split(flat, [p.numel() for p in group])
    return [part.view(p.shape) for p, part in zip(group, parts, strict=True)]


def _gradient(parameter: nn.Parameter) -> Tensor:
    if parameter.grad is None:
        raise RuntimeError("A parameter lost its gradient before it could be reduced.")
    return parameter.grad
