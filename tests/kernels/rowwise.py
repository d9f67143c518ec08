"""How the tests of row-wise kernels hold them against PyTorch, in its precision and in float64."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

ODD = pytest.mark.filterwarnings(  # of numpy, for the interpreter's −inf − −inf, 0 / 0, ...
    "ignore:(invalid value|divide by zero|overflow):RuntimeWarning"
)
QUIET = pytest.mark.filterwarnings(  # of the interpreter, for a loop of unknown length
    "ignore:Conversion of an array with ndim:DeprecationWarning"
)
GPU = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]
FORMATS = [
    pytest.param(torch.float32, id="fp32"),
    pytest.param(torch.float16, id="fp16"),
    pytest.param(torch.bfloat16, id="bf16", marks=GPU),  # the interpreter gets it wrong
]
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def random(*sizes: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    numbers = torch.randn(sizes, generator=torch.Generator().manual_seed(seed))
    return numbers.to(DEVICE, dtype)


def off(out: Tensor, reference: Tensor) -> float:
    """Return ‖out − reference‖ / ‖reference‖; what should be nothing is held against 1."""
    reference = reference.detach().double()
    return float((out.detach().double() - reference).norm() / (reference.norm() or 1))


def with_gradients(
    function: Callable[..., Tensor], inputs: tuple[Tensor, ...], dy: Tensor
) -> list[Tensor]:
    """Return what a function gives, and the gradients of those inputs that are numbers."""
    given = [
        one.detach().clone().requires_grad_() if one.is_floating_point() else one for one in inputs
    ]
    y = function(*given)
    leaves = [one for one in given if one.requires_grad]
    return [y.detach(), *torch.autograd.grad(y, leaves, dy.to(y.dtype))]


def assert_as_good(
    ours: Callable[..., Tensor],
    plain: Callable[..., Tensor],
    inputs: tuple[Tensor, ...],
    dy: Tensor,
) -> None:
    """Hold outputs and gradients against float64: at most twice the error of plain PyTorch."""
    doubled = tuple(one.double() if one.is_floating_point() else one for one in inputs)
    exact = with_gradients(plain, doubled, dy)
    floor = torch.finfo(inputs[0].dtype).eps

    for mine, theirs, reference in zip(
        with_gradients(ours, inputs, dy), with_gradients(plain, inputs, dy), exact, strict=True
    ):
        assert mine.shape == reference.shape
        assert off(mine, reference) <= 2 * off(theirs, reference) + floor
