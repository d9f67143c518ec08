"""The other tables: kernels, calls, copies, streams, launches, gaps, each on a few events."""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING, Any

import pytest

from tests.asking import linked, table, the_row
from tests.build import Nsys, training_step

if TYPE_CHECKING:
    from pathlib import Path


def test_kernels_have_their_mean_median_extremes_and_spread(tmp_path: Path) -> None:
    durations = [3, 9, 4, 40]
    trace = Nsys()
    main = trace.thread("python")
    for number, took in enumerate(durations):
        main.kernel("k", at=number, run=(100 * number, 100 * number + took))
    main.kernel("once", at=9, run=(1_000, 1_044))

    k, once = table(linked(trace, tmp_path), "kernels")

    assert (k["calls"], k["total_ns"], k["min_ns"], k["max_ns"]) == (4, 56, 3, 40)
    assert (k["mean_ns"], k["median_ns"]) == (14.0, 6.5)
    assert k["std_ns"] == pytest.approx(statistics.stdev(durations))
    assert (once["calls"], once["std_ns"], once["median_ns"]) == (1, 0.0, 44.0)
    assert (k["share"], once["share"]) == (0.56, 0.44)


def test_kernels_of_one_time_stand_in_order_of_name(tmp_path: Path) -> None:
    trace = Nsys()
    for number, name in enumerate("cab"):
        trace.thread("python").kernel(name, at=number, run=(100 * number, 100 * number + 7))

    assert [row["name"] for row in table(linked(trace, tmp_path), "kernels")] == ["a", "b", "c"]


def test_the_api_is_counted_by_function_whatever_its_version(tmp_path: Path) -> None:
    trace = Nsys()
    main, other = trace.thread("python"), trace.thread("other", tid=101)
    main.call("cudaLaunchKernel_v7000", 0, 10)
    other.call("cudaLaunchKernel_ptsz_v7000", 0, 30)
    main.call("cudaLaunchKernel_v7000", 20, 40)
    main.call("cuLaunchKernel", 50, 90, event_class=1)

    rows = {
        row["name"]: (row["calls"], row["total_ns"])
        for row in table(linked(trace, tmp_path), "api")
    }

    assert rows["cuLaunchKernel"] == (1, 40)
    assert rows["cudaLaunchKernel"] == (2, 30)
    assert sum(calls for calls, _ in rows.values()) == 4


def test_copies_have_their_bandwidth(tmp_path: Path) -> None:
    trace = Nsys()
    main = trace.thread("python")
    main.copy(bytes=1_000, kind="HtoD", at=0, run=(10, 20))
    main.copy(bytes=3_000, kind="HtoD", at=1, run=(20, 30))
    main.copy(bytes=500, kind="DtoH", at=2, run=(30, 35))
    main.copy(bytes=64, kind="DtoD", at=3, run=(40, 40))

    rows = {row["kind"]: row for row in table(linked(trace, tmp_path), "copies")}

    assert [(kind, row["calls"], row["bytes"], row["total_ns"]) for kind, row in rows.items()] == [
        ("HtoD", 2, 4_000, 20),
        ("DtoH", 1, 500, 5),
        ("DtoD", 1, 64, 0),
    ]
    assert rows["HtoD"]["bandwidth_bytes_per_s"] == pytest.approx(200e9)
    assert rows["DtoD"]["bandwidth_bytes_per_s"] is None


def test_memsets_are_counted_apart(tmp_path: Path) -> None:
    trace = Nsys()
    main = trace.thread("python")
    main.memset(bytes=100, at=0, run=(10, 13))
    main.memset(bytes=28, at=1, run=(20, 25))

    of = linked(trace, tmp_path)

    row = the_row(of, "memsets")
    assert (row["calls"], row["total_ns"], row["bytes"]) == (2, 8, 128)
    totals = the_row(of, "totals")
    assert (totals["kernels"], totals["copies"], totals["memsets"]) == (0, 0, 2)
    assert (totals["busy_ns"], totals["memset_time_ns"]) == (8, 8)


