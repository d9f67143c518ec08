"""A mixture-of-experts layer: top-k routing, even or skewed, grouped experts, nothing dropped."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any, ClassVar, Final

from tracelens.errors import UsageError
from tracelens.workload import DTYPES, Cost, Work, option
from tracelens_workloads._layers import (
    Layer,
    activation_work,
    linear_work,
    mode_option,
    repeats_option,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tracelens.workload import Program

_INDEX_BYTES: Final = 8
_ALIGNED_BYTES: Final = 16
"""What the rows of `torch._grouped_mm`'s operands have to be multiples of."""
_LARGE: Final = {"d_model": 4096, "d_ff": 11008, "experts": 32, "activation": "gelu"}


@dataclass(frozen=True, kw_only=True)
class MixtureOfExperts(Layer):
    """Σ weight · expert(x) over the top-k experts of each token."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "4x128": {"tokens": 4 * 128, "d_model": 1024, "d_ff": 4096, "activation": "gelu"},
        "16x512": {
            "tokens": 16 * 512,
            "d_model": 2048,
            "d_ff": 8192,
            "experts": 16,
            "activation": "gelu",
        },
        "4x512": {"tokens": 4 * 512, **_LARGE},
        "16x2048": {"tokens": 16 * 2048, **_LARGE},
        "32x2048": {"tokens": 32 * 2048, **_LARGE},
    }
    sizes: ClassVar[tuple[str, ...]] = ("tokens", "d_model", "d_ff", "experts", "top_k")
    halved: ClassVar[tuple[str, ...]] = ("tokens", "d_ff", "d_model", "experts")

    tokens: int = option(2048, "Rows of the input.")
    d_model: int = option(512, "Width of the input and of the output.")
    d_ff: int = option(2048, "Width of an expert.")
    experts: int = option(8, "Experts.")
    top_k: int = option(2, "Experts that each token goes to.")
    skew: float = option(
        0.0,
        "How unevenly experts are chosen: the logit of the e-th is lowered by this times log e.",
    )
    empty: int = option(0, "Experts that no token goes to.")
    activation: str = option("swiglu", "What an expert has inside.", choices=("swiglu", "gelu"))
    implementation: str = option(
        "auto",
        "All experts in one grouped product, one after another, or grouped where the GPU can.",
        choices=("auto", "grouped", "loop"),
    )
    dtype: str = option("bf16", "Format of the elements.", choices=DTYPES)
    mode: str = mode_option()
    repeats: int = repeats_option()

    def check(self) -> None:
        """Raise UsageError unless there are experts enough, and a grouped product can be had."""
        super().check()
        if self.top_k > self.experts:
            raise UsageError(f"--top-k {self.top_k} is more than --experts {self.experts}.")
        if not 0 <= self.empty <= self.experts - self.top_k:
            raise UsageError(
                f"--empty {self.empty} of --experts {self.experts} leaves fewer than "
                f"--top-k {self.top_k}."
            )
        if not (math.isfinite(self.skew) and self.skew >= 0):
            raise UsageError(f"--skew is {self.skew}; it must be 0 or more.")
        if self.implementation == "grouped" and (why := self.ungrouped()):
            raise UsageError(f"--implementation grouped needs {why}.")

    def ungrouped(self) -> str | None:
        """Return what the options lack for a grouped product; None if nothing."""
        if self.dtype != "bf16":
            return "--dtype bf16"
        multiple = _ALIGNED_BYTES // self.element_bytes
        if self.d_model % multiple or self.d_ff % multiple:
            return f"--d-model and --d-ff that are multiples of {multiple}"
        return None

    @property
    def _gated(self) -> bool:
        return self.activation == "swiglu"

    @property
    def _matrices(self) -> int:
        """Matrices of an expert."""
        return 2 + self._gated

    def cost(self) -> Cost:
        """Count every copy of a token once in each part, and the weights of experts in use.

        Operations of a router's logit: a softmax, 5, and backward 4. Combining multiplies and
        adds; backward it multiplies twice and adds, and dispatch adds.
        """
        copies, size = self.tokens * self.top_k, self.element_bytes
        used = min(self.experts - self.empty, copies)
        wide = (1 + self._gated) * self.d_ff
        x, rows, logits = (
            self.tokens * self.d_model,
            copies * self.d_model,
            self.tokens * self.experts,
        )
        router = linear_work("router", self.tokens, self.d_model, self.experts, self.dtype)
        up = linear_work("experts", copies, self.d_model, wide, self.dtype, matrices=used)
        act = activation_work(self.activation, copies * self.d_ff, self.dtype)
        down = linear_work("experts", copies, self.d_ff, self.d_model, self.dtype, matrices=used)

        def moving(part: str, flops: int, elements: int, indices: int = copies) -> Work:
            moved = elements * size + indices * _INDEX_BYTES
            return Work(part, flops, moved, self.dtype, matmul=False)

        forward = [
            router[0],
            moving("router", 5 * logits, logits + copies),
            moving("dispatch", 0, x + rows),
            *(up[0], act[0], down[0]),
            moving("combine", 2 * rows, rows + x + copies),
        ]
        backward = [
            moving("combine", 3 * rows, 2 * rows + x + 2 * copies),
            *(down[1], act[1], up[1]),
            moving("dispatch", rows, rows + x),
            moving("router", 4 * logits, 2 * logits + copies),
            router[1],
        ]
        return self.repeated(
            forward,
            backward,
            self._memory(copies),
            items=self.tokens,
            parameters=self._parameters,
        )

    @property
    def _parameters(self) -> int:
        return self.experts * self.d_model * (1 + self._matrices * self.d_ff)

    def _memory(self, copies: int) -> dict[str, int]:
        """Return what stands in memory: activations as eager PyTorch keeps them for backward."""
        size, passes = self.element_bytes, 1 + self.trains
        inside = (4 + 2 * self.trains if self._gated else 2 + self.trains) * self.d_ff
        return {
            "parameters": self._parameters * size,
            "gradients": self._parameters * size * self.trains,
            "inputs": self.tokens * self.d_model * size * passes,
            "outputs": self.tokens * self.d_model * size * passes,
            "activations": copies * (inside + 3 * self.d_model) * size,
            "routing": 4 * self.tokens * self.experts * 2 + 4 * copies * _INDEX_BYTES,
        }

    def program(self, device: str) -> Program:
        """Make the layer, its input and the gradients of its output and of the balance loss."""
        import torch

        from tracelens_workloads._experts import GROUPED_PRODUCT, MoE
        from tracelens_workloads._program import LayerProgram
        from tracelens_workloads._torch import number_format, random

        dtype = number_format(self.dtype, device)
        grouped = self.implementation == "grouped"
        if grouped and GROUPED_PRODUCT is None:
            raise UsageError(
                f"--implementation grouped needs torch 2.8; this is {torch.__version__}."
            )
        if self.implementation == "auto" and GROUPED_PRODUCT and device.startswith("cuda"):
            # Before Hopper it is a loop of PyTorch's own, and before torch 2.10 an error.
            hopper = torch.cuda.get_device_capability(device) >= (9, 0)
            grouped = hopper and self.ungrouped() is None
        layer = MoE(self, grouped=grouped, device=device, dtype=dtype)
        x = random((self.tokens, self.d_model), self.dtype, device)
        coefficient = torch.tensor(0.01, device=device)
        gradients = [random(x.shape, self.dtype, device), coefficient] if self.trains else []
        return LayerProgram(self, device, layer, [x], gradients=gradients)


@dataclass(frozen=True)
class Usage:
    """How evenly experts are used; a load of 1 is an even share of the tokens.

    Attributes:
        variance: of the loads, over all experts.
        cv: their coefficient of variation, standard deviation over mean: the variance's root.
        gini: 0 where all have the same load; (E - 1)/E where one of E has all.
        collapsed: experts with less than 5 % of an even share.
    """

    variance: float
    cv: float
    gini: float
    collapsed: int


def usage(counts: Sequence[int]) -> Usage:
    """Return how evenly experts are used, from the tokens that each has got.

    Gini's coefficient is the mean difference of two loads over twice their mean; sorted, that is
    one sum (Dixon et al., Ecology 68, 1987).

    Raises:
        ValueError: there are no experts, or no tokens.
    """
    if not sum(counts):
        raise ValueError("no expert has got a token")
    even = sum(counts) / len(counts)
    loads = sorted(count / even for count in counts)
    variance = sum((load - 1) ** 2 for load in loads) / len(loads)
    below = sum(accumulate(loads))
    gini = (len(loads) + 1) / len(loads) - 2 * below / len(loads) ** 2
    return Usage(variance, math.sqrt(variance), gini, sum(load < 0.05 for load in loads))


WORKLOAD = MixtureOfExperts
