"""Which call launched which work: by process and correlation id, and by nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.asking import linked, phase_of, table
from tests.build import Nsys

if TYPE_CHECKING:
    from pathlib import Path


def test_a_kernel_counts_where_it_was_launched_not_where_it_ran(tmp_path: Path) -> None:
    trace = Nsys()
    main = trace.thread("python")
    main.push("forward", 0, 100).push("backward", 100, 200)
    main.kernel("late", at=90, run=(150, 180))

    assert phase_of(linked(trace, tmp_path)) == {"late": ("forward", "own_thread")}


def test_a_correlation_id_means_nothing_in_another_process(tmp_path: Path) -> None:
    trace = Nsys()
    rank0, rank1 = (trace.thread("python", pid=pid) for pid in (100, 200))
    rank0.push("forward", 0, 50).push("backward", 50, 100)
    rank1.push("backward", 0, 50).push("forward", 50, 100)
    assert rank0.kernel("a", at=10, run=(20, 30)) == rank1.kernel("b", at=11, run=(20, 30)) == 1

    assert phase_of(linked(trace, tmp_path)) == {
        "a": ("forward", "own_thread"),
        "b": ("backward", "own_thread"),
    }


def test_of_several_calls_with_one_id_the_innermost_launched(tmp_path: Path) -> None:
    trace = Nsys()
    main = trace.thread("python")
    number = main.call("cublasWrapper", 5, 60)
    main.call("cuLaunchKernel", 40, 50, event_class=1, correlation=number)
    main.push("forward", 0, 30).push("backward", 30, 100)
    trace.kernel_without_launch("k", (70, 80), correlation=number)

    assert phase_of(linked(trace, tmp_path)) == {"k": ("backward", "own_thread")}


def test_a_call_that_lasts_beyond_its_range_began_in_it(tmp_path: Path) -> None:
    trace = Nsys()
    main = trace.thread("python")
    main.push("forward", 0, 100).push("backward", 100, 200)
    main.kernel("k", api=(99, 150), run=(160, 170))

    assert phase_of(linked(trace, tmp_path)) == {"k": ("forward", "own_thread")}


def test_a_range_holds_its_first_nanosecond_and_not_its_last(tmp_path: Path) -> None:
    trace = Nsys()
    main = trace.thread("python")
    main.push("forward", 100, 200).push("backward", 200, 300)
    for name, at in (("before", 99), ("first", 100), ("last", 199), ("next", 200), ("after", 300)):
        main.kernel(name, at=at, run=(at, at + 1))

    assert phase_of(linked(trace, tmp_path)) == {
        "before": (None, "none"),
        "first": ("forward", "own_thread"),
        "last": ("forward", "own_thread"),
        "next": ("backward", "own_thread"),
        "after": (None, "none"),
    }


def test_all_kernels_of_one_graph_launch_belong_to_that_launch(tmp_path: Path) -> None:
    trace = Nsys()
    main = trace.thread("python")
    main.push("forward", 0, 100)
    number = main.call("cudaGraphLaunch_v10000", 10, 20)
    for node in range(3):
        run = (200 + node, 201 + node)
        trace.kernel_without_launch(f"node {node}", run, correlation=number, graph_node=node)

    of = linked(trace, tmp_path)

    assert set(phase_of(of).values()) == {("forward", "own_thread")}
    assert sum(row["kernels"] for row in table(of, "ranges")) == 3
