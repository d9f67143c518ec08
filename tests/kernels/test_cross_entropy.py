"""Cross-entropy against float64, in place and not; what is ignored or wrong; its refusals."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional
from tracelens_kernels import _configs, cross_entropy
from tracelens_kernels.ops.cross_entropy import KERNEL

from tests.kernels.rowwise import DEVICE, FORMATS, GPU, ODD, QUIET, assert_as_good, off, random
from tracelens.kernel import OURS

if TYPE_CHECKING:
    from torch import Tensor

pytestmark = QUIET


def targets(rows: int, classes: int, seed: int = 1) -> Tensor:
    found = torch.randint(classes, (rows,), generator=torch.Generator().manual_seed(seed))
    return found.to(DEVICE)


def in_place(logits: Tensor, target: Tensor, **options: object) -> Tensor:
    return cross_entropy(logits * 1, target, inplace=True, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("function", [cross_entropy, in_place])
@pytest.mark.parametrize("classes", [37, 1, 600])
def test_loss_and_gradient(function: object, classes: int, dtype: torch.dtype) -> None:
    logits, target = 3 * random(5, classes, dtype=dtype), targets(5, classes)
    target[2] = -100

    assert_as_good(function, functional.cross_entropy, (logits, target), torch.tensor(1.0))  # type: ignore[arg-type]


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("function", [cross_entropy, in_place])
def test_reductions_and_gradients_of_the_loss_that_are_not_1(
    function: object, reduction: str
) -> None:
    logits, target = random(4, 33), targets(4, 33)
    dloss = random(4, seed=2) if reduction == "none" else torch.tensor(-3.0)

    assert_as_good(
        lambda x, t: function(x, t, reduction=reduction),  # type: ignore[operator]
        lambda x, t: functional.cross_entropy(x, t, reduction=reduction),
        (logits, target),
        dloss.to(DEVICE),
    )


@settings(max_examples=15)
@given(st.integers(2, 80), st.floats(-200, 200), st.booleans())
def test_gradients_of_a_row_sum_to_0(classes: int, offset: float, inplace: bool) -> None:
    logits = (random(2, classes) + offset).requires_grad_()

    cross_entropy(logits * 1, targets(2, classes), inplace=inplace).backward()

    assert logits.grad is not None
    assert logits.grad.sum(-1).abs().max() < 1e-5


def test_logits_may_be_part_of_padded_ones_and_have_several_dimensions() -> None:
    padded, target = random(2, 3, 48), targets(6, 40).view(2, 3).int()

    loss = cross_entropy(padded[..., :40], target)

    expected = functional.cross_entropy(padded[..., :40].reshape(6, 40), target.flatten().long())
    torch.testing.assert_close(loss, expected)


def test_in_place_the_gradient_lies_where_the_logits_did() -> None:
    leaf = random(3, 20).requires_grad_()
    logits = leaf * 1

    loss = cross_entropy(logits, targets(3, 20), inplace=True)
    (gradient,) = torch.autograd.grad(loss, logits, retain_graph=True)

    assert gradient.data_ptr() == logits.data_ptr()
    with pytest.raises(RuntimeError, match="backward runs once"):
        torch.autograd.grad(loss, logits)


def test_in_place_whoever_saved_the_logits_is_told() -> None:
    logits = random(3, 20).requires_grad_() * 1
    square = (logits**2).sum()

    cross_entropy(logits, targets(3, 20), inplace=True)

    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        square.backward()


def test_in_place_nothing_is_overwritten_where_no_gradient_is_needed() -> None:
    logits = random(3, 20)
    before = logits.clone()

    cross_entropy(logits, targets(3, 20), inplace=True)

    assert torch.equal(logits, before)


@pytest.mark.parametrize("inplace", [False, True])
def test_ignored_rows_have_no_loss_and_no_gradient(inplace: bool) -> None:
    leaf, target = random(4, 20).requires_grad_(), targets(4, 20)
    target[1] = 7

    losses = cross_entropy(leaf * 1, target, ignore_index=7, reduction="none", inplace=inplace)
    losses.sum().backward()

    assert float(losses.detach()[1]) == 0
    assert leaf.grad is not None
    assert not leaf.grad[1].any()
    assert leaf.grad[0].any()


@pytest.mark.parametrize("ignored", [-100, 2**31, -(2**40)])
def test_what_is_ignored_need_not_fit_the_format_of_targets(ignored: int) -> None:
    logits, target = random(4, 20), targets(4, 20)

    loss = cross_entropy(logits, target.int(), ignore_index=ignored)

    assert torch.equal(loss, cross_entropy(logits, target))


@ODD
@pytest.mark.parametrize("inplace", [False, True])
def test_a_mean_of_nothing_is_nan(inplace: bool) -> None:
    target = torch.full((2,), -100, device=DEVICE)

    assert cross_entropy(random(2, 5).requires_grad_() * 1, target, inplace=inplace).isnan()


@ODD
@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("wrong", [-1, 20, 1 << 40])
def test_a_target_that_is_no_class_is_nan_and_never_read_at(wrong: int, inplace: bool) -> None:
    leaf, target = random(3, 20).requires_grad_(), targets(3, 20)
    target[1] = wrong

    losses = cross_entropy(leaf * 1, target, reduction="none", inplace=inplace)
    losses.sum().backward()

    assert losses.isnan().tolist() == [False, True, False]
    assert leaf.grad is not None
    assert leaf.grad.isnan().all(1).tolist() == [False, True, False]


@ODD
def test_classes_that_are_masked_out_count_nothing() -> None:
    logits = random(2, 300)
    logits[:, :280] = -torch.inf
    target = torch.tensor([290, 3], device=DEVICE)

    with _configs.forced("cross_entropy", "forward", {"block": 64, "num_warps": 1}):
        losses = cross_entropy(logits, target, reduction="none")

    torch.testing.assert_close(losses, functional.cross_entropy(logits, target, reduction="none"))


def test_a_sure_model_has_a_small_loss_and_not_a_rounded_one() -> None:
    logits = torch.tensor([[1000.0, 990.0, 0.0]], device=DEVICE)

    loss = cross_entropy(logits, torch.tensor([0], device=DEVICE))

    assert float(loss) == pytest.approx(4.5398e-05, rel=1e-3)


def test_wrong_input_is_told_before_anything_runs() -> None:
    logits, target = random(3, 8), targets(3, 8)
    with pytest.raises(TypeError, match="target is float32"):
        cross_entropy(logits, target.float())
    with pytest.raises(ValueError, match=r"target \[\.\.\.\]; got logits \[3, 8\], target \[2\]"):
        cross_entropy(logits, target[:2])
    with pytest.raises(ValueError, match="logits is empty"):
        cross_entropy(logits[:, :0], target)
    with pytest.raises(ValueError, match="reduction is 'max'"):
        cross_entropy(logits, target, reduction="max")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="move one of them"):
        cross_entropy(logits, target.to("meta"))


def test_what_cannot_be_overwritten_is_refused() -> None:
    leaf, target = random(3, 8).requires_grad_(), targets(3, 8)
    with pytest.raises(RuntimeError, match="are a leaf"):
        cross_entropy(leaf, target, inplace=True)
    with pytest.raises(ValueError, match="rows of neighbouring classes"):
        cross_entropy((random(8, 3).requires_grad_() * 1).T, target, inplace=True)
    with pytest.raises(RuntimeError, match="expanded logits"):
        cross_entropy((leaf[:1] * 1).expand(3, 8), target, inplace=True)


@pytest.mark.parametrize("name", ["in-place", "forward"])
def test_the_bench_finds_ours_right(name: str) -> None:
    operation, shape = KERNEL.operations[name], {"tokens": 3, "classes": 21}
    tensors = operation.inputs(shape, "fp32", DEVICE, 0)
    reference = operation.reference(tensors, shape)
    implementations = dict(operation.implementations)
    implementations.pop("compile")

    for implementation in sorted(implementations, key=lambda one: one == OURS):
        outputs = implementations[implementation].build(tensors, shape)()
        assert all(off(outputs[one], reference[one]) < 1e-5 for one in reference)


@pytest.mark.parametrize("mark", [pytest.param("", marks=GPU)])
def test_more_than_two_billion_logits(mark: str) -> None:
    logits = torch.zeros(16400, 131072, dtype=torch.float16, device="cuda")
    logits[-1, -1] = 20.0

    losses = cross_entropy(logits, torch.full((16400,), 131071, device="cuda"), reduction="none")

    assert float(losses[-2]) == pytest.approx(11.7835, abs=1e-3)
    assert float(losses[-1]) < 1e-3
