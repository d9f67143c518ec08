"""Softmax of rows: its traffic and memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from tracelens_workloads.softmax import Softmax

from tests.running import made, moved_bytes, peak_bytes
from tracelens.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path


def test_rows_add_up_to_one_and_keep_their_ratios() -> None:
    x = torch.randn(3, 7)

    y = Softmax().layer("cpu")(x)

    torch.testing.assert_close(y.sum(1), torch.ones(3))
    torch.testing.assert_close(y[:, 1] / y[:, 0], (x[:, 1] - x[:, 0]).exp())


def test_it_moves_two_matrices_forward_and_three_backward() -> None:
    x = torch.randn(5, 7, dtype=torch.bfloat16)

    cost = made("softmax", rows=5, columns=7, dtype="bf16").cost()

    assert moved_bytes(cost, "forward") == 2 * x.nbytes
    assert moved_bytes(cost, "backward") == 3 * x.nbytes
    assert cost.parameters == 0


@pytest.mark.parametrize("mode", ["forward", "forward-backward"])
def test_its_memory_is_what_torch_allocates(mode: str, tmp_path: Path) -> None:
    softmax = made("softmax", rows=100, columns=256, dtype="fp32", mode=mode)

    assert softmax.cost().memory_bytes == pytest.approx(peak_bytes(softmax, tmp_path), rel=0.01)


def test_tf32_which_no_softmax_uses_is_refused() -> None:
    with pytest.raises(UsageError, match="--dtype"):
        made("softmax", dtype="tf32")
