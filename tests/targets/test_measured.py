"""What was measured: rows of results, Run folders and recordings."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests import snapshots
from tests.build import Nsys, training_step
from tests.targets.story import H100, loaded, one, row, written
from tracelens import hardware, targets
from tracelens.errors import UnreadableError
from tracelens.links.linked import link
from tracelens.readers.open import open_trace
from tracelens.tables import build

if TYPE_CHECKING:
    from pathlib import Path

    from tracelens.targets import Reading

MS = 1_000_000
COST: dict[str, Any] = {
    "items": 1024,
    "unit": "tokens",
    "flops": 6 * 10**12 + 10**9,
    "memory_bytes": 3 * 2**30,
    "phases": {
        "forward": [
            {"part": "linear", "flops": 2 * 10**12, "bytes": 10**9, "dtype": "bf16", "matmul": True,
             "wire_bytes": 0},
            {"part": "norm", "flops": 10**9, "bytes": 10**9, "dtype": "bf16", "matmul": False,
             "wire_bytes": 0},
        ],
        "backward": [
            {"part": "linear", "flops": 4 * 10**12, "bytes": 2 * 10**9, "dtype": "bf16",
             "matmul": True, "wire_bytes": 0},
        ],
    },
}  # fmt: skip


def run_folder(folder: Path, **more: Any) -> Path:
    """Write a Run folder as `tracelens capture` leaves it."""
    folder.mkdir()
    trace = Nsys()
    trace.device(0, H100)
    training_step(trace, at=training_step(trace).end_ns)
    trace.write(folder / "run.sqlite")
    said = {
        "name": "gpt2-xl",
        "workload": "gpt2",
        "options": {"layers": 48, "batch": 4},
        "device": "cuda",
        "cost": COST,
        "machine": {"gpus": [{"name": H100, "memory_bytes": 1}], "cores": 8},
        "passes": [
            {"recorder": "nsys", "state": "done", "steps_ns": [30 * MS], "peak_bytes": 2**31},
            {"recorder": "timer", "state": "done", "steps_ns": [21 * MS, 20 * MS, 19 * MS],
             "peak_bytes": 2**30},
        ],
        "recordings": [{"recorder": "nsys", "path": "run.sqlite", "rank": None}],
        **more,
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(said), encoding="utf-8")
    (folder / "timer.json").write_text(
        json.dumps({"wall": {"median_low_ns": 19.5 * MS, "median_high_ns": 20.5 * MS}}),
        encoding="utf-8",
    )
    return folder


def read(tmp_path: Path, path: Path, metric: str, **more: str) -> Reading | None:
    """Return what is measured of a metric; the unit of the threshold tells its dimension."""
    units = {"step_time": "< 1 ms", "latency": "< 1 ms", "kernel_time": "< 1 ms",
             "tokens_per_s": "> 1 tokens/s", "items_per_s": "> 1 items/s",
             "flops_per_s": "> 1 TFLOP/s", "bytes_per_s": "> 1 GB/s",
             "peak_memory": "< 1 GiB"}  # fmt: skip
    text = one(metric=f'"{metric}"', passing=f'"{units.get(metric, "> 1 %")}"', **more)
    (target,) = loaded(tmp_path, text).targets
    (measured,) = targets.measured([path])
    return measured.read(target)


def test_a_run_has_the_time_of_its_steps_without_a_profiler(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "gpt2-xl-1")
    (measured,) = targets.measured([folder])
    found = read(tmp_path, folder, "step_time")

    assert (measured.name, measured.gpu) == ("gpt2-xl-1", H100)
    assert measured.config == {"layers": 48, "batch": 4, "workload": "gpt2"}
    assert found is not None
    assert (found.value, found.low, found.high, found.n) == (20 * MS, 19.5 * MS, 20.5 * MS, 3)
    assert read(tmp_path, folder, "latency") == found


def test_rates_follow_from_the_formulas(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run")
    device = hardware.device(H100)
    assert device is not None
    expected = {
        "tokens_per_s": 1024 / 0.020,
        "items_per_s": 1024 / 0.020,
        "flops_per_s": 6e12 / 0.020,
        "bytes_per_s": 4e9 / 0.020,
        "mfu": 6e12 / 0.020 / device.matmul_flops_per_s["bf16"],
        "mbu": 4e9 / 0.020 / device.bandwidth_bytes_per_s,
        "peak_memory": 2**31,
    }

    for metric, value in expected.items():
        found = read(tmp_path, folder, metric)
        assert found is not None
        assert found.value == pytest.approx(value), metric
    rate = read(tmp_path, folder, "flops_per_s")
    assert rate is not None
    assert (rate.low, rate.high) == pytest.approx((6e12 / 0.0205, 6e12 / 0.0195))


def test_shares_come_from_the_recording(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run")
    linked = link(open_trace(folder / "run.sqlite"))
    phases = build.fill(linked, "phases").frame
    families = build.fill(linked, "families").frame
    whole = families["kernel_time_ns"].sum() + families["graph_time_ns"].sum()

    for phase in phases["phase"].drop_nulls():
        mine = phases.filter(phase=phase)
        found = read(tmp_path, folder, "share", phase=f'"{phase}"')
        time = mine["kernel_time_ns"].item() + mine["graph_time_ns"].item()
        assert found is not None
        assert found.value == pytest.approx(time / whole)
    gemm = read(tmp_path, folder, "share", family='"gemm"')
    assert gemm is not None
    assert gemm.value == pytest.approx(
        families.filter(family="gemm")["kernel_time_ns"].sum() / whole
    )
    everything = read(tmp_path, folder, "share")
    assert everything is not None
    assert everything.value == 1.0


def test_a_recording_alone_tells_what_it_can(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run")
    alone = (folder / "run.sqlite").rename(tmp_path / "alone.sqlite")
    linked = link(open_trace(alone))
    steps = build.fill(linked, "steps").frame
    totals = build.fill(linked, "totals").frame.row(0, named=True)

    step, kernels = (read(tmp_path, alone, metric) for metric in ("step_time", "kernel_time"))
    busy, copies = (read(tmp_path, alone, metric) for metric in ("busy_share", "copy_share"))
    assert step is not None
    assert kernels is not None
    assert busy is not None
    assert copies is not None
    assert step.value == steps["duration_ns"].median()
    assert step.how == "steps under the recorder"
    assert kernels.value == steps["kernel_time_ns"].median()
    assert busy.value == totals["busy_ns"] / totals["span_ns"]
    assert 0 <= copies.value < 1
    assert read(tmp_path, alone, "mfu") is None
    (measured,) = targets.measured([alone])
    assert (measured.name, measured.gpu) == ("alone.sqlite", H100)


def test_a_snapshot_tells_its_peak(tmp_path: Path) -> None:
    made = snapshots.Snapshot()
    made.device(0).alloc(5_000_000)
    path = made.write(tmp_path / "memory.pickle")
    found = read(tmp_path, path, "peak_memory")

    assert found is not None
    assert found.value == 5_000_000
    assert read(tmp_path, path, "step_time") is None


def test_without_a_timer_the_steps_are_those_of_a_recorder(tmp_path: Path) -> None:
    passes = [{"recorder": "torch", "state": "done", "steps_ns": [30 * MS, 34 * MS]}]
    found = read(tmp_path, run_folder(tmp_path / "run", passes=passes), "step_time")

    assert found is not None
    assert (found.value, found.low, found.how) == (32 * MS, None, "steps under torch")


def test_rows_of_one_configuration_are_one_run(tmp_path: Path) -> None:
    config = {"batch": 4}
    file = written(
        tmp_path,
        row(4, config=config),
        row(2, "GiB", "peak_memory", config=config),
        row(3, config={"batch": 2}),
        row(5, gpu="NVIDIA A10", config=config),
    )
    found = targets.measured([file])

    assert [(m.gpu, m.config["batch"], sorted(m.readings)) for m in found] == [
        (H100, 4, ["latency", "peak_memory"]),
        (H100, 2, ["latency"]),
        ("NVIDIA A10", 4, ["latency"]),
    ]
    assert found[0].readings["peak_memory"].value == 2 * 2**30


def test_rows_may_be_a_list(tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    file.write_text(json.dumps([row(4)]), encoding="utf-8")

    assert targets.measured([file])[0].readings["latency"].value == 4 * MS


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([row(-1)], "negative"),
        ([row(4, "GB/s")], "latency in GB/s"),
        ([row(4, "parsec")], "parsec"),
        ([row(4), row(5)], "twice"),
        ([row(4, low=5)], "outside of its own interval"),
        ([{**row(4), "values": 1}], "values"),
        ([{"metric": "latency"}], "name"),
        ([row("4")], "Expected `float`"),  # type: ignore[arg-type]
    ],
)
def test_rows_that_are_wrong_say_where(tmp_path: Path, rows: list[Any], why: str) -> None:
    with pytest.raises(UnreadableError, match=why):
        targets.measured([written(tmp_path, *rows)])


def test_json_that_is_a_trace_is_no_row(tmp_path: Path) -> None:
    file = tmp_path / "trace.json"
    file.write_text(json.dumps({"rows": 1, "traceEvents": []}), encoding="utf-8")

    with pytest.raises(UnreadableError, match=r"no torch\.profiler trace|profiler"):
        targets.measured([file])
    with pytest.raises(UnreadableError):
        targets.measured([tmp_path / "none.json"])


def test_a_damaged_manifest_leaves_the_recording(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run", cost={"phases": 3})
    (measured,) = targets.measured([folder])

    assert measured.config == {}
    assert measured.gpu == H100


def test_runs_that_were_only_timed_are_measured_beside_recorded_ones(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    run_folder(runs / "recorded")
    timed = run_folder(runs / "timed", recordings=[])
    (timed / "run.sqlite").unlink()
    run_folder(runs / "failed", recordings=[], passes=[])
    (runs / "failed" / "run.sqlite").unlink()

    found = targets.measured([runs])
    (alone,) = targets.measured([timed])
    step = read(tmp_path, timed, "step_time")

    assert [one.name for one in found] == ["recorded", "timed"]
    assert (alone.name, alone.gpu) == ("timed", H100)
    assert step is not None
    assert step.value == 20 * MS
    assert read(tmp_path, timed, "kernel_time") is None
