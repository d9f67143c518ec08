"""The roofline of a trace: rows that can be checked with a pencil, and sums that add up."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.asking import linked, table, the_row
from tests.build import Nsys
from tests.kineto import Profile
from tracelens import hardware
from tracelens.errors import NothingToShowError
from tracelens.tables import build

if TYPE_CHECKING:
    from tracelens.links.linked import Linked

SAMPLES = Path(__file__).parents[2] / "samples"
HALF = ["c10::BFloat16", "c10::BFloat16"]


def on(gpu: str = "NVIDIA H200") -> Profile:
    """Return an empty trace of a GPU."""
    trace = Profile()
    trace.device(0, gpu)
    return trace


def step(gpu: str = "NVIDIA H200") -> Profile:
    """Return a trace of a product, an addition, and something unknown."""
    trace = on(gpu)
    main = trace.thread("python3")
    main.annotation("forward", 0, 100_000)
    main.op("aten::mm", 1_000, 20_000, dims=[[4096, 4096], [4096, 4096]], types=HALF)
    main.kernel("nvjet_tst", at=10_000, run=(200_000, 400_000))
    main.op("aten::add_", 30_000, 50_000, dims=[[2**26], [2**26], []],
            types=["float", "float", "Scalar"])  # fmt: skip
    main.kernel("vectorized_elementwise", at=40_000, run=(400_000, 800_000))
    main.op("aten::topk", 60_000, 80_000, dims=[[64]], types=["float"])
    main.kernel("sort", at=70_000, run=(900_000, 1_000_000))
    return trace


def of(trace: Profile, folder: Path, **cut: Any) -> Linked:
    return linked(trace.write(folder / "trace.json"), **cut)


def test_a_row_can_be_checked_with_a_pencil(tmp_path: Path) -> None:
    add, product, rest = table(of(step(), tmp_path), "roofline")

    flops, size = 2 * 4096**3, 3 * 4096**2 * 2
    assert (product["name"], product["flops"], product["bytes"]) == ("aten::mm", flops, size)
    assert product["intensity"] == flops / size
    assert product["flops_per_s"] == flops / 200e-6
    assert (product["bound"], product["ceiling"]) == ("compute", "matmul.bf16")
    assert product["share_of_ceiling"] == pytest.approx(flops / 200e-6 / 989.4e12, rel=1e-3)
    assert product["lost_ns"] == 200_000 - product["bound_ns"]
    assert product["bound_ns"] == pytest.approx(flops / 989.4e3, rel=1e-3)
    # Two tensors of 2^26 floats are read, and one is written.
    assert (add["name"], add["bytes"], add["flops"]) == ("aten::add_", 3 * 2**28, 2**26)
    assert (add["bound"], add["ceiling"]) == ("memory", "bandwidth")
    assert add["bytes_per_s"] == pytest.approx(3 * 2**28 / 400e-6)
    assert add["share_of_ceiling"] == pytest.approx(3 * 2**28 / 400e-6 / 4.8e12)
    # What is not known stands last, and its share is there.
    assert (rest["name"], rest["source"], rest["lost_ns"]) == ("aten::topk", None, None)
    assert rest["share"] == pytest.approx(1 / 7)


def test_phases_and_totals_add_up_to_the_rows(tmp_path: Path) -> None:
    whole = of(step(), tmp_path)
    rows = [row for row in table(whole, "roofline") if row["source"]]

    phase, total = the_row(whole, "roofline_phases"), the_row(whole, "roofline_totals")

    for name in ("flops", "bytes", "bound_ns", "lost_ns"):
        assert phase[name] == total[name] == sum(row[name] for row in rows)
    assert phase["known_ns"] == 600_000
    assert (phase["time_ns"], phase["busy_ns"], total["span_ns"]) == (700_000, 700_000, 800_000)
    assert phase["mfu"] == pytest.approx(2 * 4096**3 / 989.4e12 / 700e-6, rel=1e-3)
    assert total["mfu_of_span"] == pytest.approx(phase["mfu"] * 7 / 8)
    assert phase["mbu"] == pytest.approx(phase["bytes"] / 4.8e12 / 700e-6)
    assert total["unknown"] == "aten::topk 14 %"
    assert (total["gpu"], total["ceilings"]) == ("H200", "data sheet")


def test_what_the_gpu_cannot_have_done_is_no_achievement(tmp_path: Path) -> None:
    trace = on()
    main = trace.thread("python3")
    # 1.37e14 operations in 1 ms: 137 PFLOP/s.
    main.op("aten::mm", 0, 20_000, dims=[[2**15, 2**16], [2**16, 2**15]], types=HALF)
    main.kernel("nvjet_tst", at=10_000, run=(100_000, 1_100_000))

    whole = of(trace, tmp_path)
    row, phase = the_row(whole, "roofline"), the_row(whole, "roofline_phases")

    assert (row["verdict"], row["bound"]) == ("impossible", "compute")
    assert row["flops"] == 2**47
    assert (row["flops_per_s"], row["bytes_per_s"], row["share_of_ceiling"]) == (None, None, None)
    assert row["lost_ns"] is None
    assert (phase["impossible"], phase["mfu"], phase["flops"]) == (1, None, None)


def test_an_unknown_gpu_has_rates_and_no_shares(tmp_path: Path) -> None:
    whole = of(step("Some GPU of 2031"), tmp_path)

    _, product, _ = table(whole, "roofline")
    filled = build.fill(whole, "roofline")

    assert product["flops_per_s"] == 2 * 4096**3 / 200e-6
    assert (product["share_of_ceiling"], product["bound"], product["lost_ns"]) == (None,) * 3
    assert the_row(whole, "roofline_phases")["mfu"] is None
    assert "The ceilings of Some GPU of 2031 are not known" in filled.table.note


def test_measured_ceilings_take_the_place_of_the_data_sheet_and_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stated = hardware.ceilings("NVIDIA H200")
    assert stated is not None
    measured = hardware.Ceilings(
        name="NVIDIA H200",
        device=stated.device,
        matmul_flops_per_s={"bf16": 687e12},
        vector_flops_per_s=60e12,
        bandwidth_bytes_per_s=4.2e12,
        origin="measured 2026-11-20 on NVIDIA H200",
        measured=frozenset({"bandwidth", "matmul.bf16"}),
    )
    monkeypatch.setattr(hardware, "ceilings", lambda _: measured)
    whole = of(step(), tmp_path)

    _, product, _ = table(whole, "roofline")

    # The same 687.2 TFLOP/s as above, which are more than were measured, and possible.
    assert product["share_of_ceiling"] == pytest.approx(1.0, rel=1e-3)
    assert product["verdict"] == "above the measured ceiling"
    assert "measured 2026-11-20 on NVIDIA H200" in build.fill(whole, "roofline").table.note


def test_the_same_product_may_be_tf32_or_not_and_its_kernel_tells(tmp_path: Path) -> None:
    trace = Profile()
    main = trace.thread("python3")
    for at, (size, kernel) in enumerate(
        [(64, "ampere_sgemm_128x64_tn"), (128, "cutlass_80_tensorop_s1688gemm"), (256, "k")]
    ):
        main.op("aten::mm", at * 100, at * 100 + 90, dims=[[size, size]] * 2, types=["float"] * 2)
        main.kernel(kernel, at=at * 100 + 10, run=(1_000 * at + 500, 1_000 * at + 1_000))

    rows = table(of(trace, tmp_path), "roofline")

    assert {row["shapes"]: (row["format"], row["certain"], row["remark"]) for row in rows} == {
        "64x64, 64x64": ("fp32", True, ""),
        "128x128, 128x128": ("tf32", True, ""),
        "256x256, 256x256": ("tf32", False, "tf32 or fp32"),
    }


def test_causal_attention_says_that_half_was_counted() -> None:
    whole = linked(SAMPLES / "gpt2-medium-ddp-h200x2" / "rank0.json.gz")

    rows = {r["name"]: r for r in table(whole, "roofline") if "attention" in r["name"]}

    forward = rows["aten::_cudnn_attention_forward"]
    assert forward["remark"] == "causal half"
    # 48 calls of 8 x 16 heads: 4 operations for each of 64 numbers of each pair.
    assert forward["flops"] == 48 * 8 * 16 * 4 * 64 * (512 * 513 // 2)
    assert rows["aten::_cudnn_attention_backward"]["flops"] == forward["flops"] * 10 // 4


def test_bytes_that_are_not_known_are_no_zeros(tmp_path: Path) -> None:
    trace = Nsys()
    trace.device(0, "NVIDIA H200")
    main = trace.thread("python", pid=100, tid=100)
    main.push("forward", 0, 100)
    main.push("aten::mm, seq = 1, op_id = 2, sizes = [[640, 320], [320, 160]]", 1, 90)
    main.kernel("nvjet_sm90_tst_128x256", at=10, run=(100, 10_100))
    whole = linked(trace, tmp_path)

    row, phase = the_row(whole, "roofline"), the_row(whole, "roofline_phases")
    total = the_row(whole, "roofline_totals")

    assert (row["bytes"], phase["bytes"], phase["mbu"], phase["intensity"]) == (None,) * 4
    assert (total["bytes"], total["mbu_of_span"]) == (None, None)
    assert phase["flops"] == row["flops"] == 2 * 640 * 320 * 160
    assert phase["mfu"] == pytest.approx(total["mfu_of_span"])
    assert phase["mfu"] == pytest.approx(row["share_of_ceiling"])


def test_without_shapes_it_is_said_what_records_them(tmp_path: Path) -> None:
    bare = Profile()
    main = bare.thread("python3")
    main.op("aten::mm", 0, 20_000)
    main.kernel("gemm", at=10_000, run=(30_000, 40_000))
    nsys = Nsys()
    nsys.thread("python", pid=1, tid=1).kernel("gemm", at=10, run=(20, 30))

    for whole, says in (
        (of(bare, tmp_path), "record_shapes=True"),
        (linked(nsys, tmp_path), "record_shapes=True records the shapes of PyTorch's ops"),
    ):
        for name in ("roofline", "roofline_phases", "roofline_totals"):
            with pytest.raises(NothingToShowError, match=says):
                build.fill(whole, name)


def test_without_gpu_work_there_is_nothing_to_hold_against_anything(tmp_path: Path) -> None:
    trace = Profile()
    trace.thread("python3").op("aten::mm", 0, 20_000, dims=[[4, 4]] * 2, types=["float"] * 2)

    with pytest.raises(NothingToShowError, match="no GPU work"):
        build.fill(of(trace, tmp_path), "roofline")


def test_a_recording_of_ours_reaches_what_arithmetic_on_its_events_says() -> None:
    """The head of GPT-2 small, 2048 tokens: both calls' times, from the JSON, are 3,343,289 ns."""
    whole = linked(SAMPLES / "gpt2-small-ctx512-bf16-h200" / "trace.json.gz")

    rows = table(whole, "roofline")
    (head,) = (row for row in rows if row["shapes"] == "2048x768, 768x50257")
    (total,) = table(whole, "roofline_totals")

    assert (head["calls"], head["time_ns"], head["flops"]) == (
        2, 3_343_289, 2 * 2 * 2048 * 768 * 50257,
    )  # fmt: skip
    assert head["bytes"] == 2 * 2 * (2048 * 768 + 768 * 50257 + 2048 * 50257)
    assert head["share_of_ceiling"] == pytest.approx(94.57e12 / 989.4e12, rel=1e-3)
    assert total["known_share"] > 0.999
    assert total["impossible"] == 0
    by_time = [row["time_ns"] for row in rows]
    assert sum(by_time) == total["time_ns"]


@pytest.mark.corpus
@pytest.mark.parametrize(
    ("recording", "known"),
    [
        ("gpt2-medium-ctx512-bf16-compile-h200.json.gz", 0.999),
        ("gpt2-xl-ctx256-fp32-h200.json.gz", 0.999),
        ("profilerstep-no-phases-h200.json.gz", 0.84),  # foreach over more than 30 tensors
        ("three-streams-overlap-h200.json.gz", 1.0),
    ],
)
def test_in_real_recordings_nothing_is_impossible_and_most_is_known(
    corpus: Path, recording: str, known: float
) -> None:
    whole = linked(corpus / "kineto" / recording)

    total = the_row(whole, "roofline_totals")

    assert total["impossible"] == 0
    assert known <= total["known_share"] <= 1
    # What is inside the GPU: kernels, memsets, and copies that do not leave it.
    inside = the_row(whole, "totals")["kernel_time_ns"]
    inside += the_row(whole, "totals")["memset_time_ns"]
    inside += sum(r["total_ns"] for r in table(whole, "copies") if r["kind"] == "DtoD")
    assert total["time_ns"] == inside
    assert sum(row["time_ns"] for row in table(whole, "roofline_phases")) == inside
