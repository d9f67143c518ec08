"""LayerNorm against float64, in registers and in two readings, its module and its refusals."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import layer_norm as torchs
from tracelens_kernels import LayerNorm, _configs, layer_norm
from tracelens_kernels._rows import config
from tracelens_kernels.ops.layernorm import KERNEL

from tests.kernels.rowwise import DEVICE, FORMATS, GPU, QUIET, assert_as_good, off, random
from tracelens.kernel import OURS

pytestmark = QUIET


def plain(
    x: torch.Tensor, weight: torch.Tensor | None = None, bias: torch.Tensor | None = None
) -> torch.Tensor:
    return torchs(x, x.shape[-1:], weight, bias)


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("sizes", [(5, 37), (2, 3, 64)])
def test_rows_in_registers(sizes: tuple[int, ...], dtype: torch.dtype) -> None:
    x, weight, bias, dy = (
        random(*sizes, dtype=dtype),
        random(sizes[-1], dtype=dtype, seed=1),
        random(sizes[-1], dtype=dtype, seed=2),
        random(*sizes, dtype=dtype, seed=3),
    )

    assert_as_good(layer_norm, plain, (x, weight, bias), dy)


@pytest.mark.parametrize("dtype", FORMATS)
def test_rows_that_are_read_twice(dtype: torch.dtype) -> None:
    x, weight, bias, dy = (
        random(5, 130, dtype=dtype),
        random(130, dtype=dtype, seed=1),
        random(130, dtype=dtype, seed=2),
        random(5, 130, dtype=dtype, seed=3),
    )
    long = config(block=32, num_warps=4, programs=1)

    with (
        _configs.forced("layernorm", "forward", long),
        _configs.forced("layernorm", "backward", long),
    ):
        assert_as_good(layer_norm, plain, (x, weight, bias), dy)


def test_rows_of_two_halves() -> None:
    x, weight, dy = random(5, 100), random(100, seed=1), random(5, 100, seed=2)
    halves = config(block=64, num_warps=4, programs=1)

    with _configs.forced("layernorm", "backward", halves):
        assert_as_good(layer_norm, plain, (x, weight), dy)


def test_programs_with_several_tiles() -> None:
    x, weight, dy = random(21, 30), random(30, seed=1), random(21, 30, seed=2)
    many = config(rows=2, num_warps=4, stages=2, programs=1)

    with (
        _configs.forced("layernorm", "forward", many),
        _configs.forced("layernorm", "backward", many),
    ):
        assert_as_good(layer_norm, plain, (x, weight), dy)


@pytest.mark.parametrize(
    "columns", [pytest.param(columns, marks=GPU) for columns in (8192, 16384, 20000, 32768, 70001)]
)
def test_long_rows_that_programs_halve_or_share(columns: int) -> None:
    x, weight, dy, bias = (
        random(37, columns, dtype=torch.bfloat16),
        random(columns, dtype=torch.bfloat16, seed=1),
        random(37, columns, dtype=torch.bfloat16, seed=2),
        random(columns, dtype=torch.bfloat16, seed=3),
    )

    assert_as_good(layer_norm, plain, (x, weight, bias), dy)


def test_without_a_weight_and_with_strides() -> None:
    assert_as_good(layer_norm, plain, (random(6, 16)[::2, 3:13],), random(10, 3, seed=1).T)


@pytest.mark.parametrize("block", [0, 64])
def test_a_large_mean_does_not_cancel_the_variance(block: int) -> None:
    x = random(2, 300) + 3000

    with _configs.forced("layernorm", "forward", config(block=block, num_warps=4)):
        assert off(layer_norm(x), plain(x.double())) < 1e-3


def test_only_what_needs_a_gradient_gets_one() -> None:
    x, weight = random(4, 10), random(10, seed=1).requires_grad_()

    layer_norm(x, weight).sum().backward()

    assert x.grad is None
    torch.testing.assert_close(weight.grad, plain(x).sum(0))


def test_weights_have_formats_of_their_own() -> None:
    x, weight = random(4, 10, dtype=torch.float16), random(10, seed=1).requires_grad_()

    y = layer_norm(x.requires_grad_(), weight)
    y.sum().backward()

    assert (y.dtype, x.grad.dtype) == (torch.float16, torch.float16)  # type: ignore[union-attr]
    assert weight.grad is not None
    assert weight.grad.dtype == torch.float32
    assert off(y, plain(x.double(), weight.double())) < 1e-3


@pytest.mark.parametrize("shape", [8, (4, 8)])
@pytest.mark.parametrize("affine", [True, False])
def test_the_module_is_torchs(shape: int | tuple[int, int], affine: bool) -> None:
    theirs = torch.nn.LayerNorm(shape, elementwise_affine=affine).to(DEVICE)
    ours = LayerNorm(shape, elementwise_affine=affine).to(DEVICE)
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter)
    ours.load_state_dict(theirs.state_dict())
    x = random(3, 4, 8)

    torch.testing.assert_close(ours(x), theirs(x))


def test_wrong_input_is_told_before_anything_runs() -> None:
    x = random(2, 8)
    with pytest.raises(ValueError, match=r"Expected weight \[8\], as x's rows are; got \[7\]"):
        layer_norm(x, random(7))
    with pytest.raises(ValueError, match=r"Expected bias \[8\]"):
        layer_norm(x, None, random(7))
    with pytest.raises(TypeError, match="x is float64"):
        layer_norm(x.double())
    with pytest.raises(ValueError, match="x is empty"):
        layer_norm(x[:0])
    with pytest.raises(ValueError, match="move one of them"):
        layer_norm(x, torch.empty(8, device="meta"))


@pytest.mark.parametrize("name", ["forward", "backward"])
def test_the_bench_finds_ours_right(name: str) -> None:
    operation, shape = KERNEL.operations[name], {"rows": 3, "columns": 21}
    tensors = operation.inputs(shape, "fp32", DEVICE, 0)
    reference = operation.reference(tensors, shape)

    for implementation in (OURS, "eager"):
        outputs = operation.implementations[implementation].build(tensors, shape)()
        assert all(off(outputs[one], reference[one]) < 1e-5 for one in reference)


def test_every_configuration_that_tuning_tries_is_like_the_default() -> None:
    for name, tuning in KERNEL.tuning.items():
        for shape in KERNEL.shapes:
            default = tuning.default(shape, "bf16")
            tried = [*tuning.coarse(shape, "bf16"), *tuning.fine(default, shape, "bf16")]
            assert tried, (name, shape)
            assert all(one.keys() == default.keys() for one in tried)
            assert tuning.key(shape, "bf16") == f"columns={shape['columns']} bf16"
