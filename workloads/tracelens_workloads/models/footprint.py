"""What of a language model stands in memory at the peak of a step, by formula.

Letters as in `formulas`. Counted is what PyTorch's eager operations keep for backward, each tensor
once, and the largest passing tensors; not the libraries' workspaces, and not what an allocator
rounds up. Compiled code keeps less.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tracelens_workloads.models.architecture import Architecture
    from tracelens_workloads.models.formulas import Inference, Run, Training

_KINDS = ("parameters", "gradients", "optimizer state", "activations", "logits", "temporaries")


def training(a: Architecture, run: Training, parameters: Mapping[str, int]) -> dict[str, int]:
    """Return the bytes of each kind at the peak: the largest of the moments that can be it."""
    total = sum(parameters.values())
    if run.mode == "forward" and run.inference:
        return _of_forward(a, run, total)
    weights = total * run.weight_size
    state = 2 * weights if run.mode == "train" and run.optimizer == "adamw" else 0
    moments = _moments(a, run, parameters)
    if run.mode == "train":
        beside = _beside_state(run, parameters)
        moments.append({"gradients": weights, "temporaries": beside})
    peak = max(moments, key=lambda moment: sum(moment.values()))
    found = {"parameters": weights, "optimizer state": state, **peak}
    return {kind: found[kind] for kind in _KINDS if found.get(kind)}


def _moments(a: Architecture, run: Training, parameters: Mapping[str, int]) -> list[dict[str, int]]:
    """Return what lives, beside weights and the optimizer's state, when forward and backward peak.

    While backward goes from the last block to the first, gradients grow as activations go, both
    evenly: the most is at one of the ends.
    """
    size, weights = run.weight_size, sum(parameters.values()) * run.weight_size
    every = run.tokens * a.vocab
    logits = 0 if run.loss == "linear-kernel" else every * run.size
    kept, block = activations(a, run), of_block(a, run)
    again = block if run.checkpoint_activations else 0
    if run.mode == "forward":
        return [{"activations": kept, "logits": logits}]
    of_blocks = sum(parameters[part] for part in ("qkv", "projection", "mlp")) // a.layers
    late = of_blocks + parameters["positions"] + (0 if a.tied else parameters["embedding"])
    held = weights if run.grad_accumulation > 1 else 0
    table = parameters["embedding"] * size
    passing = _passing(a, run)
    return [
        # The loss goes back: logits, their log-softmax, and the gradients of both.
        {"gradients": held, "activations": kept, "logits": every * _loss_bytes(run)},
        # The last block goes back, after the head.
        {
            "gradients": max(held, table),
            "activations": kept + again,
            "logits": logits,
            "temporaries": passing,
        },
        # The first block goes back.
        {
            "gradients": max(held, weights - late * size),
            "activations": block + (run.tokens * a.d_model * size if again else 0),
            "logits": logits,
            "temporaries": passing,
        },
        # The embedding goes back; if it is the head too, its two gradients become a third.
        {"gradients": weights, "logits": logits, "temporaries": 2 * table if a.tied else 0},
    ]


def inference(a: Architecture, run: Inference, parameters: int) -> dict[str, int]:
    """Return the bytes of each kind at the peak, which the prompt's pass makes."""
    found = _of_forward(a, run, parameters)
    if not run.new_tokens:
        return found
    return {**found, "kv cache": cache(a, run.batch, run.ctx + run.new_tokens, run.size)}


def cache(a: Architecture, batch: int, length: int, size: int) -> int:
    """Return the bytes of the keys and values of so many tokens of each sequence."""
    return 2 * a.layers * batch * length * a.kv_dim * size


def activations(a: Architecture, run: Training) -> int:
    """Return the bytes that forward keeps for backward, but for weights and logits.

    With checkpoints that is the input of each block.
    """
    stream = run.tokens * a.d_model * run.weight_size
    blocks = a.layers * (stream if run.checkpoint_activations else of_block(a, run))
    last = stream + _statistics(a, run) + run.tokens * a.d_model * run.size
    positions = 8 * run.ctx if a.positions == "learned" else 0
    return blocks + last + positions + _cast_weights(a, run)


