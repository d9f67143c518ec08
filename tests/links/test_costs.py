"""GPU work with its cost: which op a kernel is charged to, and what the traces tell of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.asking import linked
from tests.build import Nsys
from tests.kineto import Profile
from tracelens.links.costs import COUNTERS, costs

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kineto import Thread

MM: dict[str, Any] = {"dims": [[64, 32], [32, 16]], "types": ["float", "float"]}
FLOPS, BYTES = 2 * 64 * 32 * 16, 4 * (64 * 32 + 32 * 16 + 64 * 16)


def of(trace: Profile, folder: Path, **cut: Any) -> list[dict[str, Any]]:
    return costs(linked(trace.write(folder / "trace.json"), **cut)).to_dicts()


def by_name(rows: list[dict[str, Any]], *columns: str) -> dict[str, tuple[Any, ...]]:
    return {row["name"]: tuple(row[column] for column in columns) for row in rows}


def linear(main: Thread, start: int) -> None:
    """Add a linear layer as PyTorch calls it: addmm inside linear, and its kernel."""
    main.op("aten::linear", start, start + 50_000, dims=[[64, 32], [16, 32], [16]],
            types=["float"] * 3)  # fmt: skip
    main.op("aten::addmm", start + 5_000, start + 40_000, types=["float"] * 3 + ["Scalar"] * 2,
            dims=[[16], [64, 32], [32, 16], [], []])  # fmt: skip
    main.kernel("ampere_sgemm_128x64_tn", at=start + 10_000, run=(start + 60_000, start + 80_000))


def test_an_op_inside_another_is_counted_once(tmp_path: Path) -> None:
    trace = Profile()
    main = trace.thread("python3")
    linear(main, 0)
    linear(main, 100_000)

    (row,) = of(trace, tmp_path)

    assert (row["name"], row["calls"], row["gpu_ops"]) == ("aten::addmm", 2, 2)
    assert (row["flops"], row["bytes"]) == (2 * FLOPS, 2 * (BYTES + 16 * 4))
    assert (row["time_ns"], row["source"], row["matmul"]) == (40_000, "shapes", True)
    assert (row["dtype"], row["format"], row["certain"]) == ("float32", "fp32", True)


def test_kernels_of_a_library_belong_to_the_convolution_around_it(tmp_path: Path) -> None:
    trace = Profile()
    main = trace.thread("python3")
    scalars = ["", "", "", "[1, 1]", "[0, 0]", "[1, 1]", "False", "[0, 0]", "1"]
    facts: dict[str, Any] = {
        "dims": [[2, 3, 8, 8], [4, 3, 3, 3], [], [], [], [], [], [], []],
        "types": ["float", "float", "", *["ScalarList"] * 3, "Scalar", "ScalarList", "Scalar"],
        "inputs": scalars,
    }
    main.op("aten::convolution", 0, 90_000, **facts)
    main.op("aten::_convolution", 1_000, 80_000, **facts)
    main.op("aten::cudnn_convolution", 2_000, 70_000, dims=[[2, 3, 8, 8], [4, 3, 3, 3]],
            types=["float", "float"])  # fmt: skip
    main.kernel("implicit_convolve_sgemm", at=10_000, run=(100_000, 120_000))
    main.kernel("transform", at=20_000, run=(120_000, 130_000))

    (row,) = of(trace, tmp_path)

    assert (row["name"], row["calls"], row["gpu_ops"]) == ("aten::_convolution", 1, 2)
    assert row["flops"] == 2 * (2 * 6 * 6) * 4 * (3 * 3 * 3)
    assert row["time_ns"] == 30_000


def test_work_without_a_formula_is_named_and_adds_up(tmp_path: Path) -> None:
    trace = Profile()
    main = trace.thread("python3")
    main.op("aten::mm", 0, 50_000, **MM)
    main.kernel("ampere_sgemm", at=10_000, run=(60_000, 80_000))
    main.op("aten::topk", 60_000, 90_000, dims=[[64]], types=["float"])
    main.kernel("sort", at=70_000, run=(80_000, 85_000))
    main.kernel("mine", at=95_000, run=(85_000, 92_000), external=None)

    rows = of(trace, tmp_path)

    assert by_name(rows, "source", "time_ns", "flops", "bytes") == {
        "aten::mm": ("shapes", 20_000, FLOPS, BYTES),
        "aten::topk": (None, 5_000, None, None),
        "mine": (None, 7_000, None, None),
    }


def test_copies_to_and_from_the_host_are_left_out(tmp_path: Path) -> None:
    trace = Profile()
    main = trace.thread("python3")
    facts: dict[str, Any] = {"dims": [[1024], [1024], []], "types": ["float", "float", "Scalar"]}
    main.op("aten::copy_", 0, 50_000, **facts)
    main.copy(kind="HtoD", bytes=4096, at=10_000, run=(60_000, 80_000))
    main.op("aten::copy_", 60_000, 90_000, **facts)
    main.copy(kind="DtoD", bytes=4096, at=70_000, run=(90_000, 95_000))

    (row,) = of(trace, tmp_path)

    assert (row["name"], row["time_ns"], row["bytes"]) == ("aten::copy_", 5_000, 2 * 4096)


def test_a_call_counts_in_each_phase_that_its_kernels_ran_for_with_its_cost_once(
    tmp_path: Path,
) -> None:
    trace = Profile()
    main = trace.thread("python3")
    main.annotation("forward", 0, 50_000)
    main.annotation("backward", 50_000, 100_000)
    main.op("aten::mm", 1_000, 20_000, **MM)
    main.kernel("ampere_sgemm", at=10_000, run=(110_000, 120_000))
    main.op("aten::mm", 60_000, 80_000, **MM)
    main.kernel("ampere_sgemm", at=70_000, run=(120_000, 150_000))

    rows = of(trace, tmp_path)
    (forward,) = of(trace, tmp_path, phases=("forward",))

    assert {row["phase"]: (row["time_ns"], row["flops"]) for row in rows} == {
        "forward": (10_000, FLOPS), "backward": (30_000, FLOPS),
    }  # fmt: skip
    assert (forward["calls"], forward["time_ns"], forward["flops"]) == (1, 10_000, FLOPS)


def test_counters_take_the_place_of_shapes_where_every_kernel_was_counted(tmp_path: Path) -> None:
    trace = Profile()
    main = trace.thread("python3")
    for at in (0, 100_000):
        main.op("aten::mm", at, at + 50_000, **MM)
        main.kernel("ampere_sgemm", at=at + 10_000, run=(at + 60_000, at + 80_000))
        main.kernel("splitKreduce", at=at + 20_000, run=(at + 80_000, at + 85_000))
    main.kernel("mine", at=200_000, run=(210_000, 220_000), external=None)
    whole = linked(trace.write(tmp_path / "trace.json"))
    # Of the second product one kernel was not counted.
    counted = pl.DataFrame(
        {"op_id": [0, 1, 2, 4], "flops": [100, 10, 1, 7], "bytes": [200, 20, 2, 70]},
        schema=COUNTERS,
    )

    rows = costs(whole, counted).to_dicts()

    assert {(r["name"], r["source"]): (r["calls"], r["flops"], r["bytes"]) for r in rows} == {
        ("aten::mm", "counters"): (1, 110, 220),
        ("aten::mm", "shapes"): (1, FLOPS, BYTES),
        ("mine", "counters"): (1, 7, 70),
    }


def test_counters_stand_alone_where_no_ops_were_recorded(tmp_path: Path) -> None:
    trace = Nsys()
    main = trace.thread("python", pid=100, tid=100)
    main.kernel("gemm", at=1_000, run=(2_000, 3_000))
    main.kernel("gemm", at=2_000, run=(3_000, 4_500))
    whole = linked(trace, tmp_path)
    counted = pl.DataFrame({"op_id": [0], "flops": [100], "bytes": [20]}, schema=COUNTERS)

    rows = costs(whole, counted).to_dicts()

    assert {row["source"]: (row["name"], row["time_ns"], row["flops"]) for row in rows} == {
        "counters": ("gemm", 1_000, 100), None: ("gemm", 1_500, None),
    }  # fmt: skip


def test_shapes_that_nvtx_carries_tell_operations_and_the_kernel_their_format(
    tmp_path: Path,
) -> None:
    trace = Nsys()
    main = trace.thread("python", pid=100, tid=100)
    main.push("aten::mm, seq = 1, op_id = 2, sizes = [[64, 32], [32, 16]]", 0, 90)
    main.kernel("nvjet_sm90_tst_128x256", at=10, run=(100, 200))

    (row,) = costs(linked(trace, tmp_path)).to_dicts()

    assert (row["name"], row["flops"], row["bytes"]) == ("aten::mm", FLOPS, None)
    assert (row["format"], row["dtype"], row["source"]) == ("bf16", None, "shapes")


def test_what_lists_hold_is_told_by_their_kernels(tmp_path: Path) -> None:
    trace = Profile()
    main = trace.thread("python3")
    main.op("aten::cat", 0, 50_000, dims=[[[8, 4], [8, 4]], []], types=["TensorList", "Scalar"])
    main.kernel("CatArrayBatchedCopy<OpaqueType<2u>, unsigned int, 3>", at=1_000, run=(60, 70))
    main.op("aten::cat", 60_000, 90_000, dims=[[[5, 4], [8, 4]], []],
            types=["TensorList", "Scalar"])  # fmt: skip
    main.kernel("who_knows", at=61_000, run=(70, 80))

    rows = of(trace, tmp_path)

    assert {(row["dtype"], row["bytes"]) for row in rows} == {
        ("bfloat16", 2 * 2 * 8 * 4 * 2), (None, None),
    }  # fmt: skip


def test_sums_too_large_for_any_gpu_are_not_known(tmp_path: Path) -> None:
    trace = Profile()
    main = trace.thread("python3")
    huge = {"dims": [[2**18, 2**16], [2**16, 2**18]], "types": ["float", "float"]}  # 2^53
    large = {"dims": [[2**18, 2**15], [2**15, 2**18]], "types": ["float", "float"]}
    for i, facts in enumerate((huge, *[large] * 3)):
        main.op("aten::mm", i * 100, i * 100 + 90, **facts)
        main.kernel("sgemm", at=i * 100 + 10, run=(i * 100 + 20, i * 100 + 80))

    rows = of(trace, tmp_path)

    assert {row["flops"] for row in rows} == {None, 3 * 2**52}


works = st.lists(
    st.tuples(
        st.sampled_from(["aten::mm", "aten::linear", "aten::topk", "aten::add", "mine"]),
        st.integers(0, 3),
        st.integers(1, 5_000),
    ),
    max_size=12,
)


@settings(max_examples=30)
@given(works)
def test_all_work_inside_the_gpu_is_there_once(works: list[tuple[str, int, int]]) -> None:
    import tempfile
    from pathlib import Path

    trace = Profile()
    main = trace.thread("python3")
    main.op("first", 0, 1)
    at, total, ends = 10, 0, 1_000_000
    for name, depth, took in works:
        inner = at
        for _ in range(depth):
            main.op("aten::linear", inner, inner + 1_000, dims=[[4, 8], [2, 8]],
                    types=["float", "float"])  # fmt: skip
            inner += 10
        main.op(name, inner, inner + 500, **MM)
        main.kernel("k", at=inner + 10, run=(ends, ends + took))
        total, ends, at = total + took, ends + took, at + 2_000
    main.kernel("last", at=at, run=(ends, ends + 7), external=None)

    with tempfile.TemporaryDirectory() as folder:
        rows = of(trace, Path(folder))

    assert sum(row["time_ns"] for row in rows) == total + 7
    assert sum(row["gpu_ops"] for row in rows) == len(works) + 1
    calls = sum(row["calls"] for row in rows if row["source"])
    assert calls <= len(works)
