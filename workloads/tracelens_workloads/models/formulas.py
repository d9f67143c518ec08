"""What a step of a language model costs by formula: parameters, operations, bytes moved.

Letters: B batch, S tokens of a sequence, T = B·S, C d_model, H heads, D head_dim, F d_ff,
V vocab, L layers. An operation with one weight is a multiplication and an addition: 2 FLOP. Dense
layers take 2 FLOP per weight and token, attention 4·D per pair of query and key; backward takes
twice that, or 2.5 times where it computes the scores again instead of reading them (Dao 2023,
FlashAttention-2). Compiled code may move fewer bytes between elementwise operations.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from tracelens.workload import DTYPES, Cost, Work
from tracelens_workloads.models import footprint

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tracelens_workloads.models.architecture import Architecture

# Operations per element, as on paper: each of + - × ÷ max, exp, tanh and root is one.
_NORM: Final = {"layer": 8, "rms": 4}
_MLP: Final = {"gelu": 9, "swiglu": 6}
_SOFTMAX: Final = 5
_CROSS_ENTROPY: Final = 4
_ROTATION: Final = 3
_ADAMW: Final = 14
_SGD: Final = 2


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a pass through the model works on; names as in the options of `gpt2`."""

    batch: int
    ctx: int
    dtype: str = "fp32"
    autocast: bool = False
    attention: str = "naive"
    loss: str = "torch"

    @property
    def tokens(self) -> int:
        """Tokens of a micro-batch."""
        return self.batch * self.ctx

    @property
    def size(self) -> int:
        """Bytes of an element of what matrices are multiplied with."""
        return DTYPES[self.dtype]

    @property
    def weight_size(self) -> int:
        """Bytes of an element of the weights and of the residual stream."""
        return 4 if self.autocast else self.size

    @property
    def plain(self) -> str:
        """The format of what is no matrix product."""
        return "fp32" if self.dtype == "tf32" else self.dtype

    @property
    def keeps_scores(self) -> bool:
        """Whether the matrix of scores is written to memory."""
        return self.attention == "naive"

    @property
    def pairs(self) -> int:
        """Pairs of query and key of one head that are computed; naive attention skips none."""
        if self.keeps_scores:
            return self.batch * self.ctx**2
        return self.batch * self.ctx * (self.ctx + 1) // 2


@dataclass(frozen=True, kw_only=True)
class Training(Run):
    """A step of training; names as in the options of `gpt2`."""

    mode: str = "train"
    inference: bool = False
    optimizer: str = "adamw"
    optimizer_implementation: str = "foreach"
    checkpoint_activations: bool = False
    grad_accumulation: int = 1


@dataclass(frozen=True, kw_only=True)
class Inference(Run):
    """A prompt of `ctx` tokens and what follows it; names as in the options of `llm-inference`."""

    attention: str = "sdpa"
    new_tokens: int = 0
    all_logits: bool = False


def parameters(a: Architecture) -> dict[str, int]:
    """Return the parameters of each part; a tied head has none of its own."""
    qkv = a.d_model + 2 * a.kv_dim
    wide = a.d_ff * (1 if a.mlp == "gelu" else 2)
    of_mlp = (a.d_model * wide + a.biases * wide) + (a.d_ff * a.d_model + a.biases * a.d_model)
    return {
        "embedding": a.vocab * a.d_model,
        "positions": a.max_positions * a.d_model if a.positions == "learned" else 0,
        "qkv": a.layers * (a.d_model * qkv + a.qkv_biases * qkv),
        "projection": a.layers * (a.d_model + a.biases) * a.d_model,
        "mlp": a.layers * of_mlp,
        "norms": (2 * a.layers + 1) * a.d_model * (2 if a.norm == "layer" else 1),
        "head": 0 if a.tied else a.vocab * a.d_model,
    }


def weights(a: Architecture) -> int:
    """Return the parameters without any bias, those of LayerNorm included."""
    bare = replace(a, biases=False, qkv_biases=False, norm="rms")
    return sum(parameters(bare).values())


def training(a: Architecture, run: Training) -> Cost:
    """Return the cost of a step of training, or of the part of it that the mode names."""
    total = sum(parameters(a).values())
    phases = {"forward": [*blocks(a, run), *ends(a, run, logits_of=run.tokens)]}
    if run.loss == "linear-kernel" and run.mode != "forward":
        phases["forward"] = [work for work in phases["forward"] if work.part != "head"]
    if run.mode != "forward":
        phases["loss"] = [loss(a, run)]
        if run.loss == "linear-kernel":
            phases["loss"] = fused_loss(a, run)
        phases["backward"] = [*backward(a, run)]
    times = run.grad_accumulation
    done = {name: [_times(work, times) for work in works] for name, works in phases.items()}
    if times > 1:
        moved = 3 * run.weight_size * total * (times - 1)
        done["backward"].append(_plain("accumulate", run, total * (times - 1), moved))
    if run.mode == "train":
        done["optimizer"] = [optimizer(run, total)]
    return Cost(
        phases=done,
        memory=footprint.training(a, run, parameters(a)),
        parameters=total,
        items=run.tokens * times,
    )


