"""What a language model costs by formula: parameters, operations, bytes moved, memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tracelens.workload import Cost

if TYPE_CHECKING:
    from tracelens_workloads.models.architecture import Architecture


@dataclass(frozen=True, kw_only=True)
class Training:
    """How a model is trained; the options of `gpt2` with the same names."""

    batch: int
    ctx: int
    dtype: str = "fp32"
    autocast: bool = False
    mode: str = "train"
    no_grad: bool = False
    optimizer: str = "adamw"
    optimizer_implementation: str = "foreach"
    attention: str = "naive"
    checkpoint_activations: bool = False
    grad_accumulation: int = 1


def parameters(a: Architecture) -> dict[str, int]:
    """Return the parameters of each part; a tied head has none of its own."""
    qkv = a.d_model + 2 * a.kv_dim
    wide = a.d_ff * (1 if a.mlp == "gelu" else 2)
    return {
        "embedding": a.vocab * a.d_model,
        "positions": a.max_positions * a.d_model if a.positions == "learned" else 0,
        "qkv": a.layers * (a.d_model * qkv + a.qkv_biases * qkv),
        "projection": a.layers * (a.d_model + a.biases) * a.d_model,
        "mlp": a.layers * (a.d_model * wide + a.d_ff * a.d_model + a.biases * (wide + a.d_model)),
        "norms": (2 * a.layers + 1) * a.d_model * (2 if a.norm == "layer" else 1),
        "head": 0 if a.tied else a.vocab * a.d_model,
    }


def training(a: Architecture, run: Training) -> Cost:
    """Return the cost of a step of training."""
    return Cost(
        phases={},
        memory={},
        parameters=sum(parameters(a).values()),
        items=run.batch * run.ctx * run.grad_accumulation,
    )
