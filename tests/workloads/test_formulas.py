"""What language models cost by formula, against real modules, PyTorch's own counts and memory."""

from __future__ import annotations

from dataclasses import replace
from math import comb
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count
from tracelens_workloads.models import footprint, formulas
from tracelens_workloads.models.architecture import FAMILIES, Architecture
from tracelens_workloads.models.attention import naive
from tracelens_workloads.models.transformer import Cache, on_meta

from tests.running import counted_flops, made, matmul_flops, moved_bytes, peak_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from tracelens.workload import Work

TINY: dict[str, Any] = {
    "layers": 3,
    "d_model": 64,
    "heads": 4,
    "vocab": 128,
    "ctx": 32,
    "batch": 2,
}
VARIANTS = ("gpt2", "cs336")
PUBLISHED = {
    "gpt2-small": 124_439_808,
    "gpt2-medium": 354_823_168,
    "gpt2-large": 774_030_080,
    "gpt2-xl": 1_557_611_200,
    "llm-inference-gpt2-xl": 1_557_611_200,
    "llm-inference-llama-3-8b": 8_030_261_248,
    "llm-inference-qwen2.5-7b": 7_615_616_512,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_models_have_the_parameters_that_their_authors_published(name: str) -> None:
    assert made(name).cost().parameters == PUBLISHED[name]


def test_the_40b_model_has_the_parameters_of_its_benchmark_which_counts_no_biases() -> None:
    large: Any = made("llm-inference-40b")

    assert formulas.weights(large.architecture) == 39_479_681_024
    biases = 48 * (3 * 8192 + 8192 + 32768 + 8192) + (2 * 48 + 1) * 8192
    assert large.cost().parameters == 39_479_681_024 + biases


@st.composite
def architectures(draw: st.DrawFn) -> Architecture:
    """Draw any small model: also those that no family has."""
    kv_heads, shared_by = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    heads = kv_heads * shared_by
    return Architecture(
        layers=draw(st.integers(1, 3)),
        d_model=heads * 2 * draw(st.integers(1, 4)),
        heads=heads,
        kv_heads=kv_heads,
        d_ff=draw(st.integers(1, 40)),
        vocab=draw(st.integers(1, 99)),
        max_positions=draw(st.integers(1, 40)),
        **FAMILIES[draw(st.sampled_from(sorted(FAMILIES)))],
    )


@given(architectures())
def test_parameters_are_those_of_the_modules(a: Architecture) -> None:
    model = on_meta(a, naive)

    counted = formulas.parameters(a)

    named = {name: p.numel() for name, p in model.named_parameters()}
    assert sum(counted.values()) == sum(named.values())
    for part, words in {
        "embedding": ("embedding.",),
        "positions": ("positions.",),
        "qkv": (".qkv.",),
        "projection": (".projection.",),
        "mlp": (".mlp.",),
        "norms": ("norm.", "norm1.", "norm2."),
        "head": ("head.",),
    }.items():
        found = sum(n for name, n in named.items() if any(word in name for word in words))
        assert counted[part] == found, part


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    "options",
    [
        {"mode": "forward"},
        {"mode": "forward", "inference": True},
        {"mode": "forward-backward"},
        {"mode": "train", "ctx": 17, "batch": 3},
        {"mode": "train", "checkpoint_activations": True},
        {"mode": "train", "grad_accumulation": 3},
    ],
    ids=str,
)
def test_products_are_those_that_pytorch_dispatches(variant: str, options: Any) -> None:
    training = made("gpt2", **{**TINY, "variant": variant, **options})
    program = training.program("cpu")

    assert matmul_flops(training.cost()) == counted_flops(program)


