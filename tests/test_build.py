"""The builder of tiny traces writes what nsys writes."""

from __future__ import annotations

import csv
import io
import sqlite3
import subprocess
from contextlib import closing
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from tests.build import Nsys, training_step
from tests.nsys_schema import PRODUCTS, tables

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

IN_CORPUS = (
    "2021",
    "2.9.1",
    "3.0.0",
    "3.1.2",
    "3.13.2",
    "3.16.1",
    "3.17.1",
    "3.17.2",
    "3.20.3",
    "3.23.3",
    "3.25.0",
)


def rows(path: Path, sql: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute(sql).fetchall()


def test_a_kernel_is_linked_to_its_call_and_named_in_string_ids(tmp_path: Path) -> None:
    trace = Nsys()
    main = trace.thread("python", pid=100, tid=104)
    main.kernel("void at::native::gelu<4>(float*)", api=(10, 12), run=(20, 40), stream=9)

    path = trace.write(tmp_path / "run.sqlite")
    found = rows(
        path,
        """SELECT api.start, api.end, k.start, k.end, k.streamId, call.value, name.value,
                  short.value, api.globalTid >> 24 & 0xFFFFFF, api.globalTid & 0xFFFFFF
           FROM CUPTI_ACTIVITY_KIND_KERNEL AS k
           JOIN CUPTI_ACTIVITY_KIND_RUNTIME AS api
             ON api.correlationId = k.correlationId AND api.globalTid & ~0xFFFFFF = k.globalPid
           JOIN StringIds AS call ON call.id = api.nameId
           JOIN StringIds AS name ON name.id = k.demangledName
           JOIN StringIds AS short ON short.id = k.shortName""",
    )

    name = "void at::native::gelu<4>(float*)"
    assert found == [(10, 12, 20, 40, 9, "cudaLaunchKernel_v7000", name, "gelu", 100, 104)]


def test_ranges_are_default_in_a_domain_registered_never_closed_or_ended_elsewhere(
    tmp_path: Path,
) -> None:
    trace = Nsys()
    main, other = trace.thread("python"), trace.thread("loader", tid=101)
    main.push("forward", 0, 100).push("open", 5, None)
    main.push("cublasSgemm", 10, 20, domain="cuBLAS", registered=True)
    main.push("request", 30, 40, kind="start_end", end_thread=other).push(
        "here", 50, 50, kind="mark"
    )

    path = trace.write(tmp_path / "run.sqlite")
    sql = """SELECT start, end, eventType, text, value, domainId, rangeId, endGlobalTid & 0xFFFFFF
             FROM NVTX_EVENTS LEFT JOIN StringIds ON id = textId"""

    assert rows(path, sql) == [
        (0, 100, 59, "forward", None, 0, None, None),
        (5, None, 59, "open", None, 0, None, None),
        (10, None, 75, "cuBLAS", None, 1, None, None),
        (10, 20, 59, None, "cublasSgemm", 1, None, None),
        (30, 40, 60, "request", None, 0, 1, 101),
        (50, 50, 34, "here", None, 0, None, None),
    ]


def test_correlation_ids_are_unique_inside_a_process_only(tmp_path: Path) -> None:
    trace = Nsys()
    for rank in (100, 200):
        trace.thread("python", pid=rank).kernel("k", at=0, run=(1, 2))

    path = trace.write(tmp_path / "run.sqlite")

    sql = "SELECT globalPid >> 24 & 0xFFFFFF, correlationId FROM CUPTI_ACTIVITY_KIND_KERNEL"
    assert rows(path, sql) == [(100, 1), (200, 1)]


def test_tables_without_rows_do_not_exist(tmp_path: Path) -> None:
    trace = Nsys()
    trace.thread("python").push("forward", 0, 1)

    path = trace.write(tmp_path / "run.sqlite")
    names = {name for (name,) in rows(path, "SELECT name FROM sqlite_master")}

    assert {"NVTX_EVENTS", "StringIds", "META_DATA_EXPORT", "PROCESSES"} <= names
    assert not [name for name in names if name.startswith("CUPTI")]


def test_a_nameless_thread_leaves_no_trace_as_on_windows(tmp_path: Path) -> None:
    trace = Nsys()
    trace.thread(None, pid=5, tid=77).call("cudaMalloc_v3020", 0, 1, status=2)

    path = trace.write(tmp_path / "run.sqlite")
    names = {name for (name,) in rows(path, "SELECT name FROM sqlite_master")}

    assert not names & {"ThreadNames", "PROCESSES"}
    assert rows(path, "SELECT returnValue FROM CUPTI_ACTIVITY_KIND_RUNTIME") == [(2,)]


def test_graph_nodes_moved_to_a_table_of_their_own(tmp_path: Path) -> None:
    def written(schema: str) -> list[tuple[Any, ...]]:
        trace = Nsys(schema)
        trace.graph_node(trace.thread("python"), 7, at=5, original=3)
        table = "CUDA_GRAPH_EVENTS" if schema == "3.0.0" else "CUDA_GRAPH_NODE_EVENTS"
        path = trace.write(tmp_path / f"{schema}.sqlite")
        return rows(path, f"SELECT start, graphNodeId, originalGraphNodeId FROM {table}")

    assert written("3.0.0") == written("3.25.0") == [(5, 7, 3)]


def test_two_ranks_see_their_gpu_as_device_zero(tmp_path: Path) -> None:
    trace = Nsys()
    trace.device(0, "NVIDIA H200", gpu=0, pids=[100])
    trace.device(0, "NVIDIA H200", gpu=1, pids=[200])

    path = trace.write(tmp_path / "run.sqlite")

    assert rows(path, "SELECT * FROM TARGET_INFO_CUDA_DEVICE") == [(0, 0, 100), (1, 0, 200)]
    assert rows(path, "SELECT id, smCount FROM TARGET_INFO_GPU") == [(0, 132), (1, 132)]


def test_metrics_memory_and_diagnostics_have_their_rows(tmp_path: Path) -> None:
    trace = Nsys()
    trace.gpu_metric("SMs Active [Throughput %]", 10, 40)
    trace.gpu_metric("SMs Active [Throughput %]", 20, 60)
    trace.memory_usage(5, 1024, 0x7F00, free=True, kind="pinned")
    trace.diagnostic("Not all CUDA events might have been collected.", severity="error")

    path = trace.write(tmp_path / "run.sqlite")

    sql = """SELECT timestamp, metricName, value, typeId & 0xFF FROM GPU_METRICS
             JOIN TARGET_INFO_GPU_METRICS USING (typeId, metricId)"""
    name = "SMs Active [Throughput %]"
    assert rows(path, sql) == [(10, name, 40, 0), (20, name, 60, 0)]
    sql = "SELECT bytes, memKind, memoryOperationType FROM CUDA_GPU_MEMORY_USAGE_EVENTS"
    assert rows(path, sql) == [(1024, 1, 1)]
    assert rows(path, "SELECT severity FROM DIAGNOSTIC_EVENT") == [(3,)]


def test_text_may_be_bytes_that_are_not_utf_8(tmp_path: Path) -> None:
    trace = Nsys()
    trace.thread("python").push(b"na\xefve", 0, 1)

    path = trace.write(tmp_path / "run.sqlite")

    sql = "SELECT typeof(text), CAST(text AS BLOB) FROM NVTX_EVENTS"
    assert rows(path, sql) == [("text", b"na\xefve")]


def test_shuffled_rows_are_the_same_rows(tmp_path: Path) -> None:
    trace = Nsys()
    training_step(trace)
    ordered, shuffled = (
        rows(
            trace.write(tmp_path / f"{seed}.sqlite", shuffle=seed),
            "SELECT * FROM CUPTI_ACTIVITY_KIND_KERNEL",
        )
        for seed in (None, 7)
    )

    assert ordered != shuffled
    assert sorted(ordered, key=str) == sorted(shuffled, key=str)


def test_half_of_the_rows_may_stand_in_the_write_ahead_log(tmp_path: Path) -> None:
    trace = Nsys()
    training_step(trace)
    path = trace.write(tmp_path / "run.sqlite", wal=True)
    sql = "SELECT count(*) FROM CUPTI_ACTIVITY_KIND_KERNEL"

    with closing(sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)) as db:
        assert db.execute(sql).fetchall() == [(4,)]
    assert rows(path, sql) == [(9,)]


