"""Training a language model: GPT-2 from small to 2.7b, or the course CS336's variant of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Final

from tracelens.errors import UsageError
from tracelens.workload import DTYPES, Cost, Workload, option
from tracelens_workloads import _kernels
from tracelens_workloads.models import formulas
from tracelens_workloads.models.architecture import FAMILIES, Architecture
from tracelens_workloads.models.smaller import halves, largest_first

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tracelens_workloads.models.training import Training

_SIZES: Final[Mapping[str, tuple[int, int, int, int]]] = {
    "small": (12, 768, 12, 3072),
    "medium": (24, 1024, 16, 4096),
    "large": (36, 1280, 20, 5120),
    "xl": (48, 1600, 25, 6400),
    "2.7b": (32, 2560, 32, 10240),
}
_VOCAB: Final = {"gpt2": 50257, "cs336": 10000}


def _preset(size: str) -> dict[str, Any]:
    return dict(zip(("layers", "d_model", "heads", "d_ff"), _SIZES[size], strict=True))


@dataclass(frozen=True, kw_only=True)
class Gpt2(Workload):
    """A step of training, or a part of it, on random tokens; sizes default to GPT-2 small."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        **{size: _preset(size) for size in _SIZES},
        **{f"cs336-{size}": {**_preset(size), "variant": "cs336"} for size in _SIZES},
    }

    variant: str = option(
        "gpt2",
        "gpt2: learned positions, LayerNorm, GELU, biases, tied head; "
        "cs336: RoPE, RMSNorm, SwiGLU, no biases, a head of its own.",
        choices=_VOCAB,
    )
    layers: int = option(12, "Blocks of attention and MLP.")
    d_model: int = option(768, "Width of the residual stream.")
    heads: int = option(12, "Attention heads; they divide the width.")
    d_ff: int | None = option(None, "Width inside the MLP (by default 4 times the width).")
    vocab: int | None = option(None, "Tokens it knows (by default 50257; 10000 for cs336).")
    ctx: int = option(256, "Tokens per sequence.")
    batch: int = option(4, "Sequences per micro-batch.")
    dtype: str = option("fp32", "Format of weights and matrix products.", choices=DTYPES)
    autocast: bool = option(
        False, "Keep weights in fp32, and let autocast choose where --dtype is used."
    )
    mode: str = option(
        "train", "How much of a step to run.", choices=("forward", "forward-backward", "train")
    )
    inference: bool = option(
        False, "In forward mode, save nothing for a backward pass (as in inference)."
    )
    optimizer: str = option("adamw", "Which optimizer.", choices=("adamw", "sgd"))
    optimizer_implementation: str = option(
        "foreach",
        "Lists of tensors per kernel, one fused kernel for all of it (torch's, or ours: kernel), "
        "or tensor by tensor.",
        choices=("foreach", "fused", "for-loop", "kernel"),
    )
    attention: str = option(
        "naive",
        "naive keeps the matrix of scores; the others never have it in memory.",
        choices=("naive", "sdpa", "sdpa-flash", "sdpa-cudnn", "flex", "kernel"),
    )
    kernel: str | None = option(
        None,
        "What computes (q, k, v, causal) for --attention kernel: flash-attention, or your "
        "module:function.",
    )
    norm: str = option(
        "torch", "Whose norms: torch's, or our kernels.", choices=("torch", "kernel")
    )
    loss: str = option(
        "torch",
        "Whose cross-entropy: torch's; kernel: ours, which leaves the gradient in the logits' "
        "place; linear-kernel: ours together with the head, which never has the logits in memory.",
        choices=("torch", "kernel", "linear-kernel"),
    )
    compile: str = option(
        "none",
        "Mode of torch.compile for the model.",
        choices=("none", "default", "reduce-overhead", "max-autotune"),
    )
    cuda_graph: bool = option(False, "Capture the step once, and replay it as one CUDA graph.")
    checkpoint_activations: bool = option(
        False, "Keep only each block's input for backward, which runs the block again."
    )
    grad_accumulation: int = option(1, "Micro-batches whose gradients are added up in a step.")

    @property
    def architecture(self) -> Architecture:
        """The model's shape."""
        return Architecture(
            layers=self.layers,
            d_model=self.d_model,
            heads=self.heads,
            kv_heads=self.heads,
            d_ff=4 * self.d_model if self.d_ff is None else self.d_ff,
            vocab=_VOCAB[self.variant] if self.vocab is None else self.vocab,
            max_positions=max(1024, self.ctx),
            **FAMILIES[self.variant],
        )

    @property
    def run(self) -> formulas.Training:
        """What formulas need to know of a step."""
        return formulas.Training(
            batch=self.batch,
            ctx=self.ctx,
            dtype=self.dtype,
            autocast=self.autocast,
            attention=self.attention,
            loss=self.loss,
            mode=self.mode,
            inference=self.inference,
            optimizer=self.optimizer,
            optimizer_implementation=self.optimizer_implementation,
            checkpoint_activations=self.checkpoint_activations,
            grad_accumulation=self.grad_accumulation,
        )

    def check(self) -> None:
        """Raise UsageError where the options contradict one another."""
        self.architecture.check()
        if min(self.ctx, self.batch, self.grad_accumulation) < 1:
            raise UsageError("--ctx, --batch and --grad-accumulation are at least 1.")
        if self.kernel is not None:
            _kernels.check(self.kernel)
        for is_wrong, text in self._contradictions():
            if is_wrong:
                raise UsageError(text)

    def _contradictions(self) -> Iterator[tuple[bool, str]]:
        forward = self.mode == "forward"
        nothing_to_cast_to = (
            f"--autocast has nothing to cast to with --dtype {self.dtype}; "
            "add --dtype bf16 (or fp16)."
        )
        yield self.autocast and self.dtype not in ("bf16", "fp16"), nothing_to_cast_to
        one_alone = (
            "--attention kernel and --kernel (flash-attention, or module:function) go together; "
            "give both."
        )
        yield (self.attention == "kernel") != (self.kernel is not None), one_alone
        our_sgd = "--optimizer-implementation kernel is AdamW alone; leave --optimizer sgd out."
        yield self.optimizer == "sgd" and self.optimizer_implementation == "kernel", our_sgd
        no_backward = f"--inference leaves --mode {self.mode} nothing to go back by; leave it out."
        yield self.inference and not forward, no_backward
        nothing_kept = (
            "--checkpoint-activations is for a backward pass, which --mode forward has not; "
            "--inference keeps no activations."
        )
        yield forward and self.checkpoint_activations, nothing_kept
        no_gradients = (
            "--grad-accumulation adds gradients up, and --mode forward has none; raise --batch."
        )
        yield forward and self.grad_accumulation > 1, no_gradients
        two_graphs = (
            f"--compile {self.compile} makes CUDA graphs of its own; "
            "with --cuda-graph take --compile default."
        )
        graphs = ("reduce-overhead", "max-autotune")
        yield self.cuda_graph and self.compile in graphs, two_graphs

    def cost(self) -> Cost:
        """Count operations, bytes and memory (see `models.formulas`)."""
        return formulas.training(self.architecture, self.run)

    def program(self, device: str) -> Training:
        """Build model and optimizer, and capture the step if it is to be replayed."""
        from tracelens_workloads.models.training import program

        return program(self, device)

    def variants(self) -> list[Gpt2]:
        """Give this, and each smaller preset, with shorter sequences and smaller batches."""
        models = [self, *(replace(self, **_preset(size)) for size in reversed([*_SIZES]))]
        return largest_first(
            self,
            (
                replace(model, ctx=ctx, batch=batch)
                for model in models
                if model.d_model <= self.d_model and model.layers <= self.layers
                for ctx in halves(self.ctx, 128)
                for batch in halves(self.batch)
            ),
        )


WORKLOAD = Gpt2
