"""Generating text: the cache changes nothing but the time, and every token is marked."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tracelens_workloads.models import footprint

from tests.running import counted_flops, made, matmul_flops, recorded
from tracelens.errors import UsageError

TINY: dict[str, Any] = {
    "layers": 2,
    "d_model": 32,
    "heads": 4,
    "vocab": 64,
    "prompt": 9,
    "new_tokens": 5,
    "batch": 2,
    "dtype": "fp32",
}
FAMILIES = ("gpt2", "gpt", "llama", "qwen2")


def tiny(**options: Any) -> Any:
    return made("llm-inference", **{**TINY, **options})


def started(**options: Any) -> Any:
    torch.manual_seed(0)
    return tiny(**options).program("cpu")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("attention", ["naive", "sdpa"])
@torch.no_grad()
def test_decoding_with_a_cache_gives_the_logits_of_the_whole_sequence(
    family: str, kv_heads: int, attention: str
) -> None:
    program = started(family=family, kv_heads=kv_heads, attention=attention)
    tokens = torch.randint(64, (2, 14))

    program.cache.seen = 0
    parts = [program.model(tokens[:, :9], program.cache)]
    parts += [program.model(tokens[:, i : i + 1], program.cache) for i in range(9, 14)]

    whole = program.model(tokens)
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=1e-5, rtol=1e-4)
    assert program.cache.seen == 14


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_what_is_generated_is_the_likeliest_each_time_whatever_was_before(family: str) -> None:
    program = started(family=family)

    program.step()
    program.step()

    tokens = program.prompt
    for _ in range(1 + TINY["new_tokens"]):
        likeliest = program.model(tokens)[:, -1:].argmax(-1)
        tokens = torch.cat([tokens, likeliest], dim=1)
    assert torch.equal(program.generated, tokens[:, TINY["prompt"] :])


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("attention", ["naive", "sdpa", "sdpa-flash", "kernel"])
def test_the_cpu_runs_every_combination(dtype: str, attention: str) -> None:
    kernel = "tracelens_workloads.models.attention:sdpa" if attention == "kernel" else None
    program = started(dtype=dtype, attention=attention, kernel=kernel, kv_heads=2)

    program.step()

    assert program.generated.shape == (2, 6)
    assert all(p.dtype == program.cache.kv.dtype for p in program.model.parameters())
    assert all(p.grad is None for p in program.model.parameters())


def test_the_formula_of_the_cache_is_the_bytes_of_the_real_one() -> None:
    for dtype, size in (("fp32", 4), ("bf16", 2)):
        workload = tiny(kv_heads=2, dtype=dtype)
        program = workload.program("cpu")

        assert workload.cost().memory["kv cache"] == program.cache.nbytes
        assert program.cache.nbytes == footprint.cache(workload.architecture, 2, 9 + 5, size)


def test_each_token_has_a_range_in_decode_and_the_prompt_one_before() -> None:
    program = started()
    events = {event.name: event.time_range for event in recorded(program)}

    step, prefill, decode = events["step"], events["prefill"], events["decode"]
    tokens = [events[f"token {i}"] for i in range(TINY["new_tokens"])]
    assert step.start <= prefill.start < prefill.end <= decode.start < decode.end <= step.end
    assert decode.start <= tokens[0].start
    assert tokens[-1].end <= decode.end
    assert f"token {TINY['new_tokens']}" not in events
    assert "blocks.1.attention" in events


def test_without_new_tokens_there_is_no_decode_and_no_cache() -> None:
    workload = tiny(new_tokens=0)
    program = workload.program("cpu")

    names = {event.name for event in recorded(program)}

    assert "prefill" in names
    assert "decode" not in names
    assert program.cache is None
    assert list(workload.cost().phases) == ["prefill"]
    assert "kv cache" not in workload.cost().memory


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"new_tokens": 0},
        {"all_logits": True},
        {"kv_heads": 2, "new_tokens": 1},
        {"prompt": 1, "batch": 3},
    ],
    ids=str,
)
def test_products_of_both_phases_are_those_that_pytorch_dispatches(
    family: str, options: dict[str, Any]
) -> None:
    workload = tiny(family=family, attention="naive", **options)

    assert matmul_flops(workload.cost()) == counted_flops(workload.program("cpu"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"heads": 5}, ["5 heads do not divide --d-model 32"]),
        ({"kv_heads": 3}, ["--kv-heads 3 does not divide 4 heads", "--kv-heads"]),
        ({"family": "llama", "d_model": 12}, ["RoPE"]),
        ({"prompt": 0}, ["--prompt"]),
        ({"new_tokens": -1}, ["--new-tokens"]),
        ({"attention": "kernel"}, ["--kernel (flash-attention, or module:function)"]),
        ({"compile": "default"}, ["--new-tokens 0"]),
        ({"family": "lllama"}, ["llama"]),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_with_what_to_do(
    options: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(UsageError) as refused:
        tiny(**options)

    assert all(word in str(refused.value) for word in words), str(refused.value)


def test_a_model_that_fits_a_laptop_is_among_the_smaller_ones() -> None:
    whole: Any = made("llm-inference-40b")

    smaller = list(whole.variants())

    sizes = [one.cost().memory_bytes for one in smaller]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] < whole.cost().memory_bytes
    assert sizes[-1] < 1e9
