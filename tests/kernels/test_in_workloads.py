"""A model trained with our kernels takes the same steps as with torch's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from tracelens.workload import find, make

if TYPE_CHECKING:
    from tracelens_workloads.models.training import Training

SIZES = {"layers": 1, "d_model": 16, "heads": 2, "d_ff": 32, "vocab": 37, "ctx": 11, "batch": 2}
OURS = {
    "attention": {"attention": "kernel", "kernel": "flash-attention"},
    "norm": {"norm": "kernel"},
    "loss": {"loss": "kernel"},
    "head and loss": {"loss": "linear-kernel"},
    "optimizer": {"optimizer_implementation": "kernel"},
}


def program(device: str, **options: Any) -> Training:
    torch.manual_seed(7)
    kind, values = find("gpt2")
    found: Any = make(kind, {**values, **SIZES, **options}).program(device)
    return found


@pytest.mark.parametrize("variant", ["gpt2", "cs336"])
@pytest.mark.parametrize(
    "options", [*OURS.values(), {k: v for o in OURS.values() for k, v in o.items()}], ids=str
)
def test_a_step_with_our_kernels_is_the_step_of_torchs(
    device: str, variant: str, options: dict[str, Any]
) -> None:
    ours, theirs = program(device, variant=variant, **options), program(device, variant=variant)

    for _ in range(2):
        ours.step()
        theirs.step()

    assert ours.loss is not None
    assert theirs.loss is not None
    torch.testing.assert_close(ours.loss, theirs.loss, rtol=1e-5, atol=1e-5)
    for (name, mine), other in zip(
        ours.model.named_parameters(), theirs.model.parameters(), strict=True
    ):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5, msg=name)


def test_the_optimizer_alone_can_be_ours(device: str) -> None:
    kind, values = find("optimizer")
    options = {**values, "millions": 1, "repeats": 1}
    made: list[Any] = []
    for implementation in ("kernel", "for-loop"):
        torch.manual_seed(3)
        made.append(make(kind, {**options, "implementation": implementation}).program(device))
        made[-1].step()

    for ours, theirs in zip(made[0].parameters, made[1].parameters, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
