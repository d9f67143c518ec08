"""Cross-entropy over a large vocabulary: the loss of a language model, from its logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

from tracelens.workload import Cost, Work, option
from tracelens_workloads._layers import (
    ELEMENT_DTYPES,
    Layer,
    compile_option,
    mode_option,
    repeats_option,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tracelens.workload import Program

_TARGET_BYTES: Final = 8


@dataclass(frozen=True, kw_only=True)
class CrossEntropy(Layer):
    """The mean of log Σ exp(x) - x[target], over the rows of logits x[tokens, vocab]."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "gpt2": {"tokens": 4096, "vocab": 50257},
        "llama3": {"tokens": 8192, "vocab": 128256},
    }
    sizes: ClassVar[tuple[str, ...]] = ("tokens", "vocab")
    halved: ClassVar[tuple[str, ...]] = ("tokens", "vocab")

    tokens: int = option(2048, "Rows of the logits.")
    vocab: int = option(50257, "Columns of the logits.")
    dtype: str = option("bf16", "Format of the logits.", choices=ELEMENT_DTYPES)
    mode: str = mode_option()
    repeats: int = repeats_option()
    compile: str = compile_option()

    def cost(self) -> Cost:
        """Count one reading of the logits forward; backward another, and their gradients.

        A logit takes 4 operations forward (maximum, difference, exponential, sum) and 4 backward
        (the softmax again, less one at the target, over the tokens). Eager PyTorch stores the
        logarithms of the softmax, and backward the gradients of those, as large as the logits.
        """
        logits, size = self.tokens * self.vocab, self.element_bytes
        targets = self.tokens * _TARGET_BYTES
        forward = Work("cross-entropy", 4 * logits, logits * size + targets, self.dtype, False)
        backward = Work("cross-entropy", 4 * logits, 2 * logits * size + targets, self.dtype, False)
        memory = {
            "inputs": logits * size + targets,
            "gradients": logits * size * self.trains,
            "activations": (1 + self.trains) * logits * size,
        }
        return self.repeated([forward], [backward], memory, items=self.tokens, phase="loss")

    def program(self, device: str) -> Program:
        """Make logits, and the targets they are held against."""
        import torch
        from torch.nn import functional

        from tracelens_workloads._program import LayerProgram
        from tracelens_workloads._torch import number_format, random

        number_format(self.dtype, device)
        logits = random((self.tokens, self.vocab), self.dtype, device)
        targets = torch.randint(self.vocab, (self.tokens,), device=device)
        return LayerProgram(self, device, functional.cross_entropy, [logits, targets], phase="loss")


WORKLOAD = CrossEntropy