def test_work_that_overlaps_is_busy_once(tmp_path: Path) -> None:
    trace = Nsys()
    main = trace.thread("python")
    main.kernel("a", at=0, run=(100, 200), stream=7)
    main.kernel("b", at=1, run=(150, 250), stream=8)
    main.kernel("c", at=2, run=(160, 170), stream=8)
    main.copy(bytes=8, at=3, run=(300, 350), stream=9)

    of = linked(trace, tmp_path)
    totals = the_row(of, "totals")
    streams = {row["stream"]: row for row in table(of, "streams")}

    assert (totals["kernel_time_ns"], totals["copy_time_ns"]) == (210, 50)
    assert (totals["busy_ns"], totals["span_ns"], totals["idle_ns"]) == (200, 250, 50)
    assert {s: (r["busy_ns"], r["beside_ns"]) for s, r in streams.items()} == {
        7: (100, 50),
        8: (100, 50),
        9: (50, 0),
    }
    assert [streams[s]["self_overlap_ns"] for s in (7, 8, 9)] == [0, 10, 0]


def test_two_devices_are_busy_each_for_itself(tmp_path: Path) -> None:
    trace = Nsys()
    main = trace.thread("python")
    main.kernel("a", at=0, run=(100, 200), device=0)
    main.kernel("b", at=1, run=(150, 250), device=1)
    main.kernel("c", at=2, run=(300, 310), device=1)

    of = linked(trace, tmp_path)
    totals = the_row(of, "totals")

    assert (totals["busy_ns"], totals["span_ns"], totals["idle_ns"]) == (210, 260, 50)
    assert [(r["device"], r["busy_ns"], r["idle_ns"]) for r in table(of, "devices")] == [
        (0, 100, 0),
        (1, 110, 50),
    ]


def test_a_launch_takes_its_call_then_waits_in_the_queue(tmp_path: Path) -> None:
    trace = Nsys()
    main = trace.thread("python")
    main.kernel("k", api=(0, 10), run=(60, 100))
    main.kernel("k", api=(20, 50), run=(100, 120))
    main.kernel("k", api=(200, 300), run=(250, 260))  # starts before its call returns

    row = the_row(linked(trace, tmp_path), "launch_delay")

    assert (row["calls"], row["queued"]) == (3, 2)
    assert (row["queue_mean_ns"], row["queue_median_ns"], row["queue_max_ns"]) == (50, 50, 50)
    assert row["api_mean_ns"] == pytest.approx((10 + 30 + 100) / 3)
    assert row["api_median_ns"] == 30
    assert row["total_ns"] == 100 + 100 + 100
    assert row["kernel_mean_ns"] == pytest.approx(70 / 3)


def test_graphs_are_told_apart_by_their_number(tmp_path: Path) -> None:
    trace = Nsys()
    main = trace.thread("python")
    for graph, run in ((3, (0, 100)), (3, (100, 300)), (8, (300, 310))):
        main.graph(graph_id=graph, at=run[0], run=run)

    rows = table(linked(trace, tmp_path), "graphs")

    assert [(row["graph_id"], row["calls"], row["total_ns"]) for row in rows] == [
        (3, 2, 300),
        (8, 1, 10),
    ]


MICRO = 1_000


def gap(tmp_path: Path, *calls: tuple[str, int, int], launch: int, start: int) -> dict[str, Any]:
    """Return the gap between a kernel that ends at 1 ms and one launched later, times in us."""
    trace = Nsys()
    main = trace.thread("python")
    main.kernel("first", api=(0, 5 * MICRO), run=(10 * MICRO, 1_000 * MICRO))
    for name, begin, end in calls:
        main.call(name, begin * MICRO, end * MICRO)
    main.kernel("second", api=(launch * MICRO, (launch + 5) * MICRO),
                run=(start * MICRO, (start + 10) * MICRO))  # fmt: skip
    of = linked(trace, tmp_path)
    row = the_row(of, "longest_gaps")
    assert row["idle_ns"] == the_row(of, "totals")["idle_ns"] == (start - 1_000) * MICRO
    return row


def test_a_gap_before_work_launched_long_ago_is_queued(tmp_path: Path) -> None:
    row = gap(tmp_path, launch=500, start=1_020)

    assert row["cause"] == "queued"
    assert (row["before_name"], row["after_name"]) == ("first", "second")


def test_a_gap_while_the_thread_waited_for_the_gpu_is_synchronising(tmp_path: Path) -> None:
    row = gap(tmp_path, ("cudaStreamSynchronize_v3020", 10, 1_010), launch=1_050, start=1_060)

    assert (row["cause"], row["call"]) == ("synchronising", "cudaStreamSynchronize")


