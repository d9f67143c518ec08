"""Experts: equal to a loop over tokens, nothing dropped, and how evenly they are used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional
from tracelens_workloads._experts import MoE, load_balance_loss
from tracelens_workloads.moe import MixtureOfExperts, usage

from tests.running import counted_flops, made, matmul_flops, peak_bytes, recorded
from tracelens.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

SMALL: dict[str, Any] = {"tokens": 20, "d_model": 8, "d_ff": 16, "experts": 5}


def layer(dtype: torch.dtype = torch.float32, *, grouped: bool = False, **options: Any) -> MoE:
    torch.manual_seed(0)
    return MoE(MixtureOfExperts(**{**SMALL, **options}), grouped=grouped, device="cpu", dtype=dtype)


def by_token(moe: MoE, x: Tensor) -> Tensor:
    """The same, one token and one expert after another."""
    weights, chosen, _ = moe.router(x)
    rows = []
    for token, own_weights, own in zip(x, weights, chosen, strict=True):
        row = torch.zeros_like(token)
        for weight, expert in zip(own_weights, own, strict=True):
            wide = token @ moe.experts.up[expert]
            if moe.experts.gated:
                gate, up = wide.chunk(2)
                wide = functional.silu(gate) * up
            else:
                wide = functional.gelu(wide)
            row = row + weight * (wide @ moe.experts.down[expert])
        rows.append(row)
    return torch.stack(rows)


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"activation": "gelu"},
        {"top_k": 1},
        {"top_k": 5},
        {"skew": 3.0},
        {"empty": 3},
        {"empty": 3, "skew": 50.0},
        {"tokens": 1},
    ],
    ids=str,
)
def test_it_gives_what_a_loop_over_tokens_gives_in_both_directions(
    options: dict[str, Any], grouped: bool
) -> None:
    moe = layer(grouped=grouped, **options)
    x = torch.randn(options.get("tokens", 20), 8, requires_grad=True)
    dy = torch.randn(*x.shape)
    leaves = [x, *moe.parameters()]

    expected = by_token(moe, x)
    slow = torch.autograd.grad(expected, leaves, dy)
    y, _ = moe(x)
    fast = torch.autograd.grad(y, leaves, dy, materialize_grads=True)

    torch.testing.assert_close(y, expected, atol=1e-5, rtol=1e-4)
    for one, other in zip(fast, slow, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_nothing_is_dropped_even_if_one_expert_gets_every_token() -> None:
    moe = layer(skew=200.0, top_k=1)
    x = torch.randn(20, 8)

    _, chosen, _ = moe.router(x)
    y, _ = moe(x)

    assert set(chosen.flatten().tolist()) == {0}
    torch.testing.assert_close(y, by_token(moe, x))


def test_empty_experts_get_no_token_and_skew_makes_the_first_ones_the_busiest() -> None:
    x = torch.randn(2000, 8)

    counts = {
        skew: torch.bincount(layer(skew=skew, empty=2).router(x)[1].flatten(), minlength=5)
        for skew in (0.0, 2.0)
    }

    for found in counts.values():
        assert found.sum() == 2 * 2000
        assert found[3:].tolist() == [0, 0]
    assert counts[2.0][0] > counts[2.0][1] > counts[2.0][2]
    assert usage(counts[2.0].tolist()).gini > usage(counts[0.0].tolist()).gini


def test_without_regard_to_the_token_probabilities_follow_zipfs_law() -> None:
    _, _, probabilities = layer(skew=1.5).router(torch.zeros(1, 8))

    zipf = torch.arange(1.0, 6.0) ** -1.5
    torch.testing.assert_close(probabilities[0], zipf / zipf.sum())


def test_the_weights_of_a_token_add_up_to_one() -> None:
    weights, chosen, _ = layer(top_k=3).router(torch.randn(20, 8))

    torch.testing.assert_close(weights.sum(1), torch.ones(20))
    assert all(len(set(own)) == 3 for own in chosen.tolist())


def test_the_balance_loss_is_one_if_all_is_even_and_the_number_of_experts_if_one_has_all() -> None:
    even = torch.full((8, 4), 0.25)
    one = torch.zeros(8, 4)
    one[:, 2] = 1

    assert load_balance_loss(torch.tensor([4, 4, 4, 4]), even).item() == 1
    assert load_balance_loss(torch.tensor([0, 0, 16, 0]), one).item() == 4


def test_the_balance_loss_is_the_formula_of_switch_transformers() -> None:
    generator = np.random.default_rng(0)
    probabilities = generator.dirichlet(np.ones(6), size=50)
    chosen = probabilities.argmax(1)

    shares = np.bincount(chosen, minlength=6) / 50
    expected = 6 * sum(shares[e] * probabilities[:, e].mean() for e in range(6))
    counts = torch.bincount(torch.tensor(chosen), minlength=6)
    found = load_balance_loss(counts, torch.tensor(probabilities))

    assert found.item() == pytest.approx(expected, rel=1e-6)


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=40).filter(any))
def test_usage_is_what_its_definitions_say(counts: list[int]) -> None:
    loads = np.array(counts) / np.mean(counts)

    found = usage(counts)

    assert found.variance == pytest.approx(loads.var(), abs=1e-9)
    assert found.cv == pytest.approx(np.std(counts) / np.mean(counts), abs=1e-9)
    differences = np.abs(loads[:, None] - loads[None, :]).mean()
    assert found.gini == pytest.approx(differences / 2, abs=1e-9)
    assert found.collapsed == (loads < 0.05).sum()


def test_usage_of_one_expert_that_has_all() -> None:
    found = usage([0, 0, 0, 80])

    assert (found.variance, found.gini, found.collapsed) == (3, 0.75, 3)
    with pytest.raises(ValueError, match="no expert has got a token"):
        usage([0, 0])


@pytest.mark.parametrize("mode", ["forward", "forward-backward"])
@pytest.mark.parametrize("activation", ["gelu", "swiglu"])
def test_its_products_are_counted_however_they_are_spread(activation: str, mode: str) -> None:
    options = {**SMALL, "activation": activation, "mode": mode, "implementation": "loop"}
    moe = made("moe", **options, skew=2.0)

    assert counted_flops(moe.program("cpu")) == matmul_flops(moe.cost())


def test_its_bytes_are_bound_by_the_weights_of_experts_in_use() -> None:
    cost = made("moe-4x512", mode="forward").cost()
    fewer = made("moe-4x512", mode="forward", empty=16).cost()

    weights = sum(work.bytes for work in cost.phases["forward"] if work.part == "experts")
    half = sum(work.bytes for work in fewer.phases["forward"] if work.part == "experts")
    matrices = 32 * 2 * 4096 * 11008 * 2
    assert weights == pytest.approx(matrices, rel=0.05)
    assert weights - half == matrices / 2


@pytest.mark.parametrize("mode", ["forward", "forward-backward"])
@pytest.mark.parametrize("activation", ["gelu", "swiglu"])
def test_it_fits_where_its_formula_says_so(activation: str, mode: str, tmp_path: Path) -> None:
    options = {"activation": activation, "mode": mode, "implementation": "grouped"}
    moe = made("moe", tokens=1024, d_model=64, d_ff=128, experts=4, **options)

    assert 1 <= moe.cost().memory_bytes / peak_bytes(moe, tmp_path) < 1.5


@pytest.mark.parametrize(("implementation", "ran"), [("auto", "loop"), ("grouped", "grouped")])
def test_its_parts_are_marked_in_both_directions_and_so_is_how_the_experts_ran(
    implementation: str, ran: str
) -> None:
    program = made("moe", **SMALL, implementation=implementation).program("cpu")

    names = [event.name for event in recorded(program)]

    parts = ("router", "dispatch", "experts", "combine")
    assert [names.count(part) for part in parts] == [2, 2, 2, 2]
    assert names.count(ran) == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"top_k": 9}, "--top-k 9 is more than --experts 8"),
        ({"empty": 7}, "--empty 7 of --experts 8 leaves fewer than --top-k 2"),
        ({"empty": -1}, "--empty -1"),
        ({"skew": -1.0}, "--skew is -1.0; it must be 0 or more"),
        ({"skew": float("nan")}, "--skew is nan"),
        ({"implementation": "grouped", "dtype": "fp32"}, "needs --dtype bf16"),
        ({"implementation": "grouped", "d_ff": 12}, "multiples of 8"),
        ({"experts": 0}, "--experts is 0"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        made("moe", **options)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_grouped_experts_on_a_gpu_give_what_the_loop_gives() -> None:
    options = MixtureOfExperts(tokens=100, d_model=64, d_ff=128, experts=5, empty=2, skew=1.0)
    grouped, loop = (
        MoE(options, grouped=one, device="cuda", dtype=torch.bfloat16) for one in (True, False)
    )
    loop.load_state_dict(grouped.state_dict())
    x = torch.randn(100, 64, device="cuda", dtype=torch.bfloat16)

    torch.testing.assert_close(grouped(x)[0], loop(x)[0], atol=2e-2, rtol=2e-2)
