"""The timeline for Perfetto: valid JSON, slices that nest, arrows that hold, nothing lost."""

from __future__ import annotations

import gzip
import json
import math
from collections import Counter, defaultdict
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from tests.build import Nsys, training_step
from tests.exports.handmade import made, pytorch_step, snapshot
from tracelens.__main__ import run
from tracelens.cli.export import COMMAND
from tracelens.exports.perfetto import _in_lanes, write
from tracelens.links.linked import Cut, link
from tracelens.readers.open import open_trace

if TYPE_CHECKING:
    from pathlib import Path

    from tracelens.trace.model import Trace

Event = dict[str, Any]
DEEPEST = 512  # what Perfetto allows


def exported(trace: Nsys, folder: Path, cut: Cut | None = None) -> list[Event]:
    return exported_file(trace.write(folder / "run.sqlite"), folder, cut)


def exported_file(path: Path, folder: Path, cut: Cut | None = None) -> list[Event]:
    return drawn(open_trace(path, everything=True), folder, cut)


def drawn(trace: Trace, folder: Path, cut: Cut | None = None) -> list[Event]:
    out = folder / "out.json"
    write(link(trace, cut), out)
    text = out.read_text(encoding="utf-8")
    assert not any(ord(c) < 0x20 for c in text.replace("\n", ""))
    events: list[Event] = json.loads(text, parse_float=Decimal)["traceEvents"]
    return events


def slices(events: list[Event], *cats: str) -> list[Event]:
    return [e for e in events if e["ph"] == "X" and (not cats or e["cat"] in cats)]


def ns(us: Decimal | int) -> int:
    assert us * 1000 == int(us * 1000), f"{us} µs is no whole number of nanoseconds"
    return int(us * 1000)


def span(event: Event) -> tuple[int, int]:
    return ns(event["ts"]), ns(event["ts"]) + ns(event["dur"])


def track(event: Event) -> tuple[int, int]:
    return event["pid"], event["tid"]


def names_of_tracks(events: list[Event]) -> dict[tuple[int, int], str]:
    return {track(e): e["args"]["name"] for e in events if e["name"] == "thread_name"}


def counters(events: list[Event]) -> dict[tuple[str, str], list[tuple[int, int | Decimal]]]:
    """Return (process, name as Perfetto makes it) -> time and value of each sample."""
    processes = {e["pid"]: e["args"]["name"] for e in events if e["name"] == "process_name"}
    found = defaultdict(list)
    for event in events:
        if event["ph"] == "C":
            ((unit, value),) = event["args"].items()
            key = processes[event["pid"]], f"{event['name']} {unit}"
            found[key].append((ns(event["ts"]), value))
    return dict(found)


def check_as_perfetto_reads_it(events: list[Event]) -> None:
    """Import events by the rules of Perfetto's trace processor, of which there is no package.

    Events go in order of time, of slices that begin at once the longest first, then the ends of
    arrows. A slice that begins in another and ends after it is dropped there; an arrow binds to
    the slice that was opened last on its track. Here the first, and a wrong call, are failures.
    """
    stacks: dict[tuple[int, int], list[Event]] = defaultdict(list)
    arrows: dict[str, dict[int, Event]] = {"s": {}, "f": {}}
    timed = [e for e in events if e["ph"] != "M"]
    assert all(ns(e["ts"]) >= 0 and ns(e.get("dur", 0)) >= 0 for e in timed)
    timed = [e for e in timed if e["ph"] != "C"]
    for event in sorted(timed, key=lambda e: (e["ts"], -e["dur"] if "dur" in e else 1)):
        stack, now = stacks[track(event)], ns(event["ts"])
        if event["ph"] == "X":
            while stack and span(stack[-1])[1] <= now:
                stack.pop()
            assert not stack or span(event)[1] <= span(stack[-1])[1], (stack[-1], event)
            stack.append(event)
            assert len(stack) < DEEPEST
        else:
            assert stack, f"{event} is bound to nothing"
            assert event["id"] not in arrows[event["ph"]]
            arrows[event["ph"]][event["id"]] = stack[-1]
    assert arrows["s"].keys() == arrows["f"].keys()
    for number, call in arrows["s"].items():
        op = arrows["f"][number]
        assert call["cat"] == "api"
        assert call["args"]["correlation"] == op["args"]["correlation"]


