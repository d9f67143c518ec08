"""What a kernel is to the bench: shapes, inputs, implementations, a reference, and its cost.

A kernel is one file of the room `tracelens_kernels.ops`, with a constant `KERNEL`. The constant
itself is made without torch and triton; its functions import them when they are called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from tracelens import registry
from tracelens.errors import UsageError

if TYPE_CHECKING:
    from tracelens.workload import Work

Shape = Mapping[str, int]
"""Size of each axis, by name; yes and no (`causal`) are 1 and 0."""

Tensors = Mapping[str, Any]
"""Tensors by name; what a kernel takes, or what it gave."""

Config = Mapping[str, int]
"""What a kernel is compiled with: sizes of tiles, `num_warps`, `num_stages`, ..."""

OURS: Final = "tracelens"
"""The name of our implementation in every operation."""


def _never(_shape: Shape, _dtype: str) -> str:
    return ""


@dataclass(frozen=True)
class Implementation:
    """One way to do an operation.

    Attributes:
        summary: a few words: `torch.softmax`, `cuBLAS by torch.matmul`.
        build: takes the inputs and the shape; returns the call that is timed, which returns the
            outputs by the names that the reference gives them. Whatever is not part of the
            operation (a forward pass before a backward pass is timed, compiling) is done in
            building. The call works any number of times; it may overwrite what `in_place` names.
        why_not: the reason that it cannot do a shape in a format on this machine, or "".
    """

    summary: str
    build: Callable[[Tensors, Shape], Callable[[], Tensors]]
    why_not: Callable[[Shape, str], str] = _never


@dataclass(frozen=True)
class Operation:
    """What is timed as one: `forward`, `backward`, ...

    Attributes:
        work: the least it has to do, of a shape in a format (see `workload.Work`).
        inputs: takes shape, format, torch device and seed; returns random tensors that are valid
            inputs, the same for the same seed.
        reference: the outputs, by name, of plain PyTorch in higher precision (float64 where the
            size allows it); it leaves its inputs as they are.
        implementations: ours under `OURS`, and those it is held against; `eager` is plain PyTorch
            in the same precision.
        exact: outputs that must equal the reference's bit by bit. The error of the others, as
            ‖out − reference‖ / ‖reference‖, must not be more than twice eager's, or than
            `tolerance`, whichever is larger.
        tolerance: by format; what rounding alone may do.
        in_place: inputs that the call overwrites.
    """

    work: Callable[[Shape, str], Work]
    inputs: Callable[[Shape, str, str, int], Tensors]
    reference: Callable[[Tensors, Shape], Tensors]
    implementations: Mapping[str, Implementation]
    exact: tuple[str, ...] = ()
    tolerance: Mapping[str, float] = field(
        default_factory=lambda: {
            "fp32": 1e-5,
            "tf32": 2e-3,
            "fp16": 1e-3,
            "bf16": 8e-3,
            "fp8": 5e-2,
        }
    )
    in_place: tuple[str, ...] = ()


@dataclass(frozen=True)
class Tuning:
    """How the best configuration of a kernel is looked for.

    Attributes:
        key: shapes and formats with the same key share a configuration; a short readable text
            (`columns=8192 bf16`).
        default: the configuration where none was tuned.
        coarse: what is tried first; every one gives correct results.
        fine: neighbours of the best of these.
    """

    key: Callable[[Shape, str], str]
    default: Callable[[Shape, str], Config]
    coarse: Callable[[Shape, str], Iterable[Config]]
    fine: Callable[[Config, Shape, str], Iterable[Config]] = lambda _best, _shape, _dtype: ()


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """One kernel, as the bench, the workloads and `tracelens list` know it.

    Attributes:
        axes: names of the sizes of a shape, in the order in which `--shapes 8192x8192` gives
            them, each with its default (None: must be given).
        shapes: those that are measured unless others are asked for, some of them irregular.
        dtypes: formats of its inputs; the first is the default.
        operations: what can be timed, by name; the first is the default.
        tuning: by operation, where there is anything to tune.
        function: loads and returns the public function (or class) that users call.
    """

    axes: Mapping[str, int | None]
    shapes: tuple[Shape, ...]
    dtypes: tuple[str, ...]
    operations: Mapping[str, Operation]
    tuning: Mapping[str, Tuning] = field(default_factory=dict)
    function: Callable[[], Any]


def find(name: str) -> Kernel:
    """Return the kernel of a name: `softmax`, `flash-attention`.

    Raises:
        UsageError: there is none; the message names the nearest.
    """
    found: Kernel = registry.load("kernel", name)
    return found


def parse_shape(kernel: Kernel, text: str) -> dict[str, int]:
    """Return the shape that `4x16x2048x64` or `batch=4,heads=16,...` stands for.

    Raises:
        UsageError: an axis is unknown or missing, or no number of at least 0.
    """
    names = list(kernel.axes)
    if "=" in text:
        pairs = [part.partition("=")[::2] for part in text.split(",")]
    else:
        sizes = text.lower().replace("×", "x").split("x")
        if len(sizes) > len(names):
            raise UsageError(f"--shapes {text}: there are {len(names)} axes: {'x'.join(names)}.")
        pairs = list(zip(names, sizes, strict=False))
    shape: dict[str, int] = {}
    for raw, size in pairs:
        name = raw.strip().replace("-", "_")
        if name not in kernel.axes:
            raise UsageError(f"--shapes {text}: {registry.unknown('axis', name, kernel.axes)}")
        if not size.strip().isdecimal():
            raise UsageError(f"--shapes {text}: {name} is {size.strip()!r}, which is no number.")
        shape[name] = int(size)
    return complete(kernel, shape)


def complete(kernel: Kernel, shape: Shape) -> dict[str, int]:
    """Return a shape with every axis, in order.

    Raises:
        UsageError: an axis that has no default is missing, or 0.
    """
    found: dict[str, int] = {}
    for name, default in kernel.axes.items():
        size = shape.get(name, default)
        if size is None:
            raise UsageError(f"A shape needs {name}: {'x'.join(kernel.axes)}.")
        if size == 0 and default is None:
            raise UsageError(f"A shape needs {name} to be at least 1.")
        found[name] = size
    return found


def spell(shape: Shape) -> str:
    """Return a shape as people and `--shapes` write it: `batch=4,heads=16`."""
    return ",".join(f"{name}={size}" for name, size in shape.items())
