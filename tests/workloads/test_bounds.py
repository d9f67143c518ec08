"""The least times on an H200 that follow from the formulas, against ones worked out elsewhere."""

from __future__ import annotations

from typing import Any, Final

import pytest

from tests.running import made
from tracelens import hardware

FORWARD: Final = {"mode": "forward"}


@pytest.mark.parametrize(
    ("name", "options", "expected_ms"),
    [
        # 4 passes over 0.54 GB of scores, and Q, K, V and the result, at 4.8 TB/s.
        ("attention-d64-s4096", {**FORWARD, "dtype": "tf32"}, 0.454),
        ("attention-d128-s16384", {**FORWARD, "dtype": "tf32"}, 7.21),
        # 4·B·H·S²·D operations at 989 TFLOP/s.
        ("attention-16x2048x16x64", FORWARD, 0.278),
        ("attention-32x4096x32x128", FORWARD, 8.9),
        # Half of them, and 2.5 times as many backward.
        ("attention-leaderboard", {}, 1.95),
        # 32 experts of two matrices of 4096 × 11008: read once, or multiplied.
        ("moe-4x512", FORWARD, 1.20),
        ("moe-4x512", {**FORWARD, "activation": "swiglu"}, 1.80),
        ("moe-16x2048", FORWARD, 11.95),
        ("moe-16x2048", {**FORWARD, "activation": "swiglu"}, 17.9),
        ("moe-32x2048", FORWARD, 23.9),
        ("linear-8192x11008x4096", FORWARD, 0.747),
        # 28 bytes a number.
        ("optimizer", {"millions": 2000}, 11.7),
        # 6 bytes a logit.
        ("cross-entropy-llama3", {}, 1.31),
        ("elementwise-copy-2gb", {"repeats": 1}, 0.895),
    ],
)
def test_what_a_workload_is_about_takes_at_least(
    name: str, options: dict[str, Any], expected_ms: float
) -> None:
    h200 = hardware.device("NVIDIA H200")
    assert h200 is not None
    cost = made(name, **options).cost()

    # Of a layer of experts, those alone, without routing and moving tokens; their tokens add 4 %.
    works = [work for works in cost.phases.values() for work in works]
    products = [work for work in works if work.part == "experts"] or works
    bounds = [hardware.bound([work], h200) for work in products]

    assert sum(bound.seconds for bound in bounds if bound) * 1e3 == pytest.approx(
        expected_ms, rel=0.05
    )
