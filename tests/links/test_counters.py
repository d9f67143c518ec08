"""What the GPU counted becomes operations and bytes, as Nsight Compute's own roofline has them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.asking import linked, table
from tests.kineto import Profile
from tests.ncu import Ncu, instructions
from tracelens.links.counters import of_linked
from tracelens.links.joined import joined
from tracelens.links.linked import link
from tracelens.readers.open import open_trace

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tracelens.trace.model import Trace

LIKE: Any = {"args": {"grid": [1, 1, 1], "block": [128, 1, 1]}}
"""The size of launches that `Ncu` gives, too."""
MM: Any = {"dims": [[64, 64], [64, 64]], "types": ["float", "float"]}


def counted(folder: Path, *launches: Mapping[str, str], name: str = "k") -> list[dict[str, Any]]:
    trace = Ncu()
    for metrics in launches:
        trace.launch(name, 1_000, metrics)
    found = of_linked(linked(trace.write(folder / "ncu.csv")))
    assert found is not None
    return found.to_dicts()


def test_a_multiplication_with_addition_is_two_operations(tmp_path: Path) -> None:
    single = instructions(fadd=10, fmul=100, ffma=1_000)
    double = instructions(dadd=1, dmul=2, dfma=3)

    one, two = counted(tmp_path, single, double)

    assert (one["fp32_flops"], one["flops"], one["dtype"]) == (2_110, 2_110, "float32")
    assert (two["fp64_flops"], two["flops"], two["dtype"]) == (9, 9, "float64")


def test_halves_that_are_only_moved_are_no_operations(tmp_path: Path) -> None:
    """Compilers load constants by HFMA2: copies of fp32 have half a dozen for each element."""
    moved, added = instructions(hfma=50), instructions(hfma=50, hadd=10)

    one, two = counted(tmp_path, moved, added)

    assert (one["fp16_flops"], one["flops"]) == (200, 0)
    assert (two["fp16_flops"], two["flops"], two["dtype"]) == (220, 220, "float16")


def test_rates_become_amounts_as_in_nsight_computes_roofline(tmp_path: Path) -> None:
    """The 2 · 12 · 4 · 256 · 256 · 64 operations of a product of GPT-2 small on an H200."""
    name = "smsp__sass_thread_inst_executed_op_{}_pred_on.sum.per_cycle_elapsed"
    cycles, took = 36_843.09, 18_912
    rates = {name.format(f"{kind}{op}"): "0" for kind in "dfh" for op in ("add", "mul", "fma")}
    metrics = {
        **rates,
        name.format("ffma"): f"{201_326_592 / cycles:,.2f}",
        "smsp__cycles_elapsed.avg": f"{cycles:,.2f}",
        "dram__bytes.sum.per_second": f"{6_366_000 * 1e9 / took:,.2f}",
        "sm__ops_path_tensor_src_bf16_dst_fp32.sum": "0",
    }
    trace = Ncu().launch("sgemm", took, metrics).write(tmp_path / "ncu.csv")

    found = of_linked(linked(trace))

    assert found is not None
    (row,) = found.to_dicts()
    assert row["flops"] == pytest.approx(2 * 12 * 4 * 256 * 256 * 64, rel=1e-5)
    assert row["bytes"] == pytest.approx(6_366_000, abs=1)
    assert (row["matmul"], row["format"]) == (True, "fp32")


def test_tensor_cores_have_counters_of_their_own(tmp_path: Path) -> None:
    """A product of 4096 x 4096 matrices in bf16 on an H200 is counted to the last operation."""
    bf16 = {"sm__ops_path_tensor_src_bf16_dst_fp32.sum": "137,438,953,472"}

    (row,) = counted(tmp_path, instructions(ffma=5) | bf16)

    assert row["tensor_ops"] == 2 * 4_096**3
    assert row["flops"] == 2 * 4_096**3 + 10
    assert (row["matmul"], row["format"]) == (True, "bf16")


def test_counters_that_are_part_of_others_count_once(tmp_path: Path) -> None:
    parts = {
        "sm__ops_path_tensor_src_fp16.sum": "100",
        "sm__ops_path_tensor_src_fp16_dst_fp32.sum": "60",
        "sm__ops_path_tensor_src_fp16_dst_fp32_sparsity_off.sum": "60",
        "sm__ops_path_tensor_src_fp16_dst_fp16.sum": "40",
        "sm__ops_path_tensor_src_fp8_sparsity_off.sum": "7",
        "sm__ops_path_tensor_src_fp8_sparsity_on.sum": "2",
        "sm__ops_path_tensor_op_hmma_src_fp16_dst_fp32_sparsity_off.sum": "60",
        "sm__ops_path_tensor_src_int1.sum": "1,000",
    }

    (row,) = counted(tmp_path, instructions() | parts)

    assert (row["tensor_ops"], row["format"]) == (109, "fp16")


def test_operations_that_were_not_all_measured_are_not_known(tmp_path: Path) -> None:
    no_doubles = {n: v for n, v in instructions(ffma=5).items() if "_op_d" not in n}
    no_tensor_cores = {n: v for n, v in instructions(ffma=5).items() if "tensor" not in n}
    busy = {"sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_elapsed": "9.5"}
    idle = {"sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_elapsed": "0"}

    assert [
        counted(tmp_path, metrics)[0]["flops"]
        for metrics in (no_doubles, no_tensor_cores, no_tensor_cores | busy, no_tensor_cores | idle)
    ] == [None, None, None, 10]


def test_bytes_are_read_and_written(tmp_path: Path) -> None:
    both = {"dram__bytes_read.sum": "1,000", "dram__bytes_write.sum": "24"}

    first, second, none = (
        counted(tmp_path, metrics)[0]
        for metrics in (both, both | {"dram__bytes.sum": "1,025"}, {"sm__x.sum": "1"})
    )

    assert (first["bytes"], second["bytes"], none["bytes"]) == (1_024, 1_025, None)


def test_the_table_adds_up_launches_and_averages_over_time(tmp_path: Path) -> None:
    name = "sm__throughput.avg.pct_of_peak_sustained_elapsed"
    path = (
        Ncu()
        .launch("gemm", 300, {**instructions(ffma=5), "dram__bytes.sum": "40", name: "50.00"})
        .launch("gemm", 100, {**instructions(ffma=2), "dram__bytes.sum": "16", name: "10.00"})
        .write(tmp_path / "ncu.csv")
    )

    (row,) = table(linked(path), "kernel_counters")

    assert (row["launches"], row["total_ns"], row["flops"], row["bytes"]) == (2, 400, 14, 56)
    assert row["sm_throughput"] == pytest.approx(0.4)
    assert row["intensity"] == 14 / 56
    assert row["flops_per_s"] == 14 * 1e9 / 400


def test_a_table_of_ncu_is_a_roofline_by_kernel(tmp_path: Path) -> None:
    bf16 = {"sm__ops_path_tensor_src_bf16_dst_fp32.sum": "137,438,953,472"}
    path = (
        Ncu()
        .launch("nvjet_tst", 177_824, instructions() | bf16 | {"dram__bytes.sum": "175,000,000"})
        .launch("relu", 50_000, instructions(fadd=10) | {"dram__bytes.sum": "120,000,000"})
        .write(tmp_path / "ncu.csv")
    )

    rows = {row["name"]: row for row in table(linked(path), "roofline")}

    assert {row["source"] for row in rows.values()} == {"counters"}
    assert rows["nvjet_tst"]["ceiling"] == "matmul.bf16"
    assert rows["nvjet_tst"]["share_of_ceiling"] == pytest.approx(
        2 * 4_096**3 / 177_824e-9 / 989.4e12, rel=0.01
    )
    assert rows["relu"]["ceiling"] == "bandwidth"
    assert rows["relu"]["share_of_ceiling"] == pytest.approx(0.12e9 / 50e-6 / 4.8e12, rel=0.01)


# Two recordings of one program


def profile(*steps: int) -> Profile:
    """Return a trace of steps, each of a product by two kernels and so many others."""
    trace = Profile()
    main = trace.thread("python3")
    for number, others in enumerate(steps):
        at = number * 1_000_000
        main.annotation(f"ProfilerStep#{number}", at, at + 900_000)
        main.op("aten::mm", at + 10_000, at + 50_000, **MM)
        main.kernel("sgemm", at=at + 20_000, run=(at + 60_000, at + 80_000), **LIKE)
        main.kernel("splitK", at=at + 30_000, run=(at + 80_000, at + 85_000), **LIKE)
        for other in range(others):
            begin = at + 100_000 + other * 1_000
            main.kernel(
                "void at::native::relu_kernel<4>(int)", at=begin, run=(begin, begin + 500), **LIKE
            )
    return trace


def measured(relus: int = 1) -> Ncu:
    trace = Ncu()
    for name, fma in (("sgemm", 500), ("splitK", 50), *[("at::relu_kernel<4>(T1)", 5)] * relus):
        trace.launch(name, 1_000, instructions(ffma=fma) | {"dram__bytes.sum": "100"})
    return trace


def both(folder: Path, trace: Profile, apart: Ncu) -> tuple[Trace, str, int]:
    made = joined(
        open_trace(trace.write(folder / "trace.json"), cache=False),
        open_trace(apart.write(folder / "ncu.csv"), cache=False),
    )
    return made.trace, made.said, made.kernels


def test_counters_go_to_the_kernels_in_the_same_order(tmp_path: Path) -> None:
    trace, said, kernels = both(tmp_path, profile(1), measured())

    rows = {row["name"]: row for row in table(link(trace), "roofline")}

    assert kernels == 3
    assert said.startswith("3 of 3 kernels have the counters of ncu.csv")
    assert rows["aten::mm"]["source"] == "counters"
    assert rows["aten::mm"]["flops"] == 2 * 550
    assert rows["aten::mm"]["time_ns"] == 25_000  # the trace's own


def test_one_measured_step_stands_for_all_that_are_like_it(tmp_path: Path) -> None:
    _, said, kernels = both(tmp_path, profile(1, 1, 2), measured())

    assert kernels == 9
    assert "9 of 10 kernels" in said


def test_a_measurement_of_the_first_launches_alone_is_joined(tmp_path: Path) -> None:
    assert both(tmp_path, profile(4), measured(relus=2))[2] == 4


def test_a_measurement_of_kernels_by_name_passes_over_the_others(tmp_path: Path) -> None:
    apart = Ncu().launch("at::relu_kernel<4>(T1)").launch("at::relu_kernel<4>(T1)")

    assert both(tmp_path, profile(2), apart)[2] == 2


def test_kernels_of_another_order_get_no_counters(tmp_path: Path) -> None:
    apart = Ncu().launch("splitK").launch("sgemm")

    trace, said, kernels = both(tmp_path, profile(1), apart)

    assert kernels == 0
    assert "op_counters" not in trace
    assert "kernel 1 is sgemm [1, 1, 1] [128, 1, 1] in the one recording and splitK" in said
    assert said in [caveat.text for caveat in trace.caveats]


def test_kernels_of_another_grid_get_no_counters(tmp_path: Path) -> None:
    trace = Profile()
    main = trace.thread("python3")
    main.kernel("sgemm", at=0, run=(10, 20), args={"grid": [4, 1, 1], "block": [128, 1, 1]})

    assert both(tmp_path, trace, Ncu().launch("sgemm", grid=(4, 1, 1)))[2] == 1
    assert both(tmp_path, trace, Ncu().launch("sgemm", grid=(8, 1, 1)))[2] == 0
