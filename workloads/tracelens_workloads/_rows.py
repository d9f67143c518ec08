"""What workloads share that make each row of a matrix out of that row alone: norms, softmax."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from tracelens.workload import Cost, Work, option
from tracelens_workloads._layers import (
    ELEMENT_DTYPES,
    Layer,
    compile_option,
    mode_option,
    repeats_option,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

    from tracelens.workload import Program


@dataclass(frozen=True, kw_only=True)
class RowWise(Layer):
    """y[rows, columns] of x[rows, columns], perhaps with vectors[columns] that are learned.

    Forward reads x and writes y; backward reads dy and one of x and y, and writes dx. The vectors
    are read twice and their gradients written; statistics of rows are counted as nothing.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "8192x8192": {"rows": 8192, "columns": 8192},
        "4096x16384": {"rows": 4096, "columns": 16384},
        "8192x32768": {"rows": 8192, "columns": 32768},
    }
    sizes: ClassVar[tuple[str, ...]] = ("rows", "columns")
    halved: ClassVar[tuple[str, ...]] = ("rows", "columns")
    part: ClassVar[str]
    """What the work is called."""
    flops: ClassVar[tuple[int, int]]
    """Operations of an element, forward and backward."""
    vectors: ClassVar[int] = 0
    """How many vectors are learned."""

    rows: int = option(4096, "Rows of the matrix.")
    columns: int = option(4096, "Columns of the matrix, over which a row is summed.")
    dtype: str = option("bf16", "Format of the elements.", choices=ELEMENT_DTYPES)
    mode: str = mode_option()
    repeats: int = repeats_option()
    compile: str = compile_option()

    def cost(self) -> Cost:
        """Count two matrices of traffic forward and three backward, and the vectors."""
        elements, learned = self.rows * self.columns, self.vectors * self.columns
        moved = (2 * elements + learned, 3 * elements + 2 * learned - self._biases)
        size, passes = self.element_bytes, 1 + self.trains
        forward, backward = (
            Work(self.part, per_element * elements, moved_ * size, self.dtype, matmul=False)
            for per_element, moved_ in zip(self.flops, moved, strict=True)
        )
        memory = {
            "parameters": learned * size,
            "gradients": learned * size * self.trains,
            "inputs": elements * size * passes,
            "outputs": elements * size * passes,
        }
        return self.repeated(
            [forward], [backward], memory, items=self.rows, unit="rows", parameters=learned
        )

    @property
    def _biases(self) -> int:
        """Elements of a second vector, which only is added: backward does not read it."""
        return max(self.vectors - 1, 0) * self.columns

    def program(self, device: str) -> Program:
        """Make the matrix, the gradient of the result, and what is learned."""
        from tracelens_workloads._program import LayerProgram
        from tracelens_workloads._torch import number_format, random

        number_format(self.dtype, device)
        x = random((self.rows, self.columns), self.dtype, device)
        gradients = [random(x.shape, self.dtype, device)] * self.trains
        return LayerProgram(self, device, self.layer(device), [x], gradients=gradients)

    def layer(self, device: str) -> Callable[[Tensor], Tensor]:
        """Return what turns x into y."""
        raise NotImplementedError
