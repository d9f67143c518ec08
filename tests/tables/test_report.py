"""Reports: which tables, in which words, and how far to trust them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl
import pytest

from tests import kineto
from tests.asking import linked
from tests.build import Nsys, training_step
from tests.kineto import Profile
from tests.ncu import Ncu, instructions
from tracelens import registry
from tracelens.errors import UsageError
from tracelens.tables import build

if TYPE_CHECKING:
    from pathlib import Path

    from tracelens.tables import Table

TABLES = registry.names("table")
OF_TORCH = (
    "cpu_phases",
    "collectives", "memory_by_op", "memory_by_phase", "module_classes", "modules", "ops",
    "ops_by_shape", "roofline", "roofline_phases", "roofline_totals",
)  # fmt: skip
"""Tables of what torch.profiler alone records."""


def torch_profile() -> Profile:
    """Return a step of training, of a module, that communicates and allocates."""
    trace = Profile()
    main = trace.thread("python3")
    main.python("nn.Module: GPT_0", 110_000, 490_000, module=0)
    step = kineto.training_step(trace)
    main.collective("allreduce", 1_024, at=step.end_ns, run=(step.end_ns, step.end_ns + 9_000))
    main.memory(200_000, 4_096, allocated=4_096, reserved=8_192)
    return trace


@pytest.mark.parametrize("name", TABLES)
def test_a_table_shows_columns_that_its_analysis_has(tmp_path: Path, name: str) -> None:
    trace = Nsys("3.20.3")
    trace.device(0, "NVIDIA H200")
    main = trace.thread("python")
    for number in range(2):
        training_step(trace, at=5_000 * number)
        main.graph(
            graph_id=1,
            at=5_000 * number + 2_310,
            run=(5_000 * number + 2_400, 5_000 * number + 2_500),
        )
        main.memset(
            bytes=4, at=5_000 * number + 2_320, run=(5_000 * number + 2_500, 5_000 * number + 2_501)
        )
    table: Table = registry.load("table", name)

    path = trace.write(tmp_path / "run.sqlite")
    if name in OF_TORCH:
        path = torch_profile().write(tmp_path / "rank0.json")
    if name == "kernel_counters":
        path = Ncu().launch("gemm", 100, instructions(ffma=10)).write(tmp_path / "ncu.csv")
    filled = build.fill(linked(path), name)

    assert filled.frame.columns == [column.name for column in table.columns]
    assert not filled.frame.is_empty()
    assert table.note.endswith(".")
    assert not table.note.startswith(" ")
    for column in table.columns:
        kind = filled.frame[column.name].dtype
        if column.unit in ("text", "name"):
            assert isinstance(kind, pl.String | pl.Enum)
        elif column.unit == "flag":
            assert kind == pl.Boolean
        elif column.unit == "share":
            values = filled.frame[column.name].drop_nulls()
            assert values.is_between(-1e-9, 1 + 1e-9).all()
        else:
            assert kind.is_numeric()


def test_each_name_of_a_report_of_nvidia_means_one_table() -> None:
    aliases = [alias for name in TABLES for alias in registry.load("table", name).stands_for]

    assert len(aliases) == len(set(aliases))
    assert not set(aliases) & set(TABLES)
    assert all(build.resolve(alias) in TABLES for alias in aliases)


def test_all_tables_stand_in_the_order_of_a_report() -> None:
    assert sorted(build.all_tables()) == sorted(TABLES)
    assert build.all_tables()[:2] == ("totals", "overview")


def test_an_unknown_table_is_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="Did you mean families"):
        build.resolve("familys")


def test_what_cannot_be_made_is_left_out_with_its_reason(tmp_path: Path) -> None:
    trace = Nsys()
    trace.thread("python").kernel("k", at=0, run=(1, 2))

    report = build.report(linked(trace, tmp_path), build.all_tables())

    assert "not recorded" in report.left_out["ranges"]
    assert "no steps" in report.left_out["steps"]
    assert report.left_out["copies"] == "there is no copy among the events of the recording"
    assert {"totals", "kernels"} <= {filled.name for filled in report.tables}


def test_trust_says_who_launched_what(tmp_path: Path) -> None:
    trace = Nsys()
    training_step(trace)
    trace.kernel_without_launch("lost", (5_000, 5_090))

    said = " ".join(build.report(linked(trace, tmp_path), ("totals",)).trust)

    # Of 1,800 ns: 1,010 on the main thread, 700 by autograd, 90 without a launch.
    assert "95 % of GPU time attributed" in said
    assert "own thread 56 %" in said
    assert "by process 39 %" in said
    assert "launch not recorded 5.0 %" in said


def test_trust_says_what_was_lost_and_what_overlaps(tmp_path: Path) -> None:
    trace = Nsys()
    main = trace.thread("python")
    main.kernel("a", at=0, run=(0, 100), stream=7)
    main.kernel("b", at=1, run=(50, 150), stream=8)
    trace.diagnostic("Not all CUDA events might have been collected.")

    report = build.report(linked(trace, tmp_path), ("totals",))
    said = " ".join(report.trust)

    assert "events may have been lost" in said
    assert "2 streams" in said
    assert "no phases" in said
    assert len(report.warnings) == 1


def test_trust_counts_steps_without_work(tmp_path: Path) -> None:
    trace = Nsys()
    main = trace.thread("python")
    for number in range(3):
        main.push(f"step {number}", 100 * number, 100 * number + 90)
    main.kernel("a", at=110, run=(120, 130))

    said = " ".join(build.report(linked(trace, tmp_path), ("totals",)).trust)

    assert "2 of 3 steps without GPU work" in said


def test_graphs_that_hide_their_kernels_stand_out(tmp_path: Path) -> None:
    trace = Nsys()
    main = trace.thread("python")
    main.graph(graph_id=1, at=0, run=(10, 1_000))
    main.kernel("k", at=5, run=(1_000, 1_010))

    said = " ".join(build.report(linked(trace, tmp_path), ("totals",)).findings)

    assert "99 % of GPU time" in said
    assert "--cuda-graph-trace=node" in said


def test_many_tiny_kernels_stand_out_and_by_the_step(tmp_path: Path) -> None:
    trace = Nsys()
    main = trace.thread("python")
    for step in range(2):
        at = 10_000_000 * step
        main.push(f"step {step}", at, at + 9_000_000).push("optimizer", at, at + 9_000_000)
        for number in range(300):
            start = at + 1_000 + 10_000 * number
            main.kernel("adam", at=at + number, run=(start, start + 5_000))

    said = " ".join(build.report(linked(trace, tmp_path), ("totals",)).findings)

    assert "optimizer launches 300 tiny kernels a step of 5.0" in said


def test_a_combined_report_has_a_row_of_each_run(tmp_path: Path) -> None:
    reports = []
    for name, took in (("before", 40), ("after", 20)):
        trace = Nsys()
        main = trace.thread("python")
        main.push("forward", 0, 100)
        main.kernel("shared", at=5, run=(100, 100 + took))
        main.kernel(f"only {name}", at=10, run=(200, 201))
        path = trace.write(tmp_path / f"{name}.sqlite")
        reports.append(build.report(linked(path), ("totals", "kernels", "phases")))

    whole = build.combined(reports)
    frames = {filled.name: filled.frame for filled in whole.tables}

    assert frames["totals"]["kernel_time_ns"].to_list() == [41, 21]
    kernels = frames["kernels"].select("name", "total_ns")
    assert kernels.rows()[:2] == [("shared", 40), ("shared", 20)]
    assert sorted(kernels.rows()[2:]) == [("only after", 1), ("only before", 1)]
    assert frames["phases"]["phase"].to_list() == ["forward", "forward"]
    assert frames["phases"]["run"].n_unique() == 2


def test_a_combined_report_leaves_out_tables_that_not_all_runs_have(tmp_path: Path) -> None:
    with_ranges, without = Nsys(), Nsys()
    with_ranges.thread("python").push("x", 0, 10).kernel("k", at=5, run=(6, 7))
    without.thread("python").kernel("k", at=5, run=(6, 7))
    reports = [
        build.report(linked(trace.write(tmp_path / f"{n}.sqlite")), ("ranges", "totals"))
        for n, trace in enumerate((with_ranges, without))
    ]

    assert [filled.name for filled in build.combined(reports).tables] == ["totals"]
