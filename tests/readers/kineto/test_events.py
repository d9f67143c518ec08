"""What is GPU work and what only looks like it, who launched it, and what is told of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from tests.asking import Shell, linked, phase_of, table, the_row
from tests.kineto import Event, Profile, Raw, training_step
from tests.readers.kineto.reading import a_step, forwards, launchers, opened, rows, said, story
from tracelens.readers.open import open_trace
from tracelens.trace.store import flush

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tracelens.trace.model import Trace


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    """Give a shell to run commands in."""
    return Shell(capsys)


def one_kernel() -> Profile:
    trace = Profile()
    trace.thread("python3").kernel("gemm", at=5_000, run=(20_000, 40_000))
    return trace


# --- GPU work -------------------------------------------------------------------------------------

LOOKALIKES: dict[str, Callable[[Profile], object]] = {
    "the shadow of an annotation": lambda t: t.add(
        "gpu_user_annotation", "forward", (0, 7), (19_999, 40_001), {"External id": 1}
    ),
    "a stream that waits": lambda t: t.thread("python3").sync(50_000, 60_000, (40_000, 70_000)),
    "an event on a stream": lambda t: t.add(
        "cuda_event", "cudaEventRecord", (0, 7), (45_000, 46_000),
        {"device": 0, "stream": 7, "correlation": 99, "event_id": 3},
    ),
    "an op with a stream": lambda t: t.thread("python3").op(
        "aten::record_stream", 0, 90_000, args={"stream": 7, "device": 0, "correlation": 1_001}
    ),
    "an op named like a kernel": lambda t: t.thread("python3").op("ampere_sgemm", 0, 90_000),
    "a Python frame named kernel": lambda t: t.thread("python3").python("kernel", 0, 90_000),
    "a call of the profiler": lambda t: t.add(
        "overhead", "Activity Buffer Request", (-1, 0), (0, 90_000_000), None
    ),
    "a range of the profiler": lambda t: t.add(
        "cuda_profiler_range", "metrics", (0, 7), (0, 90_000), {"device": 0, "stream": 7}
    ),
    "the span of an iteration": lambda t: t.add(
        "Trace", "PyTorch Profiler (1)", ("Spans", "x"), (0, 90_000_000), {"Op count": 0}
    ),
    "a summary of collectives": lambda t: t.add(
        "collective_comm", "nccl:all_reduce", (0, 7), (0, 90_000), {"stream": 7, "device": 0}
    ),
    "a sample of a counter": lambda t: t.put(
        {"ph": "C", "cat": "hardware_counters", "name": "sm__cycles_active", "pid": 0, "tid": 7,
         "ts": 30_000, "args": {"value": 17.5}}
    ),
    "a category without a meaning": lambda t: t.add(
        "somebody_elses", "work", (0, 7), (50_000, 60_000), {"device": 0, "stream": 7}
    ),
    "an event without a category": lambda t: t.put(
        {"ph": "X", "name": "gemm", "pid": 0, "tid": 7, "ts": 50_000, "dur": 10_000}
    ),
    "the beginning of a kernel": lambda t: t.put(
        {"ph": "B", "cat": "kernel", "name": "gemm", "pid": 0, "tid": 7, "ts": 50_000}
    ),
    "an arrow": lambda t: t.put(
        {"ph": "f", "id": 1_001, "cat": "kernel", "name": "gemm", "pid": 0, "tid": 7,
         "ts": 50_000, "bp": "e"}
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", LOOKALIKES)
def test_what_looks_like_gpu_work_is_none(tmp_path: Path, what: str) -> None:
    trace = one_kernel()
    LOOKALIKES[what](trace)

    of = linked(trace.write(tmp_path / "trace.json"))

    totals = the_row(of, "totals")
    assert (totals["kernels"], totals["kernel_time_ns"]) == (1, 20_000)
    assert (totals["busy_ns"], totals["span_ns"]) == (20_000, 20_000)
    assert table(of, "memsets") == table(of, "copies") == [] or totals["copies"] == 0
    assert said(of.trace, "damaged", "lost") == []


@pytest.mark.parametrize(
    "name", ["kernel", "Kernel", "Memcpy HtoD", "aten::mm", "cudaLaunchKernel", "[memory]",
             "ProfilerStep#3", "forward", "Trace", "stream 7"],
)  # fmt: skip
def test_a_kernel_may_have_any_name(tmp_path: Path, name: str) -> None:
    trace = Profile()
    trace.thread("python3").kernel(name, at=5_000, run=(20_000, 40_000))

    found = opened(trace, tmp_path)

    assert rows(found, "gpu_ops", "kind", "name", "copy_kind") == [("kernel", name, None)]
    assert "ranges" not in found or rows(found, "ranges", "name") == []


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("Memcpy HtoD (Pinned -> Device)", "HtoD"),
        ("Memcpy HtoD (Pageable -> Device)", "HtoD"),
        ("Memcpy DtoH (Device -> Pageable)", "DtoH"),
        ("Memcpy DtoD (Device -> Device)", "DtoD"),
        ("Memcpy HtoH (Pinned -> Pinned)", "HtoH"),
        ("Memcpy PtoP (Device -> Device)", "PtoP"),
        ("Memcpy HtoD (Host -> Device)", "HtoD"),
        ("CopyHostToDevice", "HtoD"),
        ("CopyDeviceToDevice", "DtoD"),
        ("Memcpy <unknown> (? -> ?)", "unknown"),
        ("what is this", "unknown"),
    ],
)
def test_a_copy_has_its_direction_and_size(tmp_path: Path, name: str, kind: str) -> None:
    trace = Profile()
    copy = trace.thread("python3").copy(at=5_000, run=(20_000, 40_000), bytes=1 << 33)
    copy.fields["name"] = name

    found = opened(trace, tmp_path)

    assert rows(found, "gpu_ops", "kind", "copy_kind", "bytes", "name") == [
        ("copy", kind, 1 << 33, name)
    ]


def test_a_copy_between_gpus_is_on_the_one_that_it_runs_on(tmp_path: Path) -> None:
    trace = Profile()
    copy = trace.thread("python3").copy(at=5_000, run=(20_000, 40_000), bytes=512, kind="PtoP")
    copy.fields["pid"] = 1
    args = copy.fields["args"]
    for key in ("device", "context"):
        del args[key]
    args |= {"fromDevice": 0, "inDevice": 1, "toDevice": 1, "fromContext": 1, "inContext": 2,
             "toContext": 2}  # fmt: skip

    assert rows(opened(trace, tmp_path), "gpu_ops", "device", "copy_kind") == [(1, "PtoP")]


def test_a_memset_has_its_size(tmp_path: Path) -> None:
    trace = Profile()
    trace.thread("python3").memset(at=5_000, run=(20_000, 20_000), bytes=128)

    assert rows(opened(trace, tmp_path), "gpu_ops", "kind", "bytes", "copy_kind") == [
        ("memset", 128, None)
    ]


def test_the_device_is_what_the_args_say(tmp_path: Path) -> None:
    """The pid of a GPU event is a row of the picture, and nothing else."""
    trace = Profile()
    kernel = trace.thread("python3").kernel("k", at=0, run=(10_000, 20_000), device=3)
    kernel.fields["pid"] = 0

    assert rows(opened(trace, tmp_path), "gpu_ops", "device", "pid") == [(3, 100)]


def test_overlaps_on_one_stream_are_kept(tmp_path: Path) -> None:
    """On Hopper and Blackwell a kernel begins before the one before it has ended."""
    trace = Profile()
    main = trace.thread("python3")
    for number in range(100):
        main.kernel("k", at=number * 1_000, run=(number * 10_000, number * 10_000 + 12_000))

    of = linked(trace.write(tmp_path / "trace.json"))

    totals = the_row(of, "totals")
    assert (totals["kernels"], totals["kernel_time_ns"]) == (100, 1_200_000)
    assert totals["busy_ns"] == 1_002_000
    assert said(of.trace, "damaged", "lost") == []


def test_kernels_of_no_time_are_kept(tmp_path: Path) -> None:
    """In whole microseconds, many a kernel took none."""
    trace = Profile("2023-06")
    main = trace.thread("python3")
    for number in range(5):
        main.kernel("k", at=number * 1_000, run=(9_000 + 300 * number, 9_700 + 300 * number))

    found = opened(trace, tmp_path)

    assert {end - start for start, end in rows(found, "gpu_ops", "start_ns", "end_ns")} == {0}
    assert len(rows(found, "gpu_ops", "op_id")) == 5


def test_a_kernel_has_its_shape_on_request(tmp_path: Path) -> None:
    path = one_kernel().write(tmp_path / "trace.json")
    found = open_trace(path, everything=True, cache=False)

    shape = ("grid_x", "grid_y", "grid_z", "block_x", "block_y", "block_z", "registers",
             "shared_bytes")  # fmt: skip
    assert rows(found, "gpu_ops", *shape) == [(4, 64, 1, 128, 1, 1, 128, 13_056)]


# --- Processes and launches -----------------------------------------------------------------------


def test_work_belongs_to_the_process_that_launched_it(tmp_path: Path) -> None:
    """Correlations are unique in a process only; files of several ranks are merged by programs."""
    trace = Profile()
    for pid, device in ((100, 0), (200, 1)):
        main = trace.thread("python3", pid=pid)
        main.annotation("forward" if pid == 100 else "backward", 0, 50_000)
        main.kernel(f"of {pid}", at=5_000, run=(20_000, 20_000 + pid), device=device)
        main.kernel(f"also of {pid}", at=6_000, run=(30_000, 31_000), device=device,
                    correlation=pid)  # fmt: skip

    of = linked(trace.write(tmp_path / "trace.json"))

    assert dict(rows(of.trace, "gpu_ops", "name", "pid")) == {
        "of 100": 100, "also of 100": 100, "of 200": 200, "also of 200": 200,
    }  # fmt: skip
    assert phase_of(of) == {
        "of 100": ("forward", "own_thread"),
        "also of 100": ("forward", "own_thread"),
        "of 200": ("backward", "own_thread"),
        "also of 200": ("backward", "own_thread"),
    }


def test_work_that_may_be_of_either_process_is_of_none_and_counted(tmp_path: Path) -> None:
    trace = Profile()
    for pid, device in ((100, 0), (200, 1)):
        main = trace.thread("python3", pid=pid)
        main.annotation("forward", 0, 50_000)
        main.kernel(f"of {pid}", at=5_000, run=(20_000, 20_000 + pid), device=device)

    of = linked(trace.write(tmp_path / "trace.json"))

    assert rows(of.trace, "gpu_ops", "pid") == [(None,), (None,)]
    assert the_row(of, "totals")["kernel_time_ns"] == 300
    assert any("2 GPU ops" in text and "process" in text for text in said(of.trace))


def test_a_process_may_have_the_number_of_a_gpu(tmp_path: Path) -> None:
    """In a container the training program is process 1, as the second GPU is."""
    trace = Profile()
    main = trace.thread("python3", pid=1)
    main.annotation("forward", 0, 50_000)
    for device in (0, 1):
        main.kernel(f"on {device}", at=5_000, run=(20_000, 30_000), device=device)

    of = linked(trace.write(tmp_path / "trace.json"))

    assert rows(of.trace, "gpu_ops", "name", "device", "pid") == [("on 0", 0, 1), ("on 1", 1, 1)]
    assert rows(of.trace, "threads", "pid", "name") == [(1, "python3")]
    assert {phase for phase, _ in phase_of(of).values()} == {"forward"}


def test_kernels_launched_before_the_recording_are_of_the_process(tmp_path: Path) -> None:
    """Those of the warm-up come without a call: half of them in some traces."""
    trace = a_step()
    for number in range(5):
        trace.kernel("warm", (number * 100, number * 100 + 50), correlation=5 + number)

    of = linked(trace.write(tmp_path / "trace.json"))

    assert {pid for (pid,) in rows(of.trace, "gpu_ops", "pid")} == {100}
    assert of.coverage()["unlinked"] + of.coverage()["inferred"] == 5
    assert the_row(of, "totals")["kernels"] == 14


def test_a_kernel_of_the_warm_up_is_of_the_process_that_works_on_its_gpu(tmp_path: Path) -> None:
    trace = Profile()
    for pid, device in ((100, 0), (200, 1)):
        main = trace.thread("python3", pid=pid)
        main.kernel("k", at=5_000, run=(20_000, 30_000), device=device, correlation=pid)
    trace.kernel("warm", (1_000, 2_000), correlation=7, device=1)

    found = opened(trace, tmp_path)

    assert ("warm", 200) in rows(found, "gpu_ops", "name", "pid")


def test_all_kernels_of_a_graph_were_launched_by_one_call(tmp_path: Path) -> None:
    trace = Profile()
    main = trace.thread("python3")
    main.annotation("forward", 0, 40_000)
    main.annotation("backward", 40_000, 90_000)
    main.graph([(f"node {n}", 50_000 + 100 * n, 50_090 + 100 * n) for n in range(500)], at=5_000)

    of = linked(trace.write(tmp_path / "trace.json"))

    assert {phase for phase, _ in phase_of(of).values()} == {"forward"}
    assert of.ops["launch_row"].n_unique() == 1
    assert len(rows(of.trace, "api", "name")) == 1
    assert the_row(of, "totals")["graph_launches"] == 0


def test_nodes_of_a_graph_have_their_numbers(tmp_path: Path) -> None:
    trace = Profile()
    args = {"graph id": 3, "graph node id": 12_884_901_893}
    trace.thread("python3").kernel("k", at=0, run=(10_000, 20_000), args=args)
    trace.thread("python3").kernel("other", at=1_000, run=(20_000, 30_000))

    assert rows(opened(trace, tmp_path), "gpu_ops", "graph_id", "graph_node") == [
        (3, 12_884_901_893),
        (None, None),
    ]


def test_calls_of_the_driver_launch_as_those_of_the_runtime_do(tmp_path: Path) -> None:
    """Triton's and CUTLASS's kernels are launched by cuLaunchKernel, inside of no runtime call."""
    trace = Profile()
    main = trace.thread("python3")
    main.annotation("forward", 0, 50_000)
    main.kernel("triton_poi_fused_0", at=5_000, run=(20_000, 30_000), driver=True)

    of = linked(trace.write(tmp_path / "trace.json"))

    assert rows(of.trace, "api", "name", "tid") == [("cuLaunchKernelEx", 100)]
    assert phase_of(of) == {"triton_poi_fused_0": ("forward", "own_thread")}


def test_the_op_that_the_trace_names_is_kept(tmp_path: Path) -> None:
    trace = Profile()
    main = trace.thread("python3")
    main.op("aten::linear", 0, 90_000)
    main.op("aten::addmm", 10_000, 50_000)
    main.kernel("gemm", at=20_000, run=(30_000, 40_000))
    main.kernel("bias", at=60_000, run=(70_000, 80_000))
    main.kernel("alone", at=99_000, run=(100_000, 110_000))

    found = opened(trace, tmp_path)

    assert launchers(found) == [("bias", "aten::linear"), ("gemm", "aten::addmm")]


def test_an_id_that_two_processes_share_names_the_op_of_its_own(tmp_path: Path) -> None:
    trace = Profile()
    for pid in (100, 200):
        main = trace.thread("python3", pid=pid)
        op = main.op(f"op of {pid}", 0, 50_000)
        op.fields["args"]["External id"] = 7
        main.kernel(f"kernel of {pid}", at=5_000, run=(20_000, 30_000), device=pid // 200)

    found = opened(trace, tmp_path)

    assert launchers(found) in (
        [],
        [("kernel of 100", "op of 100"), ("kernel of 200", "op of 200")],
    )


def test_a_kernel_counts_where_it_was_launched_not_where_it_ran(tmp_path: Path) -> None:
    trace = Profile()
    step = training_step(trace)

    of = linked(trace.write(tmp_path / "trace.json"))

    phases = {row["phase"]: row["kernel_time_ns"] for row in table(of, "phases")}
    assert {phase: phases.get(phase, 0) for phase in step.kernel_time_ns} == step.kernel_time_ns
    assert of.coverage()["same_process"] == 3  # launched by autograd


# --- Ops, annotations and Python ------------------------------------------------------------------


def test_ops_annotations_and_frames_are_ranges_of_their_thread(tmp_path: Path) -> None:
    trace = Profile()
    main = trace.thread("python3", pid=100, tid=104)
    main.python("train.py(7): main", 0, 100_000)
    main.annotation("forward", 10_000, 90_000)
    main.python("nn.Module: Linear_0", 20_000, 80_000, parent=1, module=0)
    main.op("aten::linear", 30_000, 70_000)
    main.op("aten::addmm", 40_000, 60_000)
    trace.thread("loader", tid=105).op("aten::stack", 45_000, 50_000)

    found = opened(trace, tmp_path)

    about = ("name", "kind", "pid", "tid", "depth", "closed", "start_ns", "end_ns")
    assert rows(found, "ranges", *about, of=trace) == [
        ("train.py(7): main", "python", 100, 104, 0, True, 0, 100_000),
        ("forward", "annotation", 100, 104, 1, True, 10_000, 90_000),
        ("nn.Module: Linear_0", "python", 100, 104, 2, True, 20_000, 80_000),
        ("aten::linear", "op", 100, 104, 3, True, 30_000, 70_000),
        ("aten::addmm", "op", 100, 104, 4, True, 40_000, 60_000),
        ("aten::stack", "op", 100, 105, 0, True, 45_000, 50_000),
    ]


def test_of_two_ranges_that_begin_together_the_longer_encloses_the_other(tmp_path: Path) -> None:
    trace = Profile("2023-06")  # in whole microseconds many begin together
    main = trace.thread("python3")
    for number in range(20):
        at = 100_000 * number
        main.op(f"inner {number}", at, at + 50_000)
        main.op(f"outer {number}", at, at + 90_000)

    found = opened(trace, tmp_path)

    names = {name.split()[0]: depth for name, depth in rows(found, "ranges", "name", "depth")}
    assert names == {"outer": 0, "inner": 1}


def test_an_op_has_its_shapes_types_and_numbers(tmp_path: Path) -> None:
    trace = Profile()
    main = trace.thread("python3")
    main.op("aten::addmm", 0, 10_000, seq=17, dims=[[50257], [512, 768], [768, 50257], [], []],
            types=["float", "c10::BFloat16", "c10::BFloat16", "Scalar", "Scalar"],
            inputs=["", "", "", "1", "1"])  # fmt: skip
    main.op(
        "aten::cat", 20_000, 30_000, dims=[[[4, 8], [4, 8]], []], types=["TensorList", "Scalar"]
    )
    main.op("aten::empty", 40_000, 50_000)

    found = opened(trace, tmp_path)
    frame = found["ops"].join(found["ranges"], on="range_id").sort("start_ns").collect().to_dicts()

    ops: list[dict[str, Any]] = list(frame)
    assert [op["sequence"] for op in ops] == [17, None, None]
    assert [json.loads(op["dims"] or "[]") for op in ops] == [
        [[50257], [512, 768], [768, 50257], [], []], [[[4, 8], [4, 8]], []], [],
    ]  # fmt: skip
    assert [json.loads(op["types"] or "[]") for op in ops[:2]] == [
        ["float", "c10::BFloat16", "c10::BFloat16", "Scalar", "Scalar"],
        ["TensorList", "Scalar"],
    ]
    assert [op["external_id"] for op in ops] == [1, 2, 3]
    assert "launched_by" not in found or rows(found, "launched_by", "op_id") == []


def backward_of(trace: Profile, *, flows: bool) -> None:
    """Add two ops on the main thread, and their gradients on that of autograd."""
    main, autograd = trace.thread("python3"), trace.thread("pt_autograd_0", tid=101)
    mm = main.op("aten::mm", 0, 10_000, seq=5)
    relu = main.op("aten::relu", 20_000, 30_000, seq=6)
    for number, forward in ((6, relu), (5, mm)):
        at = 100_000 - 10_000 * number
        name = {5: "MmBackward0", 6: "ReluBackward0"}[number]
        whole = f"autograd::engine::evaluate_function: {name}"
        autograd.op(whole, at, at + 9_000, seq=number, fwd_thread=1)
        backward = autograd.op(name, at + 1_000, at + 8_000, seq=number, fwd_thread=1)
        autograd.op("aten::mm", at + 2_000, at + 3_000)
        if flows:
            trace.flow(forward, backward)


@pytest.mark.parametrize("flows", [True, False])
def test_an_op_that_computes_a_gradient_knows_whose(tmp_path: Path, *, flows: bool) -> None:
    """By the arrow between them, or by their sequence numbers where no arrows were written."""
    trace = Profile()
    backward_of(trace, flows=flows)

    found = forwards(opened(trace, tmp_path))

    whole = "autograd::engine::evaluate_function: "
    pairs = {(name.removeprefix(whole), of) for name, of in found}
    assert pairs == {("MmBackward0", "aten::mm"), ("ReluBackward0", "aten::relu")}


def test_a_gradient_is_of_the_forward_op_with_its_number_not_of_the_first(tmp_path: Path) -> None:
    """The ops inside of linear share its number as long as none of them needs a gradient."""
    trace = Profile()
    main, autograd = trace.thread("python3"), trace.thread("pt_autograd_0", tid=101)
    main.op("aten::linear", 0, 50_000, seq=5)
    main.op("aten::t", 10_000, 20_000, seq=5)
    addmm = main.op("aten::addmm", 30_000, 40_000, seq=6)
    backward = autograd.op("AddmmBackward0", 90_000, 95_000, seq=6, fwd_thread=1)
    trace.flow(addmm, backward)

    assert forwards(opened(trace, tmp_path)) == [("AddmmBackward0", "aten::addmm")]


def test_the_numbers_of_arrows_and_of_launches_are_not_the_same_numbers(tmp_path: Path) -> None:
    trace = Profile()
    main, autograd = trace.thread("python3"), trace.thread("pt_autograd_0", tid=101)
    forward = main.op("aten::mm", 0, 10_000, seq=2)
    main.kernel("k", at=5_000, run=(20_000, 30_000), correlation=1)
    backward = autograd.op("MmBackward0", 50_000, 60_000, seq=2, fwd_thread=1)
    autograd.kernel("l", at=55_000, run=(70_000, 80_000), correlation=2)
    trace.flow(forward, backward)

    of = linked(trace.write(tmp_path / "trace.json"))

    assert forwards(of.trace) == [("MmBackward0", "aten::mm")]
    assert of.coverage()["unlinked"] == 0


def test_an_arrow_with_one_end_leads_nowhere(tmp_path: Path) -> None:
    trace = a_step()
    whole = forwards(opened(trace, tmp_path))
    for number in (77, 78):
        trace.put({"ph": "f", "id": number, "pid": 100, "tid": 101, "ts": 900_000,
                   "cat": "fwdbwd", "name": "fwdbwd", "bp": "e"})  # fmt: skip

    assert forwards(opened(trace, tmp_path)) == whole
    assert len(whole) >= 3


# --- Threads, GPUs and what is not there ----------------------------------------------------------


def test_a_thread_has_the_last_name_that_it_was_given(tmp_path: Path) -> None:
    trace = Profile()
    for name in ("python3", "pt_autograd_0"):
        trace.thread(name, tid=506).op("aten::mm", 0, 10_000)
    trace.thread("python3", tid=100).kernel("k", at=0, run=(10_000, 20_000))

    assert sorted(rows(opened(trace, tmp_path), "threads", "pid", "tid", "name")) == [
        (100, 100, "python3"),
        (100, 506, "pt_autograd_0"),
    ]


@pytest.mark.parametrize("tid", [-834_567_872, 4_129_000_960, 2**31, 140_341_814_493_184])
def test_threads_with_strange_numbers_are_threads(tmp_path: Path, tid: int) -> None:
    """Without a system's number, Kineto takes part of the pthread's: any 32 bits of it."""
    trace = Profile()
    strange, main = trace.thread("worker", tid=tid), trace.thread("python3")
    main.annotation("backward", 0, 90_000)
    strange.annotation("forward", 0, 90_000)
    strange.kernel("k", at=5_000, run=(20_000, 30_000))
    main.kernel("l", at=6_000, run=(30_000, 40_000))

    of = linked(trace.write(tmp_path / "trace.json"))

    assert phase_of(of) == {"k": ("forward", "own_thread"), "l": ("backward", "own_thread")}
    assert {name for (name,) in rows(of.trace, "threads", "name")} == {"worker", "python3"}


def test_a_gpu_has_its_name_and_size(tmp_path: Path) -> None:
    trace = a_step()
    trace.device(0)
    trace.device(1, "NVIDIA A100-SXM4-40GB", sm=108, capability=(8, 0), memory=42_298_834_944)

    found = opened(trace, tmp_path)

    about = ("device", "name", "sm_count", "capability", "memory_bytes")
    assert rows(found, "devices", *about) == [
        (0, "NVIDIA H200", 132, "9.0", 150_109_880_320),
        (1, "NVIDIA A100-SXM4-40GB", 108, "8.0", 42_298_834_944),
    ]


def test_a_trace_of_the_cpu_alone_says_so(tmp_path: Path, shell: Shell) -> None:
    trace = Profile()
    main = trace.thread("python3")
    main.annotation("forward", 0, 90_000)
    main.op("aten::mm", 10_000, 20_000)

    said = shell("summarize", trace.write(tmp_path / "trace.json"), "--format", "json")

    assert said.status in (0, 4)
    if said.status == 0:
        assert said.json["tables"]["totals"][0]["kernels"] == 0
        assert said.json["warnings"] or said.json["left_out"]
    else:
        assert "GPU" in said.err or "kernel" in said.err


def test_a_trace_of_the_gpu_alone_has_no_ranges(tmp_path: Path) -> None:
    trace = Profile()
    for number in range(3):
        trace.thread("python3").kernel("k", at=number, run=(number, number + 5), external=None)

    found = opened(trace, tmp_path)

    assert "ranges" not in found
    assert "ops" not in found
    assert "memory" not in found
    assert len(rows(found, "gpu_ops", "op_id")) == 3


# --- Memory ---------------------------------------------------------------------------------------


def test_the_allocators_events_are_told_in_order(tmp_path: Path) -> None:
    trace = Profile()
    main, autograd = trace.thread("python3"), trace.thread("pt_autograd_0", tid=101)
    autograd.memory(30_000, -512, allocated=1_024, reserved=1 << 21, address=0x7000)
    main.memory(10_000, 512, allocated=1_536, reserved=1 << 21, address=0x7000)
    main.memory(20_000, 256, allocated=256, reserved=0, device=None, address=0x5000)
    main.memory(40_000, 64, allocated=64, reserved=1 << 20, device=3, address=2**64 - 8)

    found = opened(trace, tmp_path)

    about = ("time_ns", "action", "size_bytes", "device", "memory_kind", "allocated_bytes",
             "reserved_bytes", "pid", "tid", "address")  # fmt: skip
    assert rows(found, "memory", *about, of=trace) == [
        (10_000, "alloc", 512, 0, "device", 1_536, 1 << 21, 100, 100, 0x7000),
        (
            20_000,
            "alloc",
            256,
            *rows(found, "memory", "device")[1],
            "host",
            256,
            0,
            100,
            100,
            0x5000,
        ),
        (30_000, "free", 512, 0, "device", 1_024, 1 << 21, 100, 101, 0x7000),
        (40_000, "alloc", 64, 3, "device", 64, 1 << 20, 100, 100, -8),
    ]
    assert rows(found, "memory", "device")[1][0] in (None, -1)


def test_an_event_of_no_bytes_is_kept(tmp_path: Path) -> None:
    trace = Profile()
    trace.thread("python3").memory(10_000, 0, allocated=5, reserved=6)

    assert rows(opened(trace, tmp_path), "memory", "size_bytes", "allocated_bytes") == [(0, 5)]


def test_instants_that_are_not_the_allocators_are_no_memory(tmp_path: Path) -> None:
    trace = Profile()
    main = trace.thread("python3")
    main.memory(10_000, 8, allocated=5, reserved=6)
    main.memory(20_000, 16, allocated=5, reserved=6).fields["name"] = "[OutOfMemory]"
    trace.put({"ph": "i", "name": "mark", "s": "t", "pid": 100, "tid": 100, "ts": 5_000})

    assert rows(opened(trace, tmp_path), "memory", "size_bytes") == [(8,)]


# --- Collectives ----------------------------------------------------------------------------------

_ABOUT = ("collective", "in_elements", "out_elements", "dtype", "group_size", "group",
          "group_description", "ranks", "sequence", "communicator", "peer")  # fmt: skip


def collective(trace: Profile, args: dict[str, Any] | None = None) -> Event:
    main = trace.thread("python3")
    return main.collective("allreduce", 51_463_168, at=5_000, run=(20_000, 90_000),
                           args=args or {})  # fmt: skip


def of_collectives(found: Trace, *columns: str) -> list[Any]:
    return found["collectives"].select(columns).collect().rows()


def test_a_collective_is_what_its_kernel_says(tmp_path: Path) -> None:
    trace = Profile()
    collective(trace)
    trace.thread("python3").kernel("gemm", at=1_000, run=(95_000, 99_000))

    found = opened(trace, tmp_path)

    assert of_collectives(found, *_ABOUT) == [
        ("allreduce", 51_463_168, 51_463_168, "Float", 2, "0", "default_pg", "[0, 1]", None, None,
         None)
    ]  # fmt: skip
    (named,) = found["collectives"].join(found["gpu_ops"], on="op_id").collect().to_dicts()
    assert (named["stream"], named["kind"]) == (17, "kernel")


def test_an_id_of_64_bits_keeps_all_of_them(tmp_path: Path) -> None:
    trace = Profile()
    collective(trace, {"Comms Id": 2**64 - 1, "Seq": 12})
    collective(trace, {"Comms Id": 2**63 + 1, "Seq": 2**40})

    assert of_collectives(opened(trace, tmp_path), "communicator", "sequence") == [
        (str(2**64 - 1), 12),
        (str(2**63 + 1), 2**40),
    ]


@pytest.mark.parametrize("key", ["Dst Rank", "Src Rank"])
def test_a_transfer_between_two_has_the_other_rank(tmp_path: Path, key: str) -> None:
    trace = Profile()
    collective(trace, {"Collective name": "send" if key[0] == "D" else "recv", key: 5})

    assert of_collectives(opened(trace, tmp_path), "peer") == [(5,)]


def test_a_long_list_of_ranks_is_kept_as_it_was_cut(tmp_path: Path) -> None:
    trace = Profile()
    ranks = range(1_024)
    trace.thread("python3").collective("allgather", 8, at=0, run=(5_000, 6_000), ranks=ranks)

    ((shown, size),) = of_collectives(opened(trace, tmp_path), "ranks", "group_size")

    assert (shown[:9], shown[-9:], size) == ("[0, 1, 2,", " 29, ...]", 1_024)


def test_sizes_of_splits_in_quotes_are_no_trouble(tmp_path: Path) -> None:
    trace = Profile()
    args = {"In split size": "[512, 512, ...]", "Collective name": "all_to_allv", "Group size": "2"}
    collective(trace, args)

    assert of_collectives(opened(trace, tmp_path), "collective", "dtype") == [
        ("all_to_allv", "Float")
    ]


def test_a_collective_that_copies_is_one_all_the_same(tmp_path: Path) -> None:
    """Some transfers between GPUs are copies, and say so in the same words."""
    trace = Profile()
    facts = collective(trace).fields["args"]
    args = {key: facts[key] for key in facts if key[0].isupper() and key != "External id"}
    trace.thread("python3").copy(at=1_000, run=(95_000, 99_000), bytes=8, kind="PtoP", args=args)

    assert len(of_collectives(opened(trace, tmp_path), "collective")) in (1, 2)


def test_a_trace_without_collectives_has_no_such_table(tmp_path: Path) -> None:
    found = opened(a_step(), tmp_path)

    assert "collectives" not in found or found["collectives"].collect().is_empty()


# --- The cache ------------------------------------------------------------------------------------


def test_what_the_cache_kept_is_what_was_read(tmp_path: Path) -> None:
    trace = a_step()
    trace.device(0)
    trace.thread("python3").memory(10_000, 8, allocated=5, reserved=6)
    collective(trace)
    path = trace.write(tmp_path / "trace.json")
    for damaged in (False, True):
        if damaged:
            path.write_bytes(path.read_bytes()[:-3_000])
        first = open_trace(path)
        flush()

        again = open_trace(path)

        assert again.entry is not None
        assert again.tables.keys() == first.tables.keys()
        assert story(again) == story(first)
        assert (again.caveats, again.source) == (first.caveats, first.source)


# --- Odd, and legal -------------------------------------------------------------------------------


def test_an_event_without_args_is_one_all_the_same(tmp_path: Path) -> None:
    trace = Profile()
    trace.thread("python3").op("aten::mm", 0, 10_000)
    kernel = trace.thread("python3").kernel("k", at=5_000, run=(20_000, 30_000))
    for event in trace.events:
        if event is kernel or event.fields.get("cat") == "cpu_op":
            event.fields.pop("args")

    of = linked(trace.write(tmp_path / "trace.json"))

    assert the_row(of, "totals")["kernel_time_ns"] == 10_000
    assert of.coverage()["unlinked"] + of.coverage()["inferred"] == 1


def test_whole_numbers_may_be_written_with_a_point(tmp_path: Path) -> None:
    """Programs that write traces again make floats of them."""
    trace = Profile()
    main = trace.thread("python3")
    main.op("aten::mm", 0, 10_000)
    kernel = main.kernel("k", at=5_000, run=(20_000, 30_000))
    args = kernel.fields["args"]
    args |= {key: Raw(f"{args[key]}.0")
             for key in ("device", "stream", "correlation", "context")}  # fmt: skip

    of = linked(trace.write(tmp_path / "trace.json"))

    assert rows(of.trace, "gpu_ops", "device", "stream") == [(0, 7)]
    assert of.coverage()["unlinked"] == 0


@pytest.mark.parametrize(
    ("ts", "dur"),
    [("4.291509887020e12", "1.0e1"), ("4291509887020", "10"), ("4291509887020.000000", "10.0"),
     ('"4291509887020.000"', '"10.000"'), ("4291509887020.0004", "10.0000000001")],
)  # fmt: skip
def test_times_may_be_spelt_in_any_way(tmp_path: Path, ts: str, dur: str) -> None:
    trace = one_kernel()
    trace.events[-2].fields |= {"ts": Raw(ts), "dur": Raw(dur)}

    assert rows(opened(trace, tmp_path), "gpu_ops", "start_ns", "end_ns", of=trace) == [
        (20_000, 30_000)
    ]


def test_names_with_escapes_and_every_script_are_read(tmp_path: Path) -> None:
    names = [
        "größe",
        "前向传播",
        "💥",
        "tab\there",
        'quote"d',
        "back\\slash",
        "line\nbreak",
        "\u2028",
        "",
    ]
    trace = Profile()
    main = trace.thread("python3")
    for number, name in enumerate(names):
        spelt = json.dumps(name, ensure_ascii=number % 2 == 0)[1:-1]
        main.annotation(spelt, number * 1_000, number * 1_000 + 900)
    main.kernel("k", at=0, run=(20_000, 30_000))

    found = [name for (name,) in rows(opened(trace, tmp_path), "ranges", "name")]
    assert found == [*names[:-1], "(unnamed)"]


def test_keys_may_come_twice_and_the_last_one_counts(tmp_path: Path) -> None:
    """As in every reader of JSON that the user has tried before."""
    trace = one_kernel()
    text = trace.content().replace(b'"dur": 20.000', b'"dur": 99.000, "dur": 20.000')

    path = tmp_path / "trace.json"
    path.write_bytes(text)

    assert the_row(linked(path), "totals")["kernel_time_ns"] == 20_000


def test_names_that_repeat_are_kept_once(tmp_path: Path) -> None:
    trace = Profile()
    main = trace.thread("python3")
    for number in range(500):
        main.kernel("k" * 300, at=number * 2_000, run=(number * 3_000, number * 3_000 + 5))

    names = opened(trace, tmp_path)["names"].collect()

    assert names["name_id"].is_unique().all()
    assert names.filter(pl.col("name") == "k" * 300).height == 1
