"""Training GPT-2: every way to run a step gives the same step, marked and counted."""

from __future__ import annotations

import itertools
import subprocess
import sys
from typing import Any

import pytest
import torch
from tracelens_workloads.models.attention import IMPLEMENTATIONS, naive
from tracelens_workloads.models.transformer import angles, build, rotate

from tests.running import made, recorded
from tracelens.errors import UsageError

TINY: dict[str, Any] = {
    "layers": 2,
    "d_model": 32,
    "heads": 4,
    "vocab": 64,
    "ctx": 16,
    "batch": 2,
}
VARIANTS = ("gpt2", "cs336")
SDPA = "tracelens_workloads.models.attention:sdpa"


def tiny(**options: Any) -> Any:
    return made("gpt2", **{**TINY, **options})


def started(device: str = "cpu", **options: Any) -> Any:
    """Return a tiny program with the weights and tokens of seed 0."""
    torch.manual_seed(0)
    return tiny(**options).program(device)


def trained(steps: int = 2, **options: Any) -> list[torch.Tensor]:
    """Return a tiny model's weights after some steps."""
    program = started(**options)
    for _ in range(steps):
        program.step()
    return [p.detach() for p in program.model.parameters()]


def assert_same(one: list[torch.Tensor], other: list[torch.Tensor], within: float = 1e-6) -> None:
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, atol=within, rtol=within)


@pytest.mark.parametrize(
    ("name", "sizes"),
    {
        "gpt2": (12, 768, 12, 3072),
        "gpt2-small": (12, 768, 12, 3072),
        "gpt2-medium": (24, 1024, 16, 4096),
        "gpt2-large": (36, 1280, 20, 5120),
        "gpt2-xl": (48, 1600, 25, 6400),
        "gpt2-2.7b": (32, 2560, 32, 10240),
    }.items(),
)
def test_presets_have_the_dimensions_of_gpt2_also_in_the_variant_of_the_course(
    name: str, sizes: tuple[int, ...]
) -> None:
    both = [made(name)]
    if "-" in name:
        both.append(made(name.replace("gpt2-", "gpt2-cs336-")))

    for gpt2 in both:
        a = gpt2.architecture
        assert (a.layers, a.d_model, a.heads, a.d_ff) == sizes
    assert [one.architecture.vocab for one in both] == [50257, 10000][: len(both)]
    assert [one.architecture.norm for one in both] == ["layer", "rms"][: len(both)]


WAYS = [
    {"mode": mode, "dtype": dtype, "autocast": autocast, "attention": attention}
    for mode, (dtype, autocast), attention in itertools.product(
        ("forward", "forward-backward", "train"),
        (("fp32", False), ("bf16", False), ("bf16", True), ("fp16", False), ("fp16", True)),
        ("naive", "sdpa", "sdpa-flash", "kernel"),
    )
]
MORE: list[dict[str, Any]] = [
    {"mode": "forward", "inference": True},
    *(
        {"optimizer": optimizer, "optimizer_implementation": how}
        for optimizer in ("adamw", "sgd")
        for how in ("foreach", "fused", "for-loop")
    ),
    {"checkpoint_activations": True, "grad_accumulation": 2, "dtype": "bf16", "autocast": True},
    {"checkpoint_activations": True, "attention": "sdpa", "mode": "forward-backward"},
    {"d_ff": 24, "vocab": 7, "batch": 1, "ctx": 1},
    {"layers": 1, "heads": 1, "ctx": 1030, "d_model": 2, "batch": 1},
]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("options", [*WAYS, *MORE], ids=str)
def test_the_cpu_runs_every_combination(variant: str, options: dict[str, Any]) -> None:
    kernel = {"kernel": SDPA} if options.get("attention") == "kernel" else {}
    program = started(variant=variant, **options, **kernel)
    before = [p.clone() for p in program.model.parameters()]

    program.step()
    program.step()

    mode = options.get("mode", "train")
    has_gradients = any(p.grad is not None for p in program.model.parameters())
    changed = any(
        (p != old).any() for p, old in zip(program.model.parameters(), before, strict=True)
    )
    assert (program.optimizer is not None) == (mode == "train") == changed
    assert has_gradients == (mode == "forward-backward")
    assert (program.loss is None) == (mode == "forward")
    assert mode == "forward" or program.loss.isfinite()


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    "options",
    [
        {"attention": "sdpa"},
        {"attention": "sdpa-flash"},
        {"attention": "kernel", "kernel": SDPA},
        {"checkpoint_activations": True},
        {"optimizer_implementation": "fused"},
        {"optimizer_implementation": "for-loop"},
    ],
    ids=str,
)
def test_another_way_to_run_a_step_leaves_the_same_weights(
    variant: str, options: dict[str, Any]
) -> None:
    assert_same(trained(variant=variant), trained(variant=variant, **options), 1e-5)


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_autocast_is_close_to_fp32_and_keeps_weights_in_it(dtype: str) -> None:
    plain, cast = started(), started(dtype=dtype, autocast=True)

    plain.step()
    cast.step()

    assert all(p.dtype == torch.float32 for p in cast.model.parameters())
    torch.testing.assert_close(cast.loss, plain.loss, atol=0.01, rtol=0.01)
    assert cast.loss != plain.loss