def test_a_gap_while_the_thread_launched_is_launch_bound(tmp_path: Path) -> None:
    calls = [("cudaFuncGetAttributes", at, at + 5) for at in range(20, 1_100, 40)]

    assert gap(tmp_path, *calls, launch=1_105, start=1_115)["cause"] == "launch_bound"


def test_a_gap_while_the_thread_made_no_call_is_the_cpus(tmp_path: Path) -> None:
    assert gap(tmp_path, launch=2_500, start=2_510)["cause"] == "no_api_call"


def test_gaps_by_cause_add_up_to_the_idle_time(tmp_path: Path) -> None:
    trace = Nsys()
    for number in range(4):
        training_step(trace, at=number * 500_000)

    of = linked(trace, tmp_path)
    rows = table(of, "gaps")

    assert sum(row["idle_ns"] for row in rows) == the_row(of, "totals")["idle_ns"]
    assert math.isclose(sum(row["share"] for row in rows), 1)
    assert sum(row["gaps"] for row in rows) == len(table(of, "longest_gaps"))


def test_no_gap_no_row(tmp_path: Path) -> None:
    trace = Nsys()
    main = trace.thread("python")
    main.kernel("a", at=0, run=(10, 20))
    main.kernel("b", at=1, run=(20, 30))

    of = linked(trace, tmp_path)

    assert table(of, "gaps") == table(of, "longest_gaps") == []


def test_the_share_of_each_family_is_of_its_phase(tmp_path: Path) -> None:
    trace = Nsys()
    main = trace.thread("python")
    main.push("forward", 0, 100)
    main.kernel("ampere_sgemm_128x64_tn", at=10, run=(200, 275))
    main.kernel(
        "void at::native::vectorized_elementwise_kernel<4, gelu>(int)", at=20, run=(275, 300)
    )

    of = linked(trace, tmp_path)

    rows = [(r["phase"], r["family"], r["share_of_phase"]) for r in table(of, "families")]
    assert rows == [("forward", "gemm", 0.75), ("forward", "elementwise", 0.25)]
    (row,) = table(of, "overview")
    assert (row["matmul"], row["elementwise"], row["rest"]) == (0.75, 0.25, 0.0)


def test_graphs_are_a_family_of_their_own(tmp_path: Path) -> None:
    trace = Nsys()
    main = trace.thread("python")
    main.graph(graph_id=1, at=0, run=(100, 190))
    main.kernel("ampere_sgemm_128x64_tn", at=5, run=(190, 200))

    rows = {row["family"]: row for row in table(linked(trace, tmp_path), "families")}

    assert (rows["cuda_graph"]["kernels"], rows["cuda_graph"]["graph_time_ns"]) == (0, 90)
    assert (rows["gemm"]["kernel_time_ns"], rows["gemm"]["share_of_phase"]) == (10, 0.1)


def test_tables_of_an_empty_recording_are_empty_and_not_wrong(tmp_path: Path) -> None:
    trace = Nsys()
    trace.thread("python").push("forward", 0, 10)

    of = linked(trace, tmp_path)

    for name in ("phases", "families", "overview", "kernels", "copies", "memsets", "graphs",
                 "gaps", "longest_gaps", "streams", "devices"):  # fmt: skip
        assert table(of, name) == []
    assert {v for k, v in the_row(of, "totals").items()} == {0}


@pytest.mark.parametrize("shuffle", range(6))
def test_the_cause_of_a_gap_does_not_depend_on_the_order_of_rows(
    tmp_path: Path, shuffle: int
) -> None:
    """Two ops begin together after the gap; one of them had been launched before it."""
    trace = Nsys()
    main, other = trace.thread("python"), trace.thread("other", tid=101)
    main.kernel("first", at=0, run=(0, 1_000))
    main.kernel("early", at=10, run=(5_000, 5_010), stream=7)
    other.kernel("late", at=4_990, run=(5_000, 5_020), stream=8)

    row = the_row(linked(trace.write(tmp_path / "run.sqlite", shuffle=shuffle)), "longest_gaps")

    assert (row["cause"], row["after_name"]) == ("queued", "early")
