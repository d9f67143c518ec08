"""Softmax against float64, in registers and in two readings, its invariants and its refusals."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tracelens_kernels import _configs, softmax
from tracelens_kernels._rows import config
from tracelens_kernels.ops.softmax import KERNEL

from tests.kernels.rowwise import DEVICE, FORMATS, GPU, ODD, QUIET, assert_as_good, off, random
from tracelens.kernel import OURS

pytestmark = QUIET

LONG = config(block=64, num_warps=4)


def twice_read(operation: str):  # noqa: ANN201 (a context)
    return _configs.forced("softmax", operation, LONG)


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("sizes", [(3, 37), (1, 1), (5, 128), (2, 3, 11)])
def test_rows_in_registers(sizes: tuple[int, ...], dtype: torch.dtype) -> None:
    x = 3 * random(*sizes, dtype=dtype)

    assert_as_good(softmax, lambda x: x.softmax(-1), (x,), random(*sizes, dtype=dtype, seed=1))


@pytest.mark.parametrize("dtype", FORMATS)
def test_rows_that_are_read_twice(dtype: torch.dtype) -> None:
    x = 3 * random(3, 201, dtype=dtype)

    with twice_read("forward"), twice_read("backward"):
        assert_as_good(softmax, lambda x: x.softmax(-1), (x,), random(3, 201, dtype=dtype, seed=1))


@pytest.mark.parametrize("stages", [1, 2])
def test_programs_with_several_tiles(stages: int) -> None:
    x, dy = random(21, 30), random(21, 30, seed=1)
    many = config(rows=2, num_warps=4, stages=stages, programs=1)

    with _configs.forced("softmax", "forward", many), _configs.forced("softmax", "backward", many):
        assert_as_good(softmax, lambda x: x.softmax(-1), (x,), dy)


@pytest.mark.parametrize("dim", [0, 1, -2])
def test_over_another_dimension(dim: int) -> None:
    x, dy = random(3, 5, 4), random(3, 5, 4, seed=1)

    assert_as_good(lambda x: softmax(x, dim), lambda x: x.softmax(dim), (x,), dy)


def test_tensors_need_not_be_contiguous() -> None:
    x, dy = random(6, 16)[::2, 3:13], random(10, 3, seed=1).T

    assert_as_good(softmax, lambda x: x.softmax(-1), (x,), dy)


@settings(max_examples=15)
@given(st.integers(1, 70), st.floats(-100, 100), st.booleans())
def test_rows_sum_to_1_wherever_they_lie(columns: int, offset: float, twice: bool) -> None:
    x = random(2, columns) + offset

    if twice:
        with twice_read("forward"):
            y = softmax(x)
    else:
        y = softmax(x)

    torch.testing.assert_close(y.sum(-1), torch.ones(2, device=DEVICE))
    assert off(y, x.double().softmax(-1)) < 1e-5


@ODD
@pytest.mark.parametrize("twice", [False, True])
def test_what_is_masked_has_no_share_and_all_masked_is_nan(twice: bool) -> None:
    x = random(3, 150)
    x[0, :100] = -torch.inf  # the first block of a row in two readings is nothing but −inf
    x[1] = torch.finfo(torch.float32).min
    x[2, 7] = torch.nan

    with _configs.forced("softmax", "forward", LONG if twice else config(num_warps=4)):
        y = softmax(x)

    assert torch.equal(y[0, :100], torch.zeros(100, device=DEVICE))
    torch.testing.assert_close(y[:2], x[:2].softmax(-1))
    assert y[2].isnan().all()


@ODD
@pytest.mark.parametrize("twice", [False, True])
def test_a_row_of_minus_infinity_is_nan_as_in_torch(twice: bool) -> None:
    x = torch.full((1, 70), -torch.inf, device=DEVICE)

    with _configs.forced("softmax", "forward", LONG if twice else config(num_warps=4)):
        assert softmax(x).isnan().all()


def test_wrong_input_is_told_before_anything_runs() -> None:
    with pytest.raises(TypeError, match="x is float64"):
        softmax(random(2, 3).double())
    with pytest.raises(ValueError, match="x is empty"):
        softmax(random(2, 0))
    with pytest.raises(ValueError, match="at least one dimension"):
        softmax(random(1)[0])
    with pytest.raises(IndexError, match="dim is 2; x has 2 dimensions"):
        softmax(random(2, 3), 2)
    with pytest.raises(ValueError, match="on meta"):
        softmax(torch.empty(2, 3, device="meta"))


@pytest.mark.parametrize("name", ["forward", "backward"])
def test_the_bench_finds_ours_right(name: str) -> None:
    operation, shape = KERNEL.operations[name], {"rows": 3, "columns": 21}
    tensors = operation.inputs(shape, "fp32", DEVICE, 0)
    reference = operation.reference(tensors, shape)

    for implementation in (OURS, "eager"):
        outputs = operation.implementations[implementation].build(tensors, shape)()
        assert all(off(outputs[one], reference[one]) < 1e-5 for one in reference)


@pytest.mark.parametrize("mark", [pytest.param("", marks=GPU)])
def test_more_than_two_billion_elements(mark: str) -> None:
    x = torch.zeros(65537, 32768, dtype=torch.float16, device="cuda")
    x[-1, -1] = 20.0

    y = softmax(x)

    assert float(y[-1, -1]) == pytest.approx(1.0, abs=1e-3)
    assert torch.equal(y[0, :5], y[-2, :5])
    assert float(y[-2, 0]) == pytest.approx(1 / 32768, rel=1e-2)