def test_gradients_of_micro_batches_add_up_to_those_of_one_batch() -> None:
    whole = started(mode="forward-backward", batch=6)
    parts = started(mode="forward-backward", batch=2, grad_accumulation=3)
    parts._data = whole._data.reshape(2, 3, 2, 16).transpose(0, 1)

    whole.step()
    parts.step()

    gradients = [[p.grad for p in one.model.parameters()] for one in (whole, parts)]
    assert_same(*gradients)


def test_sgd_takes_the_gradient_away_as_it_is() -> None:
    gradient = started(mode="forward-backward")
    before = [p.clone() for p in gradient.model.parameters()]
    gradient.step()

    after = trained(1, optimizer="sgd")

    pairs = zip(before, gradient.model.parameters(), strict=True)
    assert_same(after, [old - 1e-4 * p.grad for old, p in pairs])


def test_training_lowers_the_loss() -> None:
    program = started()
    program.step()
    first = program.loss
    for group in program.optimizer.param_groups:
        group["lr"] = 0.01

    for _ in range(20):
        program.step()

    assert program.loss < 0.8 * first


@pytest.mark.parametrize("name", ["naive", "sdpa", "sdpa-flash"])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_attention_is_what_its_definition_says(name: str, kv_heads: int) -> None:
    q = torch.randn(2, 4, 7, 8, dtype=torch.float64)
    k, v = torch.randn(2, 2, kv_heads, 7, 8, dtype=torch.float64)

    out = IMPLEMENTATIONS[name](q, k, v, True)

    expected = torch.empty_like(q)
    for b, h, i in itertools.product(range(2), range(4), range(7)):
        of = h // (4 // kv_heads)
        weights = torch.exp(k[b, of, : i + 1] @ q[b, h, i] / 8**0.5)
        expected[b, h, i] = weights @ v[b, of, : i + 1] / weights.sum()
    torch.testing.assert_close(out, expected)


def test_a_token_knows_nothing_of_those_after_it() -> None:
    model = build(tiny(variant="cs336"))
    tokens = torch.randint(64, (1, 16))
    changed = tokens.clone()
    changed[0, 9:] = (changed[0, 9:] + 1) % 64

    difference = (model(tokens) - model(changed)).abs().amax(dim=(0, 2))

    assert (difference[:9] == 0).all()
    assert (difference[9:] > 0).all()


