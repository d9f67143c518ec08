"""The mixture of experts: routing, its load, and results and gradients against a loop."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tracelens_kernels import moe, route
from tracelens_kernels.ops import moe as module

from tracelens.kernel import parse_shape

pytestmark = pytest.mark.filterwarnings(  # of the interpreter, for a loop of unknown length
    "ignore:Conversion of an array with ndim:DeprecationWarning"
)

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")


def random(
    *shape: int, device: str, dtype: torch.dtype = torch.float32, seed: int = 0
) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(device, dtype)


def error(out: torch.Tensor, reference: torch.Tensor) -> float:
    return float((out.detach().double() - reference).norm() / reference.norm().clamp(min=1e-30))


def weights(device: str, experts: int = 5, width: int = 24, hidden: int = 40) -> list[torch.Tensor]:
    shapes = [(experts, width), (experts, width, hidden), (experts, width, hidden)]
    return [
        random(*shape, device=device, seed=seed) / width**0.5
        for seed, shape in enumerate([*shapes, (experts, hidden, width)])
    ]


def test_tokens_are_sorted_by_expert_and_none_is_lost(device: str) -> None:
    logits = torch.tensor([[0.0, 2, 1], [9, 1, 8], [0, 5, 5]], device=device)

    routing = route(logits, 2)

    assert routing.experts[:2].tolist() == [[1, 2], [0, 2]]
    assert routing.offsets.tolist() == [1, 3, 6]
    assert routing.tokens.tolist() == [1, 0, 2, 0, 1, 2]
    assert routing.slots[:2].tolist() == [[1, 3], [0, 4]]


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 60), st.integers(1, 9), st.data())
def test_routing_is_a_permutation(tokens: int, experts: int, data: st.DataObject) -> None:
    top_k = data.draw(st.integers(1, experts))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    logits = random(tokens, experts, device=device, seed=data.draw(st.integers(0, 99)))

    routing = route(logits, top_k)

    assert torch.equal(routing.experts, logits.topk(top_k, dim=1).indices)
    by_expert = torch.bincount(routing.experts.flatten(), minlength=experts).cumsum(0)
    assert routing.offsets.tolist() == by_expert.tolist()
    assert sorted(routing.slots.flatten().tolist()) == list(range(tokens * top_k))
    choices = torch.arange(tokens, dtype=torch.int32, device=device).repeat_interleave(top_k)
    assert torch.equal(routing.tokens[routing.slots.flatten().long()], choices)
    ordered = routing.experts.flatten()[routing.slots.flatten().argsort()]
    assert torch.equal(ordered, ordered.sort().values)
    torch.testing.assert_close(routing.weights.sum(1), torch.ones(tokens, device=device))


def test_of_equal_logits_the_first_wins_and_every_expert_is_chosen_once(device: str) -> None:
    infinite = torch.full((2, 5), float("-inf"), device=device)
    infinite[1, 3] = float("nan")

    assert route(infinite, 5).experts.tolist() == [[0, 1, 2, 3, 4], [3, 0, 1, 2, 4]]


def test_weights_that_are_not_normalised_are_the_probabilities(device: str) -> None:
    logits = torch.tensor([[1.0, 0, 2]], device=device)

    routing = route(logits, 2, normalize=False)

    torch.testing.assert_close(routing.weights, logits.softmax(1)[:, [2, 0]])


def test_load_tells_even_from_collapsed(device: str) -> None:
    even = module.load(route(torch.eye(4, device=device) * 5, 1))
    all_on_one = module.load(route(torch.tensor([[50.0, 0, 0, 0]], device=device).expand(8, 4), 1))

    assert even.tokens.tolist() == [1, 1, 1, 1]
    assert [float(even.balance_loss), float(even.variation), float(even.gini)] == pytest.approx(
        [1, 0, 0]
    )
    assert all_on_one.tokens.tolist() == [8, 0, 0, 0]
    assert float(all_on_one.balance_loss) == pytest.approx(4)
    assert float(all_on_one.variation) == pytest.approx(3**0.5)
    assert float(all_on_one.gini) == pytest.approx(0.75)


@pytest.mark.parametrize("top_k", [1, 2, 5])
def test_results_and_gradients_are_those_of_a_loop_in_float64(top_k: int, device: str) -> None:
    tensors = [random(3, 7, 24, device=device, seed=9), *weights(device)]
    ours = [one.clone().requires_grad_() for one in tensors]
    exact = [one.double().requires_grad_() for one in tensors]
    grad = random(3, 24, 7, device=device).transpose(1, 2)

    out = moe(*ours, top_k=top_k)
    rows = exact[0].view(-1, 24)
    true = module.dense_loop([rows, *exact[1:]], route(rows @ exact[1].t(), top_k))

    assert error(out.view(-1, 24), true.detach()) < 1e-6
    out.backward(grad)
    true.backward(grad.reshape(-1, 24).double())
    for mine, one in zip(ours, exact, strict=True):
        if one is exact[1] and top_k == 1:  # a single choice has the weight 1
            assert mine.grad.abs().max() < 1e-5
        else:
            assert error(mine.grad, one.grad) < 2e-6


def test_an_expert_that_nobody_chose_gets_no_gradient(device: str) -> None:
    router, *experts = weights(device, experts=3)
    router[2] = -100 * router[:2].sum(0)
    x = router[:2].sum(0) * torch.ones(4, 1, device=device)
    experts = [one.requires_grad_() for one in experts]

    out, load = moe(x, router, *experts, top_k=1, return_load=True)
    out.sum().backward()

    assert load.tokens[2] == 0
    assert all(not one.grad[2].any() for one in experts)


def test_the_loss_of_balance_trains_the_router(device: str) -> None:
    router, *experts = weights(device)
    router.requires_grad_()

    _, load = moe(random(9, 24, device=device), router, *experts, return_load=True)
    load.balance_loss.backward()

    assert router.grad.abs().sum() > 0


def test_what_does_not_fit_is_refused(device: str) -> None:
    x, (router, gate, up, down) = random(4, 24, device=device), weights(device)

    with pytest.raises(ValueError, match=r"got x \[\]"):
        moe(x[0, 0], router, gate, up, down)
    with pytest.raises(TypeError, match=r"logits is torch\.int64"):
        route(torch.ones(4, 3, dtype=torch.int64, device=device), 2)
    with pytest.raises(ValueError, match="top_k is 6"):
        moe(x, router, gate, up, down, top_k=6)
    with pytest.raises(ValueError, match="down \\[E, F, D\\]"):
        moe(x, router, gate, up, down.transpose(1, 2))
    with pytest.raises(ValueError, match="x is empty"):
        moe(x[:0], router, gate, up, down)
    with pytest.raises(TypeError, match="they must be the same"):
        moe(x.half(), router, gate, up, down)


@pytest.mark.parametrize("operation", ["forward", "backward"])
def test_the_bench_can_check_it(operation: str, device: str) -> None:
    shape = parse_shape(module.KERNEL, "tokens=20,d=32,d_ff=48,experts=4")
    case = module.KERNEL.operations[operation]
    inputs = case.inputs(shape, "fp16", device, 0)
    reference = case.reference(inputs, shape)

    for name in ("tracelens", "eager"):
        outs = case.implementations[name].build(inputs, shape)()
        assert outs.keys() == reference.keys()
        assert all(error(out, reference[name]) < 3e-3 for name, out in outs.items())
    assert case.work(shape, "fp16").flops == (6 * 40 * 32 * 48 + 2 * 20 * 32 * 4) * (
        1 if operation == "forward" else 2
    )


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("shape", ["300x256x512x8", "5x128x256x64", "77x130x100x3"])
def test_bf16_on_a_gpu_is_as_good_as_a_loop_of_torchs(shape: str) -> None:
    case = module.KERNEL.operations["forward"]
    sizes = parse_shape(module.KERNEL, shape)
    inputs = case.inputs(sizes, "bf16", "cuda", 0)
    reference = case.reference(inputs, sizes)["out"]
    theirs = case.implementations["eager"].build(inputs, sizes)()["out"]
    leaves = [inputs[n].clone().requires_grad_() for n in ("x", "router", "gate", "up", "down")]
    exact = [one.detach().double().requires_grad_() for one in leaves]

    out = moe(*leaves)
    out.backward(inputs["grad"])
    chosen = route(exact[0].float() @ exact[1].float().t(), 2)
    module.dense_loop(exact, chosen).backward(inputs["grad"].double())

    assert error(out, reference) <= 2 * error(theirs, reference)
    for mine, true in zip(leaves, exact, strict=True):
        assert error(mine.grad, true.grad) < 2e-2
