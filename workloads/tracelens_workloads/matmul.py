"""One matrix product after another: what the device's matrix units reach at a shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from tracelens.workload import DTYPES, Cost, Work, option
from tracelens_workloads._layers import Layer, repeats_option

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from tracelens.workload import Program


@dataclass(frozen=True, kw_only=True)
class Matmul(Layer):
    """C[m, n] = A[m, k] · B[k, n], `repeats` times a step, on random numbers."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "square-4096": {"m": 4096, "n": 4096, "k": 4096},
        "square-8192": {"m": 8192, "n": 8192, "k": 8192},
    }
    sizes: ClassVar[tuple[str, ...]] = ("batch", "m", "n", "k")
    halved: ClassVar[tuple[str, ...]] = ("batch", "m", "n", "k")

    m: int = option(4096, "Rows of the result.")
    n: int = option(4096, "Columns of the result.")
    k: int = option(4096, "The dimension that is summed over.")
    batch: int = option(1, "Independent products that one call does.")
    layout: str = option(
        "nn", "Which of A and B are stored as their transposes (t).", choices=("nn", "nt", "tn")
    )
    dtype: str = option("bf16", "Format of the elements.", choices=DTYPES)
    repeats: int = repeats_option(10)

    def cost(self) -> Cost:
        """Count 2·m·n·k operations a product; A, B and C cross the memory bus once each."""
        elements = self.batch * (self.m * self.k + self.k * self.n + self.m * self.n)
        size = elements * self.element_bytes
        work = Work("matmul", 2 * self.batch * self.m * self.n * self.k, size, self.dtype)
        return self.repeated([work], [], {"operands": size}, items=self.batch, unit="products")

    def program(self, device: str) -> Program:
        """Make the operands."""
        import torch

        from tracelens_workloads._program import LayerProgram
        from tracelens_workloads._torch import number_format, random

        number_format(self.dtype, device)
        batch = (self.batch,) if self.batch > 1 else ()

        def operand(rows: int, columns: int, *, transposed: bool) -> Tensor:
            if transposed:
                return random((*batch, columns, rows), self.dtype, device).mT
            return random((*batch, rows, columns), self.dtype, device)

        a = operand(self.m, self.k, transposed=self.layout[0] == "t")
        b = operand(self.k, self.n, transposed=self.layout[1] == "t")
        c = operand(self.m, self.n, transposed=False)
        return LayerProgram(self, device, lambda a, b: torch.matmul(a, b, out=c), [a, b])


WORKLOAD = Matmul
