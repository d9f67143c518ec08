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
        inputs: the nodes that its inputs come from; only while it runs.
        backward: stands for its range in backward.
    """

    __slots__ = ("__weakref__", "backward", "inputs", "module", "name", "parent", "phase")

    def __init__(self, name: str, module: int, parent: Call | None) -> None:
        self.name = name
        self.module = module
        self.parent = parent
        self.phase: phases.HookPhase | None = None
        self.inputs: list[Any] = []
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
        ends: how many nodes have to be reached before it ends; 0: nothing tells.
        left: how many of them have not been reached.
        task: the pass of the autograd engine in which its range was begun.
    """

    __slots__ = ("call", "ends", "left", "task")

    def __init__(self, call: Call) -> None:
        self.call = call
        self.ends = 0
        self.left = 0
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


def _hook(call: Call, inputs: list[Any], outputs: list[Any]) -> None:
    """Have the backward of a call begin and end with the nodes between its inputs and outputs."""
    # What it hands through, as nn.Identity does, has been computed by somebody else.
    own = [node for node in outputs if node not in inputs]
    for node in own:
        node.register_prehook(functools.partial(_begin_backward, call))
    if own:
        call.backward.ends = len(inputs)
        for node in inputs:
            node.register_prehook(functools.partial(_end_backward, call))


def _begin_backward(call: Call, _gradients: Any) -> None:
    if not is_recording() or _nvtx_is_emitted():
        return
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
            one.backward.left = one.backward.ends
            push(one.backward, one.name)


def _end_backward(call: Call, _gradients: Any) -> None:
    backward = call.backward
    backward.left -= 1
    if backward.left == 0:
        pop(backward)


def _drop(task: int) -> None:
    """End the ranges that a pass of the autograd engine has left open; -1: those of any pass."""
    stack = opened()
    while stack and isinstance(stack[-1].key, Backward) and task in (-1, stack[-1].key.task):
        pop_last()


def _nvtx_is_emitted() -> bool:
    """Whether torch itself emits NVTX: its ranges tell where backward is, and ours would cross."""
    torch = sys.modules["torch"]
    kinds = torch._C._profiler.ActiveProfilerType
    return bool(torch._C._autograd._profiler_type() == kinds.NVTX)


def _open_calls() -> Iterator[Call | Backward]:
    """Give the calls that this thread is in, in either direction, the innermost first."""
    return (one.key for one in reversed(opened()) if isinstance(one.key, (Call, Backward)))


def _nodes(values: Iterable[Any]) -> list[Any]:
    """Return the nodes of the graph that tensors come from, each once; leaves have none."""
    tensor = sys.modules["torch"].Tensor
    found: dict[Any, None] = {}
    for value in _tensors(values, tensor, _MOST_NESTED):
        try:
            if (node := value.grad_fn) is not None:
                found[node] = None
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
