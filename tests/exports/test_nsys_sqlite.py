"""Exports in nsys's schema: that they read back as they were, and what nsys itself says of them."""

from __future__ import annotations

import csv
import io
import shutil
import sqlite3
import subprocess
from collections import Counter
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from tests.asking import Shell, table
from tests.build import Nsys, training_step
from tests.exports.handmade import assert_same, made, pytorch_step, rows, snapshot, without
from tests.nsys_schema import PRODUCTS
from tests.nsys_schema import tables as nsys_tables
from tracelens import __version__
from tracelens.errors import NothingToShowError
from tracelens.exports.nsys_sqlite import schema, write
from tracelens.links.linked import Cut, link
from tracelens.readers.open import open_trace
from tracelens.trace import store
from tracelens.trace.schema import COPY_KINDS, OP_KINDS, RANGE_KINDS

if TYPE_CHECKING:
    from pathlib import Path

    from tracelens.trace.model import Trace

Row = dict[str, Any]
OWN = ("ops", "launched_by", "collectives", "segments", "blocks", "stacks", "frames")


def exported(trace: Trace, folder: Path, cut: Cut | None = None) -> Trace:
    """Return what becomes of a trace on its way to nsys's schema and back."""
    path = folder / "exported.sqlite"
    path.unlink(missing_ok=True)
    write(link(trace, cut), path)
    return open_trace(path, everything=True, cache=False)


def everything(trace: Nsys, folder: Path) -> Trace:
    return open_trace(trace.write(folder / "run.sqlite"), everything=True, cache=False)


def recording(schema: str) -> Nsys:
    """Return a recording with a row in every table that nsys of that time can fill."""
    trace = Nsys(schema=schema)
    step = training_step(trace)
    training_step(trace, at=step.end_ns, pid=200)
    main, other = trace.thread("python"), trace.thread("helper", tid=7)
    main.push("started", 50, 4_000, kind="start_end", end_thread=other)
    main.push("open", 4_400, None, domain="lib", registered=True)
    trace.thread("python", pid=200).push("other", 4_400, 4_410, domain="another")
    main.push("gemm", 4_300, 4_310, domain="lib")
    main.memset(bytes=64, at=4_410, run=(4_420, 4_430))
    main.copy(bytes=2**40, kind="PtoP", at=-20, run=(-10, -5))
    shape = {"gridX": 2**31 - 1, "staticSharedMemory": 5, "dynamicSharedMemory": 7}
    launch = {"at": 4_500, "call": "cuLaunchKernel", "event_class": 1}
    main.kernel("k\x00\u2603", run=(4_510, 4_520), columns=shape, **launch)
    trace.device(0, "NVIDIA H200", uuid="GPU-1")
    if "CUPTI_ACTIVITY_KIND_GRAPH_TRACE" in trace.tables:
        main.graph(graph_id=3, at=4_440, run=(4_450, 4_500))
        trace.kernel_without_launch("node", (4_600, 4_700), graph_node=2**40)
    if "CUDA_GPU_MEMORY_USAGE_EVENTS" in trace.tables:
        trace.memory_usage(5, 1_024, 0x1000)
        trace.memory_usage(9, 1_024, 0x1000, free=True)
        trace.memory_usage(9, 512, 2**63 - 1, kind="pinned")
    if "GPU_METRICS" in trace.tables:
        trace.gpu_metric("SM Active [%]", 7, 80)
        trace.gpu_metric("DRAM Read [%]", 7, 3, device=1)
    if "DIAGNOSTIC_EVENT" in trace.tables:
        trace.diagnostic("1 CUDA events lost", severity="error")
    return trace


@pytest.mark.parametrize("version", PRODUCTS)
def test_a_recording_of_nsys_reads_back_as_it_was(version: str, tmp_path: Path) -> None:
    before = everything(recording(version), tmp_path)

    assert_same(before, exported(before, tmp_path))


def test_what_pytorch_recorded_reads_back_as_it_was(tmp_path: Path) -> None:
    before = pytorch_step()

    after = exported(before, tmp_path)

    assert {*OWN[:3], "memory", "devices"} <= after.tables.keys()
    ops = ("gpu_ops", "launched_by", "collectives")
    assert_same(without(before, *ops), without(after, *ops))
    assert_frame_equal(rows(before, "gpu_ops"), rows(after, "gpu_ops"), check_column_order=False)
    # The copy stands behind the kernels now, and who refers to them has followed.
    assert after["launched_by"].collect().rows() == [(0, 2), (1, 4)]
    assert after["collectives"].collect()["op_id"].to_list() == [1]


