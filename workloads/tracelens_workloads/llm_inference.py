"""Generating text: a pass over the prompt, then token after token with a key-value cache."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from tracelens.errors import UsageError
from tracelens.workload import DTYPES, Cost, Workload, option
from tracelens_workloads import _kernels
from tracelens_workloads.models import formulas
from tracelens_workloads.models.architecture import FAMILIES, Architecture
from tracelens_workloads.models.smaller import halves, largest_first

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tracelens_workloads.models.generation import Generation

_GPT2_XL = {"layers": 48, "d_model": 1600, "heads": 25, "d_ff": 6400}
_LLAMA_3_8B = {
    "family": "llama",
    "layers": 32,
    "d_model": 4096,
    "heads": 32,
    "kv_heads": 8,
    "d_ff": 14336,
    "vocab": 128256,
}
_QWEN_2_5_7B = {
    "family": "qwen2",
    "layers": 28,
    "d_model": 3584,
    "heads": 28,
    "kv_heads": 4,
    "d_ff": 18944,
    "vocab": 152064,
}
_40B = {
    "family": "gpt",
    "layers": 48,
    "d_model": 8192,
    "heads": 64,
    "d_ff": 32768,
    "vocab": 50304,
    "batch": 4,
    "prompt": 2048,
    "new_tokens": 0,
    "dtype": "fp16",
    "all_logits": True,
}


@dataclass(frozen=True, kw_only=True)
class LlmInference(Workload):
    """A prompt of random tokens, and the likeliest tokens after it; weights are random too.

    Preset `40b` is a benchmark of large models seen in the wild: forward only, all logits. Counted
    as it does, without biases, it has 39.479681024 billion parameters (`formulas.weights`); with
    the biases of its linear layers and norms 4.33 million more.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "gpt2-xl": _GPT2_XL,
        "qwen2.5-7b": _QWEN_2_5_7B,
        "llama-3-8b": _LLAMA_3_8B,
        "40b": _40B,
    }

    family: str = option(
        "gpt2",
        "Whose blocks: gpt2, gpt (no positions, a head of its own), llama, or qwen2.",
        choices=("gpt2", "gpt", "llama", "qwen2"),
    )
    layers: int = option(12, "Blocks of attention and MLP.")
    d_model: int = option(768, "Width of the residual stream.")
    heads: int = option(12, "Heads of queries; they divide the width.")
    kv_heads: int | None = option(
        None, "Heads of keys and values; they divide the heads (by default as many)."
    )
    d_ff: int | None = option(None, "Width inside the MLP (by default 4 times the width).")
    vocab: int = option(50257, "Tokens it knows.")
    prompt: int = option(512, "Tokens of each prompt.")
    new_tokens: int = option(
        32, "Tokens to generate after the first, which the prompt's pass gives."
    )
    batch: int = option(1, "Sequences.")
    dtype: str = option("bf16", "Format of weights, products and cache.", choices=DTYPES)
    attention: str = option(
        "sdpa",
        "naive keeps the matrix of scores; the others never have it in memory.",
        choices=("naive", "sdpa", "sdpa-flash", "sdpa-cudnn", "kernel"),
    )
    kernel: str | None = option(
        None,
        "What computes (q, k, v, causal) for --attention kernel: flash-attention, or your "
        "module:function.",
    )
    all_logits: bool = option(False, "Make logits of the whole prompt, not of its last token.")
    compile: str = option(
        "none",
        "Mode of torch.compile for the pass over the prompt (with --new-tokens 0).",
        choices=("none", "default", "reduce-overhead", "max-autotune"),
    )

    @property
    def architecture(self) -> Architecture:
        """The model's shape."""
        return Architecture(
            layers=self.layers,
            d_model=self.d_model,
            heads=self.heads,
            kv_heads=self.heads if self.kv_heads is None else self.kv_heads,
            d_ff=4 * self.d_model if self.d_ff is None else self.d_ff,
            vocab=self.vocab,
            max_positions=max(1024, self.prompt + self.new_tokens),
            **FAMILIES[self.family],
        )

    def check(self) -> None:
        """Raise UsageError where the options contradict one another."""
        self.architecture.check()
        if min(self.prompt, self.batch) < 1 or self.new_tokens < 0:
            raise UsageError("--prompt and --batch are at least 1, --new-tokens at least 0.")
        if (self.attention == "kernel") != (self.kernel is not None):
            raise UsageError(
                "--attention kernel and --kernel (flash-attention, or module:function) go "
                "together; give both."
            )
        if self.kernel is not None:
            _kernels.check(self.kernel)
        if self.compile != "none" and self.new_tokens:
            raise UsageError(
                "--compile would compile anew for each length of the cache; "
                "add --new-tokens 0, or leave it out."
            )

    def cost(self) -> Cost:
        """Count operations, bytes and memory (see `models.formulas`)."""
        run = formulas.Inference(
            batch=self.batch,
            ctx=self.prompt,
            dtype=self.dtype,
            attention=self.attention,
            new_tokens=self.new_tokens,
            all_logits=self.all_logits,
        )
        return formulas.inference(self.architecture, run)

    def program(self, device: str) -> Generation:
        """Build the model and the cache."""
        from tracelens_workloads.models.generation import Generation

        return Generation(self, device)

    def variants(self) -> list[LlmInference]:
        """Give this, and each smaller model, with shorter prompts and smaller batches."""
        run = {name: getattr(self, name) for name in ("batch", "prompt", "new_tokens", "dtype")}
        models = [self, *(LlmInference(**{**p, **run}) for p in (_LLAMA_3_8B, _GPT2_XL, {}))]
        return largest_first(
            self,
            (
                replace(model, prompt=prompt, batch=batch)
                for model in models
                for prompt in halves(self.prompt, 128)
                for batch in halves(self.batch)
            ),
        )


WORKLOAD = LlmInference