@pytest.mark.parametrize("mode", ["forward", "forward-backward"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_fused_attention_counts_the_triangle_where_pytorch_counts_the_square(
    variant: str, mode: str
) -> None:
    training = made("gpt2", **TINY, variant=variant, mode=mode, attention="sdpa")
    program = training.program("cpu")

    def square(work: Work) -> Work:
        if work.part != "attention":
            return work
        return replace(work, flops=work.flops * 2 * TINY["ctx"] // (TINY["ctx"] + 1))

    cost = training.cost()
    squares = {phase: list(map(square, works)) for phase, works in cost.phases.items()}

    assert matmul_flops(replace(cost, phases=squares)) == counted_with_fused(program)


def counted_with_fused(program: Any) -> int:
    """Count as PyTorch does; it knows its fused attention for GPUs, but not the CPU's."""
    aten = torch.ops.aten

    def forward(q: Any, k: Any, v: Any, *_: Any, **__: Any) -> int:
        return sdpa_flop_count(q, k, v)

    def backward(grad: Any, q: Any, k: Any, v: Any, *_: Any, **__: Any) -> int:
        return sdpa_backward_flop_count(grad, q, k, v)

    also = {
        aten._scaled_dot_product_flash_attention_for_cpu: forward,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: backward,
    }
    with FlopCounterMode(display=False, custom_mapping=also) as counter:
        program.step()
    return counter.get_total_flops()


@given(batch=st.integers(1, 4), ctx=st.integers(1, 40))
def test_fused_attention_computes_the_pairs_on_and_below_the_diagonal(batch: int, ctx: int) -> None:
    fused = formulas.Run(batch=batch, ctx=ctx, attention="sdpa")

    assert fused.pairs == batch * torch.ones(ctx, ctx).tril().sum()
    assert fused.pairs == batch * comb(ctx + 1, 2)
    assert replace(fused, attention="naive").pairs == batch * ctx * ctx


def test_the_40b_benchmark_multiplies_as_much_as_was_reckoned_by_hand() -> None:
    cost = made("llm-inference-40b", batch=8, prompt=1024).cost()

    products = {w.part: w.flops / 1e12 for w in cost.phases["prefill"] if w.matmul}
    assert products.pop("attention") == pytest.approx(6.6, abs=0.05)
    assert sum(products.values()) == pytest.approx(640.1, abs=0.1)


@pytest.mark.parametrize(
    ("name", "ctx", "milliseconds", "state_gb"),
    [
        ("small", 512, (24, 3.2, 0.8), 2.1),
        ("medium", 512, (80, 10.9, 2.5), 6.8),
        ("large", 512, (184, 24.9, 5.7), 15.5),
        ("xl", 512, (379, 51.2, 11.7), 32.0),
        ("2.7b", 512, (636, 86.1, 19.9), 54.5),
        ("2.7b", 1024, (1304, 176, 19.9), 54.5),
    ],
)
def test_a_step_of_the_course_takes_an_h200_at_least_as_long_as_was_reckoned_by_hand(
    name: str, ctx: int, milliseconds: tuple[float, float, float], state_gb: float
) -> None:
    """Bounds of a table that was made apart from this code, as it rounds them.

    Of all products in fp32 (66.9 TFLOP/s) and tf32 (494.7), and of AdamW's bytes (4.8 TB/s).
    """
    cost = made(f"gpt2-cs336-{name}", ctx=ctx).cost()

    products, moved = matmul_flops(cost), moved_bytes(cost, "optimizer")
    bounds = [products / 66.9e9, products / 494.7e9, moved / 4.8e9]
    for bound, reckoned in zip(bounds, milliseconds, strict=True):
        assert bound == pytest.approx(reckoned, abs=0.05 if reckoned % 1 else 0.6)
    assert 16 * cost.parameters / 1e9 == pytest.approx(state_gb, abs=0.06)


def saved_bytes(program: Any) -> int:
    """Return the bytes of what autograd keeps of a forward pass, parameters and tokens aside."""
    model = program.model
    aside = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    aside.add(program._data.untyped_storage().data_ptr())
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in aside:
            kept[storage.data_ptr()] = storage
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with hooks, program._autocast():
        logits = program._model(program._data[0, 0])
    del logits
    return sum(storage.nbytes() for storage in kept.values())


def differs_on_the_cpu(training: Any) -> int:
    """Return what the CPU keeps beyond the formulas, which count what a GPU keeps.

    Its RMSNorm is no one operation: it keeps the input in fp32, and also what comes of it. Under
    autocast, its softmax stays in bf16 (a GPU's result is kept in fp32 too).
    """
    a = training.architecture
    norms = 2 * (0 if training.checkpoint_activations else a.layers) + 1
    stream = training.batch * training.ctx * a.d_model
    size = 4 if training.autocast or training.dtype == "fp32" else 2
    more = norms * stream * (8 - size) if a.norm == "rms" else 0
    if training.autocast and training.attention == "naive" and not training.checkpoint_activations:
        more -= 4 * a.layers * training.batch * a.heads * training.ctx**2
    return more


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"batch": 1},
        {"attention": "sdpa"},
        {"checkpoint_activations": True},
        {"dtype": "bf16"},
        {"dtype": "bf16", "attention": "sdpa"},
        {"dtype": "bf16", "autocast": True},
        {"dtype": "bf16", "autocast": True, "attention": "sdpa"},
    ],
    ids=str,
)
def test_activations_are_what_autograd_keeps(variant: str, options: Any) -> None:
    training: Any = made("gpt2", **{**TINY, "variant": variant, **options})
    program = training.program("cpu")

    counted = footprint.activations(training.architecture, training.run)

    # Not exact only where the CPU keeps statistics and constants of norms in another format.
    assert counted + differs_on_the_cpu(training) == pytest.approx(saved_bytes(program), rel=0.01)


