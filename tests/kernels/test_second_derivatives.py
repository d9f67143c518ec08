"""There are none, and whoever asks for one is told, rather than given what is incomplete."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest
import torch
import tracelens_kernels as tk

from tests.kernels.rowwise import DEVICE, random

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


def _targets() -> Tensor:
    return torch.tensor([0, 2, 1], device=DEVICE)


def _experts(x: Tensor) -> Tensor:
    wide, high = random(2, 5, 4), random(2, 4, 5)
    out: Tensor = tk.moe(x, random(2, 5), wide, wide, high)
    return out


FUNCTIONS: Final[dict[str, Callable[[Tensor], Tensor]]] = {
    "softmax": tk.softmax,
    "rms_norm": tk.rms_norm,
    "layer_norm": tk.layer_norm,
    "cross_entropy": lambda x: tk.cross_entropy(x, _targets()),
    "cross_entropy in place": lambda x: tk.cross_entropy(x * 1, _targets(), inplace=True),
    "linear_cross_entropy": lambda x: tk.linear_cross_entropy(x, random(4, 5), _targets()),
    "matmul": lambda x: tk.matmul(x, random(5, 4)),
    "grouped_matmul": lambda x: tk.grouped_matmul(
        x, random(2, 5, 4), torch.tensor([1, 3], dtype=torch.int32, device=DEVICE)
    ),
    "moe": _experts,
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_graph_of_a_gradient_is_refused(name: str) -> None:
    x = random(3, 5).requires_grad_()
    function = name.removesuffix(" in place")

    with pytest.raises(RuntimeError, match=f"^{function} has no second derivative"):
        torch.autograd.grad(FUNCTIONS[name](x).sum(), x, create_graph=True)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_gradient_without_a_graph_is_not(name: str) -> None:
    x = random(3, 5).requires_grad_()

    (gradient,) = torch.autograd.grad(FUNCTIONS[name](x).sum(), x)

    assert gradient.shape == x.shape
    assert not gradient.requires_grad
