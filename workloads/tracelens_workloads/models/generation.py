"""The steps of inference: a pass over the prompt, then one token at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

import tracelens
from tracelens_workloads._torch import compiled, number_format, synchronize
from tracelens_workloads.models.attention import choose
from tracelens_workloads.models.transformer import Cache, allocate, on_meta

if TYPE_CHECKING:
    from tracelens_workloads.llm_inference import LlmInference


class Generation:
    """One model on one device that continues prompts, greedily.

    Attributes:
        model: the module, not compiled.
        optimizer: always None.
        cache: keys and values; None if nothing follows the prompt.
        generated: (B, 1 + new_tokens), of the last step.
    """

    def __init__(self, config: LlmInference, device: str) -> None:
        dtype = number_format(config.dtype, device)
        a = config.architecture
        attend = choose(config.attention, config.kernel, device, dtype)
        self.config = config
        self.device = device
        self.model = allocate(on_meta(a, attend), dtype, device)
        self.optimizer = None
        length = config.prompt + config.new_tokens
        self.cache = Cache(a, config.batch, length, dtype, device) if config.new_tokens else None
        self.prompt = torch.randint(a.vocab, (config.batch, config.prompt), device=device)
        self.generated = self.prompt[:, :0]
        if config.compile == "none":
            tracelens.instrument(self.model, phases=False)
        self._model = compiled(self.model, config.compile, device)

    @torch.no_grad()
    def step(self) -> None:
        """Continue the prompts."""
        with tracelens.step():
            self._run()
            synchronize(self.device)

    def _run(self) -> None:
        with tracelens.phase("prefill"):
            if self.cache is not None:
                self.cache.seen = 0
            tokens = [self._next(self.prompt, last_only=not self.config.all_logits)]
        if self.cache is not None:
            with tracelens.phase("decode"):
                for i in range(self.config.new_tokens):
                    with tracelens.span(f"token {i}"):
                        tokens.append(self._next(tokens[-1]))
        self.generated = torch.cat(tokens, dim=1)

    def _next(self, tokens: torch.Tensor, *, last_only: bool = False) -> torch.Tensor:
        """(B, S) tokens -> (B, 1), the likeliest after the last."""
        logits = self._model(tokens, self.cache, last_only=last_only)
        return logits[:, -1:].argmax(dim=-1)
