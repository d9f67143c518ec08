"""Sparse weights: pruned, slid, and multiplied; what slides keeps every product exactly."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tracelens_kernels import (
    SlidePattern,
    SparseLinear,
    _configs,
    _cusparselt,
    prune,
    quant_slide,
    slide,
    sparse_linear,
)
from tracelens_kernels._slide import is_2to4, slid
from tracelens_kernels.ops.sparse_linear import KERNEL, compress

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")


def test_the_smallest_magnitudes_go_and_of_equal_ones_the_first() -> None:
    weight = torch.tensor([[1.0, -4, 3, -2, 1, 1, 1, 1]])

    assert prune(weight, 2, 4).tolist() == [[0, -4, 3, 0, 0, 0, 1, 1]]
    assert prune(weight, 0, 4).tolist() == weight.tolist()
    assert prune(weight, 2, 8).tolist() == [[0, -4, 3, -2, 0, 1, 1, 1]]


def test_columns_that_are_missing_count_as_zeros() -> None:
    weight = torch.tensor([[1.0, 2, 3, 4, 5, 6, 7]])

    assert prune(weight, 2, 8).tolist() == [[0, 2, 3, 4, 5, 6, 7]]
    assert prune(weight, 2, 4).tolist() == [[0, 0, 3, 4, 0, 6, 7]]


@pytest.mark.parametrize(
    "dtype", [torch.int8, torch.float8_e4m3fn, torch.float16, torch.float32, torch.float64]
)
def test_weights_of_any_format_are_pruned_and_slid(dtype: torch.dtype) -> None:
    weight = (torch.randn(16, 50, generator=torch.Generator().manual_seed(0)) * 20).to(dtype)

    pruned = prune(weight, 2, 8)
    longer = slide(pruned, SlidePattern(8))

    assert pruned.dtype == longer.dtype == dtype
    assert (pruned.double() != 0).sum() <= 16 * (6 * 6 + 2)  # six groups, and two columns
    assert is_2to4(longer)
    assert not is_2to4(weight)
    assert longer.double().sum() == pruned.double().sum()


@pytest.mark.parametrize("columns", [4, 6, 8, 10])
def test_every_pattern_with_two_zeros_is_slid_and_every_product_stays(columns: int) -> None:
    masks = [m for m in itertools.product((0, 1), repeat=columns) if sum(m) <= columns - 2]
    random = torch.Generator().manual_seed(columns)
    mask = torch.tensor(masks)
    weight = mask * torch.randint(1, 100, mask.shape, generator=random)
    x = torch.randint(-100, 100, (5, columns), generator=random).to(torch.int8)
    pattern = SlidePattern(columns)

    longer = slide(weight, pattern)

    assert is_2to4(longer)
    assert torch.equal(slid(x, pattern).long() @ longer.t(), x.long() @ weight.t())


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 9),
    st.integers(1, 70),
    st.sampled_from([4, 6, 8, 10, 12, 16, None]),
    st.integers(0, 2**31),
)
def test_products_of_slid_integers_are_those_of_what_was_slid(
    rows: int, columns: int, of: int | None, seed: int
) -> None:
    random = torch.Generator().manual_seed(seed)
    weight = torch.randint(-9, 10, (rows, columns), generator=random)
    weight = prune(weight, 2, of) if of else weight
    x = torch.randint(-128, 128, (3, columns), generator=random).to(torch.int8)
    pattern = SlidePattern(of)

    longer = slide(weight, pattern)

    assert is_2to4(longer)
    assert longer.shape == (rows, pattern.columns(columns))
    assert torch.equal(slid(x, pattern).long() @ longer.t(), x.long() @ weight.t())


def test_what_the_kernel_slides_meets_what_was_slid(device: str) -> None:
    pattern = SlidePattern(8)
    x = torch.randint(-127, 128, (4, 40), generator=torch.Generator().manual_seed(0)).float()
    x[:, 0] = 127  # so that the scale is 1, and values are what they were
    weight = prune(torch.randint(-9, 10, (6, 40), generator=torch.Generator().manual_seed(1)))

    values, scale = quant_slide(x.to(device), pattern)

    assert scale.flatten().tolist() == [1] * 4
    assert torch.equal(values.cpu().long() @ slide(weight, pattern).t(), x.long() @ weight.t())


def test_a_negative_zero_is_a_zero() -> None:
    weight = torch.tensor([[1.0, 2, -0.0, 0, -0.0, -0.0, 3, 4]])

    assert is_2to4(weight)
    assert is_2to4(slide(weight, SlidePattern(6)))


def test_too_few_zeros_are_refused_with_their_place() -> None:
    weight = torch.ones(3, 16)
    weight[:, 3:5] = 0

    with pytest.raises(
        ValueError,
        match=r"Row 0 has fewer than two zeros in columns 8 to 15: prune\(weight, 2, 8\)",
    ):
        slide(weight, SlidePattern(8))


def test_what_cannot_be_pruned_is_refused() -> None:
    with pytest.raises(ValueError, match="5 of 4 columns cannot be zeros"):
        prune(torch.ones(2, 8), 5, 4)
    with pytest.raises(ValueError, match=r"Expected a weight \[N, K\]; got weight \[8\]"):
        prune(torch.ones(8))
    with pytest.raises(ValueError, match=r"Expected a weight \[N, K\]"):
        slide(torch.ones(8), SlidePattern(8))
    for shape in ((0, 8), (2, 0)):
        with pytest.raises(ValueError, match="weight is empty"):
            prune(torch.ones(shape))
        with pytest.raises(ValueError, match="weight is empty"):
            slide(torch.ones(shape), SlidePattern(8))


def test_a_weight_on_the_cpu_is_not_compressed() -> None:
    with pytest.raises(RuntimeError, match="Sparse products need an NVIDIA GPU"):
        compress(prune(torch.randn(32, 64)), SlidePattern(8))
    with pytest.raises(TypeError, match="dtype is int4"):
        SparseLinear.from_linear(torch.nn.Linear(64, 32), dtype="int4")


def layer(rows: int, columns: int, **options: Any) -> tuple[SparseLinear, torch.nn.Linear]:
    """A sparse layer, and the dense one of the same weights."""
    torch.manual_seed(rows)
    dense = torch.nn.Linear(columns, rows, device="cuda", dtype=torch.bfloat16)
    pattern = options.get("pattern", SlidePattern())
    sparse = SparseLinear.from_linear(dense, **options)
    if pattern.l:
        with torch.no_grad():
            dense.weight.copy_(prune(dense.weight, 2, pattern.l))
    return sparse, dense


@pytest.mark.gpu
@on_gpu
@pytest.mark.parametrize("dtype", ["int8", "fp8"])
@pytest.mark.parametrize("of", [4, 6, 8, 10, None])
@pytest.mark.parametrize("sizes", [(1, 64, 96), (37, 100, 72), (512, 1024, 768)])
@torch.no_grad()
def test_a_sparse_layer_is_the_dense_one_of_pruned_weights(
    sizes: tuple[int, int, int], of: int | None, dtype: str
) -> None:
    m, n, k = sizes
    sparse, dense = layer(n, k, pattern=SlidePattern(of), dtype=dtype)
    x = torch.randn(m, k, device="cuda", dtype=torch.bfloat16)

    out = sparse(x)
    expected = torch.nn.functional.linear(x.double(), dense.weight.double(), dense.bias.double())

    assert out.shape == (m, n)
    assert out.dtype == torch.bfloat16
    assert (out - expected).norm() / expected.norm() < (0.02 if dtype == "int8" else 0.06)


@pytest.mark.gpu
@on_gpu
@torch.no_grad()
def test_in_int8_it_is_what_the_dense_product_gives_bit_by_bit() -> None:
    from tracelens_kernels import dequant_bias, quant

    sparse, dense = layer(256, 512)
    x = torch.randn(3, 40, 512, device="cuda", dtype=torch.bfloat16)

    values, scale = quant(x.view(-1, 512))
    weight, scale_w = quant(dense.weight.detach())
    acc = torch._int_mm(values, weight.t())  # pyright: ignore[reportPrivateImportUsage]
    expected = dequant_bias(acc, scale, scale_w, dense.bias).view(3, 40, 256)

    assert torch.equal(sparse(x), expected)


@pytest.mark.gpu
@on_gpu
@pytest.mark.parametrize("dtype", ["int8", "fp8"])
@torch.no_grad()
def test_a_product_prepared_once_is_that_of_torch(
    dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sparse, _ = layer(128, 256, dtype=dtype)
    values, _ = quant_slide(torch.randn(48, 256, device="cuda"), sparse.pattern, dtype)

    planned = _cusparselt.product(sparse.packed, values, search=False)
    monkeypatch.setattr(_cusparselt, "_PLANNED", ())

    assert torch.equal(_cusparselt.product(sparse.packed, values, search=False), planned)


@pytest.mark.gpu
@on_gpu
@torch.no_grad()
def test_every_algorithm_gives_the_same_sums() -> None:
    sparse, _ = layer(256, 512)
    values, _ = quant_slide(torch.randn(64, 512, device="cuda"), sparse.pattern)
    expected = _cusparselt.product(sparse.packed, values, search=False)

    found = _cusparselt.timed(sparse.packed, values)

    assert len(found) > 1
    for algorithm in found:
        config = {"algorithm": algorithm}
        with _configs.forced("sparse_linear", "int8_product", config):
            assert torch.equal(_cusparselt.product(sparse.packed, values, search=True), expected)


@pytest.mark.gpu
@on_gpu
@torch.no_grad()
def test_it_may_be_recorded_in_a_cuda_graph() -> None:
    sparse, _ = layer(128, 256)
    x = torch.randn(48, 256, device="cuda", dtype=torch.bfloat16)
    expected = sparse(x)
    graph = torch.cuda.CUDAGraph()

    with torch.cuda.graph(graph):
        out = sparse(x)
    out.zero_()
    graph.replay()

    assert torch.equal(out, expected)


@pytest.mark.gpu
@on_gpu
def test_gradients_and_other_sizes_are_refused() -> None:
    sparse, _ = layer(64, 96)

    with pytest.raises(RuntimeError, match=r"this layer has none: use torch\.no_grad"):
        sparse(torch.randn(4, 96, device="cuda", requires_grad=True))
    with pytest.raises(ValueError, match=r"Expected x \[\.\.\., 96\]"):
        sparse(torch.randn(4, 95, device="cuda"))
    assert "6:8 int8" in repr(sparse)


@pytest.mark.gpu
@on_gpu
@pytest.mark.parametrize("operation", KERNEL.operations)
def test_the_bench_is_given_what_it_can_check(operation: str) -> None:
    shape = {"rows": 48, "out": 96, "in": 160, "of": 8}
    of = KERNEL.operations[operation]
    inputs = of.inputs(shape, "bf16", "cuda", 5)

    expected = of.reference(inputs, shape)["out"]
    for one in of.implementations.values():
        out = one.build(inputs, shape)()["out"]
        assert (out.double() - expected).norm() / expected.norm() < 0.06


def test_a_function_is_public() -> None:
    assert KERNEL.function() is sparse_linear
