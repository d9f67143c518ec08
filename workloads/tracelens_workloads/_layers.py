"""What workloads of one part of a model share: forward, or forward and backward, repeated."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

from tracelens.errors import UsageError
from tracelens.workload import DTYPES, Cost, Work, Workload, option

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

FORWARD: Final = "forward"
FORWARD_BACKWARD: Final = "forward-backward"
COMPILE_MODES: Final = ("none", "default", "reduce-overhead", "max-autotune")
ELEMENT_DTYPES: Final = ("fp32", "bf16", "fp16")
"""Formats of work that no matrix unit does, and that TF32 therefore does not change."""


def mode_option() -> Any:
    """Return the option `--mode`."""
    text = "Whether to go forward only, or backward too."
    return option(FORWARD_BACKWARD, text, choices=(FORWARD, FORWARD_BACKWARD))


def repeats_option(default: int = 1) -> Any:
    """Return the option `--repeats`."""
    return option(default, "How often one step does it; more for work that takes microseconds.")


def compile_option() -> Any:
    """Return the option `--compile`."""
    return option("none", "Mode of torch.compile, if it goes through it.", choices=COMPILE_MODES)


class Layer(Workload):
    """A part of a model, alone. Not a dataclass: each layer puts its own options first."""

    dtype: str
    mode: str = FORWARD
    repeats: int
    compile: str = "none"
    sizes: ClassVar[tuple[str, ...]] = ()
    """Options that are at least 1."""
    halved: ClassVar[tuple[str, ...]] = ()
    """Options that smaller variants halve, in this order."""

    @property
    def trains(self) -> bool:
        """Whether it goes backward."""
        return self.mode == FORWARD_BACKWARD

    @property
    def element_bytes(self) -> int:
        """Bytes of one element."""
        return DTYPES[self.dtype]

    def check(self) -> None:
        """Raise UsageError unless every size is at least 1."""
        for name in (*self.sizes, "repeats"):
            if (size := getattr(self, name)) < 1:
                raise UsageError(f"--{name.replace('_', '-')} is {size}; it must be at least 1.")

    def variants(self) -> Iterator[Self]:
        """Halve the sizes, one after another, for as long as the options remain valid."""
        smaller = self
        for name in self.halved:
            while (size := getattr(smaller, name) // 2) >= 1:
                smaller = replace(smaller, **{name: size})
                try:
                    smaller.check()
                except UsageError:
                    break
                yield smaller

    def repeated(
        self,
        forward: Iterable[Work],
        backward: Iterable[Work],
        memory: Mapping[str, int],
        *,
        items: int,
        unit: str = "tokens",
        parameters: int = 0,
        phase: str = FORWARD,
    ) -> Cost:
        """Return the cost of a step from that of one pass; `phase` is the name of the first."""
        phases = {phase: forward, "backward": backward} if self.trains else {phase: forward}
        return Cost(
            phases={name: tuple(self._times(works)) for name, works in phases.items()},
            memory=memory,
            parameters=parameters,
            items=items * self.repeats,
            unit=unit,
        )

    def _times(self, works: Iterable[Work]) -> Iterator[Work]:
        for work in works:
            many = self.repeats
            yield replace(work, flops=work.flops * many, bytes=work.bytes * many)


def linear_work(
    part: str,
    rows: int,
    inputs: int,
    outputs: int,
    dtype: str,
    *,
    bias: bool = False,
    matrices: int = 1,
) -> tuple[Work, Work]:
    """Return what y = x·Wᵀ (+ b) costs, forward and backward, for x[rows, inputs].

    Backward computes dx = dy·W and dW = dyᵀ·x, each as much arithmetic as forward, from one
    reading of dy, x and W.

    Args:
        part: its name.
        rows: of x, over all the matrices.
        inputs: columns of x.
        outputs: columns of y.
        dtype: of everything.
        bias: whether b is added.
        matrices: how many W there are, each for some of the rows.
    """
    x, y, flops = rows * inputs, rows * outputs, 2 * rows * inputs * outputs
    weights = matrices * (inputs * outputs + bias * outputs)
    size = DTYPES[dtype]
    return (
        Work(part, flops, (x + weights + y) * size, dtype),
        Work(part, 2 * flops, (2 * x + 2 * weights - matrices * bias * outputs + y) * size, dtype),
    )


def activation_work(name: str, elements: int, dtype: str) -> tuple[Work, Work]:
    """Return what an activation costs, forward and backward, with that many results.

    GELU, x·Φ(x), has one operand; SwiGLU, silu(a)·b, has two. Operations of an element: GELU
    divides, adds, multiplies twice and takes erf, and backward Φ(x) + x·φ(x) times dy; SwiGLU has
    a sigmoid (3) and two products, and backward both of its partial derivatives. An elementary
    function counts as one.
    """
    tensors, flops = {"gelu": ((2, 3), (5, 11)), "swiglu": ((3, 5), (5, 11))}[name]
    forward, backward = (
        Work(name, of * elements, moved * elements * DTYPES[dtype], dtype, matmul=False)
        for of, moved in zip(flops, tensors, strict=True)
    )
    return forward, backward
