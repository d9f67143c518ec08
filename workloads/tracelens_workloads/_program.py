"""How workloads of one part of a model run: forward, and perhaps backward, repeated in a step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

import tracelens
from tracelens_workloads._torch import compiled, synchronize

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from tracelens_workloads._layers import Layer


class LayerProgram:
    """A layer that runs on the same inputs in every step.

    Args:
        layer: the workload, for its mode, its repeats and how to compile it.
        device: where it runs.
        forward: what runs, a module perhaps.
        inputs: of `forward`; those of floating point get gradients, as within a model.
        gradients: of each result of `forward`, by the shape of the result; none: the result is a
            loss.
        phase: the name of the first phase.
    """

    def __init__(
        self,
        layer: Layer,
        device: str,
        forward: Callable[..., Any],
        inputs: Sequence[Tensor],
        *,
        gradients: Sequence[Tensor] = (),
        phase: str = "forward",
    ) -> None:
        self.model = forward if isinstance(forward, nn.Module) else None
        self._layer = layer
        self._device = device
        self._inputs = inputs
        self._gradients = gradients or None
        self._phase = phase
        self._leaves = [x for x in inputs if x.is_floating_point()] if layer.trains else []
        for leaf in self._leaves:
            leaf.requires_grad_()
        if self.model is not None:
            self._leaves += self.model.parameters()
            if layer.compile == "none":
                tracelens.instrument(self.model, phases=False)
        self._forward: Callable[..., Any] = compiled(forward, layer.compile, device)

    def step(self) -> None:
        """Run all repeats, and wait for the device."""
        with tracelens.step():
            if self._layer.trains:
                for _ in range(self._layer.repeats):
                    self._forward_backward()
            else:
                with tracelens.phase(self._phase), torch.no_grad():
                    for _ in range(self._layer.repeats):
                        self._forward(*self._inputs)
            synchronize(self._device)

    def _forward_backward(self) -> None:
        with tracelens.phase(self._phase):
            results = self._forward(*self._inputs)
        with tracelens.phase("backward"):
            torch.autograd.backward(results, self._gradients)
        for leaf in self._leaves:
            leaf.grad = None