def inference(a: Architecture, run: Inference) -> Cost:
    """Return the cost of reading a prompt and generating tokens after it.

    A generated token reads all weights, and all keys and values before it, for few operations.
    """
    logits_of = run.tokens if run.all_logits else run.batch
    phases = {"prefill": [*blocks(a, run), *ends(a, run, logits_of)]}
    if run.new_tokens:
        phases["prefill"].append(cached(a, run, run.tokens))
        phases["decode"] = [*decode(a, run)]
    total = parameters(a)
    return Cost(
        phases=phases,
        memory=footprint.inference(a, run, sum(total.values())),
        parameters=sum(total.values()),
        items=run.batch * (run.ctx + run.new_tokens),
    )


def blocks(a: Architecture, run: Run) -> list[Work]:
    """Return the forward work of all blocks."""
    T, C, size, stream = run.tokens, a.d_model, run.size, run.weight_size
    per_element = {"gelu": 2, "swiglu": 3}[a.mlp]
    found = [
        _plain(
            "norm",
            run,
            2 * a.layers * T * C * _NORM[a.norm],
            2 * a.layers * T * C * (stream + size),
        ),
        *(_product(part, a, run, T) for part in ("qkv", "projection", "mlp up", "mlp down")),
        *attention(a, run),
        _plain(
            a.mlp,
            run,
            a.layers * T * a.d_ff * _MLP[a.mlp],
            a.layers * T * a.d_ff * per_element * size,
        ),
        _plain("residual", run, 2 * a.layers * T * C, 2 * a.layers * T * C * (2 * stream + size)),
    ]
    if a.positions == "rope":
        found.append(_rotation(a, run, T))
    if run.autocast:
        found.append(_cast(a, run, [part for part in a.linear if part != "head"]))
    return found


def attention(a: Architecture, run: Run) -> list[Work]:
    """Return the forward work between the projections, of all layers."""
    LT, pairs, size = a.layers * run.tokens, a.layers * a.heads * run.pairs, run.size
    half = 2 * pairs * a.head_dim
    softmax = _plain("softmax", run, _SOFTMAX * pairs, 0)
    if not run.keeps_scores:
        moved = LT * (2 * a.d_model + 2 * a.kv_dim) * size
        return [Work("attention", 2 * half, moved, run.dtype), softmax]
    either = (LT * (a.d_model + a.kv_dim) + pairs) * size
    return [
        Work("scores", half, either, run.dtype),
        replace(softmax, bytes=2 * pairs * size),
        Work("output", half, either, run.dtype),
    ]


def ends(a: Architecture, run: Run, logits_of: int) -> list[Work]:
    """Return the forward work before and after the blocks, with logits of so many tokens."""
    TC, stream = run.tokens * a.d_model, run.weight_size
    learned = a.positions == "learned"
    rows = TC + (run.ctx * a.d_model if learned else 0)
    normed = logits_of * a.d_model
    found = [
        _plain("embedding", run, TC if learned else 0, (rows + TC) * stream),
        _plain("last norm", run, normed * _NORM[a.norm], normed * (stream + run.size)),
        _product("head", a, run, logits_of),
    ]
    return [*found, _cast(a, run, ["head"])] if run.autocast else found


def loss(a: Architecture, run: Run) -> Work:
    """Return the work of the cross-entropy: one look at each logit."""
    logits = run.tokens * a.vocab
    return _plain("cross-entropy", run, _CROSS_ENTROPY * logits, logits * run.size)


def fused_loss(a: Architecture, run: Run) -> list[Work]:
    """Return the work of head and cross-entropy in one, whose gradients are computed with it.

    Logits need not cross memory: what does is the head's input and weight, and their gradients.
    """
    logits = run.tokens * a.vocab
    moved = 2 * (run.tokens + a.vocab) * a.d_model * run.size
    return [
        Work("head", 6 * logits * a.d_model, moved, run.dtype),
        _plain("cross-entropy", run, 3 * _CROSS_ENTROPY * logits, 0),
    ]


def backward(a: Architecture, run: Training) -> list[Work]:
    """Return the work of going back, from the loss to the embedding.

    Elementwise operations count twice, as products do. Activations that were not kept are
    computed again, save each block's last product, which nothing needs.
    """
    T, C, size, stream = run.tokens, a.d_model, run.size, run.weight_size
    LTF = a.layers * T * a.d_ff
    rows = (a.vocab + (a.max_positions if a.positions == "learned" else 0)) * C
    norms = (2 * a.layers + 1) * T * C
    moved = {"gelu": 3, "swiglu": 5}[a.mlp] * LTF * size
    logits = T * a.vocab
    of_loss = [
        _plain("cross-entropy", run, 2 * _CROSS_ENTROPY * logits, 2 * logits * size),
        _product_backward("head", a, run),
    ]
    found = [
        *(() if run.loss == "linear-kernel" else of_loss),
        *(_product_backward(part, a, run) for part in a.linear if part != "head"),
        *_attention_backward(a, run),
        _plain("norm", run, 2 * norms * _NORM[a.norm], norms * (2 * stream + size)),
        _plain(a.mlp, run, 2 * LTF * _MLP[a.mlp], moved),
        _plain("residual", run, 2 * a.layers * T * C, 6 * a.layers * T * C * stream),
        _plain("embedding", run, T * C, (T * C + rows) * stream),
    ]
    if a.positions == "rope":
        found.append(_rotation(a, run, T))
    if run.autocast:
        found.append(_cast(a, run, a.linear))
    if run.checkpoint_activations:
        again = (work for work in blocks(a, run) if work.part != "mlp down")
        found += (replace(work, part=f"{work.part} again") for work in again)
    return found


