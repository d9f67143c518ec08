"""What holds of every workload, whoever wrote it: options, presets, marks, true costs."""

from __future__ import annotations

import subprocess
import sys
from itertools import islice
from math import prod
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.running import counted_flops, made, matmul_flops, recorded
from tracelens import registry, workload

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tracelens.workload import Workload

TINY: Final[Mapping[str, Mapping[str, Any]]] = {
    "attention": {"d": 4, "seq": 8, "batch": 2, "repeats": 2},
    "cross_entropy": {"tokens": 4, "vocab": 10},
    "elementwise": {"elements": 10},
    "gpt2": {
        "layers": 2,
        "d_model": 16,
        "heads": 2,
        "d_ff": 32,
        "vocab": 20,
        "ctx": 8,
        "batch": 2,
    },
    "layernorm": {"rows": 3, "columns": 5},
    "linear": {"tokens": 3, "inputs": 4, "outputs": 5, "repeats": 2},
    "llm_inference": {
        "layers": 2,
        "d_model": 16,
        "heads": 2,
        "d_ff": 32,
        "vocab": 20,
        "prompt": 8,
        "new_tokens": 2,
        "attention": "naive",
    },
    "matmul": {"m": 3, "n": 4, "k": 5, "dtype": "fp32"},
    "mlp": {"tokens": 3, "d_model": 4, "d_ff": 5},
    "moe": {"tokens": 6, "d_model": 8, "d_ff": 8, "experts": 4, "empty": 1, "skew": 1.0},
    "optimizer": {"millions": 1},
    "rmsnorm": {"rows": 3, "columns": 5},
    "softmax": {"rows": 3, "columns": 5},
}
"""Options with which a workload of one process takes milliseconds on a CPU."""

NAMES: Final = registry.names("workload")
PRESETS: Final = workload.all_names()
SINGLE: Final = [name for name in NAMES if registry.load("workload", name)().processes == 1]


def tiny(name: str) -> Workload:
    assert name in TINY, f"say in TINY how to make {name} small"
    return made(name, **TINY[name])


def test_importing_workloads_and_asking_for_their_costs_does_not_import_torch() -> None:
    program = """
import sys
from tracelens import registry, workload
for name, entry in registry.entries("workload").items():
    kind = entry.load()
    made = workload.make(kind, {})
    made.cost(), workload.options_of(kind), next(iter(made.variants()), None)
    assert "torch" not in sys.modules, name
print("done")
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)  # noqa: PLW1510

    assert (run.stdout, run.stderr) == ("done\n", "")


@pytest.mark.parametrize("name", NAMES)
def test_a_file_begins_with_a_sentence_for_the_list(name: str) -> None:
    summary = registry.entries("workload")[name].summary

    assert summary[0].isupper()
    assert summary.endswith(".")
    assert len(summary) <= 100


@pytest.mark.parametrize("name", NAMES)
def test_every_option_has_a_type_a_default_and_a_sentence_of_help(name: str) -> None:
    for option in workload.options_of(registry.load("workload", name)):
        assert option.type in (bool, int, float, str)
        assert option.help.endswith("."), option.name
        assert option.default is None or type(option.default) is option.type, option.name
        assert not option.choices or option.default in (None, *option.choices), option.name


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_possible_and_has_a_cost(name: str) -> None:
    cost = made(name).cost()

    assert cost.phases
    assert cost.memory_bytes > 0
    assert cost.items > 0
    for phase, works in cost.phases.items():
        assert works, phase
        assert all(work.dtype in workload.DTYPES for work in works)
        assert all(type(work.flops) is int and work.flops >= 0 for work in works)
        assert all(type(work.bytes) is int and work.bytes >= 0 for work in works)
    assert all(type(size) is int and size >= 0 for size in cost.memory.values())


@pytest.mark.parametrize("name", PRESETS)
def test_variants_are_possible_and_each_smaller_than_the_one_before(name: str) -> None:
    whole = made(name)

    sizes = [whole.cost().memory_bytes]
    for smaller in islice(whole.variants(), 100):
        smaller.check()
        sizes.append(smaller.cost().memory_bytes)

    assert sizes == sorted(sizes, reverse=True)
    assert len(sizes) == 1 or sizes[-1] < sizes[0]


@pytest.mark.parametrize("name", SINGLE)
def test_steps_and_their_phases_are_marked(name: str) -> None:
    whole = tiny(name)
    program = whole.program("cpu")

    events = recorded(program, steps=2)

    steps = [event.time_range for event in events if event.name == "step"]
    assert len(steps) == 2
    for phase in whole.cost().phases:
        found = [event.time_range for event in events if event.name == phase]
        assert found, phase
        within = [[s.start <= f.start and f.end <= s.end for s in steps] for f in found]
        assert all(sum(inside) == 1 for inside in within), phase
        assert all(any(inside) for inside in zip(*within, strict=True)), phase


@pytest.mark.parametrize("name", SINGLE)
def test_the_formulas_count_the_products_and_parameters_that_are_there(name: str) -> None:
    whole = tiny(name)
    program = whole.program("cpu")

    cost = whole.cost()

    assert matmul_flops(cost) == counted_flops(program)
    assert cost.parameters == numbers(program)


def numbers(program: Any) -> int:
    model = getattr(program, "model", None)
    parameters = getattr(program, "parameters", []) if model is None else model.parameters()
    return sum(prod(parameter.shape) for parameter in parameters)
