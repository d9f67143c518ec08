"""What the analyses of memory say of small histories and of our own recordings."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from tests.build import Nsys
from tests.kineto import Profile
from tests.snapshots import MIB, Snapshot, training
from tracelens.analyses.memory.ooms import verdict
from tracelens.errors import NothingToShowError, UsageError
from tracelens.links.memory import Ask, Memory, remember
from tracelens.readers.open import open_trace
from tracelens.tables import build
from tracelens.tables.memory_report import MEMORY

if TYPE_CHECKING:
    from pathlib import Path

Row = dict[str, Any]
FORWARD = ("model.py:20 forward", "/x/site-packages/torch/nn/modules/module.py:1 _call_impl")
STEP = ("/x/site-packages/torch/optim/adamw.py:30 step", "train.py:10 main")


def remembered(source: Snapshot | Path, folder: Path | None = None, **ask: Any) -> Memory:
    """Return a recording replayed; a snapshot by way of a file in ``folder``."""
    if isinstance(source, Snapshot):
        assert folder is not None
        source = source.write(folder / "snapshot.pickle")
    return remember(open_trace(source, cache=False), Ask(**ask))


def table(memory: Memory, name: str) -> list[Row]:
    """Return the rows of a table."""
    return build.fill_on(memory, name, MEMORY).frame.to_dicts()


def column(memory: Memory, name: str, key: str, value: str) -> Row:
    """Return one column of a table by another one."""
    return {row[key]: row[value] for row in table(memory, name)}


# devices and phases


def test_a_device_s_row_says_what_was_held_and_when_most(tmp_path: Path) -> None:
    memory = remembered(training(steps=2), tmp_path)

    (row,) = table(memory, "devices")

    assert row["baseline_active_bytes"] == row["end_active_bytes"] == 4 * MIB
    # At the peak: the weight, the gradient and what the optimizer needs.
    assert row["peak_active_bytes"] == (4 + 4 + 8) * MIB
    assert (row["peak_phase"], row["peak_step"]) == ("optimizer", 0)
    assert memory.events["action"][row["peak_index"]] == "alloc"
    assert row["peak_reserved_bytes"] == row["end_reserved_bytes"]
    assert (row["oom_events"], row["truncated"]) == (0, None)


def test_a_peak_before_the_first_event_has_no_index(tmp_path: Path) -> None:
    snapshot = Snapshot()
    gpu = snapshot.device()
    gpu.recording = False
    old = gpu.alloc(5 * MIB)
    gpu.free_requested(old)
    gpu.recording = True
    gpu.free_completed(old)

    (row,) = table(remembered(snapshot, tmp_path), "devices")

    assert (row["peak_active_bytes"], row["peak_index"], row["peak_phase"]) == (5 * MIB, None, None)


def test_rounded_bytes_are_those_of_blocks(tmp_path: Path) -> None:
    snapshot = Snapshot()
    snapshot.device().alloc(1000)

    (row,) = table(remembered(snapshot, tmp_path), "devices")

    assert (row["end_active_bytes"], row["end_rounded_bytes"]) == (1000, 1024)


def test_each_phase_of_each_step_has_its_peak_and_its_end(tmp_path: Path) -> None:
    rows = table(remembered(training(steps=2), tmp_path), "phases")

    named = {(r["step"], r["phase"]): r for r in rows}
    for step in range(2):
        assert named[step, "forward"]["peak_active_bytes"] == (4 + 2 + 3 + 1) * MIB
        assert named[step, "forward"]["allocated_bytes"] == 6 * MIB
        assert named[step, "backward (inferred)"]["peak_active_bytes"] == (4 + 6 + 4) * MIB
        assert named[step, "optimizer"]["peak_active_bytes"] == 16 * MIB
        assert named[step, "optimizer"]["end_active_bytes"] == 8 * MIB


def test_a_phase_s_peak_counts_what_it_found(tmp_path: Path) -> None:
    snapshot = Snapshot()
    gpu = snapshot.device()
    gpu.segment(20 * MIB)
    with snapshot.range("forward"):
        block = gpu.alloc(7 * MIB)
    with snapshot.range("backward"):
        gpu.free(block)

    peaks = column(remembered(snapshot, tmp_path), "phases", "phase", "peak_active_bytes")

    assert peaks["backward"] == 7 * MIB


# live memory


def test_what_was_live_adds_up_to_the_peak(tmp_path: Path) -> None:
    memory = remembered(training(steps=2), tmp_path)

    rows = table(memory, "live")

    assert sum(r["bytes"] for r in rows) == 16 * MIB
    assert {r["at"] for r in rows} == {"peak"}
    assert sum(r["share"] for r in rows) == pytest.approx(1)
    assert [(r["bytes"], r["category"], r["site"]) for r in rows] == [
        (8 * MIB, "optimizer temporaries", "adamw.py:30 step"),
        (4 * MIB, "gradients", None),
        (4 * MIB, "parameters/optimizer state (inferred)", "model.py:10 __init__"),
    ]
    assert rows[0]["stack"] == ["adamw.py:30 step", "train.py:9 main"]


def test_bytes_of_which_no_stack_is_known_are_never_hidden(tmp_path: Path) -> None:
    snapshot = Snapshot()
    gpu = snapshot.device()
    gpu.recording = False
    gpu.alloc(2 * MIB)
    freed = gpu.alloc(3 * MIB)
    gpu.recording = True
    gpu.alloc(1 * MIB, stack=FORWARD)
    gpu.free(freed)

    rows = column(remembered(snapshot, tmp_path), "live", "category", "bytes")

    assert rows == {
        "pre-existing (no alloc stack)": 3 * MIB,
        "parameters/optimizer state (inferred)": 2 * MIB,
        "activations": 1 * MIB,
    }


@pytest.mark.parametrize(
    ("at", "live"), [("peak", 16), ("end", 4), ("1", 16), ("step 0", 16), ("Step 1", 16)]
)
def test_one_may_look_at_other_moments(tmp_path: Path, at: str, live: int) -> None:
    rows = table(remembered(training(steps=2), tmp_path, at=at), "live")

    assert sum(r["bytes"] for r in rows) == live * MIB


def test_the_peak_of_a_step_is_its_own(tmp_path: Path) -> None:
    snapshot = Snapshot()
    gpu = snapshot.device()
    for step, size in enumerate((9, 2)):
        with snapshot.range(f"step {step}"):
            gpu.free(gpu.alloc(size * MIB, stack=(f"a.py:{size} f",)))

    memory = remembered(snapshot, tmp_path, at="1")

    assert [(r["at"], r["bytes"], r["site"]) for r in table(memory, "live")] == [
        ("step 1", 2 * MIB, "a.py:2 f")
    ]


@pytest.mark.parametrize(
    ("at", "error", "says"),
    [
        ("noon", UsageError, "say peak, oom, end"),
        ("7", UsageError, "steps are 0 to 1"),
        ("oom", NothingToShowError, "no out-of-memory error"),
    ],
)
def test_moments_that_are_not_there_are_refused(
    tmp_path: Path, at: str, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        table(remembered(training(steps=2), tmp_path, at=at), "live")


def test_steps_that_nobody_marked_cannot_be_looked_at(tmp_path: Path) -> None:
    snapshot = Snapshot()
    snapshot.device().alloc(1)

    with pytest.raises(NothingToShowError, match="marks no steps"):
        table(remembered(snapshot, tmp_path, at="0"), "live")


def test_live_memory_by_phase_and_by_file(tmp_path: Path) -> None:
    snapshot = training(steps=1)

    by_phase = column(remembered(snapshot, tmp_path, group="phase"), "live", "phase", "bytes")
    by_file = column(remembered(snapshot, tmp_path, group="file"), "live", "site", "bytes")

    assert by_phase == {None: 4 * MIB, "backward (inferred)": 4 * MIB, "optimizer": 8 * MIB}
    assert by_file == {"model.py": 4 * MIB, None: 4 * MIB, "adamw.py": 8 * MIB}


def test_events_that_are_missing_are_accounted_for(tmp_path: Path) -> None:
    snapshot = Snapshot()
    gpu = snapshot.device()
    block = gpu.alloc(1 * MIB)
    gpu.free(block)
    gpu.alloc(512, stack=FORWARD)
    content = snapshot.content()
    # The free of the first block was lost: the end says that it is gone.
    content["device_traces"][0] = [
        e for e in content["device_traces"][0] if not e["action"].startswith("free")
    ]
    path = tmp_path / "snapshot.pickle"
    path.write_text(json.dumps(content), encoding="utf-8")

    memory = remembered(path, at="end")

    rows = table(memory, "live")
    assert sum(r["bytes"] for r in rows) == 512
    assert "unaccounted (events missing)" in {r["category"] for r in rows}


# categories


def test_categories_follow_from_where_blocks_come_from_and_where_they_go(tmp_path: Path) -> None:
    snapshot = Snapshot()
    gpu = snapshot.device()
    gpu.alloc(1, stack=("/x/site-packages/torch/nn/modules/module.py:9 convert", "a.py:1 main"))
    with snapshot.range("forward"):
        activation = gpu.alloc(2, stack=FORWARD)
        gpu.free(gpu.alloc(3, stack=FORWARD))
        gpu.alloc(4, stack=("/x/site-packages/torch/distributed/fsdp/_fully_shard.py:3 unshard",))
    with snapshot.range("backward"):
        gradient = gpu.alloc(5)
        gpu.free(gpu.alloc(6))
        gpu.free(activation)
    with snapshot.range("optimizer"):
        gpu.alloc(7, stack=STEP)
        gpu.free(gpu.alloc(8, stack=STEP))
        gpu.free(gradient)
    gpu.alloc(9, stack=("a.py:5 main",))

    memory = remembered(snapshot, tmp_path)

    from tracelens.links.memory_categories import categorised

    found = categorised(memory, memory.lives).select("size_bytes", "category")
    assert dict(found.sort("size_bytes").iter_rows()) == {
        1: "parameters",
        2: "activations",
        3: "forward temporaries",
        4: "communication",
        5: "gradients",
        6: "backward temporaries",
        7: "optimizer state",
        8: "optimizer temporaries",
        9: None,
    }


def test_what_called_the_user_s_code_says_nothing_of_its_blocks(tmp_path: Path) -> None:
    snapshot = Snapshot()
    wrapper = "/x/site-packages/torch/nn/parallel/distributed.py:9 forward"
    snapshot.device().alloc(1, stack=("model.py:20 forward", wrapper, "train.py:3 main"))

    rows = table(remembered(snapshot, tmp_path), "live")

    assert [row["category"] for row in rows] == ["activations"]


def test_the_user_s_rules_come_first_and_the_first_of_them_wins(tmp_path: Path) -> None:
    rules = {"cache": r"model\.py:20", "all of the model": "model", "none": "nothing"}
    memory = remembered(training(steps=1), tmp_path, categories=rules, at="0")

    rows = column(memory, "categories", "category", "bytes")

    assert rows["all of the model"] == 4 * MIB
    in_forward = remembered(training(steps=1), tmp_path, categories=rules)
    sizes = column(in_forward, "largest", "bytes", "site")
    assert sizes[3 * MIB] == "model.py:20 forward"


def test_a_rule_that_is_no_regular_expression_is_refused(tmp_path: Path) -> None:
    memory = remembered(training(steps=1), tmp_path, categories={"x": "("})

    with pytest.raises(UsageError, match="--category x=\\(: this is no regular expression"):
        table(memory, "live")


def test_shares_of_categories_include_what_no_rule_fits(tmp_path: Path) -> None:
    snapshot = Snapshot()
    gpu = snapshot.device()
    gpu.alloc(3000, stack=("a.py:5 main",))
    gpu.alloc(1000, stack=FORWARD)

    rows = column(remembered(snapshot, tmp_path), "categories", "category", "share")

    assert rows == {None: 0.75, "activations": 0.25}


# largest, churn, leaks


def test_the_largest_allocations_bear_the_line_of_user_code(tmp_path: Path) -> None:
    snapshot = Snapshot()
    gpu = snapshot.device()
    library = "/x/lib/python3.12/site-packages/torch/nn/functional.py:7 gelu"
    for _ in range(3):
        gpu.alloc(5 * MIB, stack=(library, "/home/u/src/mlp.py:12 forward", "train.py:3 main"))
    gpu.alloc(9 * MIB, stack=("??:0 at::empty()", "<frozen_runpy>:88 _run_code"))

    rows = table(remembered(snapshot, tmp_path), "largest")

    assert [(r["bytes"], r["count"], r["site"], r["index"]) for r in rows] == [
        (9 * MIB, 1, "at::empty", 5),
        (5 * MIB, 3, "src/mlp.py:12 forward", 1),
    ]
    assert rows[1]["stack"][0] == library


def test_churn_counts_what_lives_short_and_what_it_took(tmp_path: Path) -> None:
    snapshot = Snapshot()
    gpu = snapshot.device()
    kept = gpu.alloc(2 * MIB, stack=("a.py:1 keep",))
    for _ in range(20):
        gpu.free(gpu.alloc(3 * MIB, stack=("a.py:2 churn",)))
    gpu.alloc(30 * MIB, stack=("a.py:3 late",))
    gpu.free(kept)

    (row,) = table(remembered(snapshot, tmp_path), "churn")

    assert row["site"] == "a.py:2 churn"
    assert (row["allocations"], row["bytes"]) == (20, 60 * MIB)
    assert row["share"] == pytest.approx(20 / 22)
    assert row["life_ns"] == 1000
    assert (row["segments"], row["segment_bytes"], row["peak_bytes"]) == (0, 0, 0)


def test_churn_says_which_segments_were_taken_for_it(tmp_path: Path) -> None:
    snapshot = Snapshot()
    gpu = snapshot.device()
    gpu.free(gpu.alloc(30 * MIB, stack=("a.py:2 churn",)))

    (row,) = table(remembered(snapshot, tmp_path), "churn")

    assert (row["segments"], row["segment_bytes"], row["peak_bytes"]) == (1, 30 * MIB, 30 * MIB)


def test_a_line_that_leaves_blocks_behind_step_by_step_leaks(tmp_path: Path) -> None:
    snapshot = Snapshot()
    gpu = snapshot.device()
    late: list[Any] = []
    for step in range(4):
        with snapshot.range(f"step {step}"):
            gpu.alloc(2 * MIB, stack=("a.py:7 remember",))
            if step == 0:
                gpu.alloc(9 * MIB, stack=STEP)
            for block in late:
                gpu.free(block)
            late = [gpu.alloc(MIB, stack=("a.py:8 double_buffer",))]

    rows = table(remembered(snapshot, tmp_path), "leaks")

    assert [(r["site"], r["grows"], r["steps"], r["bytes_per_step"]) for r in rows] == [
        ("a.py:7 remember", True, 3, 2 * MIB),
        ("train.py:10 main", False, 1, 9 * MIB),
    ]
    assert {r["steps_watched"] for r in rows} == {3}


def test_leaks_need_two_steps(tmp_path: Path) -> None:
    with pytest.raises(NothingToShowError, match="fewer than two steps"):
        table(remembered(training(steps=1), tmp_path), "leaks")


# out of memory, fragmentation, outside


@pytest.mark.parametrize(
    ("requested", "free", "unused", "said"),
    [
        (100, 10, 20, "real exhaustion"),
        (100, 10, 90, "fragmentation"),
        (100, 60, 60, "fragmentation"),
        (100, 100, 0, "process limit"),
        (100, None, 20, "cannot tell"),
        (100, None, 200, "fragmentation"),
        (100, 10, None, "real exhaustion"),
    ],
)
def test_the_verdict_of_an_out_of_memory_error(
    requested: int, free: int | None, unused: int | None, said: str
) -> None:
    assert verdict(requested, free, unused) == said


def test_an_out_of_memory_error_is_judged_by_the_state_it_met(tmp_path: Path) -> None:
    snapshot = Snapshot()
    gpu = snapshot.device()
    blocks = [gpu.alloc(8 * MIB, stack=FORWARD) for _ in range(4)]
    gpu.oom(20 * MIB, free=3 * MIB, stack=FORWARD)
    for block in blocks:
        gpu.free(block)
    for segment in list(gpu.segments):
        gpu.release(segment)

    (row,) = table(remembered(snapshot, tmp_path), "ooms")

    assert (row["active_bytes"], row["reserved_bytes"]) == (32 * MIB, 40 * MIB)
    assert (row["unused_bytes"], row["largest_free_bytes"]) == (8 * MIB, 4 * MIB)
    assert (row["requested_bytes"], row["free_bytes"]) == (20 * MIB, 3 * MIB)
    assert row["verdict"] == "real exhaustion"
    assert row["site"] == "model.py:20 forward"


def test_fragmentation_is_three_numbers(tmp_path: Path) -> None:
    snapshot = Snapshot()
    gpu = snapshot.device()
    blocks = [gpu.alloc(4 * MIB) for _ in range(10)]
    for block in (*blocks[:4:2], *blocks[5:]):
        gpu.free(block)
    gpu.oom(6 * MIB, free=0)

    rows = {r["at"]: r for r in table(remembered(snapshot, tmp_path), "fragmentation")}

    # Two segments of five blocks: of the first two are free, apart; the second is empty.
    row = rows["oom"]
    assert (row["reserved_bytes"], row["unused_bytes"]) == (40 * MIB, 28 * MIB)
    assert row["inactive_split_bytes"] == 8 * MIB
    assert (row["size_bytes"], row["stranded_bytes"]) == (6 * MIB, 8 * MIB)
    assert row["largest_free_bytes"] == 20 * MIB
    assert rows["peak"]["unused_bytes"] == 0


def test_what_is_outside_the_allocator_is_known_where_the_device_s_size_is(
    tmp_path: Path,
) -> None:
    snapshot = Snapshot()
    gpu = snapshot.device()
    gpu.alloc(20 * MIB)
    gpu.oom(MIB, free=1000)
    trace = open_trace(snapshot.write(tmp_path / "snapshot.pickle"), cache=False)
    sized = trace["devices"].with_columns(memory_bytes=pl.lit(100 * MIB, pl.Int64))
    trace.tables["devices"] = sized  # type: ignore[index]

    (row,) = table(remember(trace), "outside")

    assert row["outside_bytes"] == 80 * MIB - 1000


@pytest.mark.parametrize("fails", [True, False])
def test_what_is_outside_is_not_guessed(tmp_path: Path, *, fails: bool) -> None:
    snapshot = Snapshot()
    gpu = snapshot.device()
    gpu.alloc(20 * MIB)
    if fails:
        gpu.oom(MIB, free=1000)

    with pytest.raises(NothingToShowError, match=r"a snapshot (does not say|sees)"):
        table(remembered(snapshot, tmp_path), "outside")


# over time


def test_the_timeline_keeps_every_extreme(tmp_path: Path) -> None:
    snapshot = Snapshot()
    gpu = snapshot.device()
    blocks = []
    for n in range(700):
        blocks.append(gpu.alloc(1000 + n * 37 % 411))
        if n % 3 == 0:
            gpu.free(blocks.pop(n % len(blocks)))

    memory = remembered(snapshot, tmp_path)

    rows = table(memory, "timeline")
    kept = [r["active_bytes"] for r in rows]
    assert rows[0]["index"] is None
    assert len(rows) < memory.events.height
    assert max(kept) == memory.events["active_bytes"].max()
    assert [r["index"] for r in rows[1:]] == sorted({r["index"] for r in rows[1:]})
    assert rows[-1]["index"] == memory.events.height - 1


@pytest.mark.parametrize("group", ["stack", "phase"])
def test_what_was_live_over_time_adds_up_at_every_moment(tmp_path: Path, group: str) -> None:
    memory = remembered(training(steps=3), tmp_path, group=group)

    sums: dict[int | None, int] = {}
    for row in table(memory, "composition"):
        sums[row["index"]] = sums.get(row["index"], 0) + row["bytes"]

    held = {r["index"]: r["active_bytes"] for r in table(memory, "timeline")}
    assert sums == {index: size for index, size in held.items() if size}


# other recordings


def test_torch_profiler_s_events_are_attributed_to_phase_line_and_op(tmp_path: Path) -> None:
    trace = Profile()
    main = trace.thread("python3")
    main.annotation("forward", 10_000, 90_000)
    main.python("train.py(3): main", 5_000, 100_000)
    main.python("gpt.py(16): forward", 15_000, 80_000)
    main.op("aten::mm", 20_000, 60_000)
    main.memory(30_000, 4 * MIB, allocated=9 * MIB, reserved=20 * MIB, address=1 << 30)
    main.memory(40_000, 64, allocated=64, reserved=0, device=None)
    main.memory(95_000, -4 * MIB, allocated=5 * MIB, reserved=20 * MIB, address=1 << 30)

    memory = remembered(trace.write(tmp_path / "trace.json"))

    (device,) = table(memory, "devices")
    assert memory.kind == "totals"
    assert (device["events"], device["baseline_active_bytes"]) == (2, 5 * MIB)
    assert (device["peak_active_bytes"], device["peak_phase"]) == (9 * MIB, "forward")
    assert device["peak_reserved_bytes"] == 20 * MIB
    (row,) = table(memory, "largest")
    assert (row["bytes"], row["phase"], row["site"]) == (4 * MIB, "forward", "gpt.py:16 forward")
    assert row["stack"] == ["aten::mm", "gpt.py:16 forward", "train.py:3 main"]
    live = column(memory, "live", "category", "bytes")
    assert live == {
        "parameters/optimizer state (inferred)": 5 * MIB,
        "activations": 4 * MIB,
    }


def test_processes_on_one_device_add_up(tmp_path: Path) -> None:
    trace = Profile()
    for pid, base in ((100, 0), (200, 1000)):
        thread = trace.thread("python3", pid=pid)
        for n in range(1, 4):
            at = base + n * 10_000
            thread.memory(at, MIB, allocated=n * MIB, reserved=20 * MIB, address=n << 30)

    (device,) = table(remembered(trace.write(tmp_path / "trace.json")), "devices")

    assert (device["baseline_active_bytes"], device["peak_active_bytes"]) == (0, 6 * MIB)
    assert device["peak_reserved_bytes"] == 40 * MIB


def test_nsys_s_events_are_those_of_cuda_itself(tmp_path: Path) -> None:
    trace = Nsys()
    for n in range(3):
        trace.memory_usage(n * 1000, 20 * MIB, address=n << 30)
    trace.memory_usage(3000, 50 * MIB, address=1 << 40, kind="pinned")
    trace.memory_usage(4000, 20 * MIB, address=0, free=True)

    memory = remembered(trace.write(tmp_path / "run.sqlite"))

    (device,) = table(memory, "devices")
    assert memory.kind == "deltas"
    assert device["peak_active_bytes"] == 60 * MIB
    assert device["end_active_bytes"] == 40 * MIB
    with pytest.raises(NothingToShowError, match="snapshots only"):
        table(memory, "fragmentation")


def test_a_profiler_s_timeline_is_sums_by_category(tmp_path: Path) -> None:
    path = tmp_path / "timeline.json"
    sizes = [[0, 100, 0, 0, 0, 10 * n, 0, 0, 0] for n in (1, 3, 2)]
    path.write_text(json.dumps([[1000, 2000, 3000], sizes]), encoding="utf-8")

    memory = remembered(path)

    (device,) = table(memory, "devices")
    assert (device["peak_active_bytes"], device["peak_index"]) == (130, 1)
    assert column(memory, "live", "category", "bytes") == {"parameter": 100, "activation": 30}
    moments = [(r["index"], r["group"], r["bytes"]) for r in table(memory, "composition")]
    assert moments[:2] == [(0, "activation", 10), (0, "parameter", 100)]


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (Nsys(), "--cuda-memory-usage=true"),
        (Profile(), r"profile_memory=True"),
        (Snapshot(), "_record_memory_history"),
    ],
)
def test_a_recording_without_memory_says_how_to_record_it(
    tmp_path: Path, source: Any, says: str
) -> None:
    if isinstance(source, Snapshot):
        source.device()
    elif isinstance(source, Profile):
        source.thread("python3").op("aten::mm", 0, 10)
    path = source.write(tmp_path / ("x.sqlite" if isinstance(source, Nsys) else "x.json"))

    with pytest.raises(NothingToShowError, match=says):
        remembered(path)


@pytest.mark.corpus
def test_our_recordings_say_when_and_for_what_memory_peaked(corpus: Path) -> None:
    memory = remembered(corpus / "memory/gpt2-xl-ctx256-fp32-h200.pickle.gz")

    (device,) = table(memory, "devices")
    assert (device["peak_phase"], device["peak_step"]) == ("optimizer", 0)
    rows = column(memory, "categories", "category", "bytes")
    # 1,557,611,200 parameters of 4 bytes, and two moments of each; their gradients.
    assert rows["gradients"] > 6_000_000_000
    assert rows["parameters/optimizer state (inferred)"] == 19_709_697_024
    assert sum(rows.values()) == device["peak_active_bytes"] == 26_900_167_428


@pytest.mark.corpus
@pytest.mark.parametrize("name", ["oom-observer-h200", "oom-after-unwind-h200"])
def test_the_error_is_the_same_whenever_the_snapshot_was_taken(corpus: Path, name: str) -> None:
    (row,) = table(remembered(corpus / f"memory/{name}.pickle.gz"), "ooms")

    assert row["index"] == 342
    assert (row["requested_bytes"], row["active_bytes"]) == (33_554_432, 2_862_284_800)
    assert (row["reserved_bytes"], row["free_bytes"]) == (3_001_024_512, 146_390_777_856)
    assert row["largest_free_bytes"] < row["requested_bytes"] < row["unused_bytes"]
    assert row["verdict"] == "process limit"


@pytest.mark.corpus
def test_without_annotations_the_peaks_of_phases_are_nearly_the_same(corpus: Path) -> None:
    path = corpus / "memory/gpt2-xl-ctx256-fp32-h200.pickle.gz"
    trace = open_trace(path, cache=False)
    marked = remember(trace)
    del trace.tables["ranges"]  # type: ignore[attr-defined]
    unmarked = remember(trace)

    peaks = [column(m, "phases", "phase", "peak_active_bytes") for m in (marked, unmarked)]

    assert peaks[0]["optimizer"] == peaks[1]["optimizer"]
    assert peaks[0]["backward"] == peaks[1]["backward (inferred)"]
    assert peaks[1]["forward"] == pytest.approx(peaks[0]["forward"], rel=0.01)