def optimizer(run: Training, total: int) -> Work:
    """Return the least an optimizer does: each tensor of its state read and written once.

    AdamW reads weight, gradient and two moments, and writes all but the gradient: 28 bytes a
    parameter in fp32. Only a fused optimizer moves no more; foreach and for-loop go through each
    tensor several times, about 80 bytes a parameter.
    """
    if run.optimizer == "sgd":
        return _plain("sgd", run, _SGD * total, 3 * run.weight_size * total, of_weights=True)
    return _plain("adamw", run, _ADAMW * total, 7 * run.weight_size * total, of_weights=True)


def cached(a: Architecture, run: Inference, tokens: int) -> Work:
    """Return the work of writing the keys and values of so many tokens."""
    return _plain("kv cache", run, 0, 2 * a.layers * tokens * a.kv_dim * run.size)


def decode(a: Architecture, run: Inference) -> list[Work]:
    """Return the work of all generated tokens, one step each for every sequence."""
    n, B = run.new_tokens, run.batch
    one = replace(run, ctx=1)
    per_token = [
        *(work for work in blocks(a, one) if work.part not in ("attention", *_NAIVE)),
        *ends(a, one, B),
        cached(a, run, B),
        _plain("choice", run, B * a.vocab, B * a.vocab * run.size),
    ]
    keys = B * sum(run.ctx + i + 1 for i in range(n))
    pairs = a.layers * a.heads * keys
    attended = 2 * a.layers * (B * n * a.d_model + keys * a.kv_dim) * run.size
    return [
        *(_times(work, n) for work in per_token),
        Work("attention", 4 * pairs * a.head_dim, attended, run.dtype),
        _plain("softmax", run, _SOFTMAX * pairs, 0),
    ]


_NAIVE: Final = ("scores", "softmax", "output")


def _attention_backward(a: Architecture, run: Run) -> list[Work]:
    LT, pairs, size = a.layers * run.tokens, a.layers * a.heads * run.pairs, run.size
    product = 2 * pairs * a.head_dim
    softmax = _plain("softmax", run, 2 * _SOFTMAX * pairs, 0)
    if not run.keeps_scores:
        moved = LT * (4 * a.d_model + 4 * a.kv_dim) * size
        return [Work("attention", 5 * product, moved, run.dtype), softmax]
    scores = (2 * LT * (a.d_model + a.kv_dim) + pairs) * size
    output = (LT * (a.d_model + 2 * a.kv_dim) + 2 * pairs) * size
    return [
        Work("scores", 2 * product, scores, run.dtype),
        replace(softmax, bytes=3 * pairs * size),
        Work("output", 2 * product, output, run.dtype),
    ]


def _product(part: str, a: Architecture, run: Run, tokens: int) -> Work:
    times, wide, out = a.linear[part]
    moved = (tokens * (wide + out) + wide * out) * run.size
    return Work(part, times * 2 * tokens * wide * out, times * moved, run.dtype)


def _product_backward(part: str, a: Architecture, run: Run) -> Work:
    """Gradients of input and weight, from the output's gradient, input and weight."""
    times, wide, out = a.linear[part]
    moved = (run.tokens * (2 * wide + out) + 2 * wide * out) * run.size
    return Work(part, times * 4 * run.tokens * wide * out, times * moved, run.dtype)


def _rotation(a: Architecture, run: Run, tokens: int) -> Work:
    elements = a.layers * tokens * (a.d_model + a.kv_dim)
    return _plain("rope", run, _ROTATION * elements, 2 * elements * run.size)


def _cast(a: Architecture, run: Run, parts: Iterable[str]) -> Work:
    """Weights to the narrower format in forward, their gradients back in backward."""
    elements = sum(times * wide * out for times, wide, out in (a.linear[part] for part in parts))
    return _plain("autocast", run, 0, elements * (run.weight_size + run.size))


def _plain(part: str, run: Run, flops: int, moved: int, *, of_weights: bool = False) -> Work:
    """Return work that is no matrix product."""
    dtype = "fp32" if of_weights and run.autocast else run.plain
    return Work(part, flops, moved, dtype, matmul=False)


def _times(work: Work, times: int) -> Work:
    return replace(work, flops=work.flops * times, bytes=work.bytes * times)