def test_a_training_step_is_drawn_with_phases_names_and_arrows(tmp_path: Path) -> None:
    trace = Nsys()
    step = training_step(trace)
    trace.device(0, "NVIDIA H200")

    events = exported(trace, tmp_path)

    check_as_perfetto_reads_it(events)
    tracks = names_of_tracks(events)
    kernels = slices(events, "kernel")
    assert len(kernels) == 9
    assert Counter(e["args"]["phase"] for e in kernels) == {
        phase: n for phase, n in step.kernels.items() if n
    }
    assert {tracks[track(e)] for e in kernels} == {"stream 7, context 1"}
    assert {tracks[track(e)] for e in slices(events, "api", "range")} == {"python", "pt_autograd_0"}
    assert sum(ns(e["dur"]) for e in kernels) == 1710
    assert len([e for e in events if e["ph"] == "s"]) == 10
    processes = {e["args"]["name"] for e in events if e["name"] == "process_name"}
    assert processes == {"python 100", "GPU 0 NVIDIA H200"}
    phases = [(e["name"], *span(e)) for e in slices(events, "phase")]
    assert phases == [
        ("forward", 150, 900), ("backward", 900, 1_600), ("optimizer", 1_900, 2_250),
    ]  # fmt: skip


def test_an_arrow_begins_in_the_call_of_the_thread_that_launched(tmp_path: Path) -> None:
    trace = Nsys()
    training_step(trace)

    events = exported(trace, tmp_path)

    tracks = names_of_tracks(events)
    backward = {e["id"] for e in events if e["ph"] == "s" and tracks[track(e)] == "pt_autograd_0"}
    assert len(backward) == 3


def test_a_kernel_tells_its_shape_and_whole_name(tmp_path: Path) -> None:
    trace = Nsys()
    main = trace.thread("python")
    name = "void at::native::vectorized_elementwise_kernel<4, at::native::FillFunctor<float>>(int)"
    shape = {"gridX": 15, "blockX": 128, "registersPerThread": 40}
    main.kernel(name, at=0, run=(10, 30), columns=shape)
    main.copy(bytes=4096, at=40, run=(50, 60))

    kernel, copy = slices(exported(trace, tmp_path), "kernel", "copy")

    assert kernel["name"] != name
    assert kernel["args"]["name"] == name
    assert kernel["args"]["grid"] == "15 x 1 x 1"
    assert kernel["args"]["block"] == "128 x 1 x 1"
    assert kernel["args"]["registers"] == 40
    assert copy["args"]["bytes"] == 4096
    assert "grid" not in copy["args"]


def test_kernels_that_overlap_on_one_stream_stand_on_tracks_of_their_own(tmp_path: Path) -> None:
    trace = Nsys()
    main = trace.thread("python")
    for at, ran in enumerate(((10, 50), (20, 30), (40, 70), (60, 80), (80, 80), (81, 90))):
        main.kernel("k", at=at, run=ran)

    events = exported(trace, tmp_path)

    check_as_perfetto_reads_it(events)
    tracks = names_of_tracks(events)
    assert [tracks[track(e)] for e in sorted(slices(events, "kernel"), key=span)] == [
        "stream 7, context 1",
        "stream 7, context 1, overlapping (1)",
        "stream 7, context 1, overlapping (1)",
        "stream 7, context 1",
        "stream 7, context 1",
        "stream 7, context 1",
    ]


def test_ranges_that_cross_each_other_or_a_call_stand_on_tracks_of_their_own(
    tmp_path: Path,
) -> None:
    trace = Nsys()
    main = trace.thread("python")
    main.push("outer", 0, 100)
    main.push("crosses", 50, 150, kind="start_end")
    main.call("cudaMalloc_v3020", 90, 120)
    main.push("never closed", 200, None)

    events = exported(trace, tmp_path)

    check_as_perfetto_reads_it(events)
    assert Counter(e["name"] for e in slices(events, "range", "api")) == {
        "outer": 1, "crosses": 1, "cudaMalloc_v3020": 1, "never closed": 1,
    }  # fmt: skip
    (open_range,) = (e for e in slices(events) if e["name"] == "never closed")
    assert open_range["args"]["closed"] is False


