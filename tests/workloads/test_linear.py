"""A linear layer: its costs against a real one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from tracelens_workloads._layers import linear_work

from tests.running import counted_flops, made, matmul_flops, moved_bytes, peak_bytes
from tracelens.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

sizes = st.integers(1, 40)


@given(rows=sizes, inputs=sizes, outputs=sizes, bias=st.booleans())
def test_its_bytes_are_those_of_the_tensors_that_go_in_and_come_out(
    rows: int, inputs: int, outputs: int, bias: bool
) -> None:
    x = torch.randn(rows, inputs, requires_grad=True)
    layer = nn.Linear(inputs, outputs, bias=bias)
    y = layer(x)
    dy = torch.randn_like(y)
    y.backward(dy)
    weights = sum(p.nbytes for p in layer.parameters())
    gradients = sum(p.grad.nbytes for p in layer.parameters() if p.grad is not None)
    assert x.grad is not None

    forward, backward = linear_work("linear", rows, inputs, outputs, "fp32", bias=bias)

    assert forward.bytes == x.nbytes + weights + y.nbytes
    read = dy.nbytes + x.nbytes + layer.weight.nbytes
    assert backward.bytes == read + x.grad.nbytes + gradients


def test_backward_is_twice_forward_and_repeats_multiply_both() -> None:
    once = made("linear", tokens=3, inputs=4, outputs=5).cost()
    thrice = made("linear", tokens=3, inputs=4, outputs=5, repeats=3).cost()

    (forward,), (backward,) = once.phases["forward"], once.phases["backward"]
    assert forward.flops == 2 * 3 * 4 * 5
    assert backward.flops == 2 * forward.flops
    assert thrice.flops == 3 * once.flops
    assert moved_bytes(thrice, "backward") == 3 * moved_bytes(once, "backward")
    assert thrice.items == 9
    assert thrice.memory == once.memory


def test_forward_alone_has_no_backward_and_leaves_no_gradients() -> None:
    forward = made("linear", tokens=3, inputs=4, outputs=5, mode="forward", bias=False)

    program = forward.program("cpu")

    assert list(forward.cost().phases) == ["forward"]
    assert counted_flops(program) == matmul_flops(forward.cost()) == 2 * 3 * 4 * 5


@pytest.mark.parametrize("mode", ["forward", "forward-backward"])
def test_its_memory_is_what_torch_allocates(mode: str, tmp_path: Path) -> None:
    layer = made("linear", tokens=512, inputs=128, outputs=256, dtype="fp32", mode=mode)

    assert layer.cost().memory_bytes == pytest.approx(peak_bytes(layer, tmp_path), rel=0.01)


@pytest.mark.parametrize("option", ["tokens", "inputs", "outputs", "repeats"])
def test_a_size_of_nothing_is_refused(option: str) -> None:
    with pytest.raises(UsageError, match=f"--{option} is 0; it must be at least 1"):
        made("linear", **{option: 0})


def test_tf32_on_the_cpu_is_refused() -> None:
    with pytest.raises(UsageError, match="tf32 needs an NVIDIA GPU"):
        made("linear", dtype="tf32").program("cpu")
