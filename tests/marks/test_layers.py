"""Ranges of layers: where they are in forward and backward, and that they change nothing."""

from __future__ import annotations

import copy
import io
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

import tracelens
from tests.marks.models import (
    MODELS,
    WIDTH,
    Block,
    Checkpointed,
    Forces,
    InPlace,
    Structured,
    Tied,
    Tiny,
    loss_of,
    tokens,
)
from tests.marks.recorded import marks_of, profile
from tracelens.marks import ranges

if TYPE_CHECKING:
    from pathlib import Path

BLOCK = ["norm", "mlp", "mlp > mlp.0", "mlp > mlp.1", "mlp > mlp.2"]
BACK = ["mlp", "mlp > mlp.2", "mlp > mlp.1", "mlp > mlp.0", "norm"]


def of_block(number: int, parts: list[str], before: str) -> list[str]:
    name = f"blocks.{number}"
    inner = [" > ".join(f"{name}.{one}" for one in part.split(" > ")) for part in parts]
    return [f"{before}{name}", *(f"{before}{name} > {part}" for part in inner)]


def trained(model: Any, optimizer: Any = None) -> None:
    loss_of(model(tokens())).backward()
    if optimizer:
        optimizer.step()
        optimizer.zero_grad()


def backward_of(model: Any, **options: Any) -> list[str]:
    """Return the ranges of layers within backward."""
    with tracelens.instrument(model, **options):
        found = marks_of(lambda: trained(model))
    inside = [path.removeprefix("backward > ") for path in found if path.startswith("backward > ")]
    return inside or found


def test_every_layer_has_a_range_in_forward_and_in_backward() -> None:
    model = Tiny()
    optimizer = torch.optim.SGD(model.parameters())
    with tracelens.instrument(model, optimizer):
        found = marks_of(lambda: trained(model, optimizer))

    there, back = "forward > Tiny > ", "backward > Tiny > "
    assert found == [
        "forward",
        "forward > Tiny",
        f"{there}embed",
        *of_block(0, BLOCK, there),
        *of_block(1, BLOCK, there),
        f"{there}head",
        "backward",
        "backward > Tiny",
        f"{back}head",
        *of_block(1, BACK, back),
        *of_block(0, BACK, back),
        f"{back}embed",
        "optimizer",
        "optimizer",
    ]


def test_backward_of_another_thread_has_its_layers_there() -> None:
    """GIVEN a worker that has no phase open, as autograd's own for GPUs has none."""
    model = Tiny()

    def work() -> None:
        loss = loss_of(model(tokens()))
        thread = threading.Thread(target=within, args=(loss,))
        thread.start()
        thread.join()

    opened = []

    def within(loss: torch.Tensor) -> None:
        loss.register_hook(lambda _: opened.append([one.key for one in ranges.opened()]))
        model.embed.weight.register_hook(lambda _: opened.append(names()))
        torch.autograd.Variable._execution_engine.run_backward(
            (loss,), (torch.ones_like(loss),), False, False, (), allow_unreachable=True,
            accumulate_grad=True,
        )  # fmt: skip
        assert not ranges.opened()

    with tracelens.instrument(model), profile():
        work()

    assert opened == [[], ["Tiny", "embed"]]


def names() -> list[str]:
    return [one.key.call.name for one in ranges.opened()]


@pytest.mark.parametrize("name", MODELS)
def test_a_model_computes_the_same_bits_with_ranges_and_without(name: str) -> None:
    plain, marked = results(name, is_marked=False), results(name, is_marked=True)

    assert plain.keys() == marked.keys()
    assert all(torch.equal(plain[key], marked[key]) for key in plain)


def results(name: str, *, is_marked: bool) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    model = MODELS[name]()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    found = {}

    def work() -> None:
        for step in range(2):
            torch.manual_seed(step)
            loss = loss_of(model(tokens()))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            found[f"loss {step}"] = loss.detach()
            grads = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
            found.update({f"{step} {n}": grad.clone() for n, grad in grads.items()})

    if is_marked:
        with tracelens.instrument(model, optimizer):
            assert len(marks_of(work)) > 10
        assert not ranges.opened()
    else:
        work()
    return found | {n: p.detach() for n, p in model.named_parameters()}


