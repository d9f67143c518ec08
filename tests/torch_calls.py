"""Calls of PyTorch's ops looked at from both sides: what the profiler records, what they touch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tracelens.links.op_costs import OpCost, op_cost
from tracelens.readers.open import open_trace

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Program = Callable[[], object]


@dataclass(frozen=True)
class Touched:
    """An op that ran, and the bytes of the tensors that it was given and that it gave.

    An input that the op changes is in both. Tensors of a single number are in neither, and what
    is expanded counts once.
    """

    name: str
    read: int
    written: int


class _Watch(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Touched] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        given = [t for t in tree_leaves((args, kwargs or {})) if isinstance(t, torch.Tensor)]
        read = sum(map(stored, given))
        made = func(*args, **(kwargs or {}))
        arguments = func._schema.arguments
        changed = [
            value
            for argument, value in zip(arguments, args, strict=False)
            if argument.alias_info is not None and argument.alias_info.is_write
        ]
        results = tree_leaves(made) if made is not None else []
        written = [t for t in (*results, *tree_leaves(changed)) if isinstance(t, torch.Tensor)]
        distinct = {id(t): t for t in written}.values()
        name = f"aten::{func._schema.name.partition('::')[2]}"
        self.calls.append(Touched(name, read, sum(map(stored, distinct))))
        return made


def stored(tensor: torch.Tensor) -> int:
    """Return the bytes that a tensor's elements take in memory."""
    if not tensor.dim():
        return 0
    elements = 1
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        elements *= size if stride or not size else 1
    return elements * tensor.element_size()


def touched(program: Program) -> list[Touched]:
    """Run a program, and return what each op touched, in order."""
    with _Watch() as watch:
        program()
    return watch.calls


def recorded(program: Program, folder: Path) -> list[tuple[str, dict[str, Any]]]:
    """Run a program under torch.profiler; return what our reader makes of each op, in order."""
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as recording:
        program()
    file = folder / "trace.json"
    recording.export_chrome_trace(str(file))
    trace = open_trace(file, cache=False)
    ranges = trace["ranges"].join(trace["names"], on="name_id").select("range_id", "name")
    ops = trace["ops"].join(ranges, on="range_id").sort("range_id").collect()
    wanted = ("dims", "types", "inputs", "strides")
    return [(row["name"], {key: row[key] for key in wanted}) for row in ops.to_dicts()]


def costs(program: Program, folder: Path, element: str = "") -> list[tuple[str, OpCost | None]]:
    """Run a program under torch.profiler, and return what each op is said to cost, in order."""
    return [
        (name, op_cost(name, *facts.values(), element=element))
        for name, facts in recorded(program, folder)
    ]


def both(
    program: Program, folder: Path, name: str, element: str = ""
) -> list[tuple[OpCost | None, Touched]]:
    """Return, of each call of an op, what it is said to cost and what it touched."""
    said = [cost for op, cost in costs(program, folder, element) if op == name]
    seen = [call for call in touched(program) if call.name == name]
    assert len(said) % len(seen) == 0, (said, seen)
    # Some ops call themselves with other inputs: each of them is said to cost the same.
    each = len(said) // len(seen)
    return [(cost, seen[place // each]) for place, cost in enumerate(said)]
