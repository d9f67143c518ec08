"""Quantised and slid rows: `quant`'s values, copied to where slid weights meet them."""

from __future__ import annotations

import pytest
import torch
from tracelens_kernels import SlidePattern, _configs, quant, quant_slide
from tracelens_kernels.ops.quant_slide import KERNEL, reference

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
FORMATS = {"int8": torch.int8, "fp8": torch.float8_e4m3fn}
PATTERNS = [SlidePattern(columns) for columns in (4, 6, 8, 10, 12, None)]


def random(*shape: int, device: str, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device, dtype)


def assert_is_torchs(x: torch.Tensor, pattern: SlidePattern, name: str) -> None:
    values, scale = quant_slide(x, pattern, name)
    expected, expected_scale = reference(x, pattern, FORMATS[name])

    assert values.dtype == FORMATS[name]
    assert torch.equal(scale, expected_scale)
    assert torch.equal(values.view(torch.int8), expected.view(torch.int8))


def test_windows_of_four_columns_overlap_by_two(device: str) -> None:
    x = torch.arange(127, 127 - 16, -1.0, device=device).view(1, 16)

    values, scale = quant_slide(x, SlidePattern(8))

    assert scale.item() == 1
    assert (127 - values[0, :24]).tolist() == [
        *(0, 1, 2, 3, 2, 3, 4, 5, 4, 5, 6, 7),
        *(8, 9, 10, 11, 10, 11, 12, 13, 12, 13, 14, 15),
    ]
    assert values[0, 24:].tolist() == [0] * 8  # up to a multiple of 32


@pytest.mark.parametrize(
    ("columns", "windows", "expansion", "slid"),
    [(4, 1, 1.0, 3584), (6, 2, 4 / 3, 4800), (8, 3, 1.5, 5376), (10, 4, 1.6, 5760)],
)
def test_a_pattern_knows_its_sizes(columns: int, windows: int, expansion: float, slid: int) -> None:
    pattern = SlidePattern(columns)

    assert (pattern.windows, pattern.expansion) == (windows, expansion)
    assert pattern.columns(3584) == slid
    assert str(pattern) == f"{columns - 2}:{columns}"


def test_without_zeros_columns_double() -> None:
    pattern = SlidePattern(None)

    assert (pattern.expansion, pattern.columns(64), str(pattern)) == (2, 128, "dense")


@pytest.mark.parametrize("columns", [0, 2, 3, 7, -4])
def test_there_are_no_odd_patterns(columns: int) -> None:
    with pytest.raises(ValueError, match=f"l is {columns}; a group has 4, 6, 8"):
        SlidePattern(columns)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_rows_are_slid_as_torch_does(
    pattern: SlidePattern, dtype: torch.dtype, name: str, device: str
) -> None:
    for columns in (31, 120):
        assert_is_torchs(random(3, columns, device=device, dtype=dtype), pattern, name)


@pytest.mark.parametrize("name", FORMATS)
def test_long_rows_are_slid_in_steps(name: str, device: str) -> None:
    config = {"rows": 2, "block": 16, "step": 8, "num_warps": 1}

    with _configs.forced("quant_slide", name, config):
        for columns in (64, 75):
            assert_is_torchs(random(2, columns, device=device), SlidePattern(8), name)


def test_tiny_rows_and_rows_of_zeros_are_as_quant_makes_them(device: str) -> None:
    x = random(4, 64, device=device)
    x[1] *= 1e-37
    x[2] = 0

    assert_is_torchs(x, SlidePattern(8), "int8")
    assert_is_torchs(x, SlidePattern(8), "fp8")


def test_a_row_with_what_is_no_number_has_no_scale(device: str) -> None:
    x = random(3, 64, device=device, dtype=torch.float16)
    x[1, 3] = torch.nan

    _, scale = quant_slide(x, SlidePattern(8))

    assert scale.isnan().flatten().tolist() == [False, True, False]


def test_rows_are_added_where_the_product_asks_for_a_multiple(device: str) -> None:
    x = random(2, 5, 40, device=device)

    values, scale = quant_slide(x, SlidePattern(6), pad_rows=16)

    assert values.shape == (16, SlidePattern(6).columns(40))
    assert torch.equal(scale[:10].view(2, 5, 1), quant(x)[1])
    assert scale[10:].flatten().tolist() == [1] * 6
    assert not values[10:].any()


def test_rows_may_begin_anywhere(device: str) -> None:
    x = random(5, 67, device=device, dtype=torch.float16)

    for view in (x[:3, 1:33], x[::2, 1:32], x.t()[:2], x[:2, ::4]):
        assert_is_torchs(view, SlidePattern(8), "int8")


def test_what_cannot_be_slid_is_refused(device: str) -> None:
    x = random(2, 8, device=device)

    with pytest.raises(ValueError, match="pad_rows is 0; it must be at least 1"):
        quant_slide(x, SlidePattern(8), pad_rows=0)
    with pytest.raises(TypeError, match="dtype is fp4; rows are quantised to int8 or fp8"):
        quant_slide(x, SlidePattern(8), "fp4")
    with pytest.raises(ValueError, match="x is empty"):
        quant_slide(x[:, :0], SlidePattern(8))


def test_the_bench_is_given_what_it_can_check(device: str) -> None:
    shape = {"rows": 3, "columns": 20, "of": 8}
    operation = KERNEL.operations["fp8"]
    inputs = operation.inputs(shape, "fp32", device, 5)

    expected = operation.reference(inputs, shape)
    outputs = operation.implementations["tracelens"].build(inputs, shape)()

    assert all(torch.equal(outputs[one].float(), expected[one].float()) for one in expected)
    assert operation.work(shape, "bf16").bytes == 3 * (20 * 2 + 64) + 4 * 3


@pytest.mark.gpu
@on_gpu
@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("columns", [1001, 3584, 8192, 18944])
@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_bf16_rows_are_slid_as_torch_does(pattern: SlidePattern, columns: int, name: str) -> None:
    x = torch.randn(65, columns, device="cuda").exp().to(torch.bfloat16)

    assert_is_torchs(x, pattern, name)


@pytest.mark.gpu
@on_gpu
def test_more_elements_than_an_int32_counts_are_slid() -> None:
    x = torch.empty(65536 * 2, 18944, dtype=torch.bfloat16, device="cuda").normal_()

    values, scale = quant_slide(x, SlidePattern(8))

    for row in (0, 65535, 113_359, 113_360, 131_071):
        expected, expected_scale = reference(x[row : row + 1], SlidePattern(8), torch.int8)
        assert torch.equal(values[row : row + 1], expected)
        assert torch.equal(scale[row : row + 1], expected_scale)
