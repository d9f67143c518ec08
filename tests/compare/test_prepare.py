"""What a recording is reduced to: every nanosecond of a step is work or idle, exactly once."""

from __future__ import annotations

import itertools
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.build import Nsys, training_step
from tests.kineto import Profile
from tests.loops import Kernel, Loop, side
from tracelens.analyses.compare.side import merged, repeated
from tracelens.errors import NothingToShowError

if TYPE_CHECKING:
    from tracelens.analyses.compare.side import Side

CORPUS_FILES = (
    "nsys/gpt2-small-ctx256-a100-train.sqlite",
    "nsys/gpt2-xl-ctx256-a100-fwd-bwd.sqlite",
    "nsys/torchrun-h100x2-before.sqlite",
    "nsys/h100x2-1s.sqlite",
    "nsys/cs336-a100-cudagraph.sqlite",
    "kineto/three-streams-overlap-h200.json.gz",
    "kineto/cudagraph-replay-h200.json.gz",
)


def adds_up(found: Side) -> None:
    """Assert that work and idle time of each step are the time of the step, on every GPU."""
    work = dict(found.work.group_by("step").agg(pl.col("exposed_ns").sum()).iter_rows())
    idle = dict(found.idle.group_by("step").agg(pl.col("idle_ns").sum()).iter_rows())
    assert found.steps.height
    assert (found.work["exposed_ns"] >= 0).all()
    assert (found.idle["idle_ns"] > 0).all()
    for step, duration in found.steps.select("step", "duration_ns").iter_rows():
        assert work.get(step, 0) + idle.get(step, 0) == duration


def test_a_loop_is_reduced_to_what_stands_in_it(tmp_path: Path) -> None:
    gemm = Kernel("ampere_sgemm_128x64_tn", [700, 710, 720])
    adam = Kernel("multi_tensor_apply_kernel<Adam>()", [300, 300, 300], phase="optimizer")
    found = side(Loop([gemm, adam]).write_nsys(tmp_path / "run.sqlite"))

    assert found.is_stepped
    assert (found.lanes, found.gpus, found.counted) == (1, {"NVIDIA H200": 1}, (0, 1, 2))
    work = found.work.filter(pl.col("step") == 1).select("phase", "family", "calls", "time_ns")
    assert sorted(work.rows()) == [("forward", "gemm", 1, 710), ("optimizer", "optimizer", 1, 300)]
    adds_up(found)


def test_work_that_overlaps_counts_once_in_the_time_of_the_step(tmp_path: Path) -> None:
    trace = Nsys()
    main = trace.thread("python")
    for step in range(2):
        at = 10_000 * step
        main.push(f"step {step}", at, at + 1_000)
        main.kernel("first", at=at + 10, run=(at + 100, at + 500), stream=7)
        main.kernel("second", at=at + 20, run=(at + 300, at + 700), stream=8)
        main.kernel("inside", at=at + 30, run=(at + 400, at + 450), stream=9)
    found = side(trace.write(tmp_path / "run.sqlite"))

    exposed = found.work.filter(pl.col("step") == 0).select("name", "time_ns", "exposed_ns")
    assert sorted(exposed.rows()) == [
        ("first", 400, 400), ("inside", 50, 0), ("second", 400, 200),
    ]  # fmt: skip
    adds_up(found)


def test_work_that_runs_into_the_next_step_is_launched_in_one_and_takes_time_of_both(
    tmp_path: Path,
) -> None:
    trace = Nsys()
    main = trace.thread("python")
    for step in range(3):
        main.push(f"step {step}", 1_000 * step, 1_000 * step + 1_000)
    main.kernel("late", at=900, run=(950, 1_200))
    found = side(trace.write(tmp_path / "run.sqlite"))

    assert found.work.select("step", "calls", "time_ns", "exposed_ns").rows() == [
        (0, 1, 250, 50),
        (1, 0, 0, 200),
    ]
    adds_up(found)


spans = st.lists(
    st.tuples(
        st.integers(0, 5_000), st.integers(1, 900), st.sampled_from([7, 8]), st.integers(0, 1)
    ),
    min_size=1,
    max_size=14,
)
cuts = st.lists(st.integers(100, 6_000), min_size=2, max_size=4, unique=True).map(sorted)


