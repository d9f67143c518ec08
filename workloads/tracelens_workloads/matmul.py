"""One matrix product after another: what the device's matrix units reach at a shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from tracelens.errors import UsageError
from tracelens.workload import DTYPES, Cost, Work, Workload, option

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tracelens.workload import Program


@dataclass(frozen=True, kw_only=True)
class Matmul(Workload):
    """C[m, n] = A[m, k] · B[k, n], `repeats` times a step, on random numbers."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "square-8192": {"m": 8192, "n": 8192, "k": 8192},
    }

    m: int = option(4096, "Rows of the result.")
    n: int = option(4096, "Columns of the result.")
    k: int = option(4096, "The dimension that is summed over.")
    dtype: str = option("bf16", "Format of the elements.", choices=DTYPES)
    repeats: int = option(10, "Products in one step.")

    def check(self) -> None:
        """Raise UsageError unless every size is at least 1."""
        if min(self.m, self.n, self.k, self.repeats) < 1:
            raise UsageError("--m, --n, --k and --repeats are at least 1.")

    def cost(self) -> Cost:
        """Count 2·m·n·k operations a product; A, B and C cross the memory bus once each."""
        elements = self.m * self.k + self.k * self.n + self.m * self.n
        size = DTYPES[self.dtype]
        product = Work(
            "matmul",
            flops=2 * self.m * self.n * self.k * self.repeats,
            bytes=elements * size * self.repeats,
            dtype=self.dtype,
        )
        return Cost(
            phases={"forward": (product,)},
            memory={"operands": elements * size},
            items=self.repeats,
            unit="products",
        )

    def program(self, device: str) -> Program:
        """Allocate the operands."""
        import tracelens
        from tracelens_workloads._torch import number_format, random, synchronize

        number_format(self.dtype, device)
        a = random((self.m, self.k), self.dtype, device)
        b = random((self.k, self.n), self.dtype, device)
        c = a @ b
        repeats = self.repeats

        class _Program:
            def step(self) -> None:
                import torch

                with tracelens.step():
                    with tracelens.phase("forward"):
                        for _ in range(repeats):
                            torch.matmul(a, b, out=c)
                    synchronize(device)

        return _Program()


WORKLOAD = Matmul
