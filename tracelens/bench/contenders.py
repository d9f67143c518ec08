"""Those that are measured beside one another: built, checked before and after, and built anew."""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from tracelens import kernel as kernels
from tracelens import registry, tuned
from tracelens.bench import compiling, gate
from tracelens.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tracelens.bench.case import Target
    from tracelens.bench.cell import Cell
    from tracelens.kernel import Implementation, Kernel, Operation, Tensors

    Call = Callable[[], object]

_EAGER: Final = "eager"
_MOST_SETS: Final = 16
_CACHES: Final = 2
"""Sets of inputs that take turns are together that many times as large as the cache."""

_LARGE: Final = 16
"""A set that is that many times as large as the cache needs no second one."""

_ROOM: Final = 0.15
"""Nor is there one for a set that takes this share of the free memory."""

_CHECK_SEED: Final = 1_000_003
"""The first check has inputs that no sample has."""


class WrongError(Exception):
    """Outputs are not what they should be."""


@dataclass
class Contender:
    """One implementation, or one configuration of ours.

    Attributes:
        name: of the implementation, or of the candidate.
        implementation: what builds its calls.
        force: makes the kernels take a configuration while it lasts.
        config: what it is compiled with; empty of all but ours.
        calls: one for each set of inputs.
        inputs: the first set, as its calls see it.
        build_s: building, until the end of the first call.
        compile_s: by how much that is more than the second call.
        compiled: what was compiled and what was not.
        errors: of its outputs, as they were checked last.
        allowed: how much these may be.
        missing: outputs that it does not give.
    """

    name: str
    implementation: Implementation
    force: Callable[[], contextlib.AbstractContextManager[None]]
    config: dict[str, int] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    inputs: Tensors = field(default_factory=dict)
    build_s: float = 0.0
    compile_s: float = 0.0
    compiled: str = ""
    errors: dict[str, float] = field(default_factory=dict)
    allowed: dict[str, float] = field(default_factory=dict)
    missing: tuple[str, ...] = ()

    def turns(self) -> Iterator[Call]:
        """Give its calls in turn, without end."""
        return itertools.cycle(self.calls)


@dataclass(frozen=True)
class Subject:
    """The operation of a cell on its device.

    Attributes:
        cell: what is asked.
        target: the device.
        kernel: whose operation it is.
        name: of the operation.
        operation: it.
    """

    cell: Cell
    target: Target
    kernel: Kernel
    name: str
    operation: Operation

    def inputs(self, seed: int) -> Tensors:
        """Return random inputs."""
        cell = self.cell
        return self.operation.inputs(cell.shape, cell.dtype, self.target.device, seed)

    def reference(self, inputs: Tensors) -> Tensors:
        """Return the outputs that are right."""
        return self.operation.reference(inputs, self.cell.shape)

    def restore(self, inputs: Tensors, pristine: Tensors) -> None:
        """Undo what calls did to inputs that they may overwrite."""
        torch = self.target.torch
        with torch.no_grad():
            for name in self.operation.in_place:
                pairs = zip(gate.tensors(inputs[name]), gate.tensors(pristine[name]), strict=True)
                for one, as_it_was in pairs:
                    one.copy_(as_it_was)

    def wait(self) -> None:
        """Wait until the device is idle."""
        if self.target.is_gpu:
            self.target.torch.cuda.synchronize(self.target.device)

    def free(self) -> None:
        """Give memory back that nothing is in."""
        if self.target.is_gpu:
            self.target.torch.cuda.empty_cache()


def subject(cell: Cell, target: Target) -> Subject:
    """Return what is measured.

    Raises:
        UsageError: there is no such kernel, operation, shape or format.
    """
    kernel = kernels.find(cell.kernel)
    name = cell.operation or next(iter(kernel.operations))
    if name not in kernel.operations:
        raise UsageError(registry.unknown("operation", name, kernel.operations))
    if cell.dtype not in kernel.dtypes:
        raise UsageError(registry.unknown("format", cell.dtype, dict.fromkeys(kernel.dtypes)))
    for axis in cell.shape:
        if axis not in kernel.axes:
            raise UsageError(registry.unknown("axis", axis, kernel.axes))
    whole = replace(cell, shape=kernels.complete(kernel, cell.shape))
    return Subject(whole, target, kernel, name, kernel.operations[name])


def contenders(of: Subject) -> list[Contender]:
    """Return those that the cell asks for, what others are held against first.

    Raises:
        UsageError: one of them is not known.
    """
    cell, known = of.cell, of.operation.implementations
    names = cell.implementations or (() if cell.candidates else tuple(known))
    for name in names:
        if name not in known:
            raise UsageError(registry.unknown("implementation", name, known))
    ordered = sorted(names, key=lambda name: name != kernels.OURS)
    found = [Contender(name, known[name], _forcing(of, name)) for name in ordered]
    if cell.candidates:
        ours = known[kernels.OURS]
        found += [
            Contender(name, ours, _forced(of, config), dict(config))
            for name, config in cell.candidates.items()
        ]
    return found


def _forcing(of: Subject, name: str) -> Callable[[], contextlib.AbstractContextManager[None]]:
    """Return what makes an implementation take the configuration that the cell asks for."""
    if name == kernels.OURS and of.cell.config == "default":
        return _forced(of, None)
    return contextlib.nullcontext


def _forced(
    of: Subject, config: dict[str, int] | None
) -> Callable[[], contextlib.AbstractContextManager[None]]:
    stem = of.cell.kernel.replace("-", "_")
    return lambda: tuned.forced(stem, of.name, config)