def test_many_kernels_of_one_graph_launch_have_an_arrow_each(tmp_path: Path) -> None:
    trace = Nsys()
    main = trace.thread("python")
    number = main.call("cudaGraphLaunch_v10000", 0, 1)
    for node in range(3):
        trace.kernel_without_launch("k", (10 * node + 5, 10 * node + 10), correlation=number)
    trace.kernel_without_launch("lonely", (90, 95))

    events = exported(trace, tmp_path)

    check_as_perfetto_reads_it(events)
    assert len([e for e in events if e["ph"] == "f"]) == 3
    assert len(slices(events, "kernel")) == 4


def test_processes_on_one_gpu_and_equal_thread_ids_are_told_apart(tmp_path: Path) -> None:
    trace = Nsys()
    for pid in (100, 200):
        for tid in (pid, 300):
            thread = trace.thread("rank", pid=pid, tid=tid)
            thread.kernel("k", at=10 * tid, run=(10 * tid + 5, 10 * tid + 9))

    events = exported(trace, tmp_path)

    check_as_perfetto_reads_it(events)
    tids = [tid for _, tid in names_of_tracks(events)]
    assert len(tids) == len(set(tids))
    gpus = {e["args"]["name"] for e in events if e["name"] == "process_name"}
    assert {"GPU 0, used by rank 100", "GPU 0, used by rank 200"} <= gpus


@pytest.mark.parametrize("start", [-5_000, -1, 0, 1_700_000_000_123_456_789, 2**62])
def test_times_are_exact_wherever_the_clock_stands(tmp_path: Path, start: int) -> None:
    trace = Nsys()
    main = trace.thread("python")
    main.push("r", start, start + 1_001)
    main.kernel("k", at=start + 1, run=(start + 7, start + 7 + 999))

    events = exported(trace, tmp_path)

    check_as_perfetto_reads_it(events)
    (kernel,) = slices(events, "kernel")
    (outer,) = slices(events, "range")
    assert ns(kernel["ts"]) - ns(outer["ts"]) == 7
    assert ns(outer["ts"]) == max(start, 0)
    assert (ns(kernel["dur"]), ns(outer["dur"])) == (999, 1_001)


