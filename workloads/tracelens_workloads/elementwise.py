"""One operation on every element of large vectors: what the memory's bandwidth reaches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

from tracelens.workload import Cost, Work, option
from tracelens_workloads._layers import ELEMENT_DTYPES, Layer, repeats_option

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tracelens.workload import Program

_TRAFFIC: Final[Mapping[str, tuple[int, int, int]]] = {
    "fill": (0, 1, 0),
    "copy": (1, 1, 0),
    "scale": (1, 1, 1),
    "add": (2, 1, 1),
    "triad": (2, 1, 2),
    "gelu": (1, 1, 5),
}
"""Operation -> vectors read, vectors written, operations of an element."""


@dataclass(frozen=True, kw_only=True)
class Elementwise(Layer):
    """What STREAM does (McCalpin 1995), and GELU; results always go to the same place."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "copy-2gb": {"operation": "copy", "elements": 2**29},
        "triad-2gb": {"operation": "triad", "elements": 2**29},
    }
    sizes: ClassVar[tuple[str, ...]] = ("elements",)
    halved: ClassVar[tuple[str, ...]] = ("elements",)

    operation: str = option(
        "copy",
        "What happens to each: c = 2, c = a, c = 2·a, c = a + b, c = a + 2·b, or c = gelu(a).",
        choices=_TRAFFIC,
    )
    elements: int = option(2**26, "Elements of each vector.")
    dtype: str = option("fp32", "Format of the elements.", choices=ELEMENT_DTYPES)
    repeats: int = repeats_option(10)

    def cost(self) -> Cost:
        """Count the vectors that the operation reads and writes."""
        read, written, flops = _TRAFFIC[self.operation]
        size = self.elements * self.element_bytes
        work = Work(
            self.operation, flops * self.elements, (read + written) * size, self.dtype, matmul=False
        )
        memory = {"operands": (read + written) * size}
        return self.repeated([work], [], memory, items=self.elements, unit="elements")

    def program(self, device: str) -> Program:
        """Make the vectors."""
        import torch

        from tracelens_workloads._program import LayerProgram
        from tracelens_workloads._torch import number_format, random

        number_format(self.dtype, device)
        read, written, _ = _TRAFFIC[self.operation]
        vectors = [random((self.elements,), self.dtype, device) for _ in range(read + written)]
        operations: dict[str, Callable[..., Any]] = {
            "fill": lambda c: c.fill_(2),
            "copy": lambda a, c: c.copy_(a),
            "scale": lambda a, c: torch.mul(a, 2, out=c),
            "add": lambda a, b, c: torch.add(a, b, out=c),
            "triad": lambda a, b, c: torch.add(a, b, alpha=2, out=c),
            "gelu": lambda a, c: torch.ops.aten.gelu.out(a, out=c),
        }
        return LayerProgram(self, device, operations[self.operation], vectors)


WORKLOAD = Elementwise
