"""Operations and parameters by shape: a multiplication and its addition are two operations.

Attention is 4·B·H·S²·D forward, half of that if causal, and 2.5 times that backward (T. Dao,
*FlashAttention-2*, 2023). A transformer's matrices cost two operations per weight and token
forward, and twice that backward (J. Kaplan et al., *Scaling Laws*, 2020, section 2.1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tracelens.audit.quantities import FLOPS
from tracelens.audit.wording import amount

if TYPE_CHECKING:
    from collections.abc import Mapping

PASSES: Final = ("forward", "backward", "both")
"""What a time is of."""

_LINEAR: Final = {"forward": 1.0, "backward": 2.0, "both": 3.0}
_ATTENTION: Final = {"forward": 1.0, "backward": 2.5, "both": 3.5}


def gemm_flops(m: float, n: float, k: float, batch: float = 1) -> float:
    """Return the operations of (m, k) by (k, n), `batch` times."""
    return 2 * batch * m * n * k


def attention_flops(
    batch: float, heads: float, seq: float, head_dim: float, causal: float = 0
) -> float:
    """Return the operations of one attention forward; half if causal."""
    return 4 * batch * heads * seq**2 * head_dim / (2 if causal else 1)


def transformer_parameters(
    layers: float, d_model: float, d_ff: float = 0, vocab: float = 0, ffn_matrices: float = 2
) -> float:
    """Return the weights of a decoder's matrices; with a vocabulary, embedding and head too."""
    inner = d_ff or 4 * d_model
    return layers * (4 * d_model**2 + ffn_matrices * d_model * inner) + 2 * vocab * d_model


def transformer_flops(  # noqa: PLR0917 (the settings of one shape)
    batch: float,
    seq: float,
    layers: float,
    d_model: float,
    d_ff: float = 0,
    vocab: float = 0,
    ffn_matrices: float = 2,
    causal: float = 1,
) -> float:
    """Return the operations of a decoder forward: its matrices, attention, and the head."""
    matrices = transformer_parameters(layers, d_model, d_ff, 0, ffn_matrices)
    attention = layers * attention_flops(batch, 1, seq, d_model, causal)
    return 2 * batch * seq * (matrices + vocab * d_model) + attention


def moe_flops(  # noqa: PLR0917 (the settings of one shape)
    batch: float, seq: float, d_model: float, d_ff: float, top_k: float, ffn_matrices: float = 2
) -> float:
    """Return the operations of the experts of a layer: every token goes through `top_k` of them."""
    return 2 * batch * seq * top_k * ffn_matrices * d_model * d_ff


@dataclass(frozen=True)
class Work:
    """What a row does.

    Attributes:
        ways: operations and the formula with its numbers, for each way that they may be counted;
            the least is surely done.
        assumed: what was not said and is taken for granted; empty: nothing.
    """

    ways: tuple[tuple[float, str], ...]
    assumed: str = ""


KINDS: Final = ("gemm", "attention", "transformer", "moe")
"""What a mapping may call the work of a table."""


def of_row(kind: str, known: Mapping[str, float], part: str = "forward") -> Work | None:
    """Return the work of a kind with these settings; None if a setting is missing.

    `known` has settings by name, and `causal` (0 or 1) and `ffn_matrices` where a mapping says.
    """
    if kind == "gemm":
        return _gemm(known)
    if kind == "attention":
        return _attention(known, _ATTENTION[part])
    if kind == "transformer":
        return _transformer(known, part)
    return _moe(known, _LINEAR[part]) if kind == "moe" else None


def recognised(known: Mapping[str, float], title: str) -> str:
    """Return the kind of work that settings and a title suggest; empty: none."""
    if {"m", "n", "k"} <= set(known):
        return "gemm"
    if {"experts", "top_k", "d_model", "d_ff"} <= set(known):
        return "moe"
    if {"batch", "seq", "heads", "head_dim"} <= set(known) and "attention" in title.lower():
        return "attention"
    if {"layers", "d_model"} <= set(known):
        return "transformer"
    return ""


def _gemm(known: Mapping[str, float]) -> Work | None:
    if not {"m", "n", "k"} <= set(known):
        return None
    m, n, k = (known[name] for name in ("m", "n", "k"))
    return Work(((gemm_flops(m, n, k), f"2·{m:.0f}·{n:.0f}·{k:.0f}"),))


def _attention(known: Mapping[str, float], factor: float) -> Work | None:
    if not {"batch", "seq", "heads", "head_dim"} <= set(known):
        return None
    b, h, s, d = (known[name] for name in ("batch", "heads", "seq", "head_dim"))
    ways = [known["causal"]] if "causal" in known else [1.0, 0.0]
    times = f"{factor:g}·" if factor != 1 else ""
    says = f"{times}4·{b:.0f}·{h:.0f}·{s:.0f}²·{d:.0f}"
    return Work(
        tuple(
            (factor * attention_flops(b, h, s, d, causal), says + ("/2" if causal else ""))
            for causal in ways
        ),
        "" if "causal" in known else "causal",
    )


def _transformer(known: Mapping[str, float], part: str) -> Work | None:
    if not {"batch", "seq", "layers", "d_model"} <= set(known):
        return None
    b, s, layers, d = (known[name] for name in ("batch", "seq", "layers", "d_model"))
    d_ff = known.get("d_ff", 4 * d)
    matrices = known.get("ffn_matrices", 2.0)
    vocab = known.get("vocab", 0.0)
    weights = transformer_parameters(layers, d, d_ff, 0, matrices) + vocab * d
    linear = _LINEAR[part] * 2 * b * s * weights
    causal = known.get("causal", 1.0)
    attention = _ATTENTION[part] * layers * attention_flops(b, 1, s, d, causal)
    times = {"forward": "2", "backward": "4", "both": "6"}[part]
    assumed = [] if "d_ff" in known else [f"d_ff = 4·{d:.0f}"]
    assumed += [] if "causal" in known else ["causal"]
    assumed += [] if "ffn_matrices" in known else ["two matrices of the MLP"]
    says = f"{times}·{b * s:.0f} tokens·{weights:.4g} weights"
    says += f" + {amount(FLOPS, attention)} of attention"
    return Work(((linear + attention, says),), ", ".join(assumed))


def _moe(known: Mapping[str, float], factor: float) -> Work | None:
    if not {"batch", "seq", "d_model", "d_ff", "top_k"} <= set(known):
        return None
    b, s, d, inner, top = (known[k] for k in ("batch", "seq", "d_model", "d_ff", "top_k"))
    matrices = known.get("ffn_matrices", 2.0)
    flops = factor * moe_flops(b, s, d, inner, top, matrices)
    assumed = "" if "ffn_matrices" in known else "two matrices an expert"
    says = f"{2 * factor:g}·{b * s:.0f} tokens·{top:.0f} experts·{matrices:.0f}·{d:.0f}·{inner:.0f}"
    return Work(((flops, says),), assumed)