def test_rope_turns_pairs_as_complex_numbers_do_and_scores_see_only_the_distance() -> None:
    a = tiny(variant="cs336", d_model=48).architecture
    cos, sin = angles(a)
    x = torch.randn(1, 1, a.max_positions, a.head_dim)

    turned = rotate(x, (cos, sin))

    pairs = torch.complex(*x.chunk(2, -1))
    frequencies = 10000 ** (-torch.arange(a.head_dim // 2) * 2 / a.head_dim)
    by = torch.polar(torch.ones(()), torch.arange(a.max_positions)[:, None] * frequencies)
    expected = torch.cat([(pairs * by).real, (pairs * by).imag], -1)
    torch.testing.assert_close(turned, expected, atol=1e-4, rtol=1e-4)
    same = rotate(x[:, :, :1].expand_as(x), (cos, sin))
    scores = (same @ same.mT)[0, 0]
    torch.testing.assert_close(scores[3, 10], scores[803, 810], atol=1e-3, rtol=1e-3)


def test_weights_are_gpt2s_and_a_tied_head_is_the_embedding() -> None:
    torch.manual_seed(0)
    model = build(tiny(d_model=256, vocab=1000))

    assert model.head.weight is model.embedding.weight
    assert model.embedding.weight.detach().std() == pytest.approx(0.02, rel=0.01)
    assert model.blocks[0].mlp.up.weight.detach().std() == pytest.approx(0.02, rel=0.02)
    assert (model.blocks[1].mlp.up.bias == 0).all()
    assert (model.norm.weight == 1).all()
    untied = build(tiny(variant="cs336"))
    assert untied.head.weight is not untied.embedding.weight


def named(program: Any) -> dict[str, list[Any]]:
    """Return the ranges of one step, by name."""
    program.step()
    found: dict[str, list[Any]] = {}
    for event in recorded(program):
        found.setdefault(event.name, []).append(event.time_range)
    return found


def within(inner: Any, outer: Any) -> bool:
    return bool(outer.start <= inner.start and inner.end <= outer.end)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_block_has_its_attention_with_scores_softmax_and_output_in_forward(
    variant: str,
) -> None:
    ranges = named(started(variant=variant))

    (forward,) = ranges["forward"]
    for i in range(TINY["layers"]):
        block = ranges[f"blocks.{i}"][0]
        attention = ranges[f"blocks.{i}.attention"][0]
        assert within(block, forward)
        assert within(attention, block)
        assert within(ranges[f"blocks.{i}.mlp"][0], block)
        parts = [ranges[name][i] for name in ("scores", "softmax", "output")]
        parts = [
            ranges[f"blocks.{i}.attention.qkv"][0],
            *parts,
            ranges[f"blocks.{i}.attention.projection"][0],
        ]
        assert all(within(part, attention) for part in parts)
        assert all(a.end <= b.start for a, b in itertools.pairwise(parts))


def test_a_layer_has_a_range_in_backward_too() -> None:
    ranges = named(started())

    (backward,) = ranges["backward"]
    last, first = (ranges[f"blocks.{i}"][1] for i in (1, 0))
    assert within(last, backward)
    assert within(first, backward)
    assert last.end <= first.start
    for i, block in ((0, first), (1, last)):
        for part in ("attention", "mlp", "attention.qkv", "attention.attend.softmax"):
            assert within(ranges[f"blocks.{i}.{part}"][1], block)


def test_fused_attention_has_one_range_in_each_direction() -> None:
    ranges = named(started(attention="sdpa"))

    (forward,), (backward,) = ranges["forward"], ranges["backward"]
    there, back = ranges["blocks.0.attention.attend"]
    assert within(there, forward)
    assert within(back, backward)
    assert "softmax" not in ranges


def test_a_block_that_runs_again_is_seen_in_backward() -> None:
    ranges = named(started(checkpoint_activations=True))

    (backward,) = ranges["backward"]
    scores = ranges["scores"]
    assert [within(one, backward) for one in scores] == [False, False, True, True]


def test_zero_grad_is_part_of_the_optimizer_and_phases_follow_one_another() -> None:
    ranges = named(started(grad_accumulation=2))

    (step,), (optimizer,) = ranges["step"], ranges["optimizer"]
    order = [ranges[name][i] for i in (0, 1) for name in ("forward", "loss", "backward")]
    order.append(optimizer)
    assert all(within(one, step) for one in order)
    assert all(a.end <= b.start for a, b in itertools.pairwise(order))
    (zeroing,) = (found for name, found in ranges.items() if "zero_grad" in name)
    assert within(zeroing[0], optimizer)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"heads": 5}, ["5 heads do not divide --d-model 32", "--heads 4"]),
        ({"variant": "cs336", "d_model": 12}, ["RoPE", "head of 3"]),
        ({"layers": 0}, ["at least 1"]),
        ({"ctx": 0}, ["--ctx", "at least 1"]),
        ({"grad_accumulation": 0}, ["--grad-accumulation", "at least 1"]),
        ({"autocast": True}, ["--autocast", "--dtype fp32", "--dtype bf16"]),
        ({"attention": "kernel"}, ["--kernel (flash-attention, or module:function)"]),
        ({"kernel": SDPA}, ["--attention kernel"]),
        ({"attention": "kernel", "kernel": "mine"}, ["mine", "module:function"]),
        ({"inference": True}, ["--inference", "--mode train"]),
        ({"mode": "forward", "checkpoint_activations": True}, ["--checkpoint-activations"]),
        ({"mode": "forward", "grad_accumulation": 2}, ["--grad-accumulation", "--batch"]),
        ({"cuda_graph": True, "compile": "reduce-overhead"}, ["--compile default"]),
        ({"cuda_graph": True, "compile": "max-autotune"}, ["--compile default"]),
        ({"attention": "sdpaflash"}, ["--attention", "sdpa-flash"]),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_with_what_to_do(
    options: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(UsageError) as refused:
        tiny(**options)

    assert all(word in str(refused.value) for word in words), str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dtype": "tf32"}, ["--dtype tf32", "GPU"]),
        ({"cuda_graph": True}, ["--cuda-graph", "GPU"]),
        ({"attention": "sdpa-cudnn"}, ["sdpa-cudnn attention", "GPU", "sdpa"]),
        ({"attention": "flex"}, ["flex attention", "GPU", "sdpa"]),
        ({"attention": "kernel", "kernel": "no.such:thing"}, ["no.such:thing", "PYTHONPATH"]),
        ({"attention": "kernel", "kernel": "math:attention"}, ["math", "'attention'"]),
        ({"attention": "kernel", "kernel": "math:pi"}, ["math:pi", "function"]),
    ],
    ids=str,
)
def test_what_the_cpu_cannot_do_is_refused_with_what_to_do(
    options: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(UsageError) as refused:
        started(**options)

    assert all(word in str(refused.value) for word in words), str(refused.value)


def test_compiling_without_a_compiler_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)

    with pytest.raises(UsageError, match=r"--compile default needs a C\+\+ compiler"):
        started(compile="default")


