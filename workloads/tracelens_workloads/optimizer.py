"""The optimizer's step alone, on parameters shaped like GPT-2's: many kernels, or few."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar, Final

from tracelens.errors import UsageError
from tracelens.workload import Cost, Work, option
from tracelens_workloads._layers import ELEMENT_DTYPES, Layer, repeats_option

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tracelens.workload import Program

SIZES: Final[Mapping[str, tuple[int, int]]] = {
    "small": (12, 768),
    "medium": (24, 1024),
    "large": (36, 1280),
    "xl": (48, 1600),
    "2.7b": (32, 2560),
}
"""Size of GPT-2 (and of the course's largest) -> layers, width."""
_VOCAB: Final = 50257
_POSITIONS: Final = 1024


@dataclass(frozen=True, kw_only=True)
class Optimizer(Layer):
    """One step of AdamW, or of SGD with or without momentum, and nothing else.

    AdamW takes 14 operations a number (decay 1, the mean 3, the mean square 4, its corrected root
    3, the change 3) and reads four numbers and writes three: 28 bytes in fp32. SGD takes 2 and
    moves three; with momentum it takes 4 and moves five.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        f"gpt2-{size}": {"size": size} for size in SIZES
    } | {"537m": {"millions": 537}}

    size: str = option("small", "Whose parameters: a size of GPT-2.", choices=SIZES)
    millions: int | None = option(
        None, "Million numbers instead, in as many of GPT-2 small's layers as they fill."
    )
    optimizer: str = option("adamw", "Which optimizer.", choices=("adamw", "sgd"))
    momentum: float = option(0.0, "Momentum of SGD.")
    implementation: str = option(
        "foreach",
        "Lists of tensors per kernel, one fused kernel for all of it (torch's, or ours: kernel), "
        "or tensor by tensor.",
        choices=("foreach", "fused", "for-loop", "kernel"),
    )
    dtype: str = option(
        "fp32", "Format of the parameters, gradients and state.", choices=ELEMENT_DTYPES
    )
    repeats: int = repeats_option()

    def check(self) -> None:
        """Raise UsageError unless the numbers are positive and momentum is SGD's."""
        super().check()
        if self.millions is not None and self.millions < 1:
            raise UsageError(f"--millions is {self.millions}; it must be at least 1.")
        if not 0 <= self.momentum < 1:
            raise UsageError(f"--momentum is {self.momentum}; it must be at least 0 and below 1.")
        if self.momentum and self.optimizer != "sgd":
            raise UsageError("--momentum is for --optimizer sgd; AdamW has its own.")

        if self.implementation == "kernel" and self.optimizer == "sgd":
            raise UsageError("--implementation kernel is AdamW alone; leave --optimizer sgd out.")

    def shapes(self) -> list[tuple[int, ...]]:
        """Return the shapes of the parameters, in the order of the model."""
        if self.millions is None:
            layers, width = SIZES[self.size]
            blocks = [shape for _ in range(layers) for shape in _block(width)]
            return [(_VOCAB, width), (_POSITIONS, width), *blocks, (width,), (width,)]
        return list(_filled(self.millions * 10**6, SIZES["small"][1]))

    @property
    def _numbers(self) -> int:
        return sum(prod(shape) for shape in self.shapes())

    def cost(self) -> Cost:
        """Count each number read once and written once, in one pass over all of them."""
        flops, moved, state = {
            "adamw": (14, 7, 2),
            "sgd": (4, 5, 1) if self.momentum else (2, 3, 0),
        }[self.optimizer]
        numbers, size = self._numbers, self.element_bytes
        work = Work(
            self.optimizer, flops * numbers, moved * size * numbers, self.dtype, matmul=False
        )
        memory = {
            "parameters": numbers * size,
            "gradients": numbers * size,
            "optimizer state": state * numbers * size + self._counter_bytes(),
            "temporaries": self._temporary_numbers() * size,
        }
        return self.repeated(
            [work],
            [],
            memory,
            items=numbers,
            unit="parameters",
            parameters=numbers,
            phase="optimizer",
        )

    def _counter_bytes(self) -> int:
        """Bytes of torch's AdamW's count of steps, which each tensor has in fp32."""
        counted = self.optimizer == "adamw" and self.implementation != "kernel"
        return 4 * len(self.shapes()) if counted else 0

    def _temporary_numbers(self) -> int:
        """Numbers that stand in memory only within the step: AdamW's roots of the mean squares."""
        if self.optimizer == "sgd" or self.implementation in ("fused", "kernel"):
            return 0
        if self.implementation == "foreach":
            return self._numbers
        return 2 * max(prod(shape) for shape in self.shapes())

    def variants(self) -> Iterator[Optimizer]:
        """Give the smaller sizes of GPT-2, or fewer millions."""
        millions = self.millions
        if millions is None:
            millions = 128
            smaller = list(SIZES)[: list(SIZES).index(self.size)]
            yield from (replace(self, size=size) for size in reversed(smaller))
        while (millions := millions // 2) >= 1:
            yield replace(self, millions=millions)

    def program(self, device: str) -> Program:
        """Make the parameters, their gradients, and the optimizer with its state."""
        from tracelens_workloads._optimizer import OptimizerProgram
        from tracelens_workloads._torch import number_format

        number_format(self.dtype, device)
        return OptimizerProgram(self, device)


def _block(width: int) -> Sequence[tuple[int, ...]]:
    """Return the shapes of one of GPT-2's blocks: norms, attention and MLP."""
    norm = [(width,), (width,)]
    matrices = [(3 * width, width), (width, width), (4 * width, width), (width, 4 * width)]
    qkv, projection, up, down = ([shape, shape[:1]] for shape in matrices)
    return [*norm, *qkv, *projection, *norm, *up, *down]


def _filled(numbers: int, width: int) -> Iterator[tuple[int, ...]]:
    """Give shapes of blocks until they hold so many numbers; the last is cut to fit."""
    while True:
        for shape in _block(width):
            if prod(shape) >= numbers:
                yield (numbers,)
                return
            yield shape
            numbers -= prod(shape)


WORKLOAD = Optimizer