def of_block(a: Architecture, run: Run) -> int:
    """Return the bytes that one block keeps for backward.

    Both norms keep their input and statistics; linear layers their input; attention q, k, v and
    its weights (or its result and the logarithms of its sums); the MLP's middle what it is made
    of. Under autocast, softmax is computed in fp32, and its result kept in both formats.
    """
    TC, TF, size = run.tokens * a.d_model, run.tokens * a.d_ff, run.size
    norms = 2 * (TC * run.weight_size + _statistics(a, run))
    inputs = 3 * TC * size
    if run.autocast:  # each matrix that reads a norm's result keeps a copy of its own
        inputs += ((0 if a.fused_qkv else 2) + (1 if a.mlp == "swiglu" else 0)) * TC * size
    qkv = run.tokens * (a.d_model + 2 * a.kv_dim) * size
    if run.keeps_scores:
        scores = run.batch * a.heads * run.ctx**2
        attention = scores * (size + 4 if run.autocast else size) + run.ctx**2
    else:
        attention = 4 * run.batch * a.heads * run.ctx
        if a.positions == "rope":  # the result lies in memory as q does: head by head
            attention += TC * size
    middle = {"gelu": 2, "swiglu": 4}[a.mlp] * TF * size
    tables = 2 * run.ctx * a.head_dim * size if a.positions == "rope" and run.autocast else 0
    return norms + inputs + qkv + attention + middle + tables


def _of_forward(a: Architecture, run: Run, parameters: int) -> dict[str, int]:
    """Nothing is kept: what passes is what the widest part of a block needs at once."""
    T, size = run.tokens, run.size
    all_logits = getattr(run, "all_logits", True)
    stream = T * a.d_model * run.weight_size
    qkv = T * (a.d_model + 2 * a.kv_dim) * size
    in_attention = stream + 2 * qkv
    if run.keeps_scores:
        in_attention += 2 * run.batch * a.heads * run.ctx**2 * size
    in_mlp = 2 * stream + {"gelu": 2, "swiglu": 3}[a.mlp] * T * a.d_ff * size
    return {
        "parameters": parameters * run.weight_size,
        "activations": max(in_attention, in_mlp),
        "logits": (T if all_logits else run.batch) * a.vocab * size,
    }


def _statistics(a: Architecture, run: Run) -> int:
    """Mean and deviation of each token, or only the latter: fp32."""
    return run.tokens * (8 if a.norm == "layer" else 4)


def _cast_weights(a: Architecture, run: Training) -> int:
    """The copies of weights that autocast makes and linear layers keep; checkpoints keep none."""
    if not run.autocast:
        return 0
    held = replace(a, layers=1) if run.checkpoint_activations else a
    return sum(times * wide * out for times, wide, out in held.linear.values()) * run.size


def _loss_bytes(run: Run) -> int:
    """Bytes per logit while the loss goes back; autocast computes it in fp32.

    Our kernel leaves the gradient in the logits' place; fused with the head, it has a chunk of
    them at a time, which is not counted.
    """
    if run.loss != "torch":
        return run.size if run.loss == "kernel" else 0
    return run.size + 3 * (4 if run.autocast else run.size)


def _passing(a: Architecture, run: Run) -> int:
    """The largest gradients that live at once in a block, less what of it is gone by then."""
    TF = run.tokens * a.d_ff * run.size
    scores = 2 * run.batch * a.heads * run.ctx**2 * run.size if run.keeps_scores else 0
    in_mlp, mlp_is_gone = {"gelu": (TF, 2 * TF), "swiglu": (2 * TF, 4 * TF)}[a.mlp]
    return max(in_mlp, scores - mlp_is_gone) + 2 * run.tokens * a.d_model * run.weight_size


def _beside_state(run: Training, parameters: Mapping[str, int]) -> int:
    """What AdamW computes beside its state: of all tensors at once, of one, or of none."""
    if run.optimizer != "adamw" or run.optimizer_implementation in ("fused", "kernel"):
        return 0
    elements = sum(parameters.values())
    if run.optimizer_implementation == "for-loop":
        elements = parameters["embedding"]
    return elements * run.weight_size