@given(text=st.text(max_size=40))
def test_any_name_gives_valid_json(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    text = text.encode("utf-8", "replace").decode()
    folder = tmp_path_factory.mktemp("named")
    trace = Nsys()
    main = trace.thread(text or "x")
    main.push(text, 0, 100, domain=f"d{text}", registered=True)
    main.kernel(text, at=10, run=(20, 30))

    events = exported(trace, folder)

    check_as_perfetto_reads_it(events)
    assert len(slices(events, "kernel", "range", "api")) == 3


def test_bytes_that_are_no_text_and_json_in_a_name_are_carried(tmp_path: Path) -> None:
    trace = Nsys()
    main = trace.thread("python")
    main.push(b'\xff\xfe"}],\x00', 0, 100, registered=True)
    main.push('"},{"ph":"X', 100, 200)
    main.kernel("back\\slash\n\ttab\x7f\u2028", at=210, run=(220, 230))

    events = exported(trace, tmp_path)

    assert '"},{"ph":"X' in {e["name"] for e in slices(events, "range")}
    assert len(slices(events, "kernel", "range", "api")) == 4


def test_a_cut_holds_what_was_launched_inside(tmp_path: Path) -> None:
    trace = Nsys()
    training_step(trace)

    events = exported(trace, tmp_path, Cut(within="backward"))

    check_as_perfetto_reads_it(events)
    assert len(slices(events, "kernel")) == 3
    assert {e["name"] for e in slices(events, "range")} == {"backward"}


def test_a_trace_of_ranges_alone_is_drawn_and_an_empty_one_is_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ranges, nothing = Nsys(), Nsys()
    ranges.thread("python").push("forward", 0, 10)
    nothing.thread("python")

    events = exported(ranges, tmp_path)
    empty = nothing.write(tmp_path / "empty.sqlite")
    status = run(["export", str(empty), "--to", "perfetto", "-o", str(tmp_path / "empty.json")])

    assert [e["name"] for e in slices(events)] == ["forward"]
    assert status == 4
    assert "holds no GPU work" in capsys.readouterr().err
    assert not (tmp_path / "empty.json").exists()


def test_a_name_that_ends_in_gz_is_packed(tmp_path: Path) -> None:
    trace = Nsys()
    training_step(trace)
    path = trace.write(tmp_path / "run.sqlite")
    out = tmp_path / "out.json.gz"

    done = CliRunner().invoke(COMMAND, [str(path), "--to", "perfetto", "-o", str(out)])

    assert done.exit_code == 0, done.output
    assert "https://ui.perfetto.dev" in done.output
    assert json.loads(gzip.decompress(out.read_bytes()))["traceEvents"]


intervals = st.lists(
    st.tuples(st.integers(0, 2), st.integers(-20, 60), st.integers(0, 15)), max_size=60
)


@given(intervals)
def test_on_a_lane_nothing_overlaps_and_no_lane_is_used_before_it_is_needed(
    drawn: list[tuple[int, int, int]],
) -> None:
    rows = [(key, start, start + took) for key, start, took in drawn]
    schema = {"key": pl.Int32, "start_ns": pl.Int64, "end_ns": pl.Int64}
    frame = pl.DataFrame(rows, schema=schema, orient="row").sort("start_ns", "end_ns")

    placed = _in_lanes(frame, ("key",))

    for _, lane in placed.group_by("key", "lane"):
        reached = lane["end_ns"].cum_max().shift()
        assert not (lane["start_ns"] < reached).any()
    for (key,), mine in placed.group_by("key"):
        solid = [(s, e) for k, s, e in rows if k == key and e > s]
        most = max((sum(s <= t < e for s, e in solid) for t, _ in solid), default=0)
        assert mine["lane"].max() <= max(most, 0)


def test_ops_stand_with_the_calls_they_make_and_python_frames_by_themselves(
    tmp_path: Path,
) -> None:
    events = drawn(pytorch_step(), tmp_path)

    check_as_perfetto_reads_it(events)
    names = names_of_tracks(events)
    tracks = {(e["name"], names[track(e)]) for e in slices(events, "range", "api")}
    assert tracks == {
        ("train.py(3): step", "python3, Python frames"),
        ("forward", "python3"), ("aten::mm", "python3"), ("cudaLaunchKernel", "python3"),
        ("cudaMemcpyAsync", "python3"), ("backward", "python3"),
        ("MmBackward0", "pt_autograd_0"), ("cuLaunchKernelEx", "pt_autograd_0"),
    }  # fmt: skip
    (op,) = (e for e in slices(events) if e["name"] == "aten::mm")
    assert op["args"] == {"kind": "op", "dims": "[[4, 8], [8, 2]]", "sequence": 7}
    order = [names[track(e)] for e in events if e["name"] == "thread_sort_index"]
    assert order[:3] == ["python3", "python3, Python frames", "pt_autograd_0"]


def test_a_frame_that_ends_inside_an_annotation_moves_nothing(tmp_path: Path) -> None:
    """The frame that closes a range ends after it, so that the two cross."""
    thread = {"pid": 100, "tid": 100}
    trace = made(
        ranges=[
            {**thread, "kind": "annotation", "start_ns": 10, "end_ns": 50, "name": "forward"},
            {**thread, "kind": "python", "start_ns": 40, "end_ns": 60, "name": "__exit__"},
            {**thread, "kind": "op", "start_ns": 20, "end_ns": 30, "name": "aten::mm"},
        ]
    )

    events = drawn(trace, tmp_path)

    check_as_perfetto_reads_it(events)
    assert set(names_of_tracks(events).values()) == {"thread 100", "thread 100, Python frames"}


def test_memory_is_drawn_as_the_recorder_counted_it(tmp_path: Path) -> None:
    events = drawn(pytorch_step(), tmp_path)

    assert counters(events) == {
        ("GPU 0 NVIDIA H200", "allocated bytes"): [(12, 1_064), (35, 1_000)],
        ("GPU 0 NVIDIA H200", "reserved bytes"): [(12, 2_048)],
    }


def test_memory_is_added_up_where_the_recorder_did_not(tmp_path: Path) -> None:
    trace = Nsys()
    training_step(trace)
    trace.memory_usage(5, 1_024, 0x1000)
    trace.memory_usage(7, 512, 0x2000)
    trace.memory_usage(8, 4_096, 0x9000, kind="pinned")
    trace.memory_usage(9, 1_024, 0x1000, free=True)
    trace.memory_usage(9, 64, 0x1000, device=1)

    events = exported(trace, tmp_path)

    assert counters(events) == {
        ("GPU 0", "allocated bytes"): [(5, 1_024), (7, 1_536), (9, 512)],
        ("GPU 1", "allocated bytes"): [(9, 64)],
    }


def test_a_snapshot_is_drawn_from_what_was_there_before_it(tmp_path: Path) -> None:
    events = drawn(snapshot(), tmp_path)

    check_as_perfetto_reads_it(events)
    start = 1_790_857_026_000_000_000
    assert counters(events) == {
        ("GPU 0", "allocated bytes"): [(start, 0), (start + 1, 512), (start + 2, 612),
                                       (start + 4, 512)],
        ("GPU 0", "reserved bytes"): [(start, 2_048)],
    }  # fmt: skip


def test_metrics_are_counters_of_their_gpu(tmp_path: Path) -> None:
    trace = Nsys()
    training_step(trace)
    trace.device(0, "NVIDIA H200")
    for at, active in ((7, 80), (9, 100)):
        trace.gpu_metric("SM Active [%]", at, active)
    trace.gpu_metric("Clock", 7, 1_980, device=1)

    events = exported(trace, tmp_path)

    assert counters(events) == {
        ("GPU 0 NVIDIA H200, used by python 100", "SM Active [%]"): [(7, 80), (9, 100)],
        ("GPU 1, used by process unknown", "Clock value"): [(7, 1_980)],
    }


def test_samples_are_cut_as_the_work_is(tmp_path: Path) -> None:
    trace = Nsys()
    training_step(trace)
    for at in (50, 600, 5_000):
        trace.gpu_metric("SM Active [%]", at, at)
        trace.gpu_metric("SM Active [%]", at, at, device=1)
        trace.memory_usage(at, 1_024, at)

    events = exported(trace, tmp_path, Cut(within="backward"))

    assert counters(events) == {
        ("GPU 0", "allocated bytes"): [(600, 2_048)],
        ("GPU 0", "SM Active [%]"): [(600, 600)],
    }


@given(st.floats(), st.text(max_size=20))
def test_any_sample_gives_valid_json(
    tmp_path_factory: pytest.TempPathFactory, value: float, name: str
) -> None:
    name = name.encode("utf-8", "replace").decode()
    sample = {"device": 0, "name": name, "value": value}
    work = {"kind": "kernel", "pid": 1, "device": 0, "start_ns": 0, "end_ns": 5, "name": "k"}
    trace = made(gpu_ops=[work], counters=[{**sample, "time_ns": 3}])

    found = counters(drawn(trace, tmp_path_factory.mktemp("sampled")))

    assert [float(v) for ((_, v),) in found.values()] == [value] * math.isfinite(value)


@pytest.mark.corpus
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["nsys", "kineto", "memory", "multirank"])
def test_real_recordings_are_drawn_whole(corpus: Path, tmp_path: Path, kind: str) -> None:
    for path in sorted(file for file in (corpus / kind).rglob("*") if file.is_file()):
        trace = open_trace(path)
        events = exported_file(path, tmp_path)

        check_as_perfetto_reads_it(events)
        drawn = slices(events, "kernel", "copy", "memset", "graph")
        took = (pl.col("end_ns") - pl.col("start_ns")).alias("took")
        for found, table in (
            (drawn, "gpu_ops"),
            (slices(events, "range"), "ranges"),
            (slices(events, "api"), "api"),
        ):
            frame = trace.get(table)
            rows = (0, 0) if frame is None else frame.select(pl.len(), took.sum()).collect().row(0)
            assert (len(found), sum(ns(e["dur"]) for e in found)) == rows, (path.name, table)
