"""LayerNorm and RMSNorm: results by hand, traffic by the bytes of real tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from tracelens_workloads.layernorm import LayerNorm
from tracelens_workloads.rmsnorm import RMSNorm

from tests.running import made, moved_bytes, peak_bytes

if TYPE_CHECKING:
    from pathlib import Path

NORMS = {"layernorm": LayerNorm, "rmsnorm": RMSNorm}


def test_rows_have_no_mean_and_unit_deviation() -> None:
    x = 3 * torch.randn(4, 100) + 5

    layer = LayerNorm(columns=100, dtype="fp32").layer("cpu")(x)
    rms = RMSNorm(columns=100, dtype="fp32").layer("cpu")(x)

    expected = (x - x.mean(1, keepdim=True)) / x.std(1, correction=0, keepdim=True)
    torch.testing.assert_close(layer, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(rms, x / x.square().mean(1, keepdim=True).sqrt())


@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_their_traffic_is_the_tensors_that_go_in_and_come_out(name: str, dtype: str) -> None:
    whole = NORMS[name](rows=6, columns=9, dtype=dtype)
    layer = whole.layer("cpu")
    learned = list(layer.parameters())
    x = torch.randn(6, 9, dtype=learned[0].dtype, requires_grad=True)
    y = layer(x)
    y.backward(torch.ones_like(y))
    assert x.grad is not None

    cost = whole.cost()

    vectors = sum(p.nbytes for p in learned)
    gradients = sum(p.grad.nbytes for p in learned if p.grad is not None)
    assert moved_bytes(cost, "forward") == x.nbytes + vectors + y.nbytes
    backward = x.nbytes + y.nbytes + learned[0].nbytes + x.grad.nbytes + gradients
    assert moved_bytes(cost, "backward") == backward


def test_large_norms_are_bound_by_one_reading_and_one_writing() -> None:
    cost = made("layernorm-8192x8192", mode="forward").cost()

    assert moved_bytes(cost, "forward") == pytest.approx(2 * 8192**2 * 2, rel=1e-3)


@pytest.mark.parametrize("mode", ["forward", "forward-backward"])
def test_a_fused_norm_takes_the_memory_of_its_formula(mode: str, tmp_path: Path) -> None:
    # PyTorch composes RMSNorm of several operations on the CPU, and LayerNorm of one.
    norm = made("layernorm", rows=512, columns=256, dtype="fp32", mode=mode)

    assert norm.cost().memory_bytes == pytest.approx(peak_bytes(norm, tmp_path), rel=0.02)
