"""Ranges of one module call after another: in forward, and in backward on autograd's own thread.

The range of a call in backward begins just before the first node that computes gradients of its
outputs, and ends just before the nodes that take over the gradients of its inputs. The hooks sit
on nodes of the graph, not on tensors or modules, so they change nothing that is computed, and
they are gone with the graph. Backward runs through parallel branches and residual paths in an
order of its own; so a begin ends what does not enclose it, and begins all that does.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from tracelens.marks import phases
from tracelens.marks.ranges import is_recording, opened, pop, pop_last, push
from tracelens.marks.records import nvtx_is_emitted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_MOST_NESTED: Final = 8
"""How deep tensors are looked for in what a module takes and returns."""


class Call:
    """One call of a module: what its ranges need, and no tensor.

    Attributes:
        name: of the ranges.
        module: `id` of the module.
        parent: the call within which it was made; None: the outermost.
        phase: the phase that was begun with it.
        inputs: the nodes that each of its inputs comes from; only while it runs.
        backward: stands for its range in backward.
    """

    __slots__ = ("__weakref__", "backward", "inputs", "module", "name", "parent", "phase")

    def __init__(self, name: str, module: int, parent: Call | None) -> None:
        self.name = name
        self.module = module
        self.parent = parent
        self.phase: phases.HookPhase | None = None
        self.inputs: list[tuple[Any, ...]] = []
        self.backward = Backward(self)

    def lineage(self) -> list[Call]:
        """Return the calls that enclose this one, from the outermost to itself."""
        found: list[Call] = []
        call: Call | None = self
        while call is not None:
            found.append(call)
            call = call.parent
        return found[::-1]


class Backward:
    """The backward of a call.

    Attributes:
        call: whose.
        inputs: how many of its inputs have gradients; it ends when all of them are reached.
        reached: which ones are.
        task: the pass of the autograd engine in which its range was begun.
    """

    __slots__ = ("call", "inputs", "reached", "task")

    def __init__(self, call: Call) -> None:
        self.call = call
        self.inputs = 0
        self.reached: set[int] = set()
        self.task = -1


def begin(name: str, module: Any, inputs: Iterable[Any], phase: str | None) -> None:
    """Begin the range of a module's call.

    Args:
        name: of the range.
        module: what is called.
        inputs: what it is called with.
        phase: to begin with it if it is the outermost; None: none.
    """
    torch = sys.modules["torch"]
    task = torch._C._current_graph_task_id()
    if task == -1:
        _drop(task)  # what a backward left that failed
    within = next(_open_calls(), None)
    if isinstance(within, Call) and within.name == name and within.module != id(module):
        return  # it is what the module that is running has been wrapped around
    parent = within.call if isinstance(within, Backward) else within
    call = Call(name, id(module), parent)
    if parent is None and phase is not None:
        call.phase = phases.begin(phase)
    push(call, name)
    if torch.is_grad_enabled():
        call.inputs = _nodes(inputs)


def end(module: Any, outputs: Any) -> None:
    """End the range of a module's call; nothing if none was begun."""
    for call in _open_calls():
        if isinstance(call, Call) and call.module == id(module):
            break
    else:
        return
    pop(call)
    phases.end(call.phase)
    inputs, call.inputs, call.phase = call.inputs, [], None
    if outputs is not None and sys.modules["torch"].is_grad_enabled() and is_recording():
        _hook(call, inputs, _nodes((outputs,)))


def _hook(call: Call, inputs: list[tuple[Any, ...]], outputs: list[tuple[Any, ...]]) -> None:
    """Have the backward of a call begin and end with the nodes between its inputs and outputs."""
    # What it hands through, as nn.Identity does, has been computed by somebody else.
    others = {node for nodes in inputs for node in nodes}
    own = {node: None for nodes in outputs for node in nodes if node not in others}
    for node in own:
        node.register_prehook(functools.partial(_begin_backward, call))
    if own:
        call.backward.inputs = len(inputs)
        for number, nodes in enumerate(inputs):
            for node in nodes:
                node.register_prehook(functools.partial(_reach, call.backward, number))


def _begin_backward(call: Call, _gradients: Any) -> None:
    if not is_recording() or nvtx_is_emitted():
        return  # torch's own ranges in NVTX tell whose backward it is, and these would cross them
    torch = sys.modules["torch"]
    task = torch._C._current_graph_task_id()
    lineage = call.lineage()
    stack = opened()
    if any(one.key is call.backward for one in stack):
        return  # by one of its parts, which returned the same, or by another of its outputs
    while stack and isinstance(stack[-1].key, Backward) and stack[-1].key.call not in lineage:
        pop_last()
    if not any(isinstance(one.key, Backward) and one.key.task == task for one in stack):
        torch.autograd.Variable._execution_engine.queue_callback(functools.partial(_drop, task))
    is_open = {one.key for one in stack if isinstance(one.key, (Call, Backward))}
    for one in lineage:
        if one not in is_open and one.backward not in is_open:
            one.backward.task = task
            one.backward.reached.clear()
            push(one.backward, one.name)


def _reach(backward: Backward, number: int, _gradients: Any) -> None:
    """End the backward of a call if this is the last of its inputs that it had to reach."""
    backward.reached.add(number)
    if len(backward.reached) == backward.inputs:
        pop(backward)


def _drop(task: int) -> None:
    """End the ranges that a pass of the autograd engine has left open; -1: those of any pass."""
    stack = opened()
    while stack and isinstance(stack[-1].key, Backward) and task in (-1, stack[-1].key.task):
        pop_last()


def _open_calls() -> Iterator[Call | Backward]:
    """Give the calls that this thread is in, in either direction, the innermost first."""
    return (one.key for one in reversed(opened()) if isinstance(one.key, (Call, Backward)))


def _nodes(values: Iterable[Any]) -> list[tuple[Any, ...]]:
    """Return the nodes of the graph that tensors come from; leaves have none.

    A view has a second one, that of what it is a view of: if the view is changed in place later,
    the graph goes around its own.
    """
    tensor = sys.modules["torch"].Tensor
    found: dict[tuple[Any, ...], None] = {}
    for value in _tensors(values, tensor, _MOST_NESTED):
        try:
            if (node := value.grad_fn) is not None:
                base = value._base if value._is_view() else None
                found[(node,) if base is None or base.grad_fn is None else (node, base.grad_fn)] = (
                    None
                )
        except RuntimeError:  # a view of something that was changed in a way autograd forbids
            continue
    return list(found)


def _tensors(values: Iterable[Any], tensor: type, deep: int) -> Iterator[Any]:
    for value in values:
        if isinstance(value, tensor):
            yield value
        elif deep and (inner := _parts(value)):
            yield from _tensors(inner, tensor, deep - 1)


def _parts(value: Any) -> Iterable[Any]:
    if isinstance(value, (list, tuple)):
        return value
    if isinstance(value, Mapping):
        return value.values()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return vars(value).values() if hasattr(value, "__dict__") else ()
    return ()
