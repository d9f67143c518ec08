"""Which PyTorch op launched which GPU work, and what each op cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.asking import Said, Shell, linked, phase_of, table
from tests.build import Nsys
from tests.kineto import DIALECTS, Profile, training_step
from tracelens.links.linked import Linked, link
from tracelens.links.ops import calls, gradients, launched, ops_of
from tracelens.readers.open import open_trace
from tracelens.trace import store

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def asked(trace: Profile, folder: Path, **cut: Any) -> Linked:
    return linked(trace.write(folder / "trace.json"), **cut)


def launchers(of: Linked) -> dict[str, tuple[str | None, str | None]]:
    """Return GPU op -> the PyTorch op that launched it, and how they are tied."""
    found = ops_of(of)
    assert found is not None
    facts = launched(of, found)
    rows = of.ops.with_columns(facts["row"], facts["by"]).join(
        of.names, on=["name_id", "kind"], how="left", maintain_order="left"
    )
    texts = dict(found.names.select("name_id", "name").iter_rows())
    names = found.nest["name_id"].gather(rows["row"])
    told = zip(rows["name"], names, rows["by"], strict=True)
    return {name: (None if op is None else texts[op], by) for name, op, by in told}


def test_a_kernel_belongs_to_the_innermost_op_around_its_call(tmp_path: Path) -> None:
    trace = Profile()
    main = trace.thread("python3")
    main.op("aten::linear", 0, 100_000)
    main.op("aten::addmm", 10_000, 50_000)
    main.kernel("gemm", at=20_000, run=(200_000, 300_000))
    main.kernel("after addmm", at=60_000, run=(300_000, 310_000))
    main.kernel("after linear", at=110_000, run=(310_000, 320_000), external=None)

    assert launchers(asked(trace, tmp_path)) == {
        "gemm": ("aten::addmm", "nesting"),
        "after addmm": ("aten::linear", "nesting"),
        "after linear": (None, None),
    }


def test_ranges_and_frames_between_ops_are_no_ops(tmp_path: Path) -> None:
    trace = Profile()
    main = trace.thread("python3")
    main.op("aten::linear", 0, 100_000)
    main.annotation("forward", 1_000, 90_000)
    main.python("gpt.py(16): forward", 2_000, 80_000)
    main.kernel("k", at=20_000, run=(200_000, 300_000))

    assert launchers(asked(trace, tmp_path)) == {"k": ("aten::linear", "nesting")}


def test_ops_of_another_thread_launch_nothing_here(tmp_path: Path) -> None:
    trace = Profile()
    trace.thread("python3").op("aten::mm", 0, 100_000)
    trace.thread("worker", tid=200).kernel("k", at=20_000, run=(30_000, 40_000))

    assert launchers(asked(trace, tmp_path)) == {"k": (None, None)}


def test_all_kernels_of_a_graph_belong_to_the_op_that_launched_it(tmp_path: Path) -> None:
    trace = Profile()
    main = trace.thread("python3")
    main.op("CompiledFunction", 0, 100_000)
    main.graph([("a", 200_000, 210_000), ("b", 210_000, 230_000)], at=20_000)

    of = asked(trace, tmp_path)

    assert launchers(of) == {
        "a": ("CompiledFunction", "nesting"),
        "b": ("CompiledFunction", "nesting"),
    }
    (row,) = table(of, "ops")
    assert (row["kernels"], row["self_gpu_time_ns"]) == (2, 30_000)


def without_calls() -> Profile:
    """Return a trace of two ops on two threads whose kernels' calls were not recorded."""
    trace = Profile()
    main, autograd = trace.thread("python3"), trace.thread("pt_autograd_0", tid=101)
    main.annotation("forward", 0, 100_000)
    main.annotation("backward", 100_000, 300_000)
    mm = main.op("aten::mm", 10_000, 50_000)
    gradient = autograd.op("MmBackward0", 150_000, 200_000)
    main.call("cudaDeviceSynchronize", 280_000, 290_000)
    trace.kernel("gemm", (400_000, 450_000), external=mm)
    trace.kernel("gradient", (450_000, 500_000), external=gradient)
    trace.kernel("unknown", (600_000, 700_000))
    return trace