def test_a_layer_called_twice_has_two_ranges_in_each_direction() -> None:
    back = "Tied > "

    assert backward_of(Tied()) == [
        "Tied",
        f"{back}head",
        f"{back}first",
        f"{back}first",
        f"{back}embed",
    ]


def test_layers_that_work_in_place_have_ranges_and_one_that_does_nothing_has_none_back() -> None:
    inside = [f"InPlace > {name}" for name in ("drop", "relu", "linear", "embed")]

    assert backward_of(InPlace()) == ["InPlace", *inside]


def test_tensors_are_found_in_dictionaries_tuples_and_dataclasses() -> None:
    layers = ["join", "split", "split > split.linear", "embed"]

    assert backward_of(Structured()) == ["Structured", *(f"Structured > {one}" for one in layers)]


@pytest.mark.parametrize("reentrant", [False, True])
def test_what_checkpointing_computes_again_is_a_range_within_backward(reentrant: bool) -> None:
    found = backward_of(Checkpointed(reentrant=reentrant))

    again = [path for path in found if path.split(" > ").count("blocks.0.norm") == 1]
    assert len(again) >= 2, "once computed again, once differentiated"
    assert not any(path.startswith("forward") for path in found)
    assert sum(path.endswith("blocks.1.mlp.0") for path in found) == 2
    assert found[0] == "Checkpointed"


def test_gradients_taken_within_forward_belong_to_forward() -> None:
    model = Forces()
    with tracelens.instrument(model):
        found = marks_of(lambda: trained(model))

    layers = ["energy", "energy > energy.0", "energy > energy.1"]
    assert found[2:10] == [
        "forward > Forces > embed",
        *(f"forward > Forces > {one}" for one in layers),
        "forward > Forces > energy",
        "forward > Forces > energy > energy.1",
        "forward > Forces > energy > energy.0",
        "backward",
    ]


def test_a_second_backward_has_ranges_too() -> None:
    model = Tiny()

    def work() -> None:
        loss = loss_of(model(tokens()))
        loss.backward(retain_graph=True)
        loss.backward()

    with tracelens.instrument(model, depth=1):
        found = marks_of(work)

    once = ["backward", "backward > Tiny", "backward > Tiny > head", "backward > Tiny > embed"]
    assert found[4:] == once * 2


def test_a_double_backward_ends_all_it_begins() -> None:
    model = Block()
    x = torch.ones(2, WIDTH, requires_grad=True)

    def work() -> None:
        (gradient,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
        (gradient**2).sum().backward()

    with tracelens.instrument(model):
        found = marks_of(work)

    assert [path for path in found if " > " not in path] == ["forward", "backward", "backward"]
    assert not ranges.opened()


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients_there_is_forward_alone(mode: Any) -> None:
    model = Tiny().eval()

    def work() -> None:
        with mode():
            model(tokens())

    with tracelens.instrument(model, depth=1):
        found = marks_of(work)

    inside = [f"forward > Tiny > {name}" for name in ("embed", "head")]
    assert found == ["forward", "forward > Tiny", *inside]


def test_an_exception_in_forward_leaves_no_range_open() -> None:
    model = Tiny()
    model.blocks[1].mlp[1].register_forward_pre_hook(lambda *_: 1 / 0)

    def work() -> None:
        with pytest.raises(ZeroDivisionError):
            model(tokens())
        with tracelens.span("after"):
            pass

    with tracelens.instrument(model):
        found = marks_of(work)

    assert found[-1] == "after"


def test_an_exception_in_backward_leaves_no_range_open() -> None:
    model = Tiny()
    model.blocks[0].mlp[0].weight.register_hook(lambda _: 1 / 0)

    def work() -> None:
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                trained(model)
        with tracelens.span("after"):
            pass

    with tracelens.instrument(model):
        found = marks_of(work)
    with tracelens.instrument(model, phases=False):
        bare = marks_of(work)

    assert found[-1] == "after"
    assert [path for path in bare if " > " not in path] == ["Tiny"] * 4


class Failing(torch.optim.SGD):
    """An optimizer whose step never comes to its end."""

    def step(self, closure: object = None) -> None:
        raise ZeroDivisionError


def test_an_optimizer_that_raises_does_not_hold_what_follows() -> None:
    model = Tiny()
    optimizer = Failing(model.parameters())

    def work() -> None:
        with tracelens.instrument(model, optimizer):
            for _ in range(2):
                loss_of(model(tokens())).backward()
                with pytest.raises(ZeroDivisionError):
                    optimizer.step()

    outermost = [path for path in marks_of(work) if " > " not in path]
    assert outermost == ["forward", "backward", "optimizer"] * 2


def test_an_optimizer_that_calls_the_model_holds_its_phases() -> None:
    model = Tiny()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=1)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = loss_of(model(tokens()))
        loss.backward()
        return loss

    with tracelens.instrument(model, optimizer, depth=0):
        found = marks_of(lambda: optimizer.step(closure))

    inner = ["forward", "forward > Tiny", "backward", "backward > Tiny"]
    assert found == ["optimizer", *(f"optimizer > {one}" for one in inner)]


