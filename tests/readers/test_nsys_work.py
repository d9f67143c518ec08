"""GPU work and API calls out of nsys exports: what a row becomes, in every schema there was."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from tests.asking import linked, nearly, opened, table, texts, the_row
from tests.build import Nsys, training_step
from tests.nsys_schema import PRODUCTS
from tracelens.errors import NothingToShowError
from tracelens.links.linked import link
from tracelens.readers.open import open_trace
from tracelens.trace.schema import TABLES

if TYPE_CHECKING:
    from pathlib import Path

    from tracelens.trace.model import Trace


def changed(path: Path, *statements: str) -> Path:
    """Change an export after it was written, as other tools and cut recordings do."""
    with closing(sqlite3.connect(path)) as db, db:
        for sql in statements:
            db.execute(sql)
    return path


def caveats(trace: Trace) -> list[tuple[str, str]]:
    return [(caveat.kind, caveat.text) for caveat in trace.caveats]


@pytest.mark.parametrize("schema", PRODUCTS)
def test_a_training_step_is_the_same_in_every_schema(tmp_path: Path, schema: str) -> None:
    trace = Nsys(schema)
    trace.device(0, "NVIDIA H200")
    step = training_step(trace, at=5_000)

    of = linked(trace, tmp_path)
    phases = {row["phase"]: row for row in table(of, "phases")}
    totals = the_row(of, "totals")

    assert {phase: row["kernels"] for phase, row in phases.items()} == step.kernels
    assert {phase: row["kernel_time_ns"] for phase, row in phases.items()} == step.kernel_time_ns
    assert (totals["copies"], totals["copy_time_ns"]) == (step.copies, step.copy_time_ns)
    assert (totals["busy_ns"], totals["span_ns"]) == (step.busy_ns, step.span_ns)
    assert of.coverage() == {
        "gpu_ops": 10,
        "own_thread": 6,
        "same_process": 3,
        "inferred": 0,
        "ambiguous": 0,
        "none": 1,
        "unlinked": 0,
    }


@pytest.mark.parametrize("schema", PRODUCTS)
def test_the_recorder_and_its_schema_are_told(tmp_path: Path, schema: str) -> None:
    trace = Nsys(schema)
    training_step(trace)

    source = opened(trace, tmp_path).source

    versioned = schema not in ("2020", "2021")
    assert source.producer == (f"nsys {PRODUCTS[schema]}" if versioned else "nsys")
    assert source.schema_version == (schema if versioned else None)


@pytest.mark.parametrize("everything", [False, True])
@pytest.mark.parametrize("schema", PRODUCTS)
def test_every_table_has_the_columns_and_types_that_the_schema_declares(
    tmp_path: Path, schema: str, *, everything: bool
) -> None:
    trace = Nsys(schema)
    trace.device(0, "NVIDIA H200")
    training_step(trace)

    read = open_trace(trace.write(tmp_path / "run.sqlite"), cache=False, everything=everything)

    assert set(read.tables) >= {"gpu_ops", "api", "ranges", "threads", "devices", "names"}
    for name, frame in read.tables.items():
        declared = dict(TABLES[name].schema(everything=everything))
        assert (name, dict(frame.collect_schema())) == (name, declared)
        assert dict(frame.collect().schema) == declared


def test_work_has_its_kind_place_and_size(tmp_path: Path) -> None:
    trace = Nsys()
    main = trace.thread("python", pid=100)
    main.kernel("gemm", at=0, run=(10, 30), stream=7)
    main.copy(bytes=4096, kind="DtoH", at=1, run=(30, 35), stream=8)
    main.memset(bytes=64, at=2, run=(35, 36), device=1)
    main.graph(graph_id=5, at=3, run=(40, 90))

    columns = ("kind", "name", "start_ns", "end_ns", "device", "stream", "pid", "bytes", "graph_id")
    found = texts(opened(trace, tmp_path), "gpu_ops", *columns)

    assert found == [
        ("kernel", "gemm", 10, 30, 0, 7, 100, None, None),
        ("copy", "[CUDA memcpy Device-to-Host]", 30, 35, 0, 8, 100, 4096, None),
        ("memset", "[CUDA memset]", 35, 36, 1, 7, 100, 64, None),
        ("graph", "[CUDA graph]", 40, 90, 0, 7, 100, None, 5),
    ]


def test_the_shape_of_a_launch_is_read_on_request(tmp_path: Path) -> None:
    trace = Nsys()
    shape = {"gridX": 4, "gridY": 3, "gridZ": 2, "blockX": 128, "registersPerThread": 40}
    shared = {"staticSharedMemory": 1024, "dynamicSharedMemory": 2048}
    trace.thread("python").kernel("k", at=0, run=(1, 2), columns={**shape, **shared})
    path = trace.write(tmp_path / "run.sqlite")

    ops = open_trace(path, cache=False, everything=True)["gpu_ops"].collect()

    columns = ["grid_x", "grid_y", "grid_z", "block_x", "block_y", "registers", "shared_bytes"]
    assert ops.select(columns).rows() == [(4, 3, 2, 128, 1, 40, 3072)]
    assert "grid_x" not in open_trace(path, cache=False)["gpu_ops"].collect_schema()


def test_every_direction_of_a_copy_has_its_name(tmp_path: Path) -> None:
    trace = Nsys()
    main = trace.thread("python")
    for number, kind in enumerate(("HtoD", "DtoD", "PtoP", "UnifiedDtoH", "unknown")):
        main.copy(bytes=100 * number, kind=kind, at=number, run=(number, number + 1))

    found = texts(opened(trace, tmp_path), "gpu_ops", "copy_kind", "bytes", "name")

    assert found == [
        ("HtoD", 0, "[CUDA memcpy Host-to-Device]"),
        ("DtoD", 100, "[CUDA memcpy Device-to-Device]"),
        ("PtoP", 200, "[CUDA memcpy Peer-to-Peer]"),
        ("UnifiedDtoH", 300, "[CUDA memcpy Unified Device-to-Host]"),
        ("unknown", 400, "[CUDA memcpy of unknown kind]"),
    ]


def test_rows_of_call_stacks_do_not_double_the_calls(tmp_path: Path) -> None:
    trace = Nsys("2021")
    main = trace.thread("python")
    number = main.kernel("saxpy", api=(10, 20), run=(30, 50))
    main.call("cudaLaunchKernel_v7000", 9, 25, event_class=67, correlation=number)

    of = linked(trace, tmp_path)

    assert [(row["calls"], row["total_ns"]) for row in table(of, "kernels")] == [(1, 20)]
    assert [(row["calls"], row["total_ns"]) for row in table(of, "api")] == [(1, 10)]


def test_kernels_that_the_driver_launched_are_linked_like_any(tmp_path: Path) -> None:
    trace = Nsys()
    main = trace.thread("python")
    main.push("forward", 0, 100)
    main.kernel("triton_poi", api=(10, 12), run=(20, 30), call="cuLaunchKernelEx", event_class=1)

    of = linked(trace, tmp_path)

    assert of.coverage()["own_thread"] == 1
    assert [row["name"] for row in table(of, "api")] == ["cuLaunchKernelEx"]


def test_a_graph_traced_as_a_whole_is_one_launch_and_no_kernel(tmp_path: Path) -> None:
    trace = Nsys()
    main = trace.thread("python")
    main.graph(graph_id=3, at=0, run=(10, 1_010))
    main.kernel("tail", at=5, run=(1_010, 1_020))

    totals = the_row(linked(trace, tmp_path), "totals")

    assert (totals["graph_launches"], totals["graph_time_ns"]) == (1, 1_000)
    assert (totals["kernels"], totals["kernel_time_ns"]) == (1, 10)
    assert (totals["busy_ns"], totals["idle_ns"]) == (1_010, 0)


def test_a_graph_whose_nodes_were_traced_is_not_counted_twice(tmp_path: Path) -> None:
    trace = Nsys()
    main = trace.thread("python")
    main.push("forward", 0, 8)
    whole = main.graph(graph_id=3, at=5, run=(10, 60))
    for node, run in enumerate([(10, 30), (30, 60)], start=1):
        trace.kernel_without_launch("node", run, correlation=whole, graph_node=node)
    main.graph(graph_id=4, at=9, run=(70, 90))

    of = linked(trace, tmp_path)
    totals = the_row(of, "totals")

    assert (totals["kernels"], totals["kernel_time_ns"]) == (2, 50)
    assert (totals["graph_launches"], totals["graph_time_ns"]) == (1, 20)
    phases = {row["phase"]: row["kernels"] for row in table(of, "phases")}
    assert phases == {"forward": 2, None: 0}


def test_times_may_be_negative_and_as_large_as_they_get(tmp_path: Path) -> None:
    late = 2**62
    trace = Nsys()
    main = trace.thread("python")
    main.push("forward", -20_000_000_000, -5)
    main.kernel("early", at=-10, run=(-9, -4))
    main.push("backward", late, late + 50)
    main.kernel("late", at=late + 1, run=(late + 10, late + 40))

    of = linked(trace, tmp_path)
    totals = the_row(of, "totals")

    assert {row["phase"]: row["kernel_time_ns"] for row in table(of, "phases")} == {
        "forward": 5,
        "backward": 30,
    }
    assert (totals["busy_ns"], totals["span_ns"]) == (35, late + 49)


def test_a_kernel_without_its_string_still_counts(tmp_path: Path) -> None:
    trace = Nsys()
    main = trace.thread("python")
    main.kernel("known", at=0, run=(10, 20))
    main.kernel("lost", at=1, run=(20, 50), columns={"demangledName": 4_711})

    read = opened(trace, tmp_path)

    assert texts(read, "gpu_ops", "name") == [("known",), ("(string 4711 is missing)",)]
    assert caveats(read) == [("damaged", "StringIds lacks 1 names that events refer to.")]


def test_rows_that_end_before_they_start_are_set_aside_and_counted(tmp_path: Path) -> None:
    trace = Nsys()
    main = trace.thread("python")
    main.kernel("good", at=0, run=(10, 20))
    main.kernel("bad", at=1, run=(50, 30))
    main.push("also bad", 9, 3)

    read = opened(trace, tmp_path)

    assert texts(read, "gpu_ops", "name") == [("good",)]
    assert read["ranges"].collect().is_empty()
    assert [kind for kind, _ in caveats(read)] == ["damaged", "damaged"]
    assert all("1 rows of" in text for _, text in caveats(read))


def test_a_call_that_the_recording_stopped_in_is_still_a_launch(tmp_path: Path) -> None:
    trace = Nsys()
    main = trace.thread("python")
    main.push("forward", 0, 100)
    main.kernel("k", at=10, run=(20, 30))
    path = trace.write(tmp_path / "run.sqlite")
    name = "CUPTI_ACTIVITY_KIND_RUNTIME"
    columns = "eventClass, globalTid, correlationId, nameId, returnValue"
    changed(
        path,
        f"CREATE TABLE other AS SELECT start, NULL AS end, {columns} FROM {name}",
        f"DROP TABLE {name}",
        f"ALTER TABLE other RENAME TO {name}",
    )

    assert linked(path).coverage()["own_thread"] == 1


def test_two_ids_of_one_text_are_one_kernel(tmp_path: Path) -> None:
    trace = Nsys()
    main = trace.thread("python")
    main.kernel("k", at=0, run=(10, 20))
    main.kernel("other", at=1, run=(20, 50))
    path = trace.write(tmp_path / "run.sqlite")
    changed(path, "UPDATE StringIds SET value = 'k' WHERE value = 'other'")

    rows = table(linked(path), "kernels")

    assert [(row["name"], row["calls"], row["total_ns"]) for row in rows] == [("k", 2, 40)]


def test_columns_are_found_by_name_wherever_they_stand(tmp_path: Path) -> None:
    trace = Nsys()
    step = training_step(trace)
    path = trace.write(tmp_path / "run.sqlite")
    name = "CUPTI_ACTIVITY_KIND_KERNEL"
    with closing(sqlite3.connect(path)) as db:
        columns = [c for (c,) in db.execute(f"SELECT name FROM pragma_table_info('{name}')")]
    order = ", ".join(reversed(columns))
    changed(
        path,
        f"CREATE TABLE other AS SELECT 7 AS brandNew, {order} FROM {name}",
        f"DROP TABLE {name}",
        f"ALTER TABLE other RENAME TO {name}",
        "CREATE TABLE SOMETHING_NEW (a, b)",
    )

    found = {row["phase"]: row["kernel_time_ns"] for row in table(linked(path), "phases")}

    assert found == step.kernel_time_ns


def test_an_export_of_another_order_of_rows_is_the_same_export(tmp_path: Path) -> None:
    trace = Nsys()
    end = training_step(trace).end_ns
    training_step(trace, at=end)
    in_order = linked(trace.write(tmp_path / "a.sqlite"))
    shuffled = linked(trace.write(tmp_path / "b.sqlite", shuffle=3))

    for name in ("totals", "phases", "families", "kernels", "ranges", "steps", "gaps", "api"):
        assert nearly(table(in_order, name)) == nearly(table(shuffled, name))


def test_a_table_that_is_missing_was_not_recorded(tmp_path: Path) -> None:
    trace = Nsys()
    trace.thread("python").push("forward", 0, 10)

    read = opened(trace, tmp_path)

    assert read.get("gpu_ops") is None
    assert "api" not in read
    with pytest.raises(NothingToShowError, match=r"run\.sqlite holds no api table"):
        read["api"]
    assert read["ranges"].collect().height == 1


def test_calls_without_gpu_work_are_no_gpu_work(tmp_path: Path) -> None:
    trace = Nsys()
    trace.thread("python").call("cudaMalloc_v3020", 0, 100, status=2)

    of = linked(trace, tmp_path)

    assert of.trace.get("gpu_ops") is None
    assert the_row(of, "api")["name"] == "cudaMalloc"
    assert the_row(of, "totals")["kernels"] == 0


def test_kernels_without_calls_are_counted_and_unlinked(tmp_path: Path) -> None:
    trace = Nsys()
    trace.thread("python").push("forward", 0, 100)
    trace.kernel_without_launch("k", (10, 20))

    of = linked(trace, tmp_path)

    assert of.trace.get("api") is None
    assert of.coverage()["unlinked"] == 1
    assert the_row(of, "totals")["kernel_time_ns"] == 10


def test_an_export_without_devices_says_nothing_of_them(tmp_path: Path) -> None:
    trace = Nsys()
    training_step(trace)

    of = linked(trace, tmp_path)

    assert of.trace.get("devices") is None
    assert the_row(of, "devices")["name"] is None
    assert the_row(of, "devices")["kernels"] == 9


def test_work_that_names_no_process_is_counted_and_attributed_to_none(tmp_path: Path) -> None:
    trace = Nsys()
    step = training_step(trace)
    path = trace.write(tmp_path / "run.sqlite")
    changed(path, "ALTER TABLE CUPTI_ACTIVITY_KIND_KERNEL DROP COLUMN globalPid")

    of = linked(path)
    totals = the_row(of, "totals")

    assert totals["kernel_time_ns"] == sum(step.kernel_time_ns.values())
    assert of.coverage()["unlinked"] == 9
    assert ("missing", "names no process") in [
        (kind, "names no process") for kind, text in caveats(of.trace) if "names no process" in text
    ]


def test_two_machines_in_one_report_do_not_share_a_process(tmp_path: Path) -> None:
    trace = Nsys()
    one = trace.thread("python", pid=100, vm=1)
    other = trace.thread("python", pid=100, vm=2)
    one.push("forward", 0, 100)
    for thread, at in ((one, 10), (other, 20)):
        thread.call("cudaLaunchKernel_v7000", at, at + 1, correlation=1)
    trace.insert("CUPTI_ACTIVITY_KIND_KERNEL", {**kernel_row(trace, "on one"), "correlationId": 1,
                 "globalPid": one.global_pid, "start": 30, "end": 40})  # fmt: skip
    trace.insert("CUPTI_ACTIVITY_KIND_KERNEL", {**kernel_row(trace, "on other"), "correlationId": 1,
                 "globalPid": other.global_pid, "start": 50, "end": 70})  # fmt: skip

    phases = {
        row["phase"]: row["kernel_time_ns"] for row in table(linked(trace, tmp_path), "phases")
    }

    assert phases == {"forward": 10, None: 20}


def kernel_row(trace: Nsys, name: str) -> dict[str, int]:
    return {"demangledName": trace.string(name), "shortName": trace.string(name), "streamId": 7}


def test_a_trace_can_be_linked_again_and_again(tmp_path: Path) -> None:
    trace = Nsys()
    training_step(trace)
    read = opened(trace, tmp_path)

    assert table(link(read), "phases") == table(link(read), "phases")
