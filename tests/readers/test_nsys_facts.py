"""What nsys exports tell beside events: threads, GPUs, memory, metrics, the recorder's words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.asking import linked, opened, table
from tests.build import Nsys, training_step
from tracelens.readers.open import open_trace

if TYPE_CHECKING:
    from pathlib import Path

    from tracelens.trace.model import Trace


def said(trace: Trace, kind: str) -> list[str]:
    return [caveat.text for caveat in trace.caveats if caveat.kind == kind]


def test_a_thread_has_the_name_of_highest_priority(tmp_path: Path) -> None:
    trace = Nsys()
    thread = trace.thread("python", pid=100, tid=104)
    for name, priority in (("pt_autograd_0", 50), ("pt_data_worker", 10)):
        row = {"nameId": trace.string(name), "globalTid": thread.global_tid, "priority": priority}
        trace.insert("ThreadNames", row)

    threads = opened(trace, tmp_path)["threads"].collect()

    assert threads.rows() == [(100, 104, "pt_autograd_0")]


def test_threads_without_names_are_not_recorded(tmp_path: Path) -> None:
    trace = Nsys()
    trace.thread(None).push("x", 0, 1)

    assert opened(trace, tmp_path).get("threads") is None


@pytest.mark.parametrize("schema", ["2020", "2021", "3.16.1", "3.20.3", "3.25.0"])
def test_a_gpu_has_its_name_size_and_speed(tmp_path: Path, schema: str) -> None:
    trace = Nsys(schema)
    training_step(trace)
    trace.device(0, "NVIDIA H200", sm=132, capability=(9, 0), memory=150_754_820_096,
                 bandwidth=4_800_000_000_000)  # fmt: skip

    (row,) = table(linked(trace, tmp_path), "devices")

    assert (row["device"], row["name"], row["sm_count"], row["capability"]) == (
        0, "NVIDIA H200", 132, "9.0",
    )  # fmt: skip
    assert (row["memory_bytes"], row["bandwidth_bytes_per_s"]) == (
        150_754_820_096,
        4_800_000_000_000,
    )


def test_each_rank_sees_its_own_gpu_as_device_zero(tmp_path: Path) -> None:
    trace = Nsys("3.20.3")
    for pid in (100, 200):
        training_step(trace, pid=pid)
    trace.device(0, "NVIDIA H200", gpu=3, pids=[100])
    trace.device(0, "NVIDIA H200", gpu=5, pids=[200])

    found = opened(trace, tmp_path)["devices"].collect()

    assert found.select("device", "pid", "gpu", "name").rows() == [
        (0, 100, 3, "NVIDIA H200"),
        (0, 200, 5, "NVIDIA H200"),
    ]


def test_two_ranks_on_two_gpus_of_one_number_are_busy_apart(tmp_path: Path) -> None:
    """With CUDA_VISIBLE_DEVICES every rank's GPU is device 0: their work is not one GPU's."""
    trace = Nsys("3.20.3")
    for pid in (100, 200):
        trace.thread("python", pid=pid).kernel("k", at=0, run=(10, 110))
    trace.device(0, "NVIDIA H200", gpu=0, pids=[100])
    trace.device(0, "NVIDIA H200", gpu=1, pids=[200])

    (totals,) = table(linked(trace, tmp_path), "totals")

    assert (totals["kernel_time_ns"], totals["busy_ns"]) == (200, 200)


@pytest.mark.parametrize(
    "text",
    [
        "Not all CUDA events might have been collected.",
        "CUDA profiling: 1024 CUPTI buffers were dropped.",
        "Some NVTX events were lost.",
    ],
)
def test_what_the_recorder_lost_is_said(tmp_path: Path, text: str) -> None:
    trace = Nsys()
    training_step(trace)
    trace.diagnostic(text, severity="warning")
    trace.diagnostic(text, severity="error")

    assert said(opened(trace, tmp_path), "lost") == [
        f"The recorder says: {text} (said 2 times)",
    ]


@pytest.mark.parametrize(
    ("text", "severity"),
    [
        ("Process was launched by the profiler, see /tmp/nvidia/quadd", "info"),
        ("Not all CUDA events might have been collected.", "info"),
        ("Not all ETW events might have been collected.", "warning"),
        ("CPU context switches trace: the sampling frequency was reduced.", "warning"),
    ],
)
def test_what_is_no_loss_of_gpu_work_is_not_said(tmp_path: Path, text: str, severity: str) -> None:
    trace = Nsys()
    training_step(trace)
    trace.diagnostic(text, severity=severity)

    assert said(opened(trace, tmp_path), "lost") == []


def test_how_it_was_recorded_is_told_where_the_export_says(tmp_path: Path) -> None:
    trace = Nsys()
    training_step(trace)
    for name, value in (
        ("COMMAND", "python"),
        ("ARGUMENT_0", "train.py"),
        ("ARGUMENT_1", "--ctx"),
        ("ARGUMENT_10", "last"),
        ("ARGUMENT_2", "256"),
        ("CUDA_GRAPH_TRACE_OPTIONS:MODE", "Graph"),
    ):
        trace.capture_option(name, value)

    assert dict(opened(trace, tmp_path).source.facts) == {
        "command": "python train.py --ctx 256 last",
        "cuda_graph_trace": "Graph",
        "epoch_ns": "1700000000000000000",
    }


def test_memory_events_are_read_in_order_of_time(tmp_path: Path) -> None:
    trace = Nsys("3.20.3")
    training_step(trace)
    trace.memory_usage(90, 1024, 0x7F00, free=True)
    trace.memory_usage(5, 1024, 0x7F00)
    trace.memory_usage(7, 64, 0x10, kind="pinned", pid=200, device=1)

    memory = opened(trace, tmp_path).tables["memory"].collect()

    columns = ("time_ns", "device", "pid", "action", "address", "size_bytes", "memory_kind")
    assert memory.select(columns).rows() == [
        (5, 0, 100, "alloc", 0x7F00, 1024, "device"),
        (7, 1, 200, "alloc", 0x10, 64, "pinned"),
        (90, 0, 100, "free", 0x7F00, 1024, "device"),
    ]


def test_gpu_metrics_are_read_with_their_names(tmp_path: Path) -> None:
    trace = Nsys("3.20.3")
    training_step(trace)
    trace.gpu_metric("SMs Active [Throughput %]", 10, 40)
    trace.gpu_metric("SMs Active [Throughput %]", 20, 60, device=1)
    trace.gpu_metric("DRAM Read [Throughput %]", 10, 5)

    counters = opened(trace, tmp_path).tables["counters"].collect()

    assert sorted(counters.select("time_ns", "device", "name", "value").rows()) == [
        (10, 0, "DRAM Read [Throughput %]", 5.0),
        (10, 0, "SMs Active [Throughput %]", 40.0),
        (20, 1, "SMs Active [Throughput %]", 60.0),
    ]
    assert counters["time_ns"].is_sorted()


def test_a_recording_of_memory_alone_is_a_recording(tmp_path: Path) -> None:
    trace = Nsys("3.20.3")
    trace.memory_usage(5, 1024, 0x7F00)

    read = opened(trace, tmp_path)

    assert read["memory"].collect().height == 1
    assert read.get("gpu_ops") is None


@pytest.mark.parametrize("write", ["write_parquet", "write_arrow"])
def test_memory_and_metrics_stand_in_folders_too(tmp_path: Path, write: str) -> None:
    trace = Nsys("3.20.3")
    training_step(trace)
    trace.memory_usage(5, 1024, 0x7F00)
    trace.gpu_metric("SMs Active", 10, 40)

    folder = open_trace(getattr(trace, write)(tmp_path / "run_dir"), cache=False)
    sqlite = opened(trace, tmp_path)

    for name in ("memory", "counters"):
        assert folder[name].collect().equals(sqlite[name].collect())