@given(spans, cuts)
def test_every_nanosecond_of_a_step_is_work_or_idle_once(
    work: list[tuple[int, int, int, int]], edges: list[int]
) -> None:
    trace = Nsys()
    main = trace.thread("python")
    for step, (start, end) in enumerate(itertools.pairwise(edges)):
        main.push(f"step {step}", start, end)
    main.push("step 9", edges[-1] + 10, edges[-1] + 500)
    for start, length, stream, device in work:
        run = (start, start + length)
        main.kernel(f"k{device}", at=max(0, start - 50), run=run, stream=stream, device=device)
    with TemporaryDirectory() as folder:
        found = side(trace.write(Path(folder) / "run.sqlite"))

    adds_up(found)
    inside = [*itertools.pairwise(edges)]
    inside.append((edges[-1] + 10, edges[-1] + 500))
    for step, (start, end) in enumerate(inside):
        busy = sum(
            len(
                {t for s, n, _, d in work if d == of for t in range(max(s, start), min(s + n, end))}
            )
            for of in (0, 1)
        )
        assert found.work.filter(pl.col("step") == step)["exposed_ns"].sum() == busy


def test_without_steps_a_recording_is_one_sample(tmp_path: Path) -> None:
    trace = Nsys()
    main = trace.thread("python")
    main.kernel("a", at=0, run=(100, 200))
    main.kernel("b", at=10, run=(300, 700))
    found = side(trace.write(tmp_path / "run.sqlite"))

    assert not found.is_stepped
    assert found.steps["duration_ns"].to_list() == [600]
    assert any("no steps" in text for text in found.caveats)
    adds_up(found)


def test_what_was_launched_outside_of_steps_is_said(tmp_path: Path) -> None:
    trace = Nsys()
    main = trace.thread("python")
    main.push("step 0", 1_000, 2_000).push("step 1", 2_000, 3_000)
    for at in (10, 1_010, 2_010, 2_020):
        main.kernel("k", at=at, run=(at + 5, at + 9))
    found = side(trace.write(tmp_path / "run.sqlite"))

    assert found.caveats == (
        "1 of 4 GPU ops (25 %) were launched outside of all steps and are not compared",
    )


def test_copies_have_one_name_whoever_recorded_them(tmp_path: Path) -> None:
    for trace, file in ((Nsys(), "run.sqlite"), (Profile(), "run.json")):
        main = trace.thread("python")
        main.copy(bytes=10, kind="DtoH", at=0, run=(2_000, 3_000))
        main.memset(bytes=10, at=100, run=(4_000, 5_000))
        found = side(trace.write(tmp_path / file))

        assert sorted(found.work["name"]) == ["copy DtoH", "memset"]


def test_ranks_are_one_side_of_all_their_gpus(tmp_path: Path) -> None:
    one, two = (
        side(Loop([Kernel("gemm", [took] * 3)]).write_nsys(tmp_path / f"{took}.sqlite"))
        for took in (500, 700)
    )
    both = merged([one, two])

    assert (both.lanes, both.divisor, both.gpus) == (2, 6, {"NVIDIA H200": 2})
    assert both.sampled([1_200, 1_200, 1_200]) == [600.0] * 3
    assert both.work["time_ns"].sum() == 3 * 1_200


def test_recordings_of_the_same_are_turns_of_one_side(tmp_path: Path) -> None:
    loops = [Loop([Kernel("gemm", [took] * 3)]) for took in (500, 700)]
    parts = [side(loop.write_nsys(tmp_path / f"{i}.sqlite")) for i, loop in enumerate(loops)]
    both = repeated(parts)

    assert (both.turns, both.lanes, both.counted) == (2, 1, (0, 1, 2, 3, 4, 5))
    assert both.work.sort("step")["time_ns"].to_list() == [500] * 3 + [700] * 3
    by_turn = type(both)(**{**vars(both), "by_turn": True})
    assert by_turn.sampled([1, 2, 3, 4, 5, 6]) == [2.0, 5.0]


def test_a_training_step_has_its_ranges_and_phases(tmp_path: Path) -> None:
    trace = Nsys()
    end = training_step(trace).end_ns
    training_step(trace, at=end)
    found = side(trace.write(tmp_path / "run.sqlite"))

    assert found.counted == (0, 1)
    times = found.work.group_by("phase").agg(pl.col("time_ns").sum())
    assert dict(times.iter_rows()).items() >= {"forward": 1_500, "backward": 1_400}.items()
    assert set(found.ranges["name"]) == {"forward", "backward", "optimizer"}
    adds_up(found)


def test_a_recording_of_nothing_cannot_be_compared(tmp_path: Path) -> None:
    trace = Nsys()
    trace.thread("python").push("forward", 0, 10)
    with pytest.raises(NothingToShowError, match="nothing to compare"):
        side(trace.write(tmp_path / "run.sqlite"))


@pytest.mark.corpus
@pytest.mark.parametrize("name", CORPUS_FILES)
def test_real_recordings_add_up(corpus: Path, name: str) -> None:
    adds_up(side(corpus / name))


@pytest.mark.parametrize(
    "name", ["gpt2-small-ctx512-bf16-h200/trace.json.gz", "gpt2-xl-ctx256-h200/run.sqlite.gz"]
)
def test_our_recordings_add_up(name: str) -> None:
    adds_up(side(Path(__file__).parents[2] / "samples" / name))