def test_where_the_call_is_missing_the_recorder_names_the_op(tmp_path: Path) -> None:
    of = asked(without_calls(), tmp_path)

    assert launchers(of) == {
        "gemm": ("aten::mm", "external_id"),
        "gradient": ("MmBackward0", "external_id"),
        "unknown": (None, None),
    }
    assert {row["name"]: row["by_external_id"] for row in table(of, "ops")} == {
        "aten::mm": 1, "MmBackward0": 1, None: None,
    }  # fmt: skip


def test_where_the_call_is_missing_work_was_launched_when_its_op_began(tmp_path: Path) -> None:
    of = asked(without_calls(), tmp_path)

    assert phase_of(of) == {
        "gemm": ("forward", "own_thread"),
        "gradient": ("backward", "same_process"),
        "unknown": (None, "unlinked"),
    }
    assert of.ops["launch_row"].null_count() == 3
    assert (of.ops["launch_ns"] - of.ops["launch_ns"][0]).to_list() == [0, 140_000, None]
    assert of.ops["launch_tid"].to_list() == [100, 101, None]


def test_a_call_that_was_not_recorded_has_no_delay_and_no_cause(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = without_calls().write(tmp_path / "trace.json")
    said: Said = Shell(capsys)("summarize", path, "-f", "json", "-t", "launch_delay", "-t", "gaps")

    assert said.json["left_out"] == {"launch_delay": "no kernel's launch was recorded"}
    assert [row["cause"] for row in said.json["tables"]["gaps"]] == ["unknown"]


def test_the_cache_keeps_what_the_recorder_names(tmp_path: Path) -> None:
    path = without_calls().write(tmp_path / "trace.json")
    answers = []
    for _ in range(3):
        answers.append(phase_of(link(open_trace(path))))
        store.flush()

    assert answers[0] == answers[1] == answers[2]
    assert answers[0]["gemm"] == ("forward", "own_thread")


@pytest.mark.parametrize("version", DIALECTS)
def test_a_step_is_tied_to_its_ops_in_every_dialect(version: str, tmp_path: Path) -> None:
    trace = Profile(version)
    step = training_step(trace)

    of = asked(trace, tmp_path)

    rows = {row["name"]: row for row in table(of, "ops")}
    assert {name: row["self_gpu_time_ns"] for name, row in rows.items() if row["self_kernels"]} == {
        "aten::addmm": 600_000,
        "aten::gelu": 100_000,
        "aten::_softmax": 50_000,
        "AddmmBackward0": 600_000,
        "GeluBackward0": 100_000,
        "aten::_foreach_addcdiv_": 260_000,
    }
    assert sum(row["self_gpu_time_ns"] for row in rows.values()) == (
        sum(step.kernel_time_ns.values()) + step.copy_time_ns
    )


def test_backward_work_is_computed_for_the_op_whose_gradient_it_is(tmp_path: Path) -> None:
    trace = Profile()
    training_step(trace)

    of = asked(trace, tmp_path)

    found = ops_of(of)
    assert found is not None
    told = gradients(of, found)
    texts = dict(found.names.select("name_id", "name").iter_rows())
    names = [
        None if row is None else texts[found.nest["name_id"][row]] for row in told["of"].to_list()
    ]
    assert names == [
        None, None, None, None, None, "aten::addmm", "aten::gelu", "aten::addmm", None, None,
    ]  # fmt: skip


def emitted() -> Nsys:
    """Return a product and its gradient as torch.autograd.profiler.emit_nvtx names them to nsys."""
    trace = Nsys()
    main, autograd = trace.thread("python"), trace.thread("pt_autograd_0", tid=101)
    main.push("forward, op_id = 1", 0, 300)
    main.push("aten::linear, seq = 7, op_id = 2, sizes = [[4, 8], [2, 8]]", 10, 200)
    main.push("aten::t, seq = 7, op_id = 3, sizes = [[2, 8]]", 20, 40)
    main.push("aten::addmm, seq = 8, op_id = 4, sizes = [[2], [4, 8], [8, 2], [], []]", 50, 150)
    main.kernel("gemm", at=60, run=(1_000, 1_100))
    name = "autograd::engine::evaluate_function: AddmmBackward0, seq = 8, op_id = 5"
    autograd.push(name, 400, 600)
    autograd.push("AddmmBackward0, seq = 8, op_id = 6, sizes = [[4, 2]]", 410, 590)
    autograd.push(
        "aten::mm, op_id = 7, sizes = [[2, 4], [4, 8]], input_op_ids = [[6, 0], []]", 420, 500
    )
    autograd.kernel("gradient", at=430, run=(1_100, 1_400))
    return trace


def test_ranges_of_emit_nvtx_are_ops_like_those_of_the_profiler(tmp_path: Path) -> None:
    of = linked(emitted(), tmp_path)

    rows = {row["name"]: row for row in table(of, "ops")}
    assert set(rows) == {
        "aten::linear", "aten::t", "aten::addmm", "aten::mm", "AddmmBackward0",
        "autograd::engine::evaluate_function: AddmmBackward0",
    }  # fmt: skip
    assert launchers(of) == {
        "gemm": ("aten::addmm", "nesting"),
        "gradient": ("aten::mm", "nesting"),
    }
    assert (rows["aten::addmm"]["flops"], rows["aten::mm"]["flops"]) == (128, 128)
    assert (rows["aten::linear"]["gpu_time_ns"], rows["aten::linear"]["flops"]) == (100, None)
    assert rows["AddmmBackward0"]["forward"] == "aten::addmm"
    assert (rows["AddmmBackward0"]["gpu_time_ns"], rows["AddmmBackward0"]["kernels"]) == (300, 1)
    by_shape = {row["name"]: row["shapes"] for row in table(of, "ops_by_shape")}
    assert by_shape["aten::addmm"] == "2, 4x8, 8x2"
    assert by_shape["aten::mm"] == "2x4, 4x8"


@dataclass(frozen=True)
class Op:
    """An op of one thread."""

    thread: int
    name: str
    span: tuple[int, int]


@dataclass(frozen=True)
class Kernel:
    """A kernel launched by one thread."""

    thread: int
    at: int
    took: int


ops = st.builds(
    Op,
    thread=st.integers(100, 101),
    name=st.sampled_from(("aten::linear", "aten::addmm", "aten::copy_")),
    span=st.tuples(st.integers(0, 60), st.integers(0, 30)).map(lambda s: (s[0], s[0] + s[1])),
)
kernels = st.builds(
    Kernel, thread=st.integers(100, 102), at=st.integers(0, 100), took=st.integers(0, 20)
)
Files = pytest.TempPathFactory


def story(ops: Sequence[Op], kernels: Sequence[Kernel]) -> Profile:
    trace = Profile()
    for op in ops:
        trace.thread("python3", tid=op.thread).op(op.name, *op.span)
    for i, kernel in enumerate(kernels):
        thread = trace.thread("python3", tid=kernel.thread)
        run = (200 + 30 * i, 200 + 30 * i + kernel.took)
        thread.kernel(f"k{i}", api=(kernel.at, kernel.at + 1), run=run, external=None)
    return trace


@settings(max_examples=40)
@given(st.lists(ops, max_size=12), st.lists(kernels, min_size=1, max_size=12), st.integers())
def test_ops_add_up_to_all_gpu_work_in_any_order(
    tmp_path_factory: Files, ops: list[Op], kernels: list[Kernel], seed: int
) -> None:
    trace = story(ops, kernels)
    folder = tmp_path_factory.mktemp("t")

    of = linked(trace.write(folder / "trace.json"))
    shuffled = linked(trace.write(folder / "other.json", shuffle=seed))

    rows = table(of, "ops")
    assert sum(row["self_gpu_time_ns"] or 0 for row in rows) == (
        sum(kernel.took for kernel in kernels) if ops else 0
    )
    for row in rows:
        assert (row["gpu_time_ns"], row["kernels"]) >= (row["self_gpu_time_ns"], 0)
        assert row["share"] is None or 0 <= row["share"] <= 1
    key = ("name", "calls", "self_gpu_time_ns", "gpu_time_ns", "kernels", "cpu_ns")
    assert [{k: row[k] for k in key} for row in rows] == [
        {k: row[k] for k in key} for row in table(shuffled, "ops")
    ]


@settings(max_examples=40)
@given(st.lists(ops, min_size=1, max_size=12), st.lists(kernels, min_size=1, max_size=12))
def test_a_kernel_is_tied_to_an_op_around_its_call_and_to_none_where_there_is_none(
    tmp_path_factory: Files, ops: list[Op], kernels: list[Kernel]
) -> None:
    of = linked(story(ops, kernels).write(tmp_path_factory.mktemp("t") / "trace.json"))

    found = launchers(of)
    for i, kernel in enumerate(kernels):
        around = [
            op for op in ops
            if op.thread == kernel.thread and op.span[0] <= kernel.at < op.span[1]
        ]  # fmt: skip
        last = [op.name for op in around if op.span[0] == max(o.span[0] for o in around)]
        name, by = found[f"k{i}"]
        assert (name in last, by) == ((True, "nesting") if around else (False, None))


@pytest.mark.corpus
def test_nesting_and_the_recorder_agree_on_every_recording(corpus: Path) -> None:
    files = [*corpus.glob("kineto/*.gz"), *corpus.glob("multirank/*/*.json.gz")]
    tied = 0
    for path in files:
        of = linked(path)
        found = ops_of(of)
        if found is None:
            continue
        facts = launched(of, found)
        assert facts["by"].drop_nulls().len() == of.ops.height, path.name
        assert set(facts["by"]) == {"nesting"}, path.name
        named = of.trace["launched_by"].collect()
        rows = of.ops.select("op_id").with_columns(mine=found.nest["range_id"].gather(facts["row"]))
        both = rows.join(named, on="op_id")
        assert both.filter(pl.col("mine") != pl.col("range_id")).is_empty(), path.name
        tied += both.height
    assert tied > 40_000


def test_a_part_of_a_trace_has_the_calls_that_began_in_it(tmp_path: Path) -> None:
    trace = Profile()
    main = trace.thread("python3")
    for step in range(2):
        at = step * 100_000
        main.annotation(f"step {step}", at, at + 100_000)
        main.op("aten::mm", at + 10_000, at + 50_000, dims=[[2, 3], [3, 4]])
        main.kernel("gemm", at=at + 20_000, run=(at + 30_000, at + 30_000 + 1_000 * (step + 1)))
    main.op("aten::empty", 110_000, 110_500)

    (whole, *_), (mm, empty) = (
        table(asked(trace, tmp_path, **cut), "ops") for cut in ({}, {"step": 1})
    )

    assert (whole["calls"], whole["gpu_time_ns"], whole["flops"]) == (2, 3_000, 96)
    assert (mm["calls"], mm["gpu_time_ns"], mm["flops"], mm["flops_per_s"]) == (1, 2_000, 48, 24e6)
    assert (empty["name"], empty["calls"], empty["gpu_time_ns"]) == ("aten::empty", 1, 0)


def test_of_a_phase_only_ops_that_launched_its_work_are_left(tmp_path: Path) -> None:
    trace = Profile()
    training_step(trace)

    rows = table(asked(trace, tmp_path, phases=("backward",)), "ops")

    assert [(row["name"], row["calls"], row["gpu_time_ns"]) for row in rows] == [
        ("AddmmBackward0", 2, 600_000),
        ("GeluBackward0", 1, 100_000),
        ("autograd::engine::evaluate_function: AddmmBackward0", 2, 600_000),
        ("autograd::engine::evaluate_function: GeluBackward0", 1, 100_000),
    ]


def test_calls_without_children_keep_their_cpu_time(tmp_path: Path) -> None:
    trace = Profile()
    main = trace.thread("python3")
    main.op("aten::to", 0, 100)
    main.op("aten::_to_copy", 10, 90)
    main.op("aten::empty", 20, 30)
    main.op("aten::copy_", 30, 80)

    of = asked(trace, tmp_path)
    found = ops_of(of)
    assert found is not None

    assert calls(of, found).select("cpu_ns", "self_cpu_ns").rows() == [
        (100, 20), (80, 20), (10, 10), (50, 50),
    ]  # fmt: skip
