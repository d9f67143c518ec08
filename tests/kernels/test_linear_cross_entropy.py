"""Linear and cross-entropy in one against float64, by chunks; its memory and its refusals."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional
from tracelens_kernels import linear_cross_entropy
from tracelens_kernels.ops.linear_cross_entropy import KERNEL

from tests.kernels.rowwise import DEVICE, FORMATS, GPU, QUIET, assert_as_good, off, random
from tests.kernels.test_cross_entropy import targets
from tracelens.kernel import OURS

pytestmark = QUIET


def plain(
    hidden: torch.Tensor, weight: torch.Tensor, target: torch.Tensor, reduction: str = "mean"
) -> torch.Tensor:
    logits = (hidden @ weight.T).flatten(0, -2)
    return functional.cross_entropy(logits, target.flatten(), reduction=reduction)


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("chunk", [4, 100, None])
def test_loss_and_gradients(chunk: int | None, reduction: str, dtype: torch.dtype) -> None:
    hidden, weight = random(9, 8, dtype=dtype), random(21, 8, dtype=dtype, seed=1)
    target = targets(9, 21)
    target[3] = -100

    assert_as_good(
        lambda h, w, t: linear_cross_entropy(h, w, t, reduction=reduction, chunk=chunk),  # type: ignore[arg-type]
        lambda h, w, t: plain(h, w, t, reduction),
        (hidden, weight, target),
        torch.tensor(-2.0, device=DEVICE),
    )


def test_tokens_may_have_several_dimensions() -> None:
    hidden, weight, target = random(2, 3, 8), random(21, 8), targets(6, 21).view(2, 3)

    assert_as_good(linear_cross_entropy, plain, (hidden, weight, target), torch.tensor(1.0))


def test_a_frozen_weight_gets_no_gradient() -> None:
    hidden, weight, target = random(6, 8).requires_grad_(), random(21, 8), targets(6, 21)

    linear_cross_entropy(hidden, weight, target, chunk=2).backward()

    assert weight.grad is None
    assert hidden.grad is not None


def test_without_gradients_the_loss_is_the_same() -> None:
    hidden, weight, target = random(6, 8), random(21, 8), targets(6, 21)

    with torch.no_grad():
        loss = linear_cross_entropy(hidden, weight.requires_grad_(), target, chunk=4)

    torch.testing.assert_close(loss, plain(hidden, weight.detach(), target))


def test_under_autocast_it_computes_in_its_format() -> None:
    hidden, weight, target = random(6, 8).requires_grad_(), random(21, 8), targets(6, 21)

    with torch.autocast(DEVICE, torch.float16):
        loss = linear_cross_entropy(hidden, weight, target)
    loss.backward()

    assert hidden.grad is not None
    assert hidden.grad.dtype == torch.float32
    assert 1e-6 < off(loss, plain(hidden.double(), weight.double(), target)) < 1e-2


def test_wrong_input_is_told_before_anything_runs() -> None:
    hidden, weight, target = random(3, 8), random(21, 8), targets(3, 21)
    with pytest.raises(ValueError, match="reduction is 'none'"):
        linear_cross_entropy(hidden, weight, target, reduction="none")
    with pytest.raises(ValueError, match=r"weight \[classes, width\]"):
        linear_cross_entropy(hidden, weight[:, :7], target)
    with pytest.raises(TypeError, match="must be the same"):
        linear_cross_entropy(hidden, weight.half(), target)
    with pytest.raises(ValueError, match="hidden is on meta"):
        linear_cross_entropy(hidden.to("meta"), weight.to("meta"), target.to("meta"))
    with pytest.raises(ValueError, match="chunk is 0"):
        linear_cross_entropy(hidden, weight, target, chunk=0)


def test_the_bench_finds_ours_right() -> None:
    operation = KERNEL.operations["forward-backward"]
    shape = {"tokens": 7, "width": 6, "classes": 21}
    tensors = operation.inputs(shape, "fp32", DEVICE, 0)
    reference = operation.reference(tensors, shape)

    for implementation in (OURS, "eager"):
        outputs = operation.implementations[implementation].build(tensors, shape)()
        assert all(off(outputs[one], reference[one]) < 1e-5 for one in reference)


@pytest.mark.parametrize("mark", [pytest.param("", marks=GPU)])
def test_memory_stays_far_below_that_of_the_logits(mark: str) -> None:
    hidden = random(8192, 256, dtype=torch.bfloat16).requires_grad_()
    weight = random(50257, 256, dtype=torch.bfloat16, seed=1).requires_grad_()
    target = targets(8192, 50257)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()

    linear_cross_entropy(hidden, weight, target).backward()

    logits_bytes = 2 * 8192 * 50257
    assert torch.cuda.max_memory_allocated() - before < 0.4 * logits_bytes