def check_first(of: Subject, one: Contender, pristine: Tensors, right: Right) -> None:
    """Build one on inputs of its own, time its first call, and check what it gives.

    Raises:
        WrongError: its outputs are not right, or it overwrites what it should not.
        Exception: whatever it raises.
    """
    torch = of.target.torch
    inputs = of.inputs(_check_seed(of))
    with one.force():
        with compiling.seen() as seen:
            begin = time.perf_counter()
            call = one.implementation.build(inputs, of.cell.shape)
            call()
            of.wait()
            one.build_s = time.perf_counter() - begin
        begin = time.perf_counter()
        call()
        of.wait()
        one.compile_s = max(0.0, one.build_s - (time.perf_counter() - begin))
        one.compiled = seen.text
        outputs = gate.poisoned(call, inputs, lambda: of.restore(inputs, pristine), torch)
        of.wait()
    if spoilt := gate.overwritten(inputs, pristine, of.operation.in_place):
        raise WrongError(f"It overwrites its inputs: {', '.join(spoilt)}.")
    _judge(of, one, outputs, right)


def check_again(of: Subject, one: Contender, pristine: Tensors, right: Right) -> None:
    """Check what the calls that were timed give, on the inputs that they were timed on.

    Raises:
        WrongError: it is not right.
        Exception: whatever the call raises.
    """

    def restore() -> None:
        of.restore(one.inputs, pristine)

    with one.force():
        outputs = gate.poisoned(one.calls[0], one.inputs, restore, of.target.torch)
        of.wait()
    _judge(of, one, outputs, right)


@dataclass(frozen=True)
class Right:
    """What is right.

    Attributes:
        reference: outputs in higher precision.
        allowed: by output, the error that it may have.
    """

    reference: Tensors
    allowed: dict[str, float]


def first_check(of: Subject) -> tuple[Tensors, Right]:
    """Return the inputs of the first check, and what is right for them."""
    pristine = of.inputs(_check_seed(of))
    return pristine, right(of, pristine)


def right(of: Subject, pristine: Tensors) -> Right:
    """Return what is right for some inputs."""
    reference = of.reference(pristine)
    eager = _eager(of, pristine, reference)
    return Right(reference, gate.allowed(of.operation, reference, of.cell.dtype, eager))


def build(of: Subject, one: Contender, sets: list[Tensors]) -> None:
    """Build the calls that are timed, one for each set of inputs, or as many as there is room for.

    Raises:
        Exception: whatever building or a first call raises.
    """
    for inputs in sets:
        try:
            own = _own(of, inputs)
            with one.force():
                call = one.implementation.build(own, of.cell.shape)
                call()
                of.wait()
        except of.target.torch.OutOfMemoryError:
            if not one.calls:
                raise
            of.free()
            return
        one.inputs = one.inputs or own
        one.calls.append(call)


def twin(of: Subject, one: Contender, name: str, sets: list[Tensors]) -> Contender:
    """Return the same on copies of its inputs: how far that is from it is noise.

    Where buffers lie in memory is worth some tenths of a percent. If there is no room for copies,
    its calls are those of the other.
    """
    found = replace(one, name=name, calls=[], inputs={})
    if sum(map(gate.size_bytes, sets)) < _ROOM * of.target.free_bytes:
        try:
            build(of, found, [_copied(inputs) for inputs in sets])
        except of.target.torch.OutOfMemoryError:
            of.free()
    if not found.calls:
        found.calls = one.calls
    return found


def input_sets(of: Subject) -> list[Tensors]:
    """Return sets of inputs that do not fit into the cache together; one if all is to be hot."""
    first = of.inputs(of.cell.seed)
    size = gate.size_bytes(first)
    return [first, *(of.inputs(of.cell.seed + i) for i in range(1, _count(of, size)))]


def _count(of: Subject, size: int) -> int:
    cache = of.target.l2_bytes
    is_large = 0 < _LARGE * cache <= size or size > _ROOM * of.target.free_bytes
    if is_large or "cold" not in of.cell.l2:
        return 1
    return min(_MOST_SETS, 1 + math.ceil(_CACHES * max(cache, 1) / max(size, 1)))


def _check_seed(of: Subject) -> int:
    return of.cell.seed + _CHECK_SEED


def _own(of: Subject, inputs: Tensors) -> Tensors:
    """Return inputs of which those that are overwritten are nobody else's."""
    return {
        name: _copied(value) if name in of.operation.in_place else value
        for name, value in inputs.items()
    }


def _copied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _copied(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_copied(part) for part in value)
    if not hasattr(value, "untyped_storage"):
        return value
    return value.detach().clone().requires_grad_(value.requires_grad)


def _eager(of: Subject, pristine: Tensors, reference: Tensors) -> gate.Found:
    """Return how far plain PyTorch is off; nothing if it cannot do it here, or need not."""
    eager = of.operation.implementations.get(_EAGER)
    if eager is None or set(reference) <= set(of.operation.exact):
        return gate.Found()
    shape, dtype = of.cell.shape, of.cell.dtype
    try:
        if eager.why_not(shape, dtype):
            return gate.Found()
        outputs = eager.build(_own(of, pristine), shape)()
        of.wait()
        return gate.compare(outputs, reference, of.operation.exact)
    except Exception:  # noqa: BLE001 (what it says is said when it is its turn)
        return gate.Found()


def _judge(of: Subject, one: Contender, outputs: object, right: Right) -> None:
    found = gate.compare(outputs, right.reference, of.operation.exact)
    one.errors, one.missing = found.errors, found.missing
    one.allowed = {name: right.allowed[name] for name in found.errors}
    if wrong := found.verdict(right.allowed):
        raise WrongError(f"{wrong}.")
    if one.implementation is of.operation.implementations.get(kernels.OURS) and one.missing:
        raise WrongError(f"It does not give {', '.join(one.missing)}.")
