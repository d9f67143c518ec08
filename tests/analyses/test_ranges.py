"""The table of ranges: what was launched in each, by its own thread and those it waits for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.asking import linked, table
from tests.build import Nsys, training_step

if TYPE_CHECKING:
    from pathlib import Path

    from tests.asking import Row


def by_name(trace: Nsys, folder: Path, **cut: object) -> dict[str, Row]:
    return {row["name"]: row for row in table(linked(trace, folder, **cut), "ranges")}


def test_a_range_counts_what_its_inner_ranges_launch(tmp_path: Path) -> None:
    trace = Nsys()
    main = trace.thread("python")
    main.push("step", 0, 100).push("layer", 10, 50).push("attention", 20, 30)
    for name, at, run in (("a", 5, (100, 110)), ("b", 15, (110, 130)), ("c", 25, (130, 160))):
        main.kernel(name, at=at, run=run)

    rows = by_name(trace, tmp_path)

    assert [(name, row["kernels"], row["kernel_time_ns"]) for name, row in rows.items()] == [
        ("step", 3, 60),
        ("layer", 2, 50),
        ("attention", 1, 30),
    ]
    assert [(row["cpu_ns"], row["gpu_span_ns"]) for row in rows.values()] == [
        (100, 60),
        (40, 50),
        (10, 30),
    ]


def test_instances_add_up_and_their_spans_too(tmp_path: Path) -> None:
    trace = Nsys()
    main = trace.thread("python")
    for at in (0, 1_000):
        main.push("layer", at, at + 100)
        main.kernel(f"a{at}", at=at + 10, run=(at + 200, at + 220))
        main.kernel(f"b{at}", at=at + 20, run=(at + 230, at + 250))

    (row,) = by_name(trace, tmp_path).values()

    assert (row["instances"], row["cpu_ns"], row["kernels"]) == (2, 200, 4)
    assert (row["kernel_time_ns"], row["gpu_span_ns"]) == (80, 100)


def test_a_range_inside_one_of_its_name_is_an_instance_and_adds_no_time(tmp_path: Path) -> None:
    trace = Nsys()
    main = trace.thread("python")
    main.push("block", 0, 100).push("norm", 10, 60).push("block", 20, 50).push("block", 30, 40)
    main.push("block", 200, 250)
    main.kernel("deep", at=35, run=(100, 110))
    main.kernel("shallow", at=70, run=(110, 115))
    main.kernel("second", at=210, run=(300, 301))

    rows = by_name(trace, tmp_path)

    block = rows["block"]
    assert (block["instances"], block["cpu_ns"], block["kernels"]) == (4, 150, 3)
    assert (block["kernel_time_ns"], block["gpu_span_ns"]) == (16, 16)
    assert (rows["norm"]["kernels"], rows["norm"]["kernel_time_ns"]) == (1, 10)


def test_the_same_name_in_another_domain_is_another_range(tmp_path: Path) -> None:
    trace = Nsys()
    main = trace.thread("python")
    main.push("gemm", 0, 100).push("gemm", 10, 50, domain="cuBLAS")
    main.kernel("k", at=20, run=(100, 130))

    rows = table(linked(trace, tmp_path), "ranges")

    assert sorted((row["domain"], row["instances"], row["kernels"]) for row in rows) == [
        ("", 1, 1),
        ("cuBLAS", 1, 1),
    ]


def test_backward_holds_what_autograd_launches_for_it(tmp_path: Path) -> None:
    trace = Nsys()
    step = training_step(trace)
    trace.thread("python").push("step", 0, 2_250)

    rows = by_name(trace, tmp_path)

    for phase in ("forward", "backward", "optimizer"):
        assert rows[phase]["kernels"] == step.kernels[phase]
        assert rows[phase]["kernel_time_ns"] == step.kernel_time_ns[phase]
    assert (rows["step"]["kernels"], rows["step"]["kernel_time_ns"]) == (9, 1_710)


def test_layers_that_hooks_name_on_the_autograd_thread_count_beside_backward(
    tmp_path: Path,
) -> None:
    trace = Nsys()
    main, autograd = trace.thread("python"), trace.thread("pt_autograd_0", tid=101)
    main.push("backward", 0, 1_000)
    autograd.push("layer 1", 100, 200).push("layer 0", 300, 400)
    autograd.kernel("g1", at=150, run=(2_000, 2_010))
    autograd.kernel("g0", at=350, run=(2_010, 2_030))
    autograd.kernel("between", at=250, run=(2_030, 2_070))

    rows = by_name(trace, tmp_path)

    assert {name: (row["kernels"], row["kernel_time_ns"]) for name, row in rows.items()} == {
        "backward": (3, 70),
        "layer 0": (1, 20),
        "layer 1": (1, 10),
    }


def test_a_name_on_both_threads_does_not_count_one_kernel_twice(tmp_path: Path) -> None:
    trace = Nsys()
    main, autograd = trace.thread("python"), trace.thread("pt_autograd_0", tid=101)
    main.push("backward", 0, 1_000)
    autograd.push("backward", 100, 200)
    autograd.kernel("g", at=150, run=(2_000, 2_010))

    row = by_name(trace, tmp_path)["backward"]

    assert (row["kernels"], row["kernel_time_ns"]) == (1, 10)


def test_a_name_that_overlaps_itself_does_not_count_one_kernel_twice(tmp_path: Path) -> None:
    trace = Nsys()
    main = trace.thread("python")
    main.push("request", 0, 60, kind="start_end").push("request", 40, 100, kind="start_end")
    main.kernel("in both", at=50, run=(200, 210))
    main.kernel("in one", at=80, run=(210, 230))

    row = by_name(trace, tmp_path)["request"]

    assert (row["instances"], row["kernels"], row["kernel_time_ns"]) == (2, 2, 30)


def test_a_kernel_in_two_ranges_that_overlap_counts_for_both(tmp_path: Path) -> None:
    trace = Nsys()
    main = trace.thread("python")
    main.push("request 1", 0, 60, kind="start_end").push("request 2", 40, 100, kind="start_end")
    main.push("inner", 45, 55)
    main.kernel("both", at=50, run=(200, 210))
    main.kernel("second", at=80, run=(210, 230))

    rows = by_name(trace, tmp_path)

    assert (rows["request 1"]["kernels"], rows["request 2"]["kernels"]) == (1, 2)
    assert rows["inner"]["kernels"] == 1


def test_a_thread_with_ranges_of_its_own_works_for_itself(tmp_path: Path) -> None:
    trace = Nsys()
    main, other = trace.thread("python"), trace.thread("loader", tid=101)
    main.push("train", 0, 1_000)
    other.push("augment", 100, 200)
    other.kernel("resize", at=150, run=(2_000, 2_010))

    rows = by_name(trace, tmp_path)

    assert (rows["augment"]["kernels"], rows["train"]["kernels"]) == (1, 0)


def test_a_worker_among_several_waiting_threads_stays_alone(tmp_path: Path) -> None:
    trace = Nsys()
    trace.thread("a").push("one", 0, 1_000)
    trace.thread("b", tid=101).push("two", 0, 1_000)
    trace.thread("worker", tid=102).kernel("k", at=500, run=(2_000, 2_010))

    assert {name: row["kernels"] for name, row in by_name(trace, tmp_path).items()} == {
        "one": 0,
        "two": 0,
    }


def test_a_range_without_kernels_is_listed(tmp_path: Path) -> None:
    trace = Nsys()
    trace.thread("python").push("data", 0, 70).push("data", 100, 110)

    (row,) = table(linked(trace, tmp_path), "ranges")

    assert row == {
        "name": "data",
        "domain": "",
        "instances": 2,
        "cpu_ns": 80,
        "kernels": 0,
        "kernel_time_ns": 0,
        "gpu_span_ns": 0,
    }


def test_ranges_of_each_process_hold_its_own_work(tmp_path: Path) -> None:
    trace = Nsys()
    for pid, took in ((100, 10), (200, 30)):
        main = trace.thread("python", pid=pid)
        main.push(f"rank {pid}", 0, 100).push("shared", 5, 95)
        main.kernel(f"k{pid}", at=50, run=(1_000, 1_000 + took))

    rows = by_name(trace, tmp_path)

    assert {name: row["kernel_time_ns"] for name, row in rows.items()} == {
        "rank 100": 10,
        "rank 200": 30,
        "shared": 40,
    }


def test_ranges_of_a_phase_count_its_work_alone(tmp_path: Path) -> None:
    trace = Nsys()
    training_step(trace)
    trace.thread("python").push("step", 0, 2_250)

    rows = by_name(trace, tmp_path, phases=("backward",))

    assert (rows["step"]["kernels"], rows["forward"]["kernels"]) == (3, 0)


def test_ranges_of_one_name_and_time_stand_in_order_of_their_domain(tmp_path: Path) -> None:
    trace = Nsys()
    main = trace.thread("python")
    for number in range(20):
        main.push("gemm", 0, 100, domain=f"domain-{number:02}")
    main.kernel("k", at=10, run=(200, 210))

    domains = [row["domain"] for row in table(linked(trace, tmp_path), "ranges")]

    assert domains == sorted(domains)
