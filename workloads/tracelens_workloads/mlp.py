"""A transformer's MLP: two matrices around a GELU, or the three of a SwiGLU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from tracelens.workload import DTYPES, Cost, option
from tracelens_workloads._layers import (
    Layer,
    activation_work,
    compile_option,
    linear_work,
    mode_option,
    repeats_option,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tracelens.workload import Program


@dataclass(frozen=True, kw_only=True)
class MLP(Layer):
    """down(gelu(up(x))) with biases, or down(silu(gate(x)) · up(x)) without."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "gpt2-small": {"d_model": 768, "d_ff": 3072},
        "gpt2-xl": {"d_model": 1600, "d_ff": 6400},
        "gpt2-2.7b": {"d_model": 2560, "d_ff": 10240},
    }
    sizes: ClassVar[tuple[str, ...]] = ("tokens", "d_model", "d_ff")
    halved: ClassVar[tuple[str, ...]] = ("tokens", "d_ff", "d_model")

    tokens: int = option(4096, "Rows of the input.")
    d_model: int = option(1024, "Width of the input and of the output.")
    d_ff: int = option(4096, "Width in between.")
    activation: str = option("gelu", "What stands in between.", choices=("gelu", "swiglu"))
    dtype: str = option("bf16", "Format of the elements.", choices=DTYPES)
    mode: str = mode_option()
    repeats: int = repeats_option()
    compile: str = compile_option()

    def cost(self) -> Cost:
        """Count the products, 6·tokens·d_model·d_ff with three matrices, and the activation."""
        gated = self.activation == "swiglu"
        up = linear_work(
            "up", self.tokens, self.d_model, (1 + gated) * self.d_ff, self.dtype, bias=not gated
        )
        act = activation_work(self.activation, self.tokens * self.d_ff, self.dtype)
        down = linear_work("down", self.tokens, self.d_ff, self.d_model, self.dtype, bias=not gated)
        forward, backward = zip(up, act, down, strict=True)
        parameters = (2 + gated) * self.d_model * self.d_ff
        parameters += 0 if gated else self.d_ff + self.d_model
        size, passes = self.element_bytes, 1 + self.trains
        between = 4 + 2 * self.trains if gated else 2 + self.trains
        memory = {
            "parameters": parameters * size,
            "gradients": parameters * size * self.trains,
            "inputs": self.tokens * self.d_model * size * passes,
            "outputs": self.tokens * self.d_model * size * passes,
            "activations": between * self.tokens * self.d_ff * size,
        }
        return self.repeated(
            forward, backward[::-1], memory, items=self.tokens, parameters=parameters
        )

    def program(self, device: str) -> Program:
        """Make the layers, their input and the gradient of their output."""
        from tracelens_workloads._mlp import GeluMLP, SwigluMLP
        from tracelens_workloads._program import LayerProgram
        from tracelens_workloads._torch import number_format, random

        kind = GeluMLP if self.activation == "gelu" else SwigluMLP
        layers = kind(self.d_model, self.d_ff, device, number_format(self.dtype, device))
        x = random((self.tokens, self.d_model), self.dtype, device)
        gradients = [random(x.shape, self.dtype, device)] * self.trains
        return LayerProgram(self, device, layers, [x], gradients=gradients)


WORKLOAD = MLP
