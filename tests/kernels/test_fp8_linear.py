"""The fp8 layer against float64, as near as the same done by PyTorch alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tracelens_kernels import Fp8Linear, _quantisation, fp8_linear
from tracelens_kernels.ops.fp8_linear import KERNEL

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
FP8 = torch.float8_e4m3fn


def random(
    *shape: int, device: str, dtype: torch.dtype = torch.float32, seed: int = 0
) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(device, dtype)


def error(out: torch.Tensor, expected: torch.Tensor) -> float:
    return float(((out.double() - expected).norm() / expected.norm()).detach())


def test_it_is_as_near_to_float64_as_pytorch_in_fp8(device: str) -> None:
    x, weight = random(5, 48, device=device), random(32, 48, device=device, seed=1)
    bias = random(32, device=device, seed=2)
    values, scale = _quantisation.reference(weight, FP8)
    x_values, x_scale = _quantisation.reference(x, FP8)

    out = fp8_linear(x, values, scale, bias)
    plain = (x_values.float() * x_scale) @ (values.float() * scale).t() + bias
    expected = torch.nn.functional.linear(x.double(), weight.double(), bias.double())

    assert out.dtype == x.dtype
    assert error(out, expected) <= 2 * error(plain, expected)
    assert error(out, plain.double()) < 0.01  # rounded to bf16 once


def test_a_layer_is_made_of_a_linear_layer_and_takes_half_its_memory_of_bf16(device: str) -> None:
    torch.manual_seed(0)
    linear = torch.nn.Linear(64, 32, device=device, dtype=torch.bfloat16)
    x = random(2, 3, 64, device=device, dtype=torch.float16)

    layer = Fp8Linear.from_linear(linear)
    out = layer(x)
    expected = torch.nn.functional.linear(x.double(), linear.weight.double(), linear.bias.double())

    assert (out.shape, out.dtype) == ((2, 3, 32), torch.float16)
    assert error(out, expected) < 0.06
    assert layer.weight.nbytes * 2 == linear.weight.nbytes
    assert repr(layer) == "Fp8Linear(in_features=64, out_features=32, bias=True)"


def test_a_layer_is_saved_and_loaded(device: str) -> None:
    layer = Fp8Linear.from_linear(torch.nn.Linear(16, 16, bias=False, device=device))
    other = Fp8Linear.from_linear(torch.nn.Linear(16, 16, bias=False, device=device))
    x = random(2, 16, device=device)

    other.load_state_dict(layer.state_dict())

    assert torch.equal(other(x), layer(x))


def test_what_does_not_fit_is_refused(device: str) -> None:
    x = random(2, 16, device=device)
    values, scale = _quantisation.reference(random(32, 16, device=device), FP8)

    with pytest.raises(TypeError, match="weight_fp8 is float32; it must be one of float8_e4m3fn"):
        fp8_linear(x, values.float(), scale)
    with pytest.raises(ValueError, match=r"x \[\.\.\., K\] for a weight_fp8 \[N, K\]"):
        fp8_linear(x[:, :8], values, scale)
    with pytest.raises(ValueError, match="a weight_scale for each row"):
        fp8_linear(x, values, scale[:3])
    with pytest.raises(ValueError, match="a weight_fp8 of multiples of 16"):
        fp8_linear(x, values[:30], scale[:30])
    with pytest.raises(ValueError, match=r"bias \[N\]"):
        fp8_linear(x, values, scale, random(5, device=device))
    with pytest.raises(TypeError, match=r"out_dtype is torch\.int8"):
        fp8_linear(x, values, scale, out_dtype=torch.int8)
    with pytest.raises(RuntimeError, match=r"this layer has none: use torch\.no_grad"):
        fp8_linear(x.requires_grad_(), values, scale)
    with pytest.raises(ValueError, match="multiples of 16"):
        Fp8Linear.from_linear(torch.nn.Linear(16, 30, device=device))


def test_the_bench_is_given_what_it_can_check(device: str) -> None:
    shape = {"rows": 5, "out": 32, "in": 48}
    operation = KERNEL.operations["forward"]
    inputs = operation.inputs(shape, "fp16", device, 5)

    expected = operation.reference(inputs, shape)["out"]
    errors = {
        name: error(operation.implementations[name].build(inputs, shape)()["out"], expected)
        for name in ("tracelens", "eager", "cublas")
    }

    assert errors["cublas"] < 0.01
    assert errors["tracelens"] <= 2 * errors["eager"] < 0.1


@pytest.mark.gpu
@on_gpu
@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("sizes", [(1, 64, 96), (1823, 784, 336), (512, 4096, 2048)])
@torch.no_grad()
def test_bf16_is_as_near_to_float64_as_pytorch_in_fp8(
    sizes: tuple[int, int, int], fast: bool
) -> None:
    m, n, k = sizes
    x = random(m, k, device="cuda", dtype=torch.bfloat16)
    weight = random(n, k, device="cuda", seed=1)
    values, scale = _quantisation.reference(weight, FP8)
    x_values, x_scale = _quantisation.reference(x, FP8)

    out = fp8_linear(x, values, scale, fast_accum=fast)
    plain = (x_values.float() * x_scale) @ (values.float() * scale).t()
    expected = x.double() @ weight.double().t()

    assert error(out, expected) <= 2 * error(plain, expected)


@pytest.mark.gpu
@on_gpu
@torch.no_grad()
def test_a_compiled_layer_is_the_layer() -> None:
    torch.manual_seed(0)
    layer = Fp8Linear.from_linear(torch.nn.Linear(256, 128, device="cuda", dtype=torch.bfloat16))
    x = random(40, 256, device="cuda", dtype=torch.bfloat16)

    compiled: Any = torch.compile(layer, fullgraph=True)

    assert error(compiled(x), layer(x).double()) < 1e-3
