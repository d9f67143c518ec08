"""The grouped product: even, skewed and empty groups, and rows that belong to none."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tracelens_kernels import _configs, grouped_matmul
from tracelens_kernels._gemm import paths
from tracelens_kernels.ops import grouped_matmul as module

from tracelens.kernel import parse_shape

pytestmark = pytest.mark.filterwarnings(  # of the interpreter, for a loop of unknown length
    "ignore:Conversion of an array with ndim:DeprecationWarning"
)

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")


def random(
    *shape: int, device: str, dtype: torch.dtype = torch.float32, seed: int = 0
) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(device, dtype)


def error(out: torch.Tensor, reference: torch.Tensor) -> float:
    return float((out.double() - reference).norm() / reference.norm().clamp(min=1e-30))


def by_loop(a: torch.Tensor, b: torch.Tensor, ends: list[int]) -> torch.Tensor:
    out = torch.zeros(len(a), b.shape[2], dtype=a.dtype, device=a.device)
    for group, (start, end) in enumerate(itertools.pairwise([0, *ends])):
        out[start:end] = a[start:end] @ b[group]
    return out


@settings(deadline=None, max_examples=15)
@given(st.lists(st.sampled_from([0, 0, 1, 3, 16, 130]), min_size=1, max_size=9), st.integers(0, 40))
def test_every_row_meets_the_matrix_of_its_group(sizes: list[int], left_over: int) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    ends = list(itertools.accumulate(sizes))
    rows = max(ends[-1] + left_over, 1)
    a = random(rows, 40, device=device, dtype=torch.float16)
    b = random(len(sizes), 40, 24, device=device, dtype=torch.float16)

    out = grouped_matmul(a, b, torch.tensor(ends, dtype=torch.int32, device=device))

    assert error(out, by_loop(a.double(), b.double(), ends)) < 5e-4
    assert not out[ends[-1] :].any()


@pytest.mark.parametrize("sizes", [[5, 0, 30, 1], [0, 0, 36], [36]])
def test_gradients_are_those_of_float64(sizes: list[int], device: str) -> None:
    ends = list(itertools.accumulate(sizes))
    offsets = torch.tensor(ends, dtype=torch.int32, device=device)
    a, b = random(40, 17, device=device), random(len(sizes), 29, 17, device=device).transpose(1, 2)
    grad = random(29, 40, device=device).t()
    ours = [one.clone().requires_grad_() for one in (a, b)]
    exact = [one.double().requires_grad_() for one in (a, b)]

    grouped_matmul(ours[0], ours[1], offsets).backward(grad)
    by_loop(exact[0], exact[1], ends).backward(grad.double())

    for mine, true in zip(ours, exact, strict=True):
        assert error(mine.grad, true.grad) < 1e-6


@pytest.mark.parametrize("ends", [[9, 3, 20], [-5, 4, 4], [100, 200, 300]])
def test_offsets_that_mean_nothing_do_no_harm(ends: list[int], device: str) -> None:
    a, b = random(20, 8, device=device), random(3, 8, 8, device=device)

    out = grouped_matmul(a, b, torch.tensor(ends, dtype=torch.int32, device=device))

    assert out.shape == (20, 8)


def test_what_does_not_fit_is_refused(device: str) -> None:
    a, b = torch.ones(4, 8, device=device), torch.ones(2, 8, 6, device=device)
    offsets = torch.tensor([2, 4], dtype=torch.int32, device=device)

    with pytest.raises(ValueError, match="offsets"):
        grouped_matmul(a, b, offsets[:1])
    with pytest.raises(ValueError, match="a \\[T, K\\]"):
        grouped_matmul(a[:, :7], b, offsets)
    with pytest.raises(TypeError, match="offsets is int64"):
        grouped_matmul(a, b, offsets.long())
    with pytest.raises(TypeError, match="they must be the same"):
        grouped_matmul(a.half(), b, offsets)
    with pytest.raises(ValueError, match="a is empty"):
        grouped_matmul(a[:0], b, offsets)


def test_zipfs_law_gives_the_first_rank_the_most() -> None:
    shape = parse_shape(module.KERNEL, "rows=1000,groups=4,k=8,n=8,skew=100")

    counts = sorted(module.sizes(shape, 0), reverse=True)

    assert counts == [480, 240, 160, 120]


@pytest.mark.parametrize("operation", ["forward", "backward"])
def test_the_bench_can_check_it(operation: str, device: str) -> None:
    shape = parse_shape(module.KERNEL, "rows=50,groups=5,k=24,n=16,skew=120")
    case = module.KERNEL.operations[operation]
    inputs = case.inputs(shape, "fp16", device, 3)
    reference = case.reference(inputs, shape)

    for name in ("tracelens", "eager"):
        outs = case.implementations[name].build(inputs, shape)()
        assert outs.keys() == reference.keys()
        assert all(error(out, reference[name]) < 1e-3 for name, out in outs.items())
    assert case.work(shape, "fp16").flops == 2 * 50 * 24 * 16 * len(reference)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("right", ["rows", "columns"])
@pytest.mark.parametrize("shape", [(200, 264), (333, 77)], ids=str)
@pytest.mark.parametrize(
    "sizes", [[5, 0, 300, 1, 128], [0, 0, 64], [1] * 40, [257], [0, 700, 3, 0]], ids=str
)
def test_every_tile_on_a_gpu_is_right(sizes: list[int], shape: tuple[int, int], right: str) -> None:
    k, n = shape
    ends = list(itertools.accumulate(sizes))
    offsets = torch.tensor(ends, dtype=torch.int32, device="cuda")
    a = random(ends[-1] + 7, k, device="cuda", dtype=torch.bfloat16)
    b = random(len(sizes), k, n, device="cuda", dtype=torch.bfloat16, seed=1)
    b = b if right == "rows" else b.mT.contiguous().mT
    grad = random(ends[-1] + 7, n, device="cuda", dtype=torch.bfloat16, seed=2)
    exact = [one.double().requires_grad_() for one in (a, b)]
    reference = by_loop(exact[0], exact[1], ends)
    reference.backward(grad.double())

    for config in paths.coarse(64, a.dtype, a.device):
        ours = [one.clone().requires_grad_() for one in (a, b)]
        with _configs.forced("grouped_matmul", "forward", config):
            out = grouped_matmul(ours[0], ours[1], offsets)
            out.backward(grad)
        assert error(out.detach(), reference.detach()) < 4e-3, config
        assert not out[ends[-1] :].any()
        for mine, true in zip(ours, exact, strict=True):
            assert error(mine.grad, true.grad) < 4e-3, config
