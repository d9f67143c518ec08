"""Bandwidth: exact bytes, and results that are what the options say."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from tracelens_workloads.elementwise import _TRAFFIC

from tests.running import made, moved_bytes


class Dispatched(TorchDispatchMode):
    """Keeps the tensors of every operation, and what became of the results."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[list[torch.Tensor]] = []

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        found = function(*args, **(kwargs or {}))
        leaves = tree_leaves((args, kwargs or {}))
        self.operations.append([leaf for leaf in leaves if isinstance(leaf, torch.Tensor)])
        return found


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("operation", _TRAFFIC)
def test_the_bytes_are_those_of_the_tensors_of_the_one_operation(
    operation: str, dtype: str
) -> None:
    whole = made("elementwise", operation=operation, dtype=dtype, elements=33, repeats=1)
    program = whole.program("cpu")

    with Dispatched() as seen:
        program.step()

    (tensors,) = (tensors for tensors in seen.operations if tensors)
    assert moved_bytes(whole.cost(), "forward") == sum(tensor.nbytes for tensor in tensors)
    assert whole.cost().memory_bytes == sum(tensor.nbytes for tensor in tensors)


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        ("fill", lambda _: torch.full((33,), 2.0)),
        ("copy", lambda given: given[0]),
        ("scale", lambda given: 2 * given[0]),
        ("add", lambda given: given[0] + given[1]),
        ("triad", lambda given: given[0] + 2 * given[1]),
        ("gelu", lambda given: given[0] * (1 + torch.erf(given[0] / 2**0.5)) / 2),
    ],
)
def test_the_operation_is_the_one_in_the_help(operation: str, expected: Any) -> None:
    program = made("elementwise", operation=operation, elements=33, repeats=2).program("cpu")

    with Dispatched() as seen:
        program.step()

    *given, result = next(tensors for tensors in seen.operations if tensors)
    if operation == "copy":
        result, given = given[0], [result]
    torch.testing.assert_close(result, expected(given))


def test_a_copy_of_two_gigabytes_is_named_as_such() -> None:
    cost = made("elementwise-copy-2gb", repeats=1).cost()

    assert moved_bytes(cost, "forward") == 2 * 2**31
