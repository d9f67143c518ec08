"""Cross-entropy: its traffic, memory and the name of its phase."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from tests.running import made, moved_bytes, peak_bytes, recorded

if TYPE_CHECKING:
    from pathlib import Path


def test_a_bf16_logit_costs_six_bytes() -> None:
    logits = torch.empty(8, 1000, dtype=torch.bfloat16)
    targets = torch.randint(1000, (8,))

    cost = made("cross-entropy", tokens=8, vocab=1000).cost()

    assert moved_bytes(cost, "loss") == logits.nbytes + targets.nbytes
    assert moved_bytes(cost, "backward") == 2 * logits.nbytes + targets.nbytes
    assert 3 * logits.nbytes == 6 * logits.numel()


@pytest.mark.parametrize("mode", ["forward", "forward-backward"])
def test_its_memory_is_what_torch_allocates(mode: str, tmp_path: Path) -> None:
    loss = made("cross-entropy", tokens=64, vocab=1000, dtype="fp32", mode=mode)

    assert loss.cost().memory_bytes == pytest.approx(peak_bytes(loss, tmp_path), rel=0.001)


def test_its_phase_is_the_loss() -> None:
    program = made("cross-entropy", tokens=4, vocab=10, repeats=3).program("cpu")

    names = [event.name for event in recorded(program)]

    assert [names.count(name) for name in ("loss", "backward", "forward")] == [3, 3, 0]