def test_phases_of_the_program_come_before_those_of_hooks() -> None:
    model = Tiny()
    optimizer = torch.optim.SGD(model.parameters())

    def work() -> None:
        with tracelens.phase("forward"):
            loss = loss_of(model(tokens()))
        with tracelens.phase("epoch"):
            loss.backward()
        with tracelens.phase("optimizer"):
            optimizer.step()

    with tracelens.instrument(model, optimizer, depth=0):
        found = marks_of(work)

    assert found == [
        "forward",
        "forward > Tiny",
        "epoch",
        "epoch > backward",
        "epoch > backward > Tiny",
        "optimizer",
    ]


def test_layers_without_phases() -> None:
    model = Tiny()
    with tracelens.instrument(model, phases=False, depth=1):
        found = marks_of(lambda: trained(model))

    layers = ["Tiny", "Tiny > embed", "Tiny > head", "Tiny", "Tiny > head", "Tiny > embed"]
    assert found == layers


@pytest.mark.parametrize(("depth", "longest"), [(0, 0), (1, 1), (2, 2), (3, 3), (9, 4)])
def test_the_depth_is_how_many_names_a_path_has(depth: int, longest: int) -> None:
    model = Tiny()
    with tracelens.instrument(model, depth=depth):
        found = marks_of(lambda: model(tokens()))

    paths = {path.split(" > ")[-1] for path in found} - {"forward"}
    expected = {n for n, m in model.named_modules() if n.count(".") < depth and not is_list(m)}
    assert paths - {"Tiny"} == expected - {""}
    assert max((path.count(".") + 1 for path in paths - {"Tiny"}), default=0) == longest


def is_list(module: nn.Module) -> bool:
    return isinstance(module, nn.ModuleList)


def test_a_name_tells_two_models_apart() -> None:
    left, right = nn.Linear(2, 2), nn.Linear(2, 2)
    with (
        tracelens.instrument(left, name="left"),
        tracelens.instrument(nn.Sequential(right), name="r"),
    ):
        found = marks_of(lambda: right(left(torch.ones(1, 2))))

    assert found == ["forward", "forward > left", "forward", "forward > r.0"]


def test_no_range_is_left_once_they_are_removed() -> None:
    model = Tiny()
    optimizer = torch.optim.SGD(model.parameters())
    backward, grad, compile_ = torch.autograd.backward, torch.autograd.grad, nn.Module.compile
    attributes = set(vars(optimizer))
    handle = tracelens.instrument(model, optimizer)
    handle.remove()
    handle.remove()

    assert marks_of(lambda: trained(model, optimizer)) == []
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert torch.autograd.backward is backward
    assert torch.autograd.grad is grad
    assert nn.Module.compile is compile_
    assert set(vars(optimizer)) == attributes


def test_a_model_instrumented_twice_has_each_range_once() -> None:
    model = Tiny()
    optimizer = torch.optim.SGD(model.parameters())
    with (
        tracelens.instrument(model, optimizer, depth=0),
        tracelens.instrument(model, optimizer, depth=0),
    ):
        found = marks_of(lambda: trained(model))

    assert found == ["forward", "forward > Tiny", "backward", "backward > Tiny"]


def test_a_module_put_in_later_runs_without_a_range() -> None:
    model = Tiny()
    with tracelens.instrument(model):
        model.blocks[1] = nn.Linear(WIDTH, WIDTH)
        found = marks_of(lambda: trained(model))

    assert not any("blocks.1" in path for path in found)
    assert "backward > Tiny > blocks.0 > blocks.0.mlp" in found