def test_a_snapshot_reads_back_as_it_was(tmp_path: Path) -> None:
    before = snapshot()

    assert_same(before, exported(before, tmp_path))


def test_an_export_of_an_export_is_the_same_but_for_its_origin(tmp_path: Path) -> None:
    once = exported(pytorch_step(), tmp_path)
    path = once.source.path.rename(tmp_path / "once.sqlite")
    again = exported(open_trace(path, everything=True), tmp_path)

    assert_same(
        replace(once, source=replace(once.source, facts={})),
        replace(again, source=replace(again.source, facts={})),
    )
    assert again.source.facts["recorded_by"] == "PyTorch"
    assert again.source.facts["recorded_format"] == "kineto-json"
    assert again.source.facts["exported_from"] == "once.sqlite"


def test_it_says_who_wrote_it_and_what_it_was(tmp_path: Path) -> None:
    after = exported(pytorch_step(), tmp_path)

    assert after.source.format == "nsys-sqlite"
    assert after.source.producer == f"tracelens {__version__}"
    assert after.source.schema_version == "3.24.0"
    assert after.source.facts == {
        "epoch_ns": "1790857026000000123", "rank": "0", "world_size": "2",
        "exported_from": "rank0.json", "exported_format": "kineto-json",
        "recorded_format": "kineto-json", "recorded_by": "PyTorch",
    }  # fmt: skip


def test_tables_have_the_columns_that_nsys_gave_them_in_its_order() -> None:
    theirs = nsys_tables(schema.VERSION)

    for name in theirs.keys() & schema.TABLES.keys():
        ours = [c.partition(":")[0].rstrip("!*") for c in schema.TABLES[name]]
        own = [c for c in ours if c not in {column.name for column in theirs[name]}]
        assert ours[: len(ours) - len(own)] == [c.name for c in theirs[name]], name
        assert name.startswith("CUPTI_ACTIVITY_KIND_MEM") or all("tracelens" in c for c in own)


