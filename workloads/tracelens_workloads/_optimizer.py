"""How the optimizer's step runs alone: on parameters whose gradients stay what they are."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import torch

import tracelens
from tracelens_workloads import _kernels
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
        self.optimizer: torch.optim.Optimizer = _kind(workload)(self.parameters, lr=1e-4)
        self.optimizer.step()

    def step(self) -> None:
        """Run the optimizer, and wait for the device."""
        with tracelens.step():
            with tracelens.phase("optimizer"):
                for _ in range(self._repeats):
                    self.optimizer.step()
            synchronize(self._device)


def _kind(workload: Optimizer) -> Any:
    """Return what makes the optimizer of a workload's options from parameters."""
    if workload.implementation == "kernel":
        return _kernels.of_room("adamw")
    how: dict[str, Any] = {
        "foreach": workload.implementation == "foreach",
        "fused": workload.implementation == "fused",
    }
    if workload.optimizer == "sgd":
        return functools.partial(torch.optim.SGD, momentum=workload.momentum, **how)
    return functools.partial(torch.optim.AdamW, **how)
