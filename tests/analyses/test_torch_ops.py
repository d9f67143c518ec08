"""The tables of PyTorch's ops: calls, time, what they compute, and gradients of what."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

import pytest

from tests import by_hand
from tests.asking import Shell, linked, table
from tests.build import Nsys
from tests.kineto import Profile, training_step
from tracelens.errors import NothingToShowError

if TYPE_CHECKING:
    from pathlib import Path

    from tests.asking import Row


def by_name(trace: Profile, folder: Path, **cut: Any) -> dict[str, Row]:
    of = linked(trace.write(folder / "trace.json"), **cut)
    return {row["name"]: row for row in table(of, "ops")}


def linear(at: int = 0, unit: int = 1_000, took: int = 50, trace: Profile | None = None) -> Profile:
    """Return a linear layer of 8 to 2 on 4 rows, that copies its bias and multiplies."""
    trace = trace or Profile()
    main = trace.thread("python3")
    main.op("aten::linear", at, at + 100 * unit, dims=[[4, 8], [2, 8], [2]])
    dims = [[2], [4, 8], [8, 2], [], []]
    types = ["c10::BFloat16", "c10::BFloat16", "c10::BFloat16", "Scalar", "Scalar"]
    main.op("aten::addmm", at + 10 * unit, at + 80 * unit, dims=dims, types=types)
    main.op("aten::copy_", at + 20 * unit, at + 40 * unit, dims=[[4, 2], [2]])
    main.copy(bytes=64, kind="DtoD", at=at + 30 * unit, run=(at + 500 * unit, at + 510 * unit))
    run = (at + 510 * unit, at + (510 + took) * unit)
    main.kernel("gemm", at=at + 50 * unit, run=run)
    return trace


def test_totals_include_ops_inside_and_own_times_do_not(tmp_path: Path) -> None:
    rows = by_name(linear(), tmp_path)

    keys = ("gpu_time_ns", "self_gpu_time_ns", "kernels", "cpu_ns", "self_cpu_ns")
    assert {name: tuple(row[key] for key in keys) for name, row in rows.items()} == {
        "aten::addmm": (60_000, 50_000, 1, 70_000, 50_000),
        "aten::copy_": (10_000, 10_000, 0, 20_000, 20_000),
        "aten::linear": (60_000, 0, 1, 100_000, 30_000),
    }
    assert [row["share"] for row in rows.values()] == pytest.approx([5 / 6, 1 / 6, 0])


def test_of_ops_inside_one_another_the_innermost_that_is_known_computes(tmp_path: Path) -> None:
    rows = by_name(linear(), tmp_path)

    assert {name: row["flops"] for name, row in rows.items()} == {
        "aten::addmm": 128, "aten::copy_": None, "aten::linear": None,
    }  # fmt: skip
    # Over the copy of the bias, too: 128 in 60 us.
    assert rows["aten::addmm"]["flops_per_s"] == pytest.approx(128 / 60e-6)


def test_what_launches_nothing_computes_nothing_on_the_gpu(tmp_path: Path) -> None:
    """torch.utils.checkpoint breaks off the last op of what it computes again."""
    trace = linear()
    trace.thread("python3").op("aten::mm", 600_000, 700_000, dims=[[4, 8], [8, 2]])

    rows = by_name(trace, tmp_path)

    assert (rows["aten::mm"]["calls"], rows["aten::mm"]["flops"]) == (1, None)


def test_without_a_gpu_ops_compute_all_the_same(tmp_path: Path) -> None:
    trace = Profile()
    trace.thread("python3").op("aten::mm", 0, 100_000, dims=[[4, 8], [8, 2]])

    (row,) = by_name(trace, tmp_path).values()

    assert (row["calls"], row["cpu_ns"], row["gpu_time_ns"]) == (1, 100_000, 0)
    assert (row["flops"], row["flops_per_s"]) == (128, None)


def test_an_op_inside_one_of_its_name_adds_no_time_twice(tmp_path: Path) -> None:
    trace = Profile()
    main = trace.thread("python3")
    main.op("aten::to", 0, 100_000)
    main.op("aten::_to_copy", 10_000, 90_000)
    main.op("aten::to", 20_000, 60_000)
    main.kernel("k", at=30_000, run=(200_000, 207_000))
    main.op("aten::to", 100_000, 105_000)

    row = by_name(trace, tmp_path)["aten::to"]

    assert (row["calls"], row["cpu_ns"], row["self_cpu_ns"]) == (3, 105_000, 65_000)
    assert (row["gpu_time_ns"], row["self_gpu_time_ns"], row["kernels"]) == (7_000, 7_000, 1)


def test_work_that_no_op_launched_has_a_row_of_its_own(tmp_path: Path) -> None:
    trace = linear()
    trace.thread("python3").kernel("k", at=300_000, run=(700_000, 740_000), external=None)

    rows = by_name(trace, tmp_path)

    assert list(rows) == ["aten::addmm", "aten::copy_", "aten::linear", None]
    (rest,) = (row for name, row in rows.items() if name is None)
    assert (rest["calls"], rest["kernels"], rest["self_gpu_time_ns"], rest["share"]) == (
        None, 1, 40_000, 0.4,
    )  # fmt: skip


def test_backward_ops_name_the_op_whose_gradient_they_compute(tmp_path: Path) -> None:
    trace = Profile()
    training_step(trace)

    rows = by_name(trace, tmp_path)

    assert {name: row["forward"] for name, row in rows.items() if row["forward"]} == {
        "AddmmBackward0": "aten::addmm",
        "GeluBackward0": "aten::gelu",
        "autograd::engine::evaluate_function: AddmmBackward0": "aten::addmm",
        "autograd::engine::evaluate_function: GeluBackward0": "aten::gelu",
    }


def test_types_are_pytorchs_and_the_most_frequent_comes_first(tmp_path: Path) -> None:
    trace = Profile()
    main = trace.thread("python3")
    for i, kinds in enumerate((["float", "Scalar"], ["c10::Half", ""], ["", "c10::Half"],
                               ["Scalar", ""], ["c10::Float8_e4m3fn", "float"])):  # fmt: skip
        main.op("aten::add", 1_000 * i, 1_000 * i + 500, dims=[[i + 1, 2], []], types=kinds)

    row = by_name(trace, tmp_path)["aten::add"]

    assert (row["dtype"], row["shapes"]) == ("float16, float32, float8_e4m3fn", 5)


def test_calls_of_one_shape_and_type_are_one_row(tmp_path: Path) -> None:
    trace = linear()
    linear(1_000_000, took=30, trace=trace)
    linear(2_000_000, took=90, trace=trace)
    main = trace.thread("python3")
    main.op("aten::cat", 3_000_000, 3_001_000, dims=[[[2, 3]] * 5, []])

    of = linked(trace.write(tmp_path / "trace.json"))
    rows = {(row["name"], row["shapes"]): row for row in table(of, "ops_by_shape")}

    row = rows["aten::addmm", "2, 4x8, 8x2"]
    assert (row["calls"], row["gpu_time_ns"], row["flops"]) == (3, 200_000, 3 * 128)
    assert (row["dtype"], row["flops_per_s"]) == ("bfloat16", pytest.approx(3 * 128 / 200e-6))
    assert ("aten::cat", "[2x3, 2x3, 2x3, … (5)]") in rows
    assert next(iter(rows)) == ("aten::addmm", "2, 4x8, 8x2")


def test_without_shapes_their_table_says_how_to_record_them(tmp_path: Path) -> None:
    trace = Profile()
    trace.thread("python3").op("aten::mm", 0, 100_000)

    of = linked(trace.write(tmp_path / "trace.json"))

    with pytest.raises(NothingToShowError, match="record_shapes=True"):
        table(of, "ops_by_shape")


@pytest.mark.parametrize("name", ["ops", "ops_by_shape"])
def test_without_ops_the_tables_say_what_records_them(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shell = Shell(capsys)
    nsys, torch = Nsys(), Profile()
    nsys.thread("python").kernel("k", at=1, run=(2, 3))
    torch.thread(None).kernel("k", at=1, run=(2, 3), external=None)

    said = [
        shell("summarize", file, "-t", name)
        for file in (nsys.write(tmp_path / "a.sqlite"), torch.write(tmp_path / "b.json"))
    ]

    assert [s.status for s in said] == [4, 4]
    assert "emit_nvtx under nsys, or torch.profiler, records them" in said[0].err
    assert "torch.profiler's ProfilerActivity.CPU records them" in said[1].err


@pytest.mark.corpus
@pytest.mark.parametrize(
    "name",
    [
        "kineto/gpt2-small-ctx512-bf16-stacks-memory-h200",
        "kineto/gpt2-xl-ctx256-fp32-h200",
        "kineto/profilerstep-no-phases-h200",
        "multirank/gpt2-medium-fsdp-h200x2/rank1",
    ],
)
def test_every_op_has_the_gpu_time_that_a_plain_sweep_finds(corpus: Path, name: str) -> None:
    path = corpus / f"{name}.json.gz"
    trace = by_hand.read(path)
    own, whole, kernels = Counter[str](), Counter[str](), Counter[str]()
    for event, _, ops in trace.launching():
        took = by_hand.ns(event, "dur")
        own[ops[-1]["name"]] += took
        for op in {op["name"] for op in ops}:
            whole[op] += took
            kernels[op] += event["cat"] == "kernel"
    calls = Counter(op["name"] for op in trace.by_cat["cpu_op"])

    rows = {row["name"]: row for row in table(linked(path), "ops")}

    assert {n: row["calls"] for n, row in rows.items()} == calls
    assert {n: row["self_gpu_time_ns"] for n, row in rows.items() if row["self_gpu_time_ns"]} == own
    assert {n: row["gpu_time_ns"] for n, row in rows.items() if row["gpu_time_ns"]} == whole
    assert Counter({n: row["kernels"] for n, row in rows.items()}) == kernels


@pytest.mark.corpus
def test_the_cpu_time_of_ops_is_that_of_a_plain_sweep(corpus: Path) -> None:
    path = corpus / "kineto" / "gpt2-small-ctx512-bf16-stacks-memory-h200.json.gz"
    ops = by_hand.read(path).by_cat["cpu_op"]
    total, own = Counter[str](), Counter[str]()
    for op, around in zip(ops, _around(ops), strict=True):
        took = by_hand.ns(op, "dur")
        own[op["name"]] += took
        if around:
            own[around[-1]["name"]] -= took
        if op["name"] not in {other["name"] for other in around}:
            total[op["name"]] += took

    rows = {row["name"]: row for row in table(linked(path), "ops")}

    assert {name: row["cpu_ns"] for name, row in rows.items()} == total
    assert {name: row["self_cpu_ns"] for name, row in rows.items()} == own


def _around(ops: list[by_hand.Event]) -> list[tuple[by_hand.Event, ...]]:
    """Return the ops around each op: those of its thread that are open and longer, or earlier."""
    found: list[tuple[by_hand.Event, ...]] = [()] * len(ops)
    threads: dict[int, list[int]] = defaultdict(list)
    for i, op in enumerate(ops):
        threads[op["tid"]].append(i)
    for rows in threads.values():
        open_now: list[int] = []
        for i in sorted(rows, key=lambda i: (by_hand.ns(ops[i]), -by_hand.ns(ops[i], "dur"), i)):
            begin = by_hand.ns(ops[i])
            while (
                open_now
                and by_hand.ns(ops[open_now[-1]]) + by_hand.ns(ops[open_now[-1]], "dur") <= begin
            ):
                open_now.pop()
            found[i] = tuple(ops[j] for j in open_now)
            open_now.append(i)
    return found


def gpt2_flops(*, layers: int, width: int, ctx: int, batch: int, vocabulary: int) -> int:
    """Return the FLOPs of forward and backward of GPT-2's matrix products."""
    tokens = batch * ctx
    weights = layers * 12 * width**2 + vocabulary * width
    attention = layers * 2 * (2 * tokens * ctx * width)
    return 3 * (2 * tokens * weights + attention)


@pytest.mark.corpus
@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("gpt2-xl-ctx256-fp32", {"layers": 48, "width": 1600, "ctx": 256, "batch": 4}),
        (
            "gpt2-small-ctx512-bf16-stacks-memory",
            {"layers": 12, "width": 768, "ctx": 512, "batch": 4},
        ),
    ],
)
def test_two_steps_of_gpt2_compute_what_its_sizes_say(
    corpus: Path, name: str, model: dict[str, int]
) -> None:
    of = linked(corpus / "kineto" / f"{name}-h200.json.gz")

    found = sum(row["flops"] or 0 for row in table(of, "ops"))

    assert found == 2 * gpt2_flops(vocabulary=50257, **model)
    assert found == sum(row["flops"] or 0 for row in table(of, "ops_by_shape"))
