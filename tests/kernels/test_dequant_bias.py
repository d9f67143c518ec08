"""Scales and bias after a product: bit by bit what PyTorch gives in fp32."""

from __future__ import annotations

import pytest
import torch
from tracelens_kernels import dequant_bias
from tracelens_kernels.ops.dequant_bias import KERNEL

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")


def sums(rows: int, columns: int, dtype: torch.dtype, device: str) -> torch.Tensor:
    random = torch.Generator().manual_seed(0)
    found = torch.randint(-(2**30), 2**30, (rows, columns), generator=random)
    return (found if dtype != torch.float16 else found % 2000).to(device, dtype)


def scales(rows: int, columns: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(1)
    of_rows = torch.rand(rows, 1, generator=random) * 1e-6
    return of_rows.to(device), torch.rand(1, columns, generator=random).to(device)


@pytest.mark.parametrize("out", [torch.float16, torch.float32])
@pytest.mark.parametrize("dtype", [torch.int32, torch.float16, torch.float32])
@pytest.mark.parametrize("shape", [(1, 1), (7, 33), (5, 1100)])
def test_sums_are_scaled_as_torch_does(
    shape: tuple[int, int], dtype: torch.dtype, out: torch.dtype, device: str
) -> None:
    acc, (scale_a, scale_b) = sums(*shape, dtype, device), scales(*shape, device)
    bias = torch.linspace(-3, 3, shape[1], dtype=torch.float16, device=device)

    plain = acc.float() * scale_a * scale_b

    assert torch.equal(dequant_bias(acc, scale_a, scale_b, out_dtype=out), plain.to(out))
    expected = (plain + bias).to(out)
    assert torch.equal(dequant_bias(acc, scale_a, scale_b, bias, out), expected)


def test_scales_may_be_vectors_or_single_numbers_and_sums_may_have_gaps(device: str) -> None:
    acc = sums(6, 20, torch.int32, device)
    scale_a, scale_b = scales(3, 10, device)
    view = acc[::2, ::2]

    out = dequant_bias(view, scale_a.flatten(), scale_b.flatten(), None, torch.float32)
    assert torch.equal(out, view.float() * scale_a * scale_b)

    two = torch.tensor(2.0, device=device)
    out = dequant_bias(acc.view(2, 3, 20), two, two.view(1), None, torch.float32)
    assert torch.equal(out, acc.view(2, 3, 20) * 4.0)


def test_what_does_not_fit_is_refused(device: str) -> None:
    acc = sums(3, 8, torch.int32, device)
    scale_a, scale_b = scales(3, 8, device)

    with pytest.raises(ValueError, match=r"a scale_a for each row of acc; got .*scale_a \[2, 1\]"):
        dequant_bias(acc, scale_a[:2], scale_b)
    with pytest.raises(ValueError, match="a scale_b for each column of acc"):
        dequant_bias(acc, scale_a, scale_b[:, :5])
    with pytest.raises(ValueError, match=r"bias \[N\]"):
        dequant_bias(acc, scale_a, scale_b, torch.ones(7, device=device))
    with pytest.raises(TypeError, match="scale_a is float16; it must be one of float32"):
        dequant_bias(acc, scale_a.half(), scale_b)
    with pytest.raises(TypeError, match="acc is int8"):
        dequant_bias(acc.to(torch.int8), scale_a, scale_b)
    with pytest.raises(TypeError, match=r"out_dtype is torch\.int8"):
        dequant_bias(acc, scale_a, scale_b, out_dtype=torch.int8)
    with pytest.raises(ValueError, match="acc is empty"):
        dequant_bias(acc[:0], scale_a, scale_b)


def test_the_bench_is_given_what_it_can_check(device: str) -> None:
    shape = {"rows": 3, "columns": 20}
    operation = KERNEL.operations["forward"]
    inputs = operation.inputs(shape, "int32", device, 5)

    out = operation.implementations["tracelens"].build(inputs, shape)()["out"]
    expected = operation.reference(inputs, shape)["out"]

    assert (out.double() - expected).norm() / expected.norm() < operation.tolerance["int32"]


@pytest.mark.gpu
@on_gpu
@pytest.mark.parametrize("dtype", [torch.int32, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("shape", [(333, 4097), (1024, 8192)])
def test_bf16_is_rounded_as_torch_does(shape: tuple[int, int], dtype: torch.dtype) -> None:
    acc, (scale_a, scale_b) = sums(*shape, dtype, "cuda"), scales(*shape, "cuda")
    bias = torch.randn(shape[1], device="cuda", dtype=torch.bfloat16)

    expected = (acc.float() * scale_a * scale_b + bias).to(torch.bfloat16)

    assert torch.equal(dequant_bias(acc, scale_a, scale_b, bias), expected)