def test_a_smaller_model_is_offered_first_as_large_as_can_be() -> None:
    whole: Any = made("gpt2-xl", ctx=1024)

    smaller = list(whole.variants())

    sizes = [one.cost().memory_bytes for one in smaller]
    assert sizes == sorted(sizes, reverse=True)
    assert 0.6 * whole.cost().memory_bytes < sizes[0] < whole.cost().memory_bytes
    assert (smaller[0].layers, smaller[0].ctx, smaller[0].batch) == (48, 1024, 2)
    assert (smaller[-1].layers, smaller[-1].ctx, smaller[-1].batch) == (12, 128, 1)


PROGRAM = """
import torch
from tracelens_workloads._torch import _allow_tf32
for allowed in (True, False, True):
    _allow_tf32(allowed)
    assert torch.backends.cuda.matmul.allow_tf32 == allowed
    assert torch.backends.cudnn.allow_tf32 == allowed
    assert torch.get_float32_matmul_precision() == ("high" if allowed else "highest")
"""


def test_setting_tf32_gives_no_warning() -> None:
    run = subprocess.run(  # noqa: PLW1510
        [sys.executable, "-W", "error", "-c", PROGRAM], capture_output=True, text=True
    )

    assert (run.returncode, run.stderr) == (0, "")


COMPILED = """
import torch
from torch._dynamo.utils import counters
from tracelens.workload import find, make

kind, _ = find("gpt2")
tiny = dict(layers=2, d_model=32, heads=4, vocab=64, ctx=16, batch=2, checkpoint_activations=True)
weights = []
for mode in ("none", "default"):
    torch.manual_seed(0)
    program = make(kind, {**tiny, "compile": mode}).program("cpu")
    with torch.profiler.profile() as recording:
        program.step()
        program.step()
    names = {event.name for event in recording.events()}
    assert {"step", "forward", "loss", "backward", "optimizer"} <= names
    assert ("scores" in names) == (mode == "none")
    weights.append(list(program.model.parameters()))
assert counters["stats"]["unique_graphs"] == 1 and not counters["graph_break"], counters
for one, other in zip(*weights):
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
"""


@pytest.mark.slow
def test_a_compiled_model_is_one_graph_and_trains_to_the_same_weights() -> None:
    run = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True)  # noqa: PLW1510

    assert run.returncode == 0, run.stderr


FLEX = """
import torch
from tracelens_workloads.models.attention import flex, naive

q, k, v = torch.randn(3, 2, 4, 32, 16)
with torch.no_grad():  # the CPU has no way back
    for k, v in ((k, v), (k[:, :2], v[:, :2])):
        for causal in (True, False):
            found, expected = flex(q, k, v, causal), naive(q, k, v, causal)
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
"""


@pytest.mark.slow
def test_flex_attention_is_the_naive_one() -> None:
    run = subprocess.run([sys.executable, "-c", FLEX], capture_output=True, text=True)  # noqa: PLW1510

    assert run.returncode == 0, run.stderr


GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@GPU
@pytest.mark.gpu
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"attention": "sdpa", "dtype": "bf16"},
        {"dtype": "bf16", "autocast": True},
        {"checkpoint_activations": True},
        {"grad_accumulation": 2},
        {"optimizer": "sgd"},
        {"optimizer_implementation": "fused"},
        {"mode": "forward"},
        {"mode": "forward-backward"},
        {"compile": "default"},
    ],
    ids=str,
)
def test_a_replayed_step_is_the_step(options: dict[str, Any]) -> None:
    eager, replayed = started("cuda", **options), started("cuda", cuda_graph=True, **options)
    for _ in range(5):
        eager.step()
    for _ in range(2):  # after three to warm up
        replayed.step()

    weights = [list(one.model.parameters()) for one in (eager, replayed)]
    assert_same(*weights, within=1e-2 if "bf16" in str(options) else 1e-4)


@GPU
@pytest.mark.gpu
@pytest.mark.parametrize("name", ["sdpa", "sdpa-flash", "sdpa-cudnn", "flex"])
def test_fused_attention_on_a_gpu_is_the_naive_one(name: str) -> None:
    q, k, v = torch.randn(3, 2, 4, 256, 64, dtype=torch.bfloat16, device="cuda")

    found = IMPLEMENTATIONS[name](q, k, v, True)

    torch.testing.assert_close(found, naive(q, k, v, True), atol=2e-2, rtol=2e-2)