def test_what_a_schema_does_not_have_is_refused_or_left_out(tmp_path: Path) -> None:
    trace = Nsys("2020")
    main = trace.thread("python")
    main.kernel("k", at=0, run=(1, 2), columns={"mangledName": 1})
    columns = "SELECT name FROM pragma_table_info('CUPTI_ACTIVITY_KIND_KERNEL')"

    assert ("mangledName",) not in rows(trace.write(tmp_path / "run.sqlite"), columns)
    with pytest.raises(ValueError, match="Schema 2020 has no table DIAGNOSTIC_EVENT"):
        trace.diagnostic("lost")
    with pytest.raises(ValueError, match="never had a column gridW"):
        main.kernel("k", at=0, run=(1, 2), columns={"gridW": 1})
    with pytest.raises(ValueError, match=r"No schema '1\.0'"):
        Nsys("1.0")


@pytest.mark.parametrize("schema", PRODUCTS)
def test_a_training_step_holds_what_it_says_in_every_schema(tmp_path: Path, schema: str) -> None:
    trace = Nsys(schema)
    trace.device(0, "NVIDIA H200")
    step = training_step(trace, at=5_000)

    path = trace.write(tmp_path / "run.sqlite")
    kernels, time_ns = sum(step.kernels.values()), sum(step.kernel_time_ns.values())

    sql = "SELECT count(*), sum(end - start) FROM CUPTI_ACTIVITY_KIND_KERNEL"
    assert rows(path, sql) == [(kernels, time_ns)]
    sql = "SELECT count(*), sum(end - start) FROM CUPTI_ACTIVITY_KIND_MEMCPY"
    assert rows(path, sql) == [(step.copies, step.copy_time_ns)]
    sql = """SELECT sum(end - start), max(end) - min(start) FROM
             (SELECT start, end FROM CUPTI_ACTIVITY_KIND_KERNEL
              UNION SELECT start, end FROM CUPTI_ACTIVITY_KIND_MEMCPY)"""
    assert rows(path, sql) == [(step.busy_ns, step.span_ns)]  # nothing overlaps


