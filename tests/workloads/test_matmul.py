"""Matrix products: operations, operands as they are stored, and formats."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from tests.running import counted_flops, made, matmul_flops, moved_bytes, peak_bytes, recorded
from tracelens.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("layout", ["nn", "nt", "tn"])
@pytest.mark.parametrize("batch", [1, 3])
def test_its_products_are_counted_in_every_layout(layout: str, batch: int) -> None:
    product = made("matmul", m=4, n=5, k=6, batch=batch, layout=layout, dtype="fp32", repeats=2)

    cost = product.cost()

    assert counted_flops(product.program("cpu")) == matmul_flops(cost) == 2 * batch * 2 * 4 * 5 * 6
    assert cost.items == 2 * batch


def test_its_operands_cross_memory_once(tmp_path: Path) -> None:
    product = made("matmul", m=40, n=50, k=60, dtype="fp32", repeats=1)
    a, b = torch.empty(40, 60), torch.empty(60, 50)

    cost = product.cost()

    assert moved_bytes(cost, "forward") == a.nbytes + b.nbytes + (a @ b).nbytes
    assert cost.memory_bytes == peak_bytes(product, tmp_path)


def test_all_products_of_a_step_stand_in_one_range() -> None:
    program = made("matmul", m=4, n=4, k=4, dtype="fp32", repeats=7).program("cpu")

    names = [event.name for event in recorded(program)]

    assert (names.count("forward"), names.count("aten::mm")) == (1, 7)


def test_an_empty_product_is_refused() -> None:
    with pytest.raises(UsageError, match="--k is 0; it must be at least 1"):
        made("matmul", k=0)
