"""`summarize` of the ranks of one job: one run, ranks never mixed, whoever reads them."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.asking import Shell, nearly
from tests.build import Nsys, training_step
from tests.clusters import cluster, needs_dask, posix
from tests.ranks import of_rank, write_ranks
from tests.snapshots import START_US, Snapshot
from tracelens.errors import UnreadableError
from tracelens.links.linked import Cut
from tracelens.tables.reduced import Task, reduced

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Row = dict[str, Any]

# Of two steps with two allreduces each: rank 2 comes last three times, rank 0 once.
DURATIONS = (
    ((5_000, 9_000), (6_000, 2_000)),
    ((7_000, 8_000), (6_500, 3_000)),
    ((4_000, 6_000), (5_500, 3_000)),
)
OF_RUN = ("ranks", "collectives", "memory_by_phase")
"""Tables that hold more than one rank alone knows."""


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    """Give a shell."""
    return Shell(capsys)


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """Give a folder with the traces of three ranks."""
    return write_ranks(tmp_path / "job", DURATIONS)


def rows(shell: Shell, *asked: object) -> list[Row]:
    """Return the rows of the one table that is asked for."""
    (found,) = shell("summarize", *asked, "--format", "json").json["tables"].values()
    return list(found)


def alike(found: list[Row]) -> list[str]:
    """Return rows without their rank, in an order that does not depend on it.

    Integers are exact; the last digits of fractions depend on how polars divides its work.
    """
    bare = [{k: v for k, v in row.items() if k != "rank"} for row in found]
    return sorted(json.dumps(row, sort_keys=True) for row in nearly(bare))


def test_a_folder_of_ranks_is_one_run(shell: Shell, job: Path) -> None:
    said = shell("summarize", job)

    assert said.status == 0
    head = said.out.replace("\n", " ")
    assert head.startswith("job · 3 ranks · torch.profiler (Kineto) · 3 × NVIDIA H200 · 18 kernels")
    assert "rank 2 is the slow one" in head
    assert "GPU busy" in head
    assert "Rank 2 is the slow one: last at 3 of 4 collectives" in head
    assert [title in said.out for title in ("Ranks", "Collectives", "all ranks")] == [True] * 3


def test_json_is_one_object_whose_tables_have_ranks(shell: Shell, job: Path) -> None:
    document = shell("summarize", job, "--format", "json").json

    assert (
        document["source"].items() >= {"path": str(job), "format": "run", "world_size": 3}.items()
    )
    assert [(r["rank"], r["path"]) for r in document["source"]["ranks"]] == [
        (n, str(job / f"rank{n}.json")) for n in range(3)
    ]
    assert {device["rank"] for device in document["devices"]} == {0, 1, 2}
    assert document["phase_source"] == "ranges"
    assert document["coverage"]["gpu_ops"] == 18
    assert document["warnings"] == []
    filled = {name: found for name, found in document["tables"].items() if found}
    assert filled.keys() > {"totals", "phases", "families", "kernels", "steps", "ranges", "ranks"}
    for name, found in filled.items():
        # What was found of the job as a whole is of no rank alone.
        of_all = {None} if name == "findings" else set()
        assert (name, {row["rank"] for row in found}) == (name, {0, 1, 2} | of_all)


def test_what_a_rank_does_is_exactly_what_its_own_recording_says(shell: Shell, job: Path) -> None:
    whole = shell("summarize", job, "--format", "json").json["tables"]

    for rank in range(3):
        alone = shell("summarize", job, "--rank", rank, "--format", "json").json["tables"]
        for name, found in whole.items():
            if name in OF_RUN or name not in alone:
                continue
            mine = [row for row in found if row["rank"] == rank]
            assert (name, alike(mine)) == (name, alike(alone[name]))


@pytest.mark.parametrize(
    "asked", [(), ("-f", "json"), ("-f", "csv", "-t", "kernels"), ("-t", "all")]
)
def test_one_rank_is_the_report_of_its_recording(
    shell: Shell, job: Path, asked: tuple[str, ...]
) -> None:
    of_the_rank = shell("summarize", job, "--rank", 1, *asked)

    assert of_the_rank == shell("summarize", job / "rank1.json", *asked)
    assert of_the_rank.status == 0


def test_waiting_is_what_others_took_less(shell: Shell, job: Path) -> None:
    comm = rows(shell, job, "--table", "collectives")

    transfer = 4_000 + 6_000 + 5_500 + 2_000
    assert [(r["rank"], r["calls"], r["transfer_ns"], r["waiting_ns"]) for r in comm] == [
        (0, 4, transfer, 22_000 - transfer),
        (1, 4, transfer, 24_500 - transfer),
        (2, 4, transfer, 18_500 - transfer),
    ]
    assert [(r["arrives_last"], r["slow_rank"]) for r in comm] == [(1, 2), (0, 2), (3, 2)]
    assert {(r["kind"], r["group_size"], r["bytes"]) for r in comm} == {("all_reduce", 3, 16_000)}
    for row in comm:
        algorithm = 16_000 * 10**9 / row["total_ns"]
        assert row["algorithm_bandwidth_bytes_per_s"] == pytest.approx(algorithm)
        assert row["bus_bandwidth_bytes_per_s"] == pytest.approx(algorithm * 4 / 3)
        of_transfer = 16_000 * 10**9 / transfer * 4 / 3
        assert row["transfer_bus_bandwidth_bytes_per_s"] == pytest.approx(of_transfer)


def test_ranks_stand_side_by_side(shell: Shell, job: Path) -> None:
    ranks = rows(shell, job, "--table", "ranks")

    assert [r["rank"] for r in ranks] == [0, 1, 2]
    assert [r["steps"] for r in ranks] == [2, 2, 2]
    assert [r["comm_time_ns"] for r in ranks] == [22_000, 24_500, 18_500]
    # Kernels of other kinds run to 12 µs of each step, allreduces from 4 µs on, 100 ns apart.
    overlapped = [(5_000 + 2_900) + (6_000 + 1_900), (7_000 + 900) + (6_500 + 1_400), 0]
    overlapped[2] = (4_000 + 3_900) + (5_500 + 2_400)
    assert [r["comm_overlapped_ns"] for r in ranks] == overlapped
    assert [r["comm_exposed_ns"] + r["comm_overlapped_ns"] for r in ranks] == [
        r["comm_busy_ns"] for r in ranks
    ]
    assert [r["waiting_ns"] for r in ranks] == [4_500, 7_000, 1_000]
    assert [r["arrives_last"] for r in ranks] == [1, 0, 3]


takes = st.integers(1, 3_000)
jobs = st.integers(1, 3).flatmap(
    lambda calls: st.lists(st.lists(takes, min_size=calls, max_size=calls), min_size=2, max_size=3)
)


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(durations=jobs)
def test_ranks_never_mix(
    shell: Shell, tmp_path_factory: pytest.TempPathFactory, durations: list[list[int]]
) -> None:
    folder = write_ranks(tmp_path_factory.mktemp("job"), [[of] for of in durations])
    comm = rows(shell, folder, "--table", "collectives", "--no-cache")

    assert [(r["rank"], r["calls"], r["total_ns"]) for r in comm] == [
        (rank, len(of), sum(of)) for rank, of in enumerate(durations)
    ]
    assert all(r["transfer_ns"] + r["waiting_ns"] == r["total_ns"] for r in comm)
    assert {r["transfer_ns"] for r in comm} == {sum(map(min, zip(*durations, strict=True)))}


def test_names_of_files_do_not_matter(shell: Shell, tmp_path: Path, job: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for rank, name in enumerate(("z", "a", "m")):
        (other / f"{name}.json").write_bytes((job / f"rank{rank}.json").read_bytes())

    for name in ("ranks", "collectives", "kernels"):
        assert rows(shell, other, "-t", name) == rows(shell, job, "-t", name)


@pytest.mark.parametrize("renderer", ["text", "markdown", "latex", "html"])
def test_every_format_shows_ranks(shell: Shell, job: Path, renderer: str) -> None:
    said = shell("summarize", job, "--format", renderer, "--table", "all")

    assert (said.status, "Traceback" in said.err) == (0, False)
    assert "all_reduce" in said.out.replace("\\", "")


def test_csv_has_a_column_of_ranks(shell: Shell, job: Path) -> None:
    said = shell("summarize", job, "--format", "csv", "--table", "phases")
    found = list(csv.DictReader(io.StringIO(said.out)))

    assert "path" not in found[0]
    assert [(row["phase"], row["rank"], row["kernels"]) for row in found if row["phase"]] == [
        ("forward", str(rank), "2") for rank in range(3)
    ]


def test_cuts_are_cuts_of_every_rank(shell: Shell, job: Path) -> None:
    comm = rows(shell, job, "--table", "collectives", "--step", 1)

    assert [(r["rank"], r["total_ns"], r["transfer_ns"]) for r in comm] == [
        (0, 8_000, 7_500), (1, 9_500, 7_500), (2, 8_500, 7_500),
    ]  # fmt: skip


def test_a_rank_without_what_was_asked_for_is_named(shell: Shell, job: Path) -> None:
    document = shell("summarize", job, "--device", 1, "-t", "totals", "-f", "json").json

    assert [row["rank"] for row in document["tables"]["totals"]] == [1]
    assert document["warnings"] == [
        f"rank {n} (rank{n}.json) could not be read: No work ran on device 1. "
        f"Devices with work: {n}."
        for n in (0, 2)
    ]


def test_what_no_rank_has_is_bad_usage(shell: Shell, job: Path) -> None:
    said = shell("summarize", job, "--device", 7)

    assert (said.status, said.out) == (2, "")
    assert "No work ran on device 7" in said.err


def test_a_rank_that_cannot_be_read_is_named_and_the_others_are_shown(
    shell: Shell, job: Path
) -> None:
    (job / "rank1.json").write_text('{"no": "trace"}')

    document = shell("summarize", job, "-t", "ranks", "-f", "json").json
    said = shell("summarize", job)

    assert [row["rank"] for row in document["tables"]["ranks"]] == [0, 2]
    (warning,) = document["warnings"]
    assert warning.startswith("rank 1 (rank1.json) could not be read: ")
    assert said.status == 0
    assert "2 of 3 ranks" in said.out
    assert "could not be read" in said.out.replace("\n", " ")


def test_a_run_of_which_one_rank_is_left_is_still_a_run(shell: Shell, tmp_path: Path) -> None:
    job = write_ranks(tmp_path / "job", DURATIONS[:2])
    (job / "rank0.json").write_bytes(b"")
    (job / "rank0.json").write_text('{"no": "trace"}')

    document = shell("summarize", job, "-t", "totals", "-f", "json").json

    assert document["source"]["format"] == "run"
    assert [row["rank"] for row in document["tables"]["totals"]] == [1]
    assert len(document["warnings"]) == 1


def test_if_no_rank_can_be_read_we_say_why(shell: Shell, job: Path) -> None:
    for file in job.iterdir():
        file.write_text('{"no": "trace"}')

    said = shell("summarize", job)

    assert (said.status, said.out) == (3, "")
    assert "rank0.json" in said.err


def test_two_recordings_of_one_rank_are_shown_apart_and_named(shell: Shell, job: Path) -> None:
    (job / "copy.json").write_bytes((job / "rank0.json").read_bytes())

    said = shell("summarize", job, "-t", "totals", "-f", "json")

    assert len(said.json["runs"]) == 4
    warning = said.json["runs"][0]["warnings"][-1]
    assert "copy.json and rank0.json are both of rank 0" in warning
    assert shell("summarize", job, "--rank", 0).status == 2
    assert shell("summarize", job, "--rank", 1).status == 0


def test_part_of_a_job_says_that_it_is(shell: Shell, tmp_path: Path) -> None:
    for rank in (1, 3):
        of_rank(rank, [[5_000 + rank]], world_size=4).write(tmp_path / f"{rank}.json")

    said = shell("summarize", tmp_path).out.replace("\n", " ")

    assert "2 of 4 ranks" in said
    assert "waiting for the others" in said


def test_collectives_without_counterpart_are_counted(shell: Shell, tmp_path: Path) -> None:
    job = write_ranks(tmp_path / "job", (((5_000, 6_000), (5_000,)), ((7_000,), (4_000,))))

    said = shell("summarize", job).out.replace("\n", " ")
    comm = rows(shell, job, "-t", "collectives")

    assert "3 of 5 collectives have no counterpart" in said
    assert [(r["matched_calls"], r["transfer_ns"], r["waiting_ns"]) for r in comm] == [
        (1, 4_000, 1_000), (1, 4_000, 0),
    ]  # fmt: skip


def test_ranks_that_nsys_recorded_are_a_run_by_their_names(shell: Shell, tmp_path: Path) -> None:
    for rank in range(2):
        trace = Nsys()
        training_step(trace)
        main = trace.thread("python")
        main.kernel("ncclDevKernel_AllReduce_Sum_f32", at=5_000, run=(6_000, 6_500 + rank))
        trace.write(tmp_path / f"report.{rank}.sqlite")

    ranks = rows(shell, tmp_path, "-t", "ranks")
    comm = rows(shell, tmp_path, "-t", "collectives")

    assert [(r["rank"], r["comm_time_ns"], r["waiting_ns"]) for r in ranks] == [
        (0, 500, None), (1, 501, None),
    ]  # fmt: skip
    assert [(r["kind"], r["bytes"], r["waiting_ns"]) for r in comm] == [
        ("all_reduce", None, None)
    ] * 2


def test_a_folder_of_runs_is_each_of_them(shell: Shell, tmp_path: Path, job: Path) -> None:
    write_ranks(tmp_path / "second", DURATIONS[:2])

    said = shell("summarize", tmp_path, "-t", "ranks")
    document = shell("summarize", tmp_path, "-t", "ranks", "-f", "json").json

    assert said.status == 0
    assert "All 2 runs: job, second" in said.out
    assert [len(run["tables"]["ranks"]) for run in document["runs"]] == [3, 2]


# Memory, which another recording holds.


def snapshot(steps: tuple[str, ...], bytes_: int, start_us: int = 0, device: int = 0) -> Snapshot:
    """Return a snapshot of steps that allocate so many bytes in forward."""
    taken = Snapshot()
    gpu = taken.device(device)
    gpu.alloc(1_024)
    taken.clock(START_US + 100 + start_us)
    for name in steps:
        with taken.range(name, device):
            with taken.range("forward", device):
                block = gpu.alloc(bytes_)
            with taken.range("backward", device):
                gpu.free(block)
    return taken


def test_a_snapshot_beside_a_trace_is_joined_by_phase_and_step(
    shell: Shell, tmp_path: Path
) -> None:
    of_rank(0, [[5_000], [6_000]], world_size=1).write(tmp_path / "trace.json")
    steps = ("ProfilerStep#4", "ProfilerStep#5")
    snapshot(steps, 10_240).write(tmp_path / "mem.pickle")

    joined = rows(shell, tmp_path, "--table", "memory_by_phase")

    found = {(r["step_name"], r["phase"]): r for r in joined}
    first, second = found["ProfilerStep#3", "forward"], found["ProfilerStep#4", "forward"]
    assert (first["kernels"], first["step"], first["peak_active_bytes"]) == (1, 0, None)
    assert (second["kernels"], second["step"], second["peak_active_bytes"]) == (1, 1, 11_264)
    assert second["end_active_bytes"] == 11_264
    memory_alone = found["ProfilerStep#5", "forward"]
    assert (memory_alone["kernels"], memory_alone["peak_active_bytes"]) == (None, 11_264)
    assert found["ProfilerStep#4", "backward"]["end_active_bytes"] == 1_024


def test_the_summary_of_a_trace_and_a_snapshot_shows_both(shell: Shell, tmp_path: Path) -> None:
    of_rank(0, [[5_000]], world_size=1).write(tmp_path / "trace.json")
    snapshot(("ProfilerStep#3",), 10_240).write(tmp_path / "mem.pickle")

    said = shell("summarize", tmp_path)

    assert said.status == 0
    assert said.out.startswith("trace.json")
    assert "GPU work and memory by phase and step" in said.out
    assert shell("summarize", tmp_path, "-f", "json").json["source"]["format"] == "kineto-json"


def test_no_clock_is_compared_with_that_of_another_pass(shell: Shell, tmp_path: Path) -> None:
    found = []
    for start in (0, 987_654_321):
        folder = tmp_path / str(start)
        folder.mkdir()
        of_rank(0, [[5_000]], world_size=1).write(folder / "trace.json")
        snapshot(("ProfilerStep#3",), 10_240, start).write(folder / "mem.pickle")
        found.append(rows(shell, folder, "--table", "memory_by_phase"))

    assert found[0] == found[1]


def test_each_rank_has_its_own_memory(shell: Shell, tmp_path: Path) -> None:
    job = write_ranks(tmp_path / "job", DURATIONS)
    for rank in (0, 2):
        taken = snapshot(("ProfilerStep#3", "ProfilerStep#4"), 1_024 * (rank + 1), device=rank)
        taken.write(job / f"rank{rank}_memory_snapshot.pickle")

    said = shell("summarize", job, "-t", "memory_by_phase", "-t", "ranks", "-f", "json").json
    joined, ranks = said["tables"]["memory_by_phase"], said["tables"]["ranks"]

    forward = [r for r in joined if (r["phase"], r["step"]) == ("forward", 1)]
    assert [(r["rank"], r["kernels"], r["peak_active_bytes"]) for r in forward] == [
        (0, 1, 2_048), (2, 1, 4_096),
    ]  # fmt: skip
    assert [(r["peak_memory_bytes"], r["memory_source"]) for r in ranks] == [
        (2_048, "snapshot"), (None, None), (4_096, "snapshot"),
    ]  # fmt: skip
    assert said["left_out"] == {"memory_by_phase": "rank 1 has no snapshot"}


def test_a_cut_cuts_memory_with_the_work(shell: Shell, tmp_path: Path) -> None:
    of_rank(0, [[5_000], [6_000]], world_size=1).write(tmp_path / "trace.json")
    steps = ("ProfilerStep#3", "ProfilerStep#4")
    snapshot(steps, 10_240).write(tmp_path / "mem.pickle")

    joined = rows(shell, tmp_path, "-t", "memory_by_phase", "--step", 1, "--phase", "forward")

    assert [(r["phase"], r["step"], r["peak_active_bytes"]) for r in joined] == [
        ("forward", 1, 11_264)
    ]


def test_one_recording_of_both_is_joined_with_itself(shell: Shell, tmp_path: Path) -> None:
    trace = of_rank(0, [[5_000]], world_size=1)
    main = trace.thread("python3", pid=100)
    main.memory(1_000, 512, allocated=5_000, reserved=9_000)
    main.memory(2_000, -512, allocated=4_488, reserved=9_000)

    (forward, *_) = rows(shell, trace.write(tmp_path / "trace.json"), "-t", "memory_by_phase")

    assert (forward["phase"], forward["step"], forward["kernels"]) == ("forward", 0, 1)
    assert (forward["peak_active_bytes"], forward["end_active_bytes"]) == (5_000, 4_488)


def test_snapshots_alone_are_for_another_command(shell: Shell, tmp_path: Path) -> None:
    for rank in range(2):
        snapshot(("step 0",), 1_024).write(tmp_path / f"rank{rank}.pickle")

    said = shell("summarize", tmp_path)

    assert (said.status, said.out) == (4, "")
    assert "tracelens memory" in said.err


# Who reads.


def test_a_worker_that_has_no_such_file_says_what_it_needs(tmp_path: Path) -> None:
    gone = tmp_path / "gone.json"

    with pytest.raises(UnreadableError, match=r"has no file .*gone\.json.*at the same path"):
        reduced(Task(gone, gone, (), Cut(), cache=False))


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    """Give the address of a scheduler with two worker processes."""
    with cluster() as address:
        yield address


@needs_dask
def test_a_cluster_gives_the_same_report(shell: Shell, job: Path, scheduler: str) -> None:
    here = shell("summarize", job, "-t", "all", "--no-cache")
    there = shell("summarize", job, "-t", "all", "--no-cache", "--scheduler", scheduler)

    assert (there.status, there.err) == (0, "")
    assert there.out == here.out


@needs_dask
def test_a_cluster_reads_a_single_recording_too(shell: Shell, job: Path, scheduler: str) -> None:
    alone = shell("summarize", job, "--rank", 1, "-t", "kernels", "--scheduler", scheduler)

    assert alone == shell("summarize", job / "rank1.json", "-t", "kernels")


@posix
@needs_dask
def test_a_worker_killed_in_the_middle_takes_nothing_with_it(shell: Shell, tmp_path: Path) -> None:
    """Whichever worker reads first is killed; its ranks are read by another."""
    from distributed import Client

    job = write_ranks(tmp_path / "job", [[[5_000] * 5] * 5] * 4)
    expected = shell("summarize", job, "-t", "ranks", "-t", "collectives")
    killed = []

    def kill_who_reads(address: str) -> None:
        with Client(address, set_as_default=False) as client:
            for _ in range(2_000):
                if busy := [worker for worker, keys in client.processing().items() if keys]:
                    pid = client.run(os.getpid, workers=busy[:1])[busy[0]]
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)
                    return
                time.sleep(0.005)

    with cluster() as address:
        killer = threading.Thread(target=kill_who_reads, args=(address,))
        killer.start()
        asked = ("-t", "ranks", "-t", "collectives", "--no-cache", "--scheduler", address)
        said = shell("summarize", job, *asked)
        killer.join()

    assert len(killed) == 1
    assert (said.status, said.err) == (0, "")
    assert said.out == expected.out


def test_an_unknown_scheduler_is_bad_usage(
    shell: Shell, job: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tracelens import executors

    monkeypatch.setattr(executors, "_CONNECT_S", 0.5)
    said = shell("summarize", job, "--scheduler", "tcp://127.0.0.1:9")

    assert (said.status, said.out) == (2, "")
    assert "scheduler" in said.err


# Real jobs.


def spans(path: Path, *, comm: bool) -> list[tuple[int, int]]:
    """Return (start, end) in ns of the kernels of a trace, of NCCL or of others."""
    events = json.loads(gzip.decompress(path.read_bytes()), parse_float=str)["traceEvents"]
    found = []
    for event in events:
        if event.get("cat") == "kernel" and event["name"].startswith("nccl") == comm:
            start, took = (int(str(event[key]).replace(".", "")) for key in ("ts", "dur"))
            assert str(event["ts"])[-4] == str(event["dur"])[-4] == "."
            found.append((start, start + took))
    return sorted(found)


def both(some: list[tuple[int, int]], others: list[tuple[int, int]]) -> tuple[int, int]:
    """Return how long some run, and how long while others do."""
    changes = [(start, 0, 1) for start, _ in some] + [(end, 0, -1) for _, end in some]
    changes += [(start, 1, 1) for start, _ in others] + [(end, 1, -1) for _, end in others]
    depth, since, busy, overlapped = [0, 0], 0, 0, 0
    for at, which, change in sorted(changes):
        busy += (at - since) * (depth[0] > 0)
        overlapped += (at - since) * (depth[0] > 0 and depth[1] > 0)
        depth[which] += change
        since = at
    return busy, overlapped


@pytest.mark.corpus
@pytest.mark.parametrize("name", ["gpt2-medium-ddp-h200x2", "gpt2-medium-fsdp-h200x2"])
def test_real_ranks_are_what_plain_python_finds(shell: Shell, corpus: Path, name: str) -> None:
    folder = corpus / "multirank" / name
    document = shell("summarize", folder, "-f", "json").json
    tables = document["tables"]

    assert document["warnings"] == []
    for row in tables["ranks"]:
        path = folder / f"rank{row['rank']}.json.gz"
        comm, compute = spans(path, comm=True), spans(path, comm=False)
        assert row["kernels"] == len(comm) + len(compute)
        assert row["collectives"] == len(comm)
        assert row["comm_time_ns"] == sum(end - start for start, end in comm)
        assert (row["comm_busy_ns"], row["comm_overlapped_ns"]) == both(comm, compute)
        assert row["memory_source"] == "snapshot"
    for row in tables["collectives"]:
        assert row["transfer_ns"] + row["waiting_ns"] == row["total_ns"]
        # NVLink of an H200 moves 450 GB/s each way; the transfers reach half of it.
        assert 150e9 < row["transfer_bus_bandwidth_bytes_per_s"] < 450e9
    assert {row["slow_rank"] for row in tables["collectives"]} == {0}


@pytest.mark.corpus
def test_the_bytes_of_a_real_step_are_those_of_the_models_gradients(
    shell: Shell, corpus: Path
) -> None:
    """DDP reduces each gradient once a step, FSDP scatters as many and gathers weights twice."""
    name = "multirank/gpt2-medium-{}-h200x2"
    (ddp, *_) = rows(shell, corpus / name.format("ddp"), "-t", "collectives")
    fsdp = {
        row["kind"]: row["bytes"]
        for row in rows(shell, corpus / name.format("fsdp"), "-t", "collectives")
    }

    assert ddp["bytes"] / 2 == pytest.approx(fsdp["reduce_scatter"] / 2, rel=0.001)
    assert 1 < fsdp["all_gather"] / fsdp["reduce_scatter"] < 2


@pytest.mark.corpus
def test_real_memory_and_work_meet_by_step(shell: Shell, corpus: Path) -> None:
    folder = corpus / "multirank" / "gpt2-medium-ddp-h200x2"
    joined = rows(shell, folder, "-t", "memory_by_phase")

    work = [r for r in joined if r["phase"]]
    assert len(work) == 2 * 2 * 3
    assert all(r["kernels"] and r["peak_active_bytes"] for r in work)
    peaks = {(r["rank"], r["phase"]): r["peak_active_bytes"] for r in work}
    assert peaks[0, "backward"] == peaks[1, "backward"] == 12_982_763_041