@pytest.mark.parametrize("write", ["write_parquet", "write_arrow"])
def test_parquet_and_arrow_folders_hold_the_same_rows(tmp_path: Path, write: str) -> None:
    trace = Nsys()
    training_step(trace)
    path = trace.write(tmp_path / "run.sqlite")
    folder = getattr(trace, write)(tmp_path / "folder")
    read = {"write_parquet": pl.read_parquet, "write_arrow": pl.read_ipc_stream}[write]

    for file in folder.iterdir():
        assert read(file).rows() == rows(path, f"SELECT * FROM {file.stem}")
    assert len(list(folder.iterdir())) == rows(path, "SELECT count(*) FROM sqlite_master")[0][0]


def exports(folder: Path, schema: str) -> Iterator[sqlite3.Connection]:
    for file in sorted(folder.glob("*.sqlite")):
        with closing(sqlite3.connect(f"file:{file}?mode=ro&immutable=1", uri=True)) as db:
            if schema_of(db) == schema:
                yield db


def schema_of(db: sqlite3.Connection) -> str:
    for table in ("META_DATA_EXPORT", "EXPORT_META_DATA"):
        if db.execute("SELECT 1 FROM sqlite_master WHERE name = ?", [table]).fetchone():
            sql = f"SELECT value FROM {table} WHERE name = 'EXPORT_SCHEMA_VERSION'"
            return str(db.execute(sql).fetchone()[0])
    return "2021"


@pytest.mark.corpus
@pytest.mark.parametrize("schema", IN_CORPUS)
def test_tables_are_those_of_real_exports(corpus: Path, schema: str) -> None:
    ours = {
        name: [(c.name, c.sql.split()[1], c.required, c.key) for c in columns]
        for name, columns in tables(schema).items()
    }
    compared = 0
    for db in exports(corpus / "nsys", schema):
        for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            sql = f"SELECT name, type, \"notnull\" = 1, pk > 0 FROM pragma_table_info('{name}')"
            real = [(n, kind, bool(r), bool(k)) for n, kind, r, k in db.execute(sql).fetchall()]
            # Another tool's user added a column `name` at the end of two tables of one export.
            added = ("name", "TEXT", False, False)
            if name.startswith("CUPTI") and real[-1] == added:
                real.pop()
            if name in ours:
                assert (name, ours[name]) == (name, real)
                compared += 1

    assert compared > 3


@pytest.mark.corpus
def test_parquet_types_are_those_of_real_exports(corpus: Path) -> None:
    ours = {name: {c.name: c.dtype for c in cs} for name, cs in tables("3.20.3").items()}
    for file in (corpus / "nsys_parquet").glob("*/*.parquet"):
        if file.stem in ours:
            assert (file.stem, dict(pl.read_parquet_schema(file))) == (file.stem, ours[file.stem])


@pytest.mark.nsys
@pytest.mark.parametrize("schema", ["2020", "2021", "2.9.1", "3.0.0", "3.20.3", "3.25.0"])
def test_nsys_reads_it_and_agrees(nsys: str, tmp_path: Path, schema: str) -> None:
    trace = Nsys(schema)
    step = training_step(trace)
    path = trace.write(tmp_path / "run.sqlite")

    kernels = stats(nsys, "gpukernsum", path)
    copies = stats(nsys, "gpumemtimesum", path)
    ranges = stats(nsys, "nvtxppsum", path)

    assert sum(int(k["Instances"]) for k in kernels) == sum(step.kernels.values())
    assert sum(int(k["Total Time (ns)"]) for k in kernels) == sum(step.kernel_time_ns.values())
    assert [int(c["Total Time (ns)"]) for c in copies] == [step.copy_time_ns]
    took = {r["Range"].removeprefix(":"): int(r["Total Time (ns)"]) for r in ranges}
    assert took == {"forward": 400, "backward": 1_300, "optimizer": 400}


def stats(nsys: str, report: str, path: Path) -> list[dict[str, str]]:
    command = [nsys, "stats", "-r", report, "-f", "csv", "-q", str(path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return list(csv.DictReader(io.StringIO(done.stdout)))
