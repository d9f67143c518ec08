"""A workload's formulas below the roofline, as run.json tells them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from tracelens import hardware, workload
from tracelens.analyses.roofline_formulas import Measured, by_part, by_phase, parts_of
from tracelens.workload import Work

H200 = hardware.ceilings("NVIDIA H200")
assert H200 is not None
PRODUCT = Work("linear", flops=989_400_000_000, bytes=4_800_000, dtype="bf16")
COPY = Work("norm", flops=1_000, bytes=2_400_000_000, dtype="bf16", matmul=False)
PARTS = {"forward": (PRODUCT, COPY), "optimizer": (COPY,)}
MS = 1_000_000


def test_phases_are_held_against_what_was_measured() -> None:
    found = by_phase(PARTS, Measured({"forward": 3 * MS}, 10 * MS), H200).to_dicts()

    forward, optimizer, step = found
    assert forward["bound_ns"] == pytest.approx(1.5 * MS, rel=1e-3)
    assert forward["mfu"] == pytest.approx(1 / 3, rel=1e-3)
    assert forward["mbu"] == pytest.approx(0.501 / 3)
    assert forward["share_of_bound"] == pytest.approx(0.5, rel=1e-3)
    assert (forward["measured_by"], forward["bound"]) == ("GPU busy", "compute")
    # Nothing was measured of the optimizer: that is no zero.
    assert (optimizer["time_ns"], optimizer["mfu"], optimizer["measured_by"]) == (None,) * 3
    assert step["phase"] == "(step)"
    assert step["share_of_bound"] == pytest.approx(0.2, rel=1e-3)
    assert step["flops"] == PRODUCT.flops + 2 * COPY.flops
    assert step["measured_by"] == "timer"


def test_parts_tell_which_ceiling_holds_them() -> None:
    linear, norm, _ = by_part(PARTS, H200).to_dicts()

    assert (linear["part"], linear["ceiling"]) == ("linear", "matmul.bf16")
    assert (norm["part"], norm["ceiling"]) == ("norm", "bandwidth")
    assert linear["share"] + norm["share"] == pytest.approx(1)


def test_more_than_the_gpu_can_do_is_impossible_and_more_than_its_memory_is_from_cache() -> None:
    took = Measured({"forward": MS / 2, "optimizer": MS / 4})

    forward, optimizer, _ = by_phase(PARTS, took, H200).to_dicts()

    assert (forward["verdict"], forward["mfu"], forward["share_of_bound"]) == (
        "impossible", None, None,
    )  # fmt: skip
    assert optimizer["verdict"] == "from cache"


def test_without_ceilings_there_are_formulas_alone() -> None:
    forward, *_ = by_phase(PARTS, Measured({"forward": MS}), None).to_dicts()

    assert (forward["flops"], forward["bound_ns"], forward["mfu"]) == (
        PRODUCT.flops + COPY.flops, None, None,
    )  # fmt: skip
    assert by_part(PARTS, None)["bound_ns"].null_count() == 3


@pytest.mark.parametrize("name", ["gpt2-small", "matmul", "linear", "llm-inference", "optimizer"])
def test_formulas_of_workloads_come_back_from_json(name: str) -> None:
    kind, preset = workload.find(name)
    cost = workload.make(kind, preset).cost()
    said = {"phases": {p: [asdict(work) for work in works] for p, works in cost.phases.items()}}

    parts = parts_of(said)

    assert parts == {phase: tuple(works) for phase, works in cost.phases.items()}
    assert by_phase(parts, Measured({}), H200)["flops"][-1] == cost.flops


@pytest.mark.parametrize(
    "cost",
    [
        {},
        {"phases": {}},
        {"phases": []},
        {"phases": {"forward": 3}},
        {"phases": {"forward": [3]}},
        {"phases": {"forward": [{"flops": 3}]}},
        {"phases": {"forward": [{"part": "x", "flops": "many"}]}},
        {"phases": {"forward": [{"part": "x", "flops": -1}]}},
        {"phases": {"forward": [{"part": "x", "flops": 2**70}]}},
    ],
)
def test_a_cost_that_is_none_has_no_formulas(cost: dict[str, Any]) -> None:
    assert parts_of(cost) is None
