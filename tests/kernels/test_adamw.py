"""AdamW against torch's in float64: any tensors in one launch; its state, and its refusals."""

from __future__ import annotations

import copy
import io
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tracelens_kernels import AdamW, _configs, adamw_
from tracelens_kernels.ops.adamw import KERNEL, _shapes

from tests.kernels.rowwise import DEVICE, GPU, QUIET, off, random
from tracelens.kernel import OURS

pytestmark = QUIET

SMALL = {"chunk": 64, "block": 32, "num_warps": 4}
OPTIONS: dict[str, Any] = {"lr": 0.1, "weight_decay": 0.1, "betas": (0.8, 0.95), "eps": 1e-6}


def parameters(*sizes: tuple[int, ...], dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    return [
        random(*size, dtype=dtype, seed=seed).requires_grad_() for seed, size in enumerate(sizes)
    ]


def twins(ours: list[torch.Tensor]) -> list[torch.Tensor]:
    return [one.detach().double().requires_grad_() for one in ours]


def give_gradients(ours: list[torch.Tensor], theirs: list[torch.Tensor], seed: int) -> None:
    for number, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        one.grad = random(*one.shape, dtype=one.dtype, seed=100 * seed + number)
        other.grad = one.grad.double()


def train(ours: Any, mine: list[torch.Tensor], torchs: Any, theirs: list[torch.Tensor]) -> None:
    for seed in range(3):
        give_gradients(mine, theirs, seed)
        with _configs.forced("adamw", "step", SMALL):
            ours.step()
        torchs.step()


@pytest.mark.parametrize("maximize", [False, True])
def test_steps_are_torchs(maximize: bool) -> None:
    mine = parameters((1,), (7,), (64,), (130,), (5, 13), (0,), ())
    theirs = twins(mine)

    train(
        AdamW(mine, **OPTIONS, maximize=maximize),
        mine,
        torch.optim.AdamW(theirs, **OPTIONS, maximize=maximize),
        theirs,
    )

    for one, other in zip(mine, theirs, strict=True):
        assert off(one, other) < 3e-7


@settings(max_examples=15)
@given(st.lists(st.integers(0, 200), min_size=1, max_size=6))
def test_any_sizes_and_places(sizes: list[int]) -> None:
    flat = random(sum(sizes))
    lists = [
        [part.clone() if kind else part for part in flat.split(sizes)] for kind in (0, 1, 1, 1)
    ]
    lists[3] = [part.abs() for part in lists[3]]
    before = [[part.double() for part in one] for one in lists]

    with _configs.forced("adamw", "step", SMALL):
        adamw_(*lists, step=3)

    for p, m, v, was in zip(*(lists[i] for i in (0, 2, 3)), zip(*before, strict=True), strict=True):
        mean = 0.9 * was[2] + 0.1 * was[1]
        square = 0.999 * was[3] + 0.001 * was[1] ** 2
        moved = mean / (1 - 0.9**3) / ((square / (1 - 0.999**3)).sqrt() + 1e-8)
        assert off(m, mean) < 3e-7
        assert off(v, square) < 3e-7
        assert off(p, was[0] * (1 - 1e-5) - 1e-3 * moved) < 3e-7


def test_groups_and_parameters_without_a_gradient() -> None:
    mine = parameters((10,), (33,), (12,))
    theirs = twins(mine)
    ours, torchs = (
        kind([{"params": some[:1]}, {"params": some[1:], "lr": 0.5, "weight_decay": 0.0}], lr=0.1)
        for kind, some in ((AdamW, mine), (torch.optim.AdamW, theirs))
    )

    for seed in range(3):
        give_gradients(mine, theirs, seed)
        if seed == 1:
            mine[2].grad = theirs[2].grad = None
        ours.step()
        torchs.step()

    for one, other in zip(mine, theirs, strict=True):
        assert off(one, other) < 3e-7
    assert [ours.state[one]["step"] for one in mine] == [3, 3, 2]


@pytest.mark.parametrize("kept", [True, False])
def test_steps_counted_on_the_gpu_are_torchs(kept: bool) -> None:
    mine = parameters((7,), (130,))
    theirs = twins(mine)
    ours, torchs = AdamW(mine, **OPTIONS, capturable=True), torch.optim.AdamW(theirs, **OPTIONS)

    train(ours, mine, torchs, theirs)
    if kept:
        state = ours.state_dict()
        ours = AdamW(mine, **OPTIONS, capturable=True)
        ours.load_state_dict(state)
    train(ours, mine, torchs, theirs)

    assert off(mine[1], theirs[1]) < 1e-6
    assert float(ours.state[mine[0]]["step"]) == 6
    assert ours.state[mine[0]]["step"] is ours.state[mine[1]]["step"]


@pytest.mark.parametrize("mark", [pytest.param("", marks=GPU)])
def test_a_cuda_graph_goes_on_counting(mark: str) -> None:
    mine = parameters((7,), (130,))
    theirs = twins(mine)
    ours, torchs = AdamW(mine, **OPTIONS, capturable=True), torch.optim.AdamW(theirs, **OPTIONS)
    train(ours, mine, torchs, theirs)
    graph = torch.cuda.CUDAGraph()
    give_gradients(mine, theirs, 5)
    before = [one.detach().clone() for one in mine]

    with torch.cuda.graph(graph):
        for one in mine:
            one.grad = one.grad * 1  # of the graph's own memory
        ours.step()

    assert all(torch.equal(one, was) for one, was in zip(mine, before, strict=True))
    for _ in range(3):
        graph.replay()
        torchs.step()
    assert off(mine[1], theirs[1]) < 1e-6


@pytest.mark.parametrize("mark", [pytest.param("", marks=GPU)])
def test_a_cuda_graph_of_one_step_is_refused(mark: str) -> None:
    mine = parameters((7,))
    give_gradients(mine, twins(mine), 0)

    def capture() -> None:
        with torch.cuda.graph(torch.cuda.CUDAGraph()):
            mine[0].grad = mine[0].grad * 1  # type: ignore[operator]
            AdamW(mine).step()

    with pytest.raises(RuntimeError, match="would repeat this one step"):
        capture()


def test_layouts_of_parameters_and_gradients() -> None:
    mine = [random(8, 6).T.requires_grad_()]
    theirs = twins(mine)

    train(AdamW(mine), mine, torch.optim.AdamW(theirs), theirs)

    assert off(mine[0], theirs[0]) < 3e-7


@pytest.mark.parametrize("state", [None, torch.float32])
def test_half_precision_is_rounded_once(state: torch.dtype | None) -> None:
    mine = parameters((70,), dtype=torch.float16)
    theirs = twins(mine)

    train(AdamW(mine, state_dtype=state), mine, torch.optim.AdamW(theirs), theirs)

    assert off(mine[0], theirs[0]) < 1e-3
    assert AdamW(mine, state_dtype=state).defaults["state_dtype"] == state


def test_states_are_loaded_from_torch_and_by_torch() -> None:
    mine = parameters((10,), (33,))
    theirs = twins(mine)
    torchs = torch.optim.AdamW(theirs, **OPTIONS)
    train(AdamW(mine, **OPTIONS), mine, torchs, theirs)

    ours = AdamW(mine, **OPTIONS)
    ours.load_state_dict(torchs.state_dict())
    again = torch.optim.AdamW(twins(mine), **OPTIONS)
    again.load_state_dict(ours.state_dict())

    assert ours.state[mine[0]]["step"] == 3
    assert ours.state[mine[1]]["exp_avg"].dtype == torch.float32
    assert float(again.state_dict()["state"][0]["step"]) == 3
    train(ours, mine, torchs, theirs)
    assert off(mine[1], theirs[1]) < 1e-6


def test_a_saved_state_keeps_its_precision() -> None:
    mine = parameters((10,), dtype=torch.float16)
    ours = AdamW(mine, state_dtype=torch.float32)
    give_gradients(mine, twins(mine), 0)
    ours.step()
    file = io.BytesIO()
    torch.save(ours.state_dict(), file)
    file.seek(0)

    other = AdamW(mine, state_dtype=torch.float32)
    other.load_state_dict(torch.load(file))

    for name in ("exp_avg", "exp_avg_sq"):
        assert torch.equal(other.state[mine[0]][name], ours.state[mine[0]][name])


def test_a_closure_is_run_first_with_gradients() -> None:
    (parameter,) = parameters((4,))
    optimizer = AdamW([parameter])

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = (parameter**2).sum()
        loss.backward()
        return loss

    first, second = optimizer.step(closure), optimizer.step(closure)

    assert float(second.detach()) < float(first.detach())


def test_a_copy_of_the_optimizer_goes_on_alone() -> None:
    mine = parameters((10,))
    ours = AdamW(mine)
    give_gradients(mine, twins(mine), 0)
    ours.step()

    copied = copy.deepcopy(ours)

    assert copied.state_dict()["state"][0]["step"] == 1


def test_wrong_input_is_told_before_anything_runs() -> None:
    (parameter,) = parameters((4,))
    with pytest.raises(ValueError, match="amsgrad"):
        AdamW([parameter], amsgrad=True)
    with pytest.raises(ValueError, match="lr is -1"):
        AdamW([parameter], lr=-1)
    with pytest.raises(ValueError, match="each must be at least 0 and below 1"):
        AdamW([parameter], betas=(0.9, 1.0))
    parameter.grad = torch.zeros(4, device=DEVICE).to_sparse()
    with pytest.raises(RuntimeError, match="sparse"):
        AdamW([parameter]).step()
    x = random(4)
    with pytest.raises(ValueError, match="step is 0"):
        adamw_([x], [x], [x], [x], step=0)
    with pytest.raises(ValueError, match=r"lists of the same length; got \[1, 0, 1, 1\]"):
        adamw_([x], [], [x], [x], step=1)
    with pytest.raises(ValueError, match="four tensors of one shape"):
        adamw_([x], [x[:3]], [x], [x], step=1)
    with pytest.raises(ValueError, match="not dense"):
        adamw_([random(8)[::2]], [x], [x], [x], step=1)
    with pytest.raises(TypeError, match="gradient is float64"):
        adamw_([x], [x.double()], [x], [x], step=1)
    with pytest.raises(TypeError, match=r"mean is torch\.float32, and square is torch\.float16"):
        adamw_([x, x], [x, x], [x, x], [x, x.half()], step=1)
    for wrong in range(1, 4):
        lists = [[x, x.to("meta") if place == wrong else x] for place in range(4)]
        with pytest.raises(ValueError, match="on meta: move one of them"):
            adamw_(*lists, step=1)


def test_the_bench_finds_ours_right() -> None:
    operation, shape = KERNEL.operations["step"], {"millions": 1}

    assert sum(math.prod(size) for size in _shapes(1)) == 10**6
    for name in (OURS, "eager", "foreach"):
        tensors = operation.inputs(shape, "fp32", DEVICE, 0)
        reference = operation.reference(tensors, shape)
        outputs = operation.implementations[name].build(tensors, shape)()
        assert all(off(outputs[one], reference[one]) < 1e-6 for one in reference)


@pytest.mark.parametrize("mark", [pytest.param("", marks=GPU)])
def test_more_than_two_billion_elements(mark: str) -> None:
    lists = [[torch.zeros(2**31 + 40, dtype=torch.bfloat16, device="cuda")] for _ in range(4)]
    for one in lists[:2]:
        one[0][-1] = 1.0

    adamw_(*lists, step=1, lr=0.5, weight_decay=0.0)

    assert float(lists[0][0][-1]) == 0.5
    assert float(lists[0][0][:-1].abs().max()) == 0