def test_copies_of_a_model_have_no_ranges_and_work() -> None:
    model = Tiny()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    with tracelens.instrument(model):
        twin = copy.deepcopy(model)
        restored = pickle.loads(pickle.dumps(model))  # noqa: S301 (our own)
        saved = io.BytesIO()
        torch.save(model, saved)
        saved.seek(0)
        loaded = torch.load(saved, weights_only=False)
        assert model.state_dict().keys() == state.keys()

        for other in (twin, restored, loaded):
            assert torch.equal(other(tokens()), model(tokens()))
            assert marks_of(lambda other=other: trained(other)) == ["backward"]


def test_what_is_pickled_needs_no_tracelens(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    with tracelens.instrument(model):
        (tmp_path / "model.pickle").write_bytes(pickle.dumps(model))
    code = """
import pickle, sys
import torch
model = pickle.load(open("model.pickle", "rb"))
print(model(torch.ones(1, 2)).shape, "tracelens" in sys.modules)
"""

    command = [sys.executable, "-c", code]
    assert "torch.Size([1, 2]) False" in subprocess.check_output(command, text=True, cwd=tmp_path)


def test_scripted_modules_run_without_ranges() -> None:
    with pytest.warns(DeprecationWarning, match=r"torch.jit.script"):
        scripted = torch.jit.script(nn.Linear(WIDTH, WIDTH))
    model = nn.Sequential(nn.Linear(WIDTH, WIDTH), scripted)
    with tracelens.instrument(model):
        found = marks_of(lambda: model(torch.ones(1, WIDTH)).sum().backward())

    assert "forward > Sequential > 0" in found
    assert not any(path.endswith("1") for path in found)


class DataParallel(nn.Module):
    """Runs replicas of a module in threads, as torch's own does on several GPUs."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        replicas = [self.module._replicate_for_data_parallel() for _ in range(2)]
        for replica in replicas:
            replica._parameters = dict(self.module._parameters)
        with ThreadPoolExecutor(2) as threads:
            return sum(threads.map(lambda replica: replica(x), replicas))


def test_replicas_have_ranges_in_their_threads() -> None:
    model = DataParallel(nn.Linear(2, 2))
    opened: list[list[str]] = []
    with tracelens.instrument(model), profile():
        model.module.register_forward_pre_hook(lambda *_: opened.append(keys()))
        model(torch.ones(1, 2)).sum().backward()

    assert opened == [["forward", "Linear"]] * 2, "what runs in a replica is its module"
    assert not ranges.opened()


def keys() -> list[str]:
    return [one.key.name for one in ranges.opened()]


def test_two_models_in_turn_each_have_their_phases() -> None:
    """GIVEN a generator and a critic, whose gradients flow through both."""
    generator, critic = nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 1))
    with (
        tracelens.instrument(generator, name="generator"),
        tracelens.instrument(critic, name="critic"),
    ):
        found = marks_of(lambda: critic(generator(torch.ones(3, 2))).mean().backward())

    assert found == [
        "forward",
        "forward > generator",
        "forward",
        "forward > critic",
        "forward > critic > critic.0",
        "backward",
        "backward > critic",
        "backward > critic > critic.0",
        "backward > generator",
    ]


def test_functional_transforms_run_as_they_would() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Tanh())
    parameters = dict(model.named_parameters())

    def loss(parameters: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(model, parameters, (x,)).sum()

    per_sample = torch.func.vmap(torch.func.grad(loss), (None, 0))
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    plain = per_sample(parameters, x)
    with tracelens.instrument(model), profile():
        marked = per_sample(parameters, x)

    assert all(torch.equal(plain[name], marked[name]) for name in plain)
    assert not ranges.opened()


@pytest.mark.parametrize("wrong", [None, "model", torch.ones(1)])
def test_only_modules_are_instrumented(wrong: object) -> None:
    with pytest.raises(TypeError, match=r"takes a torch.nn.Module, not a"):
        tracelens.instrument(wrong)


def test_only_optimizers_are_watched() -> None:
    with pytest.raises(TypeError, match=r"takes torch.optim.Optimizer, not a Linear"):
        tracelens.instrument(nn.Linear(1, 1), nn.Linear(1, 1))
    with pytest.raises(ValueError, match="0 or more, not -1"):
        tracelens.instrument(nn.Linear(1, 1), depth=-1)
