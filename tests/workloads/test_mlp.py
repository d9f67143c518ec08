"""The MLPs of transformers: their modules, marks and costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch.nn import functional
from tracelens_workloads._layers import activation_work
from tracelens_workloads._mlp import GeluMLP, SwigluMLP

from tests.running import counted_flops, made, matmul_flops, moved_bytes, peak_bytes, recorded

if TYPE_CHECKING:
    from pathlib import Path

MODES = ("forward", "forward-backward")
ACTIVATIONS = ("gelu", "swiglu")


def test_two_matrices_stand_around_a_gelu_and_three_make_a_swiglu() -> None:
    x = torch.randn(3, 4)
    gelu, swiglu = GeluMLP(4, 6, "cpu", torch.float32), SwigluMLP(4, 6, "cpu", torch.float32)

    inside = x @ gelu.up.weight.T + gelu.up.bias
    inside = inside * (1 + torch.erf(inside / 2**0.5)) / 2
    torch.testing.assert_close(gelu(x), inside @ gelu.down.weight.T + gelu.down.bias)

    gate = x @ swiglu.gate.weight.T
    inside = gate * torch.sigmoid(gate) * (x @ swiglu.up.weight.T)
    torch.testing.assert_close(swiglu(x), inside @ swiglu.down.weight.T)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_its_products_are_counted(activation: str, mode: str) -> None:
    mlp = made("mlp", tokens=5, d_model=6, d_ff=7, activation=activation, mode=mode)

    matrices = {"gelu": 2, "swiglu": 3}[activation]
    passes = {"forward": 1, "forward-backward": 3}[mode]
    assert matmul_flops(mlp.cost()) == passes * matrices * 2 * 5 * 6 * 7
    assert counted_flops(mlp.program("cpu")) == matmul_flops(mlp.cost())


def test_an_activation_moves_its_operands_and_results_once() -> None:
    gate, up = (torch.randn(8, requires_grad=True) for _ in range(2))
    y = functional.silu(gate) * up
    dy = torch.ones_like(y)
    y.backward(dy)
    assert gate.grad is not None
    assert up.grad is not None

    forward, backward = activation_work("swiglu", 8, "fp32")

    assert forward.bytes == gate.nbytes + up.nbytes + y.nbytes
    assert backward.bytes == dy.nbytes + 2 * (gate.grad.nbytes + up.grad.nbytes)
    assert [work.bytes for work in activation_work("gelu", 8, "bf16")] == [2 * 16, 3 * 16]


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_its_parts_are_marked_in_both_directions(activation: str) -> None:
    program = made("mlp", tokens=5, d_model=6, d_ff=7, activation=activation).program("cpu")

    names = [event.name for event in recorded(program)]

    assert [names.count(part) for part in ("up", activation, "down")] == [2, 2, 2]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_it_fits_where_its_formula_says_so_and_not_in_much_less(
    activation: str, mode: str, tmp_path: Path
) -> None:
    mlp = made(
        "mlp", tokens=512, d_model=64, d_ff=256, activation=activation, dtype="fp32", mode=mode
    )

    assert 1 <= mlp.cost().memory_bytes / peak_bytes(mlp, tmp_path) < 1.15


def test_the_least_traffic_of_forward_is_that_of_its_three_parts() -> None:
    cost = made("mlp", tokens=5, d_model=6, d_ff=7, activation="swiglu", dtype="bf16").cost()

    up = 5 * 6 + 2 * 6 * 7 + 2 * 5 * 7
    act = 3 * 5 * 7
    down = 5 * 7 + 6 * 7 + 5 * 6
    assert moved_bytes(cost, "forward") == 2 * (up + act + down)
