"""The matrix product, against float64, in every layout and format, and its refusals."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tracelens_kernels import matmul, scaled_matmul
from tracelens_kernels.ops.matmul import KERNEL

from tracelens.kernel import parse_shape

pytestmark = pytest.mark.filterwarnings(  # of the interpreter, for a loop of unknown length
    "ignore:Conversion of an array with ndim:DeprecationWarning"
)

FP8 = torch.float8_e4m3fn
IRREGULAR = (37, 70, 50)


def random(
    *shape: int, device: str, dtype: torch.dtype = torch.float16, seed: int = 0
) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(device, dtype)


def error(out: torch.Tensor, reference: torch.Tensor) -> float:
    return float((out.double() - reference).norm() / reference.norm())


def assert_as_good_as_torch(out: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> None:
    reference = a.double() @ b.double()
    assert error(out, reference) <= 2 * error(a @ b, reference) + 1e-7


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("shape", [IRREGULAR, (1, 1, 1), (128, 128, 64), (5, 300, 17)])
def test_a_product_is_as_good_as_torchs(
    shape: tuple[int, int, int], dtype: torch.dtype, device: str
) -> None:
    m, n, k = shape
    a, b = (
        random(m, k, device=device, dtype=dtype),
        random(k, n, device=device, dtype=dtype, seed=1),
    )

    assert_as_good_as_torch(matmul(a, b), a, b)


@settings(deadline=None, max_examples=12)
@given(
    st.tuples(*[st.integers(1, 80)] * 3), st.sampled_from(["rows", "columns", "every other"]),
    st.sampled_from(["rows", "columns", "every other"]),
)  # fmt: skip
def test_operands_have_any_strides(shape: tuple[int, int, int], left: str, right: str) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    m, n, k = shape

    def laid_out(rows: int, columns: int, how: str, seed: int) -> torch.Tensor:
        if how == "columns":
            return random(columns, rows, device=device, seed=seed).t()
        if how == "every other":
            return random(2 * rows, 3 * columns, device=device, seed=seed)[::2, ::3]
        return random(rows, columns, device=device, seed=seed)

    a, b = laid_out(m, k, left, 0), laid_out(k, n, right, 1)

    assert_as_good_as_torch(matmul(a, b), a, b)


def test_leading_axes_stay_and_a_bias_is_added_before_rounding(device: str) -> None:
    a, b, bias = (
        random(2, 3, 40, device=device),
        random(40, 20, device=device),
        random(20, device=device),
    )

    out = matmul(a, b, bias=bias, out_dtype=torch.float32)

    assert out.shape == (2, 3, 20)
    assert out.dtype == torch.float32
    assert error(out, a.double() @ b.double() + bias.double()) < 1e-6


def test_gradients_are_those_of_float64(device: str) -> None:
    a, b, bias = (
        random(*shape, device=device, dtype=torch.float32) for shape in [(9, 33), (33, 21), (21,)]
    )
    grad = random(21, 9, device=device, dtype=torch.float32).t()
    ours = [one.clone().requires_grad_() for one in (a, b, bias)]
    exact = [one.double().requires_grad_() for one in (a, b, bias)]

    matmul(ours[0], ours[1], bias=ours[2]).backward(grad)
    (exact[0] @ exact[1] + exact[2]).backward(grad.double())

    for mine, true in zip(ours, exact, strict=True):
        assert error(mine.grad, true.grad) < 1e-6


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("layout", ["as weight.t()", "as it is"])
def test_fp8_is_scaled_by_row_and_column(layout: str, fast: bool, device: str) -> None:
    m, n, k = IRREGULAR
    a = random(m, k, device=device).to(FP8)
    b = random(n, k, device=device).to(FP8).t()
    b = b if layout == "as weight.t()" else b.contiguous()
    scale_a = random(m, 1, device=device, dtype=torch.float32).abs()
    scale_b = random(1, n, device=device, dtype=torch.float32).abs()

    out = scaled_matmul(a, b, scale_a, scale_b, out_dtype=torch.float32, fast_accum=fast)

    reference = (a.double() * scale_a.double()) @ (b.double() * scale_b.double())
    assert error(out, reference) < (2e-3 if device == "cuda" else 1e-6)


def test_one_scale_may_hold_for_a_whole_operand(device: str) -> None:
    a, b = random(16, 32, device=device).to(FP8), random(16, 32, device=device).to(FP8).t()
    half = torch.tensor(0.5, device=device)

    out = scaled_matmul(a, b, half, half[None, None], out_dtype=torch.float32)

    assert error(out, a.double() @ b.double() / 4) < (2e-3 if device == "cuda" else 1e-6)


@pytest.mark.parametrize(
    ("a", "b", "what"),
    [
        (torch.ones(2, 3), torch.ones(4, 5), ValueError),
        (torch.ones(3), torch.ones(3, 5), ValueError),
        (torch.ones(2, 0), torch.ones(0, 5), ValueError),
        (torch.ones(2, 3), torch.ones(3, 5).half(), TypeError),
        (torch.ones(2, 3).int(), torch.ones(3, 5).int(), TypeError),
        (torch.ones(2, 3, device="meta"), torch.ones(3, 5, device="meta"), ValueError),
        (torch.ones(2, 3), torch.ones(3, 5, device="meta"), ValueError),
    ],
)
def test_what_cannot_be_multiplied_is_refused(
    a: torch.Tensor, b: torch.Tensor, what: type[Exception], device: str
) -> None:
    a, b = (one.to(device) if one.device.type == "cpu" else one for one in (a, b))

    with pytest.raises(what):
        matmul(a, b)


def test_scales_and_bias_must_fit(device: str) -> None:
    a, b = torch.ones(4, 8, device=device), torch.ones(8, 6, device=device)
    one = torch.ones(1, device=device)

    with pytest.raises(ValueError, match="bias"):
        matmul(a, b, bias=torch.ones(5, device=device))
    with pytest.raises(TypeError, match="out_dtype"):
        matmul(a, b, out_dtype=torch.int32)
    with pytest.raises(ValueError, match="scale_a"):
        scaled_matmul(a.to(FP8), b.to(FP8), torch.ones(3, 1, device=device), one)
    with pytest.raises(TypeError, match="a is float32"):
        scaled_matmul(a, b, one, one)


@pytest.mark.parametrize("dtype", ["fp16", "fp8"])
@pytest.mark.parametrize("operation", ["forward", "backward"])
def test_the_bench_can_check_it(operation: str, dtype: str, device: str) -> None:
    shape = parse_shape(KERNEL, "33x48x64")
    case = KERNEL.operations[operation]
    ours = case.implementations["tracelens"]
    if (operation, dtype) == ("backward", "fp8"):
        assert ours.why_not(shape, dtype)
        return
    inputs = case.inputs(shape, dtype, device, 0)
    reference = case.reference(inputs, shape)

    outs = ours.build(inputs, shape)()

    assert outs.keys() == reference.keys()
    for name, out in outs.items():
        assert error(out, reference[name]) < case.tolerance[dtype]
    assert case.work(shape, dtype).flops == 2 * 33 * 48 * 64 * len(outs)
