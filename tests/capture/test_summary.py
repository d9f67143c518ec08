"""What a capture says of itself in the end."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tracelens.capture import summary
from tracelens.capture.folder import Manifest, Pass

MS = 1_000_000
COST: dict[str, Any] = {
    "items": 1024,
    "unit": "tokens",
    "memory_bytes": 3 * 2**30,
    "memory": {"activations": 2**30, "parameters": 2 * 2**30, "gradients": 0},
    "bound_of": "H200",
    "bounds": {
        "forward": {"seconds": 0.010, "limited_by": "compute"},
        "optimizer": {"seconds": 0.002, "limited_by": "memory"},
    },
}
RUN = Manifest(
    name="gpt2",
    workload="gpt2",
    options={},
    program=[],
    device="cuda",
    warmup=1,
    steps=5,
    seed=0,
    stop=True,
    created="",
    command=[],
    cost=COST,
    passes=[
        Pass("timer", {}, "done", steps_ns=[16 * MS] * 10, peak_bytes=2**31),
        Pass("torch", {}, "done", steps_ns=[20 * MS] * 5, peak_bytes=2**31 + 2**30),
    ],
)


def said(manifest: Manifest) -> dict[str, str]:
    return {line[:9].strip(): line[9:].strip() for line in summary.lines(manifest)}


def test_the_step_is_set_beside_its_bound_its_overhead_and_its_memory() -> None:
    found = said(RUN)

    assert list(found) == ["Step", "Bound", "Overhead", "Memory"]
    assert found["Step"].startswith("16.0 ms without a profiler (median of 10 steps")
    assert found["Step"].endswith("64,000 tokens/s")
    assert found["Bound"] == (
        "12.0 ms at least, by formula on H200 (compute): the step reaches 75% of it"
    )
    assert found["Overhead"] == "torch +25.0% of a step"
    assert found["Memory"] == (
        "3.00 GiB at the peak, 3.00 GiB by formula (parameters 2.00 GiB, activations 1.00 GiB)"
    )


def test_a_bound_names_the_ceilings_that_it_is_by_and_what_is_wrong_with_them() -> None:
    by = {"bound_by": "measured 2026-11-20 on NVIDIA H200", "bound_caveats": ["It is damaged."]}

    assert said(replace(RUN, cost={**COST, **by}))["Bound"] == (
        "12.0 ms at least, by formula on H200, measured 2026-11-20 on NVIDIA H200 (compute): "
        "the step reaches 75% of it (It is damaged.)"
    )


def test_an_overhead_within_the_noise_has_no_figure() -> None:
    noisy = [Pass("timer", {}, "done", steps_ns=[10 * MS, 16 * MS, 30 * MS, 12 * MS] * 3),
             Pass("torch", {}, "done", steps_ns=[11 * MS, 29 * MS, 15 * MS])]  # fmt: skip

    assert said(replace(RUN, passes=noisy))["Overhead"] == "torch not told from the noise"


def test_without_a_timer_there_is_neither_step_nor_overhead() -> None:
    found = said(replace(RUN, passes=RUN.passes[1:]))

    assert list(found) == ["Bound", "Memory"]
    assert found["Bound"] == "12.0 ms at least, by formula on H200 (compute)"


@pytest.mark.parametrize(
    "cost",
    [{**COST, "bounds": {}}, {**COST, "bounds": {**COST["bounds"], "backward": None}}, {}],
)
def test_a_bound_that_is_not_known_in_all_its_parts_is_not_given(cost: dict[str, Any]) -> None:
    assert "Bound" not in said(replace(RUN, cost=cost))


def test_the_cpu_has_no_bound_of_the_gpu_beside_it() -> None:
    assert "Bound" not in said(replace(RUN, device="cpu"))


def test_passes_that_failed_are_named_with_their_reason() -> None:
    passes = [*RUN.passes, Pass("memory", {}, "out of memory", why="Tried 2 GiB (in step 3)"),
              Pass("ncu")]  # fmt: skip

    assert said(replace(RUN, passes=passes))["Missing"] == (
        "memory (out of memory: Tried 2 GiB (in step 3)); ncu (planned)"
    )


def test_bytes_are_told_as_a_rate() -> None:
    found = said(replace(RUN, cost={**COST, "items": 16_000_000, "unit": "bytes"}))

    assert found["Step"].endswith("1.00 GB/s")