def test_scores_are_the_100_mb_that_were_seen_of_gpt2_xl_at_ctx_512() -> None:
    naive, fused = (made("gpt2-xl", ctx=512, attention=how) for how in ("naive", "sdpa"))
    a = naive.architecture

    scores = footprint.of_block(a, naive.run) - footprint.of_block(a, fused.run)

    mask, sums = 512**2, 4 * 4 * 25 * 512
    assert scores == 104_857_600 + mask - sums


BASE: dict[str, Any] = {"layers": 4, "d_model": 128, "heads": 4, "vocab": 256, "ctx": 64}


@pytest.mark.parametrize(
    "options",
    [
        {"mode": "forward"},
        {"mode": "forward", "inference": True},
        {"mode": "forward-backward", "attention": "sdpa"},
        {"mode": "forward-backward", "checkpoint_activations": True},
        {"mode": "forward-backward", "variant": "cs336"},
        {"ctx": 256, "batch": 2},
        {"vocab": 8000, "batch": 2},
        {"vocab": 8000, "batch": 2, "checkpoint_activations": True},
        {"vocab": 8000, "batch": 2, "variant": "cs336"},
        {"grad_accumulation": 2},
        {"batch": 1, "ctx": 16},
        {"batch": 1, "ctx": 16, "optimizer_implementation": "fused"},
        {"batch": 1, "ctx": 16, "optimizer": "sgd"},
    ],
    ids=str,
)
def test_the_peak_is_within_a_tenth_of_what_a_step_takes(options: Any, tmp_path: Path) -> None:
    training = made("gpt2", **{**BASE, **options})

    assert training.cost().memory_bytes == pytest.approx(peak_bytes(training, tmp_path), rel=0.1)


@pytest.mark.parametrize("attention", ["naive", "sdpa"])
def test_the_peak_of_inference_is_within_a_tenth_of_what_a_step_takes(
    attention: str, tmp_path: Path
) -> None:
    sizes = {"layers": 4, "d_model": 128, "heads": 4, "vocab": 512, "prompt": 256, "batch": 4}
    inference = made("llm-inference", **sizes, new_tokens=8, dtype="fp32", attention=attention)

    assert inference.cost().memory_bytes == pytest.approx(peak_bytes(inference, tmp_path), rel=0.1)


@pytest.mark.parametrize(("dtype", "autocast"), [("fp32", False), ("bf16", False), ("bf16", True)])
def test_adamw_moves_each_tensor_of_its_state_at_least_once(dtype: str, autocast: bool) -> None:
    training = made("gpt2", **TINY, dtype=dtype, autocast=autocast)
    program: Any = training.program("cpu")
    program.step()

    weights = sum(p.nbytes for p in program.model.parameters())
    moments = [
        one[key].nbytes
        for one in program.optimizer.state.values()
        for key in ("exp_avg", "exp_avg_sq")
    ]
    read_and_written = 2 * (weights + sum(moments)) + weights  # gradients are only read
    assert moved_bytes(training.cost(), "optimizer") == read_and_written


def test_products_move_their_operands_and_results_once() -> None:
    training: Any = made("gpt2", **TINY, d_ff=96)
    moved = {work.part: work.bytes for work in training.cost().phases["forward"]}
    tokens = TINY["batch"] * TINY["ctx"]
    x, up = torch.empty(tokens, 64), torch.empty(tokens, 96)
    weight = torch.empty(96, 64)

    assert moved["mlp up"] == TINY["layers"] * (x.nbytes + weight.nbytes + up.nbytes)
    q = torch.empty(2, 4, 32, 16)
    scores = torch.empty(2, 4, 32, 32)
    assert moved["scores"] == TINY["layers"] * (2 * q.nbytes + scores.nbytes)
    assert moved["softmax"] == TINY["layers"] * 2 * scores.nbytes


@given(architectures(), st.integers(1, 3), st.integers(1, 20))
def test_the_cache_has_the_bytes_of_its_tensor(a: Architecture, batch: int, length: int) -> None:
    real = Cache(a, batch, length, torch.bfloat16, "meta")

    assert footprint.cache(a, batch, length, 2) == real.nbytes


def test_a_generated_token_reads_all_weights_and_all_keys_and_values_before_it() -> None:
    inference: Any = made("llm-inference-llama-3-8b", prompt=1000, new_tokens=1, batch=2)
    cost = inference.cost()

    in_products = cost.parameters - 128256 * 4096 - (2 * 32 + 1) * 4096  # rows and norms aside
    keys_and_values = 2 * 32 * 2 * 1001 * 8 * 128
    moved = moved_bytes(cost, "decode")
    assert 2 * (in_products + keys_and_values) <= moved
    assert moved == pytest.approx(2 * (in_products + keys_and_values), rel=0.01)
