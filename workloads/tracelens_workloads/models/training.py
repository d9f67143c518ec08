"""The steps of training: forward, loss, backward and optimizer, run or replayed."""

from __future__ import annotations

import functools
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Final

import torch

import tracelens
from tracelens.errors import UsageError
from tracelens_workloads import _kernels
from tracelens_workloads._torch import compiled, number_format, synchronize
from tracelens_workloads.models.transformer import build

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from tracelens_workloads.gpt2 import Gpt2
    from tracelens_workloads.models.transformer import Transformer

_WARMUP: Final = 3
"""Steps before a capture: libraries make their workspaces, and the optimizer its state."""


def program(config: Gpt2, device: str) -> Training:
    """Return the steps of a workload's options, ready to run.

    Raises:
        UsageError: the device cannot do what the options ask for.
    """
    number_format(config.dtype, device)
    if config.cuda_graph and not device.startswith("cuda"):
        raise UsageError("--cuda-graph needs an NVIDIA GPU; leave it out on the CPU.")
    return Replayed(config, device) if config.cuda_graph else Training(config, device)


class Training:
    """One model on one device, and its steps.

    Attributes:
        model: the module, not compiled.
        optimizer: None unless the mode is `train`.
        loss: of the last micro-batch; None before the first step and in forward mode.
    """

    def __init__(self, config: Gpt2, device: str) -> None:
        self.config = config
        self.device = device
        self.model = build(config, device)
        self.optimizer = make_optimizer(config, self.model) if config.mode == "train" else None
        self.loss: torch.Tensor | None = None
        if config.compile == "none":
            tracelens.instrument(self.model, phases=False)
        self._model = compiled(self.model, config.compile, device)
        shape = (config.grad_accumulation, 2, config.batch, config.ctx)
        self._loss = choose_loss(config.loss, self.model)
        self._data = torch.randint(config.architecture.vocab, shape, device=device)

    def step(self) -> None:
        """Run one step, its phases marked."""
        with tracelens.step():
            self._run()
            synchronize(self.device)

    def _run(self) -> None:
        if self.config.mode == "forward":
            with tracelens.phase("forward"), self._autocast():
                self._forward(self._data[0, 0])
            return
        if self.optimizer is None:
            self.model.zero_grad()
        for tokens, targets in self._data:
            self._micro_batch(tokens, targets)
        if self.optimizer is not None:
            with tracelens.phase("optimizer"):
                self.optimizer.step()
                self.optimizer.zero_grad()

    def _micro_batch(self, tokens: torch.Tensor, targets: torch.Tensor) -> None:
        with self._autocast():
            with tracelens.phase("forward"):
                found = self._model(tokens)
            with tracelens.phase("loss"):
                loss = self._loss(found.flatten(0, 1), targets.flatten())
        with tracelens.phase("backward"):
            torch.autograd.backward(loss / self.config.grad_accumulation)
        self.loss = loss.detach()

    def _forward(self, tokens: torch.Tensor) -> None:
        with torch.no_grad() if self.config.inference else nullcontext():
            self._model(tokens)

    def _autocast(self) -> AbstractContextManager[Any]:
        if not self.config.autocast:
            return nullcontext()
        to = torch.bfloat16 if self.config.dtype == "bf16" else torch.float16
        # A weight that was cast while a graph was captured must not be taken for cast later.
        cached = not self.config.cuda_graph
        return torch.autocast(self.device.partition(":")[0], to, cache_enabled=cached)


class Replayed(Training):
    """The same steps, captured once as a whole, after PyTorch's notes on whole-network capture.

    A replay launches nothing that a range could hold: its phases are marked only in the capture.
    """

    def __init__(self, config: Gpt2, device: str) -> None:
        super().__init__(config, device)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(device):
            aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch's own
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside):
                for _ in range(_WARMUP):
                    self._run()
            torch.cuda.current_stream().wait_stream(aside)
            with torch.cuda.graph(self.graph):
                self._run()

    def step(self) -> None:
        """Replay the step."""
        with tracelens.step():
            with tracelens.span("cuda graph replay"):
                self.graph.replay()
            synchronize(self.device)


def choose_loss(name: str, model: Transformer) -> Callable[..., torch.Tensor]:
    """Return a function of what the model gives (logits, or what its head takes) and the targets.

    Raises:
        UsageError: our kernels cannot be loaded.
    """
    if name == "kernel":
        return functools.partial(_kernels.of_room("cross_entropy"), inplace=True)
    if name == "linear-kernel":
        fused = _kernels.of_room("linear_cross_entropy")
        return lambda hidden, targets: fused(hidden, model.head.weight, targets)
    return torch.nn.functional.cross_entropy


def make_optimizer(config: Gpt2, model: torch.nn.Module) -> torch.optim.Optimizer:
    """Return the optimizer of a workload's options.

    Raises:
        UsageError: this torch has no fused optimizer for the model's device, or ours cannot be
            loaded.
    """
    if config.optimizer_implementation == "kernel":
        ours: torch.optim.Optimizer = _kernels.of_room("adamw")(
            model.parameters(), lr=1e-4, eps=_epsilon(config)
        )
        return ours
    how: dict[str, Any] = {
        "foreach": {"foreach": True},
        "fused": {"fused": True},
        "for-loop": {"foreach": False},
    }[config.optimizer_implementation]
    try:
        if config.optimizer == "sgd":
            return torch.optim.SGD(model.parameters(), lr=1e-4, **how)
        return torch.optim.AdamW(
            model.parameters(),
            lr=1e-4,
            eps=_epsilon(config),
            capturable=config.cuda_graph,
            **how,
        )
    except RuntimeError as error:
        if config.optimizer_implementation != "fused":
            raise
        raise UsageError(
            f"torch {torch.__version__} has no fused {config.optimizer} for this device; "
            "take --optimizer-implementation foreach."
        ) from error


def _epsilon(config: Gpt2) -> float:
    """Half-precision weights have half-precision moments, and 1e-8 is nothing in fp16."""
    return 1e-8 if config.dtype != "fp16" or config.autocast else 1e-4
