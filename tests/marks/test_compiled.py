"""Compiled code: instrumented before or after, it has one range, no graph break, and its bits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

import tracelens
from tests.marks.models import WIDTH, Tiny, loss_of, tokens
from tests.marks.recorded import marks_of, profile
from tracelens.marks import ranges

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning"),
]

BACKENDS = ["eager", "aot_eager"]


@pytest.fixture(autouse=True)
def _nothing_is_compiled_yet() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def compiled(model: nn.Module, backend: str, *, in_place: bool) -> Any:
    if not in_place:
        return torch.compile(model, backend=backend, fullgraph=True)
    model.compile(backend=backend, fullgraph=True)
    return model


def recorded(call: Any) -> list[str]:
    """Return the marks of a second run: the first compiles, and torch marks that itself."""
    loss_of(call(tokens())).backward()
    with torch._dynamo.config.patch(error_on_recompile=True):
        return marks_of(lambda: loss_of(call(tokens())).backward())


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_compiled_model_is_one_range(backend: str, when: str, in_place: bool) -> None:
    torch.manual_seed(0)
    model = Tiny()
    expected = model(tokens())
    if when == "before":
        handle = tracelens.instrument(model)
        call = compiled(model, backend, in_place=in_place)
    else:
        call = compiled(model, backend, in_place=in_place)
        handle = tracelens.instrument(call)
    found = recorded(call)
    handle.remove()

    assert [p for p in found if "Compiled" not in p] == [
        "forward", "forward > Tiny", "backward", "backward > Tiny",
    ]  # fmt: skip
    assert torch.equal(call(tokens()), expected)
    assert not ranges.opened()


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("when", ["before", "after"])
def test_blocks_compiled_one_by_one_are_a_range_each(when: str, in_place: bool) -> None:
    model = Tiny()

    def compile_blocks() -> None:
        for n, block in enumerate(model.blocks):
            model.blocks[n] = compiled(block, "aot_eager", in_place=in_place)

    if when == "before" and in_place:
        handle = tracelens.instrument(model)
        compile_blocks()
    else:
        compile_blocks()
        handle = tracelens.instrument(model)
    found = recorded(model)
    handle.remove()

    layers = ["embed", "blocks.0", "blocks.1", "head"]
    mine = [path for path in found if "Compiled" not in path]
    assert mine == [
        "forward",
        "forward > Tiny",
        *(f"forward > Tiny > {name}" for name in layers),
        "backward",
        "backward > Tiny",
        *(f"backward > Tiny > {name}" for name in reversed(layers)),
    ]


def test_hooks_break_no_graph() -> None:
    model = Tiny()
    with tracelens.instrument(model), profile():
        explained = torch._dynamo.explain(model)(tokens())

    assert explained.graph_break_count == 0
    assert explained.graph_count == 1


def test_parts_between_graph_breaks_have_ranges() -> None:
    class Broken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(WIDTH, WIDTH)
            self.second = nn.Linear(WIDTH, WIDTH)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.first(x)
            torch._dynamo.graph_break()
            return self.second(x)

    model = Broken()
    call = torch.compile(model, backend="eager")
    x = torch.ones(1, WIDTH)
    with tracelens.instrument(call):
        call(x)
        found = marks_of(lambda: call(x).sum().backward())

    assert [p for p in found if "Compiled" not in p][:2] == ["forward", "forward > Broken"]
    assert torch.equal(call(x), model.second(model.first(x)))


def test_an_optimizer_that_is_compiled_steps_as_it_would() -> None:
    twins = [nn.Linear(2, 2) for _ in range(2)]
    twins[1].load_state_dict(twins[0].state_dict())
    for n, model in enumerate(twins):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        handle = tracelens.instrument(model, optimizer) if n else None
        step = torch.compile(optimizer.step, backend="eager")
        for _ in range(2):
            model(torch.ones(1, 2)).sum().backward()
            step()
        if handle:
            handle.remove()

    assert torch.equal(twins[0].weight, twins[1].weight)
    assert not ranges.opened()


def test_models_that_stay_instrumented_add_no_ranges_to_one_compiled_later() -> None:
    others = [tracelens.instrument(Tiny()) for _ in range(3)]
    model = Tiny()
    handle = tracelens.instrument(model)
    call = compiled(model, "eager", in_place=True)

    found = recorded(call)

    assert [p for p in found if "Compiled" not in p] == [
        "forward", "forward > Tiny", "backward", "backward > Tiny",
    ]  # fmt: skip
    for one in [handle, *others]:
        one.remove()
    assert torch.nn.Module.compile.__module__.startswith("torch")


def test_a_process_may_instrument_more_models_than_calls_can_nest() -> None:
    handles = [tracelens.instrument(nn.Linear(2, 2)) for _ in range(1_200)]
    loss = nn.Linear(2, 2)(torch.ones(2)).sum()

    loss.backward()

    for handle in handles:
        handle.remove()
