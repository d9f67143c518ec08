"""What explains a difference: parts that add up to the whole, whatever the runs did."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.loops import Kernel, Loop, side
from tracelens.analyses.compare.align import matched
from tracelens.analyses.compare.explain import (
    SPLIT,
    apportioned,
    explained,
    parts,
    whole,
)
from tracelens.analyses.compare.side import IDLE, OPS, RANGES, STEPS, WORK, Side
from tracelens.tables.compare import words

if TYPE_CHECKING:
    from pathlib import Path

fractions = st.lists(st.fractions(-1_000, 1_000, max_denominator=7), min_size=1, max_size=9)


@given(fractions)
def test_rounded_numbers_add_up_to_the_rounded_sum(values: list[Fraction]) -> None:
    rounded = apportioned(values)

    assert sum(rounded) == round(sum(values, Fraction(0)))
    assert all(abs(number - value) < 1 for number, value in zip(rounded, values, strict=True))


names = st.sampled_from(["sgemm_a", "sgemm_b", "gelu", "adam"])
phases = st.sampled_from(["forward", "backward"])
times = st.integers(1, 10**7)


@st.composite
def sides(draw: st.DrawFn) -> Side:
    """Return any run: some steps, some of which do not count, on one GPU or three."""
    steps = draw(st.integers(1, 5))
    out = draw(st.integers(0, steps - 1))
    work, idle, durations = [], [], [0] * steps
    for step in range(steps):
        for name in draw(st.lists(names, max_size=4, unique=True)):
            time, exposed = draw(times), draw(times)
            phase, calls = draw(phases), draw(st.integers(0, 3))
            fixed = ("gemm", "kernel", name, name, None, None, None)
            work.append((step, phase, *fixed, calls, time * (calls > 0), exposed))
            durations[step] += exposed
        for cause in draw(
            st.lists(st.sampled_from(["queued", "unknown"]), max_size=2, unique=True)
        ):
            idle.append((step, cause, draw(times)))
            durations[step] += idle[-1][2]
    rest = draw(st.integers(0, 100))
    rows = [
        (i, None, d + rest, 0, "cut off" if i < out else None, 0) for i, d in enumerate(durations)
    ]
    return Side(
        "run", "run", "nsys-sqlite", None, {}, draw(st.sampled_from([1, 3])), is_stepped=True,
        steps=pl.DataFrame(rows, schema=STEPS, orient="row"),
        work=pl.DataFrame(work, schema=WORK, orient="row"),
        idle=pl.DataFrame(idle, schema=IDLE, orient="row"),
        ranges=pl.DataFrame(schema=RANGES), ops=pl.DataFrame(schema=OPS),
    )  # fmt: skip


@given(sides(), sides())
def test_the_parts_add_up_to_the_difference_exactly(a: Side, b: Side) -> None:
    found = parts(a, b)
    frame = explained(a, b)

    assert sum(part.a for part in found) == whole(a)
    assert sum(part.b for part in found) == whole(b)
    assert sum(part.difference for part in found) == whole(b) - whole(a)
    assert all(sum(part.split) == part.difference for part in found)
    assert frame["difference_ns"].sum() == round(whole(b) - whole(a))
    split = frame.select(pl.sum_horizontal(SPLIT)).to_series()
    assert split.to_list() == frame["difference_ns"].to_list()


@given(sides(), sides())
def test_every_kernel_is_matched_once(a: Side, b: Side) -> None:
    found = matched(a, b)

    for of, mine in ((a, [m.was for m in found]), (b, [m.now for m in found])):
        counted = of.work.filter(pl.col("step").is_in(of.counted), pl.col("calls") > 0)
        assert sorted(name for names in mine for name in names) == sorted(set(counted["name"]))
    assert all(bool(match.how) == bool(match.was and match.now) for match in found)


@given(sides())
def test_a_run_differs_from_itself_in_nothing(a: Side) -> None:
    assert not any(part.difference or any(part.split) for part in parts(a, a))
    assert not set(explained(a, a)["verdict"]) & {"slower", "faster"}


def explanation(folder: Path, a: Loop, b: Loop) -> dict[str, dict[str, int]]:
    """Return the rows by what they are about, without those that do not differ."""
    one, two = a.write_nsys(folder / "a.sqlite"), b.write_nsys(folder / "b.sqlite")
    rows = explained(side(one), side(two)).to_dicts()
    return {
        f"{row['phase']} {row['family']}".strip(): {k: row[k] for k in SPLIT if row[k]}
        for row in rows
        if row["difference_ns"]
    }


GEMM = "ampere_sgemm_128x64_tn"


def test_the_same_kernel_takes_longer(tmp_path: Path) -> None:
    found = explanation(
        tmp_path, Loop([Kernel(GEMM, [1_000] * 4)]), Loop([Kernel(GEMM, [1_300] * 4)])
    )

    assert found == {"forward gemm": {"slower_ns": 300}}


def test_a_kernel_is_called_more_often(tmp_path: Path) -> None:
    once, twice = [Kernel(GEMM, [1_000] * 4)], [Kernel(GEMM, [1_000] * 4)] * 2
    found = explanation(tmp_path, Loop(once), Loop(twice))

    assert found["forward gemm"] == {"calls_ns": 1_000}
    # The launch of one more kernel is idle time of the GPU.
    assert set(found) == {"forward gemm", "launch_bound"}


def test_more_calls_that_are_longer_too_are_both(tmp_path: Path) -> None:
    found = explanation(
        tmp_path,
        Loop([Kernel(GEMM, [1_000] * 4)]),
        Loop([Kernel(GEMM, [1_000] * 4), Kernel(GEMM, [1_400] * 4)]),
    )

    # From 1 call of 1,000 ns to 2 of 1,200 each: one more of 1,000, and 2 times 200.
    assert found["forward gemm"] == {"calls_ns": 1_000, "slower_ns": 400}


def test_one_kernel_replaces_another(tmp_path: Path) -> None:
    found = explanation(
        tmp_path, Loop([Kernel(GEMM, [1_000] * 4)]), Loop([Kernel("nvjet_tst", [600] * 4)])
    )

    assert found == {"forward gemm": {"replaced_ns": -400}}


def test_the_gpu_waits_longer(tmp_path: Path) -> None:
    kernels = [Kernel(GEMM, [1_000] * 4)]
    found = explanation(
        tmp_path, Loop(kernels, pauses=[200_000] * 4), Loop(kernels, pauses=[260_000] * 4)
    )

    assert sum(row["idle_ns"] for row in found.values()) == 60_000
    assert {key for row in found.values() for key in row} == {"idle_ns"}


@pytest.mark.parametrize("steps", [(3, 3), (3, 7), (7, 6)])
def test_runs_of_different_numbers_of_steps_are_compared_per_step(
    tmp_path: Path, steps: tuple[int, int]
) -> None:
    a, b = (
        side(Loop([Kernel(GEMM, [took + i for i in range(n)])]).write_nsys(tmp_path / f"{took}"))
        for took, n in zip((1_000, 2_000), steps, strict=True)
    )
    found = parts(a, b)

    mean = [Fraction(sum(range(n)), n) for n in steps]
    (gemm,) = (part for part in found if part.family == "gemm")
    assert gemm.difference == 1_000 + mean[1] - mean[0]
    assert sum(part.difference for part in found) == whole(b) - whole(a)


def test_parts_that_cancel_are_not_of_the_little_they_leave_over() -> None:
    parts = [("forward", "gemm", 900_000), ("backward", "gemm", -899_000)]
    frame = pl.DataFrame(
        [{"part": "GPU work", "phase": p, "family": f, "difference_ns": ns} for p, f, ns in parts]
    ).with_columns(slower_ns=0, calls_ns=0, replaced_ns=0, hidden_ns=0)

    assert words.explanation(frame, 1_000) == (
        "Parts cancel each other (in all +1.00 µs): "
        "forward · gemm +900.0 µs; backward · gemm -899.0 µs."
    )
    assert words.explanation(frame.head(1), 900_000) == "Of +900.0 µs: forward · gemm +900.0 µs."
