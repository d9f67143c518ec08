"""One linear layer: the matrix product that most of a transformer's time goes into."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from tracelens.workload import DTYPES, Cost, option
from tracelens_workloads._layers import (
    Layer,
    compile_option,
    linear_work,
    mode_option,
    repeats_option,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tracelens.workload import Program


@dataclass(frozen=True, kw_only=True)
class Linear(Layer):
    """y[tokens, outputs] = x[tokens, inputs] · Wᵀ + b."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "gpt2-xl-qkv": {"tokens": 4096, "inputs": 1600, "outputs": 4800},
        "gpt2-xl-head": {"tokens": 4096, "inputs": 1600, "outputs": 50257, "bias": False},
        "8192x11008x4096": {"tokens": 8192, "inputs": 4096, "outputs": 11008, "bias": False},
    }
    sizes: ClassVar[tuple[str, ...]] = ("tokens", "inputs", "outputs")
    halved: ClassVar[tuple[str, ...]] = ("tokens", "outputs", "inputs")

    tokens: int = option(4096, "Rows of the input.")
    inputs: int = option(1024, "Columns of the input.")
    outputs: int = option(4096, "Columns of the output.")
    bias: bool = option(True, "Whether a bias is added.")
    dtype: str = option("bf16", "Format of the elements.", choices=DTYPES)
    mode: str = mode_option()
    repeats: int = repeats_option()
    compile: str = compile_option()

    def cost(self) -> Cost:
        """Count 2·tokens·inputs·outputs operations forward, and twice as many backward."""
        forward, backward = linear_work(
            "linear", self.tokens, self.inputs, self.outputs, self.dtype, bias=self.bias
        )
        parameters = self.inputs * self.outputs + self.bias * self.outputs
        size, passes = self.element_bytes, 1 + self.trains
        memory = {
            "parameters": parameters * size,
            "gradients": parameters * size * self.trains,
            "inputs": self.tokens * self.inputs * size * passes,
            "outputs": self.tokens * self.outputs * size * passes,
        }
        return self.repeated(
            [forward], [backward], memory, items=self.tokens, parameters=parameters
        )

    def program(self, device: str) -> Program:
        """Make the layer, its input and the gradient of its output."""
        from torch import nn

        from tracelens_workloads._program import LayerProgram
        from tracelens_workloads._torch import number_format, random

        dtype = number_format(self.dtype, device)
        layer = nn.Linear(self.inputs, self.outputs, bias=self.bias, device=device, dtype=dtype)
        x = random((self.tokens, self.inputs), self.dtype, device)
        gradients = [random((self.tokens, self.outputs), self.dtype, device)] * self.trains
        return LayerProgram(self, device, layer, [x], gradients=gradients)


WORKLOAD = Linear
