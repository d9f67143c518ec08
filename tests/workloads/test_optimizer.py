"""The optimizer alone: GPT-2's parameters, the state and traffic of its step."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tracelens_workloads.optimizer import Optimizer

from tests.running import made, moved_bytes, peak_bytes, recorded
from tracelens.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

IMPLEMENTATIONS = ("foreach", "fused", "for-loop")
KINDS: dict[str, dict[str, Any]] = {
    "adamw": {"optimizer": "adamw"},
    "sgd": {"optimizer": "sgd"},
    "momentum": {"optimizer": "sgd", "momentum": 0.9},
}


@pytest.mark.parametrize(
    ("size", "published"),
    [
        ("small", 124_439_808),
        ("medium", 354_823_168),
        ("large", 774_030_080),
        ("xl", 1_557_611_200),
    ],
)
def test_the_sizes_are_those_of_the_published_models(size: str, published: int) -> None:
    assert made("optimizer", size=size).cost().parameters == published
    assert made(f"optimizer-gpt2-{size}").cost().parameters == published


@given(st.integers(1, 3000))
def test_so_many_millions_are_filled_exactly(millions: int) -> None:
    shapes = Optimizer(millions=millions).shapes()

    assert sum(prod(shape) for shape in shapes) == millions * 10**6
    assert all(prod(shape) > 0 for shape in shapes)


def test_adamw_in_fp32_moves_28_bytes_a_number_and_makes_8_bytes_of_state() -> None:
    cost = made("optimizer", millions=1).cost()

    assert moved_bytes(cost, "optimizer") == 28 * 10**6
    assert cost.memory["optimizer state"] == pytest.approx(8 * 10**6, rel=1e-4)
    half = made("optimizer", millions=1, dtype="bf16").cost()
    assert moved_bytes(half, "optimizer") == 14 * 10**6


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_its_traffic_is_the_state_it_reads_and_the_state_it_writes(kind: str, dtype: str) -> None:
    whole = made("optimizer", millions=1, dtype=dtype, **KINDS[kind])
    program: Any = whole.program("cpu")

    parameters = sum(p.nbytes for p in program.parameters)
    gradients = sum(p.grad.nbytes for p in program.parameters)
    states = program.optimizer.state.values()
    tensors = [t for state in states for t in state.values() if torch.is_tensor(t)]
    state = sum(t.nbytes for t in tensors if t.ndim)

    cost = whole.cost()

    assert moved_bytes(cost, "optimizer") == 2 * parameters + gradients + 2 * state
    assert cost.memory["optimizer state"] == sum(t.nbytes for t in tensors)
    assert cost.memory["parameters"] == parameters
    assert cost.memory["gradients"] == gradients


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_its_peak_is_its_state_and_what_it_needs_in_between(
    kind: str, implementation: str, tmp_path: Path
) -> None:
    whole = made("optimizer", millions=1, implementation=implementation, **KINDS[kind])

    assert whole.cost().memory_bytes == pytest.approx(peak_bytes(whole, tmp_path), rel=0.001)


@pytest.mark.parametrize("kind", KINDS)
def test_all_implementations_make_the_same_step(kind: str) -> None:
    after = []
    for implementation in IMPLEMENTATIONS:
        torch.manual_seed(0)
        options = KINDS[kind]
        program: Any = made(
            "optimizer", millions=1, implementation=implementation, **options
        ).program("cpu")
        program.step()
        after.append(program.parameters)

    for others in after[1:]:
        for one, other in zip(after[0], others, strict=True):
            torch.testing.assert_close(one, other)


def test_the_step_is_marked_by_us_and_by_pytorch() -> None:
    program = made("optimizer", millions=1, repeats=3).program("cpu")

    names = [event.name for event in recorded(program)]

    assert names.count("optimizer") == 1
    assert names.count("Optimizer.step#AdamW.step") == 3


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"millions": 0}, "--millions is 0"),
        ({"momentum": 0.9}, "--momentum is for --optimizer sgd"),
        ({"optimizer": "sgd", "momentum": 1.0}, "below 1"),
        ({"size": "huge"}, "--size"),
        ({"repeats": 0}, "--repeats is 0"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        made("optimizer", **options)


def test_variants_are_the_smaller_models_and_then_fewer_numbers() -> None:
    smaller = [v.changed() for v in made("optimizer-gpt2-large").variants()]

    assert smaller[:3] == [{"size": "medium"}, {}, {"size": "large", "millions": 64}]