def query(path: Path, sql: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute(sql).fetchall()


def test_rows_are_as_nsys_writes_them(tmp_path: Path) -> None:
    path = exported(pytorch_step(), tmp_path).source.path

    kernels = """
        SELECT k.globalPid, k.correlationId, d.value, s.value, k.staticSharedMemory, k.gridX
        FROM CUPTI_ACTIVITY_KIND_KERNEL AS k
        JOIN StringIds AS d ON d.id = k.demangledName JOIN StringIds AS s ON s.id = k.shortName
    """
    assert query(path, kernels) == [
        (0x1_0000_6400_0000, 11, "void gemm<4>(int)", "gemm", None, 3),
        (0x1_0000_6400_0000, 13, "ncclDevKernel_AllReduce", "ncclDevKernel_AllReduce", None, None),
    ]
    calls = """
        SELECT s.value, r.eventClass, r.globalTid FROM CUPTI_ACTIVITY_KIND_RUNTIME AS r
        JOIN StringIds AS s ON s.id = r.nameId
    """
    assert query(path, calls) == [
        ("cudaLaunchKernel", 0, 0x1_0000_6400_0064),
        ("cudaMemcpyAsync", 0, 0x1_0000_6400_0064),
        ("cuLaunchKernelEx", 1, 0x1_0000_6400_0065),
    ]
    ranges = query(path, "SELECT text, eventType, domainId FROM NVTX_EVENTS")
    assert [text for text, kind, domain in ranges if (kind, domain) == (59, 0)] == [
        "train.py(3): step", "forward", "aten::mm", "backward", "MmBackward0",
    ]  # fmt: skip
    usage = "SELECT start, bytes, memKind, memoryOperationType FROM CUDA_GPU_MEMORY_USAGE_EVENTS"
    assert query(path, usage) == [(12, 64, 2, 0), (35, 64, 2, 1)]
    assert query(path, "SELECT utcEpochNs, utcTime FROM TARGET_INFO_SESSION_START_TIME") == [
        (1790857026000000123, "2026-10-01T12:17:06")
    ]
    assert query(path, "SELECT pid, name FROM PROCESSES") == [(100, "python3")]


def test_it_is_cached_with_what_is_ours_and_not_with_what_nsys_reads_on_request(
    tmp_path: Path,
) -> None:
    ours = exported(pytorch_step(), tmp_path).source.path.rename(tmp_path / "ours.sqlite")
    theirs = exported(everything(recording("3.20.3"), tmp_path), tmp_path).source.path

    for path, later in ((ours, ()), (theirs, ("memory", "counters"))):
        first = open_trace(path)
        store.flush()
        second = open_trace(path)

        assert first.on_request == later
        assert second.entry is not None
        assert_same(first, second)


def test_ids_that_nsys_has_no_room_for_come_back(tmp_path: Path) -> None:
    threads = [(1, 1), (1, 2**24 - 1), (1, 2**24), (1, -1), (1, 2**31 - 1), (-1, 5), (2**31 - 1, 5),
               (2**24 + 1, 1), (-(2**31), -(2**31))]  # fmt: skip
    before = made(
        threads=[{"pid": p, "tid": t, "name": f"{p} {t}"} for p, t in sorted(threads)],
        ranges=[
            {"kind": "push_pop", "pid": p, "tid": t, "end_tid": t, "start_ns": n, "end_ns": n + 1,
             "name": f"{p} {t}", "domain": f"of {p}"}
            for n, (p, t) in enumerate(threads)
        ],
    )  # fmt: skip

    after = exported(before, tmp_path)

    assert_same(before, after)
    ids = query(
        after.source.path, "SELECT DISTINCT globalTid FROM NVTX_EVENTS WHERE eventType = 59"
    )
    assert len(ids) == len(threads)


def test_a_cut_holds_its_work_and_the_ranges_that_reach_into_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = pytorch_step()

    after = exported(before, tmp_path, Cut(within="backward"))

    assert rows(after, "gpu_ops")["name"].to_list() == ["ncclDevKernel_AllReduce"]
    assert rows(after, "api")["name"].to_list() == ["cuLaunchKernelEx"]
    names = ["train.py(3): step", "backward", "MmBackward0"]
    assert rows(after, "ranges")["name"].to_list() == names
    # The forward op was cut away.
    assert after["ops"].select("range_id", "forward").collect().rows() == [(2, None)]
    assert after["launched_by"].collect().rows() == [(0, 2)]
    assert after["collectives"].collect()["op_id"].to_list() == [0]
    assert "This export was cut to 1 of 3 GPU operations." in {c.text for c in after.caveats}
    (phase,) = table(link(after), "phases")
    assert (phase["phase"], phase["kernels"]) == ("backward", 1)


def test_tables_that_refer_to_lost_rows_are_set_aside(tmp_path: Path) -> None:
    path = exported(pytorch_step(), tmp_path).source.path
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("DELETE FROM CUPTI_ACTIVITY_KIND_MEMCPY")

    after = open_trace(path, cache=False)

    assert "ops" in after
    assert not {"launched_by", "collectives"} & after.tables.keys()
    assert any("TRACELENS_COLLECTIVES was set aside" in c.text for c in after.caveats)


@pytest.mark.parametrize(
    ("damage", "table", "rows"),
    [
        ("UPDATE TRACELENS_OPS SET range_id = 99 WHERE range_id = 2", "ops", 1),
        ("UPDATE TRACELENS_OPS SET range_id = 2", "ops", 1),
        ("UPDATE TRACELENS_LAUNCHED_BY SET op_id = 'x'", "launched_by", 0),
        ("UPDATE TRACELENS_MEMORY SET size_bytes = -1 WHERE time_ns = 12", "memory", 1),
    ],
)
def test_rows_of_ours_that_cannot_be_true_are_set_aside(
    tmp_path: Path, damage: str, table: str, rows: int
) -> None:
    path = exported(pytorch_step(), tmp_path).source.path
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(damage)

    after = open_trace(path, cache=False)

    assert after[table].collect().height == rows
    said = f"{2 - rows} rows of TRACELENS_{table.upper()} were set aside: they cannot be true."
    assert said in {caveat.text for caveat in after.caveats}


def test_what_was_not_recorded_is_no_table_and_what_was_empty_is_one(tmp_path: Path) -> None:
    nothing = made(api=[], threads=[])
    ranges = made(
        ranges=[{"kind": "op", "pid": 1, "tid": 1, "start_ns": 0, "end_ns": 5, "name": ""}]
    )

    assert {"api", "names"} <= exported(nothing, tmp_path).tables.keys()
    assert exported(nothing, tmp_path)["api"].collect().is_empty()
    assert exported(ranges, tmp_path).tables.keys() == {"ranges", "names"}
    assert rows(exported(ranges, tmp_path), "ranges")["name"].to_list() == [""]
    with pytest.raises(NothingToShowError, match="holds no GPU work"):
        exported(made(threads=[]), tmp_path)


def test_metrics_that_are_no_whole_numbers_are_left_out(tmp_path: Path) -> None:
    sample = {"time_ns": 5, "device": 0, "name": "SM Active", "value": 0.5}
    work = {"kind": "kernel", "pid": 1, "start_ns": 0, "end_ns": 5, "name": "k"}

    assert "counters" not in exported(made(gpu_ops=[work], counters=[sample]), tmp_path)


# Any trace

ids = st.one_of(st.integers(0, 5), st.integers(-(2**31), 2**31 - 1))
small = st.one_of(st.none(), st.integers(0, 2**31 - 1))
large = st.one_of(st.none(), st.integers(0, 2**62))
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
spans = st.tuples(st.integers(-(2**40), 2**40), st.integers(0, 2**30)).map(
    lambda pair: {"start_ns": pair[0], "end_ns": pair[0] + pair[1]}
)


def row(**columns: st.SearchStrategy[Any]) -> st.SearchStrategy[Row]:
    return st.tuples(spans, st.fixed_dictionaries(columns)).map(lambda both: both[0] | both[1])


def of_kind(op: Row) -> Row:
    """Leave out what GPU work of a kind does not have."""
    shape = ("grid_x", "grid_y", "block_z", "registers", "shared_bytes")
    if op["kind"] != "kernel":
        op |= dict.fromkeys(shape)
    if op["kind"] in ("kernel", "graph"):
        op |= {"bytes": None}
    if op["kind"] == "graph":
        op |= {"graph_node": None}
    return {**op, "copy_kind": op["copy_kind"] if op["kind"] == "copy" else None}


ops = row(
    kind=st.sampled_from(OP_KINDS), name=texts, pid=st.one_of(st.none(), ids), device=small,
    stream=small, context=small, correlation=st.one_of(st.none(), st.integers(0, 2**32 - 1)),
    bytes=large, copy_kind=st.sampled_from(COPY_KINDS), graph_id=small, graph_node=large,
    grid_x=small, grid_y=small, block_z=small, registers=small, shared_bytes=small,
).map(of_kind)  # fmt: skip
calls = row(
    name=texts, pid=ids, tid=ids, status=small,
    correlation=st.one_of(st.none(), st.integers(0, 2**32 - 1)),
)  # fmt: skip
ranges = row(
    name=texts, pid=ids, tid=ids, end_tid=st.one_of(st.none(), ids),
    domain=texts | st.integers(0, 3).map("domain {}".format),
    kind=st.sampled_from(RANGE_KINDS), closed=st.booleans(),
)  # fmt: skip
devices = st.lists(
    st.fixed_dictionaries(
        {
            "device": small,
            "pid": st.one_of(st.none(), ids),
            "gpu": small,
            "name": st.none() | texts.filter(bool),
        }
    ),
    max_size=3,
    unique_by=lambda device: (device["pid"], device["device"]),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(ops, max_size=8), st.lists(calls, max_size=5), st.lists(ranges, max_size=8), devices
)  # fmt: skip
def test_any_trace_reads_back_as_it_was(
    tmp_path: Path, ops: list[Row], calls: list[Row], ranges: list[Row], devices: list[Row]
) -> None:
    named = {(call["pid"], call["tid"]): f"thread {n}" for n, call in enumerate(calls)}
    threads = [{"pid": p, "tid": t, "name": name} for (p, t), name in sorted(named.items())]
    tables = {"gpu_ops": ops, "api": calls, "ranges": ranges, "devices": devices}
    before = link(made(**tables, **({"threads": threads} if threads else {}))).trace

    assert_same(before, exported(before, tmp_path))


@pytest.mark.corpus
@pytest.mark.slow
def test_summaries_of_a_profile_and_of_its_export_are_the_same(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shell = Shell(capsys)
    out = tmp_path / "run.sqlite"
    for path in sorted((corpus / "kineto").iterdir()):
        assert shell("export", path, "--to", "nsys-sqlite", "-o", out, "--force").status == 0

        said = [shell("summarize", p, "--table", "all", "-f", "json").json for p in (path, out)]
        assert said[0]["tables"] == said[1]["tables"], path.name
        assert said[0]["warnings"] == said[1]["warnings"]


@pytest.mark.corpus
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["nsys", "kineto", "memory", "multirank"])
def test_real_recordings_read_back_as_they_were(corpus: Path, tmp_path: Path, kind: str) -> None:
    for path in sorted(file for file in (corpus / kind).rglob("*") if file.is_file()):
        # Processes may number their GPUs differently, which linking settles.
        before = link(open_trace(path, everything=True)).trace

        after = exported(before, tmp_path)

        # Kineto's GPU work does not come by kind: it has other numbers here.
        referring = ("launched_by", "collectives")
        assert_same(without(before, *referring), without(after, *referring))
        for name in before.tables.keys() & {*referring}:
            assert_frame_equal(launched(before, name), launched(after, name))


def launched(trace: Trace, table: str) -> pl.DataFrame:
    """Return a table that refers to GPU work by start and name of that, sorted."""
    names = trace["names"].select("name_id", op="name")
    work = (
        trace["gpu_ops"].select("op_id", "start_ns", "stream", "name_id").join(names, on="name_id")
    )
    whole = trace[table].join(work, on="op_id").drop("op_id", "name_id").collect()
    return whole.sort("start_ns", "stream")


# What nsys says

REPORTS = {
    "gpukernsum": ("Name", "Instances"),
    "nvtxppsum": ("Range", "Instances"),
    "cudaapisum": ("Name", "Num Calls"),
    "gpumemtimesum": ("Operation", "Count"),
}


def stats(nsys: str, path: Path, report: str) -> Counter[tuple[str, str, str]]:
    """Return the names, counts and total times that a report of `nsys stats` prints."""
    command = [nsys, "stats", "--report", report, "--format", "csv", "-q", str(path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    name, count = REPORTS[report]
    rows = csv.DictReader(io.StringIO(done.stdout))
    return Counter((row[name], row[count], row["Total Time (ns)"]) for row in rows)


@pytest.mark.nsys
@pytest.mark.parametrize("report", REPORTS)
def test_nsys_says_of_an_export_what_it_says_of_the_recording(
    nsys: str, tmp_path: Path, report: str
) -> None:
    before = everything(recording("3.20.3"), tmp_path)
    after = exported(before, tmp_path).source.path

    assert stats(nsys, after, report) == stats(nsys, before.source.path, report) != Counter()


@pytest.mark.nsys
@pytest.mark.corpus
@pytest.mark.slow
@pytest.mark.parametrize("report", REPORTS)
@pytest.mark.parametrize(
    "name", ["gpt2-small-ctx256-a100-train", "h100x2-1s", "torchrun-h100x2-before"]
)
def test_nsys_says_the_same_of_real_recordings(
    nsys: str, corpus: Path, tmp_path: Path, name: str, report: str
) -> None:
    path = tmp_path / f"{name}.sqlite"
    shutil.copyfile(corpus / "nsys" / path.name, path)
    after = exported(open_trace(path, everything=True), tmp_path).source.path

    assert stats(nsys, after, report) == stats(nsys, path, report) != Counter()


@pytest.mark.nsys
def test_nsys_says_of_a_pytorch_profile_what_we_say(nsys: str, tmp_path: Path) -> None:
    before = link(pytorch_step())
    after = exported(before.trace, tmp_path).source.path

    took = (pl.col("end_ns") - pl.col("start_ns")).sum().cast(pl.String)
    said = {report: stats(nsys, after, report) for report in REPORTS}
    kernels = rows(before.trace, "gpu_ops").filter(kind="kernel").group_by("name")
    ranges = rows(before.trace, "ranges").group_by("name")
    api = rows(before.trace, "api").group_by("name")
    counted = (pl.len().cast(pl.String), took)
    assert set(said["gpukernsum"]) == set(kernels.agg(counted).iter_rows())
    assert set(said["cudaapisum"]) == set(api.agg(counted).iter_rows())
    assert set(said["nvtxppsum"]) == set(ranges.agg(counted).iter_rows())
    assert set(said["gpumemtimesum"]) == {("[CUDA memcpy HtoD]", "1", "5")}


# The command


def test_the_command_writes_what_summarize_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = recording("3.20.3").write(tmp_path / "run.sqlite")
    monkeypatch.chdir(tmp_path)
    shell = Shell(capsys)

    said = shell("export", path, "--to", "nsys-sqlite", "-o", "again.sqlite")
    refused = shell("export", path, "--to", "nsys-sqlite")

    assert said.status == 0
    assert said.out.startswith("Wrote again.sqlite (")
    assert refused.status == 2
    assert "is the recording itself" in refused.err
    tables = [shell("summarize", p, "-f", "json").json["tables"] for p in (path, "again.sqlite")]
    assert tables[0]["kernels"] == tables[1]["kernels"]
    assert sorted(f.name for f in tmp_path.iterdir()) == ["again.sqlite", "run.sqlite"]


def test_a_full_disk_is_said_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = recording("3.20.3").write(tmp_path / "run.sqlite")

    def full(*_: object, **__: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr("tracelens.exports.nsys_sqlite._insert", full)
    said = Shell(capsys)("export", path, "--to", "nsys-sqlite", "-o", tmp_path / "x.sqlite")

    assert said.status == 2
    assert "x.sqlite cannot be written: database or disk is full." in said.err
    assert sorted(f.name for f in tmp_path.iterdir()) == ["run.sqlite"]
