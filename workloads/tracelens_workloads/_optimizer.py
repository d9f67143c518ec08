"""How the optimizer's step runs alone: on parameters whose gradients stay what they are."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import torch

import tracelens
from tracelens_workloads._torch import random, synchronize

if TYPE_CHECKING:
    from tracelens_workloads.optimizer import Optimizer


class OptimizerProgram:
    """Parameters, random gradients, and an optimizer whose first step has made its state."""

    def __init__(self, workload: Optimizer, device: str) -> None:
        self._device = device
        self._repeats = workload.repeats
        self.parameters = [random(shape, workload.dtype, device) for shape in workload.shapes()]
        for parameter in self.parameters:
            parameter.grad = random(parameter.shape, workload.dtype, device)
        kind: Any = torch.optim.AdamW
        if workload.optimizer == "sgd":
            kind = functools.partial(torch.optim.SGD, momentum=workload.momentum)
        self.optimizer: torch.optim.Optimizer = kind(
            self.parameters,
            lr=1e-4,
            foreach=workload.implementation == "foreach",
            fused=workload.implementation == "fused",
        )
        self.optimizer.step()

    def step(self) -> None:
        """Run the optimizer, and wait for the device."""
        with tracelens.step():
            with tracelens.phase("optimizer"):
                for _ in range(self._repeats):
                    self.optimizer.step()
            synchronize(self._device)
