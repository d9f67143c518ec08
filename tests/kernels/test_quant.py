"""Quantised rows: bit by bit what PyTorch gives, also of ties, tiny rows and what is no number."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tracelens_kernels import _configs, _quantisation, quant
from tracelens_kernels.ops.quant import KERNEL

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
FORMATS = {"int8": torch.int8, "fp8": torch.float8_e4m3fn}
SMALLEST_SCALE = 2.0**-126


def random(*shape: int, device: str, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device, dtype)


def assert_is_torchs(x: torch.Tensor, name: str) -> None:
    values, scale = quant(x, name)
    expected, expected_scale = _quantisation.reference(x, FORMATS[name])

    assert values.dtype == FORMATS[name]
    assert values.shape == x.shape
    assert scale.shape == (*x.shape[:-1], 1)
    assert torch.equal(scale, expected_scale)
    assert torch.equal(values.view(torch.int8), expected.view(torch.int8))


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("shape", [(7, 133), (1, 1), (3, 1024), (2, 3, 40), (5,)])
def test_rows_are_quantised_as_torch_does(
    shape: tuple[int, ...], dtype: torch.dtype, name: str, device: str
) -> None:
    assert_is_torchs(random(*shape, device=device, dtype=dtype), name)


@pytest.mark.parametrize("name", FORMATS)
def test_a_row_that_is_too_long_for_registers_is_read_in_pieces(name: str, device: str) -> None:
    x = random(3, 200, device=device)

    with _configs.forced("quant", name, {"rows": 2, "block": 64, "num_warps": 4}):
        assert_is_torchs(x, name)


def test_ties_go_to_the_even_integer(device: str) -> None:
    x = torch.tensor([[127, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 126.5]], device=device)

    values, scale = quant(x)

    assert scale.item() == 1
    assert values.tolist() == [[127, 0, 2, 2, 0, -2, -2, 126]]


def test_ties_go_to_the_even_mantissa_in_fp8_and_so_do_subnormals(device: str) -> None:
    step = 2.0**-9  # of the subnormals of e4m3
    x = torch.tensor([[448, 17, 19, -17, -19, step / 2, step * 1.5, -step / 2]], device=device)

    values, scale = quant(x, "fp8")

    assert scale.item() == 1
    assert values.float().tolist() == [[448, 16, 20, -16, -20, 0, 2 * step, 0]]
    assert values.view(torch.uint8)[0, -1].item() == 0x80  # the sign of zero is kept


@pytest.mark.parametrize(("name", "largest"), [("int8", 127), ("fp8", 448)])
def test_the_largest_magnitude_becomes_the_largest_value_of_either_sign(
    name: str, largest: int, device: str
) -> None:
    x = torch.tensor([[-3.7, 1.0, 3.7], [5e-20, -5e-20, 0.0], [3e38, 1.0, -3e38]], device=device)

    values, _ = quant(x, name)

    assert values.float().abs().amax(1).tolist() == [largest] * 3


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("top", [0.0, 1e-45, 3e-42, 1e-38, 2e-37, 1e-30, 1e-19, 1e-3, 3e38])
def test_what_is_stored_is_what_was_divided_by(top: float, name: str, device: str) -> None:
    x = random(2, 64, device=device).clamp(-1, 1) * top
    x[0, 0] = top

    assert_is_torchs(x, name)
    values, scale = quant(x, name)
    step = scale.double() * (0.5 if name == "int8" else 16)

    assert (scale >= SMALLEST_SCALE).all()
    assert ((values.double() * scale - x.double()).abs() <= step * (1 + 1e-6)).all()


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("bad", [float("inf"), -float("inf"), float("nan")])
def test_a_row_with_what_is_no_number_is_none_and_the_others_are_as_they_were(
    bad: float, name: str, device: str
) -> None:
    x = random(3, 40, device=device)
    clean, clean_scale = quant(x, name)
    x[1, 7] = bad

    values, scale = quant(x, name)

    assert scale.isnan().flatten().tolist() == [False, True, False]
    for row in (0, 2):
        assert torch.equal(values[row].view(torch.int8), clean[row].view(torch.int8))
        assert scale[row] == clean_scale[row]


def test_rows_and_columns_may_have_gaps(device: str) -> None:
    x = random(9, 50, device=device)

    assert_is_torchs(x[::2, 3:40], "int8")
    assert_is_torchs(x[:, ::3], "int8")
    assert_is_torchs(x.t(), "fp8")
    assert_is_torchs(x.view(3, 3, 50).transpose(0, 1), "fp8")


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(-(10**6), 10**6), min_size=1, max_size=33).filter(any),
    st.sampled_from(sorted(FORMATS)),
    st.integers(-40, 40),
)
def test_columns_may_change_places_and_powers_of_two_go_into_the_scale(
    numbers: list[int], name: str, power: int
) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    x = torch.tensor([numbers], device=device, dtype=torch.float32)

    values, scale = quant(x, name)
    back, back_scale = quant(x.flip(1), name)
    larger, larger_scale = quant(x * 2.0**power, name)

    assert torch.equal(back.view(torch.int8).flip(1), values.view(torch.int8))
    assert torch.equal(back_scale, scale)
    assert torch.equal(larger.view(torch.int8), values.view(torch.int8))
    assert torch.equal(larger_scale, scale * 2.0**power)


def test_what_cannot_be_quantised_is_refused(device: str) -> None:
    x = random(2, 8, device=device)

    with pytest.raises(TypeError, match="dtype is int4; rows are quantised to int8 or fp8"):
        quant(x, "int4")
    with pytest.raises(TypeError, match="x is int8; it must be one of bfloat16, float16, float32"):
        quant(x.to(torch.int8))
    with pytest.raises(ValueError, match=r"x is empty: its shape is \[0, 8\]"):
        quant(x[:0])
    with pytest.raises(ValueError, match=r"Expected x \[..., columns\]"):
        quant(x[0, 0])


def test_a_tensor_on_the_cpu_is_refused_unless_it_is_interpreted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("triton.knobs.runtime.interpret", False)

    with pytest.raises(ValueError, match="x is on cpu, and this kernel runs on an NVIDIA GPU"):
        quant(torch.ones(2, 8))


def test_the_bench_is_given_what_it_can_check(device: str) -> None:
    shape = {"rows": 3, "columns": 20}
    operation = KERNEL.operations["int8"]
    inputs = operation.inputs(shape, "fp32", device, 5)

    expected = operation.reference(inputs, shape)
    ours = operation.implementations["tracelens"].build(inputs, shape)()
    eager = operation.implementations["eager"].build(inputs, shape)()

    assert all(torch.equal(ours[one], expected[one]) for one in expected)
    assert (eager["values"].float() - expected["values"].float()).abs().max() <= 1
    torch.testing.assert_close(eager["scale"], expected["scale"], rtol=1e-6, atol=0)
    assert operation.work(shape, "bf16").bytes == 3 * 20 * 3 + 4 * 3


@pytest.mark.gpu
@on_gpu
@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("columns", [3584, 8192, 18944, 50257])
def test_bf16_rows_are_quantised_as_torch_does(columns: int, name: str) -> None:
    x = torch.randn(257, columns, device="cuda").exp().to(torch.bfloat16)

    assert_is_torchs(x, name)


@pytest.mark.gpu
@on_gpu
@pytest.mark.parametrize("name", FORMATS)
def test_quotients_near_ties_are_rounded_as_if_divided_exactly(name: str) -> None:
    scale = torch.rand(4096, 1, device="cuda") * 10 + 1e-2
    steps = torch.randint(-126, 127, (4096, 4096), device="cuda") + 0.5
    x = steps * scale
    x[:, 0] = _quantisation.LARGEST[FORMATS[name]] * scale[:, 0]

    assert_is_torchs(x, name)


@pytest.mark.gpu
@on_gpu
def test_more_elements_than_an_int32_counts_are_quantised() -> None:
    x = torch.empty(65536 * 2, 18944, dtype=torch.bfloat16, device="cuda").normal_()

    values, scale = quant(x)

    for row in (0, 65535, 113_359, 113_360, 131_071):
        expected, expected_scale = _quantisation.reference(x[row], torch.int8)
        assert torch.equal(values[row], expected)
        assert torch.equal(scale[row], expected_scale)


@pytest.mark.gpu
@on_gpu
def test_it_is_one_operation_to_torch_compile() -> None:
    x = torch.randn(64, 256, device="cuda", dtype=torch.bfloat16)
    compiled = torch.compile(lambda x: quant(x * 2), fullgraph=True)

    values, scale = compiled(x)
    expected, expected_scale = quant(x * 2)

    assert torch.equal(values, expected)
    assert torch.equal(scale, expected_scale)
