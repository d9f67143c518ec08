"""Rules on kernels: each with a trace that it finds, one that it must not, and one too blank."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.build import Nsys
from tests.findings.asked import found, is_silent, numbers, reason
from tests.kineto import Profile

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

US = 1_000
SGEMM = "ampere_sgemm_128x64_tn"
TENSOR = "ampere_bf16_s16816gemm_bf16_128x64_ldg8_f2f_stages_64x4_tn"
ELEMENTWISE = "vectorized_elementwise_kernel"
SOFTMAX = "softmax_warp_forward"
H200 = ("NVIDIA H200", (9, 0))


def busy(
    kernels: Iterable[tuple[str, int]], gpu: tuple[str, tuple[int, int]] | None = H200
) -> Nsys:
    """Return a trace of kernels (name, ns) one behind the other on a GPU."""
    trace = Nsys()
    main = trace.thread("python")
    if gpu:
        trace.device(0, gpu[0], capability=gpu[1])
    start = 1_000_000
    for number, (name, took) in enumerate(kernels):
        main.kernel(name, at=number, run=(start, start + took))
        start += took
    return trace


def phased(steps: Iterable[Iterable[tuple[str, Iterable[tuple[str, int]]]]]) -> Nsys:
    """Return a trace of steps of phases of kernels (name, ns), all in one row."""
    trace = Nsys()
    trace.device(0, "NVIDIA H200")
    main = trace.thread("python")
    at = 0
    for number, phases in enumerate(steps):
        first = at
        for phase, kernels in phases:
            begun = at
            for name, took in kernels:
                main.kernel(name, at=at, run=(at + 10, at + 10 + took))
                at += took + 20
            main.push(phase, begun, at)
        main.push(f"step {number}", first, at)
    return trace


# tiny kernels, for-loop optimizers


def test_tiny_kernels_are_counted_by_phase_and_step(tmp_path: Path) -> None:
    forward = [(SOFTMAX, 4 * US)] * 200 + [(TENSOR, 100 * US)] * 20

    finding = found("tiny_kernels", phased([[("forward", forward)]] * 2), tmp_path)

    assert finding.says == "forward launches 200 tiny kernels a step of 4.00 µs on average."
    assert finding.cost_ns == finding.gain_ns == 2 * 200 * 4 * US
    assert finding.subject == "forward"


def test_kernels_of_a_cuda_graph_are_not_told_to_go_into_one(tmp_path: Path) -> None:
    profile = Profile()
    profile.device(0, "NVIDIA H200")
    main = profile.thread("python3")
    runs = [(at * 5 * US, at * 5 * US + 4 * US) for at in range(2, 302)]
    main.graph([(SOFTMAX, *run) for run in runs], at=US)

    finding = found("tiny_kernels", profile, tmp_path)

    assert finding.change == "torch.compile fuses them."


@pytest.mark.parametrize(
    ("many", "took", "beside_ns"),
    [(199, 4 * US, 2_000 * US), (200, 10 * US, 2_000 * US), (200, 4 * US, 15_300 * US)],
    ids=["few", "not tiny", "of no account"],
)
def test_kernels_that_are_few_or_long_or_little_are_not_tiny(
    tmp_path: Path, many: int, took: int, beside_ns: int
) -> None:
    trace = phased([[("forward", [*[(SOFTMAX, took)] * many, (TENSOR, beside_ns)])]] * 2)

    assert is_silent("tiny_kernels", trace, tmp_path)


def test_an_optimizer_in_a_loop_is_told_once(tmp_path: Path) -> None:
    optimizer = [(ELEMENTWISE, 5 * US)] * 250 + [("multi_tensor_apply_kernel", 9 * US)]
    trace = phased([[("forward", [(TENSOR, 900 * US)]), ("optimizer", optimizer)]] * 2)

    finding = found("for_loop_optimizer", trace, tmp_path)

    assert finding.says == "optimizer launches 250 kernels a step of 5.00 µs on average."
    assert finding.cost_ns == 2 * 250 * 5 * US
    assert "foreach or fused" in finding.change
    assert is_silent("tiny_kernels", trace, tmp_path)


@pytest.mark.parametrize("kernels", [
    [(ELEMENTWISE, 5 * US)] * 199,
    [(ELEMENTWISE, 5 * US)] * 250 + [("multi_tensor_apply_kernel", 9 * US)] * 250,
], ids=["few", "as many of foreach"])  # fmt: skip
def test_an_optimizer_of_few_or_of_foreach_kernels_is_no_loop(
    tmp_path: Path, kernels: list[tuple[str, int]]
) -> None:
    assert is_silent("for_loop_optimizer", phased([[("optimizer", kernels)]] * 2), tmp_path)


def test_without_phases_nobody_knows_the_optimizer(tmp_path: Path) -> None:
    trace = busy([(ELEMENTWISE, 5 * US)] * 300)

    assert reason("for_loop_optimizer", trace, tmp_path) == "no phases are known"
    assert reason("recompute", trace, tmp_path) == "no phases are known"
    assert reason("unattributed", trace, tmp_path) == "no phases are known"


# elementwise work


def test_chains_of_elementwise_kernels_could_be_their_longest(tmp_path: Path) -> None:
    layer = [(TENSOR, 60 * US), (ELEMENTWISE, 10 * US), (ELEMENTWISE, 20 * US), (SOFTMAX, 10 * US)]

    finding = found("unfused_elementwise", busy(layer * 10), tmp_path)

    assert finding.cost_ns == 10 * 30 * US
    assert finding.gain_ns == 10 * 10 * US
    assert "30 % of kernel time" in finding.says
    assert numbers(finding)["kernels", "that directly follow one another on a stream"] == 20


def test_streams_part_chains(tmp_path: Path) -> None:
    trace = Nsys()
    main = trace.thread("python")
    for number in range(40):
        main.kernel(ELEMENTWISE, at=number, stream=number, run=(100 * number, 100 * number + 100))

    assert is_silent("unfused_elementwise", trace, tmp_path)


@pytest.mark.parametrize("layer", [
    [(TENSOR, 86 * US), (ELEMENTWISE, 7 * US), (ELEMENTWISE, 7 * US)],
    [(TENSOR, 40 * US), (ELEMENTWISE, 30 * US)],
    [(TENSOR, 40 * US), ("triton_poi_fused_add_0", 30 * US), ("triton_poi_fused_add_0", 30 * US)],
], ids=["little", "single", "fused"])  # fmt: skip
def test_little_single_or_fused_elementwise_work_is_left_alone(
    tmp_path: Path, layer: list[tuple[str, int]]
) -> None:
    assert is_silent("unfused_elementwise", busy(layer * 10), tmp_path)


# matrix products


def test_fp32_products_gain_what_the_data_sheet_says(tmp_path: Path) -> None:
    finding = found(
        "fp32_matmul_without_tf32", busy([(SGEMM, 60 * US), (TENSOR, 40 * US)]), tmp_path
    )

    assert finding.cost_ns == 60 * US
    assert finding.gain_ns == pytest.approx(60 * US * (1 - 66.9 / 494.7), rel=0.01)
    assert "take 60.0 µs, 60 % of kernel time (1 call)" in finding.says
    assert finding.subject == SGEMM


@pytest.mark.parametrize("name", [
    "sm80_xmma_gemm_f32f32_f32f32_f32_tn_n_tilesize128x128x8_stage3_warpsize2x2x1_ffma_aligna4",
    "void cutlass::Kernel2<cutlass_80_simt_sgemm_128x64_8x5_nn_align1>(T1::Params)",
    "volta_sgemm_128x32_nn",
])  # fmt: skip
def test_other_names_of_fp32_products(tmp_path: Path, name: str) -> None:
    assert found("fp32_matmul_without_tf32", busy([(name, 9 * US)]), tmp_path).cost_ns == 9 * US


@pytest.mark.parametrize("name", [
    "void cutlass::Kernel<cutlass_80_tensorop_s1688gemm_128x128_16x4_nn_align4>(T1::Params)",
    "sm80_xmma_gemm_f32f32_tf32f32_f32_nn_n_tilesize64x64x64_stage3_tensor16x8x8_kernel",
    TENSOR,
    "turing_fp16_s1688gemm_fp16_128x64_sliced1x2_ldg8_f2f_tn",
    "nvjet_tst_192x8_64x8_4x1_v_bz_TNT",
])  # fmt: skip
def test_products_of_tensor_cores_are_left_alone(tmp_path: Path, name: str) -> None:
    trace = busy([(name, 9 * US)])

    assert is_silent("fp32_matmul_without_tf32", trace, tmp_path)
    assert is_silent("no_tensor_cores", trace, tmp_path)


@pytest.mark.parametrize("gpu", [
    ("Tesla V100-SXM2-32GB", (7, 0)),
    ("NVIDIA GeForce RTX 3090", (8, 6)),
], ids=["has no TF32", "is not faster with it"])  # fmt: skip
def test_gpus_that_gain_nothing_are_left_alone(
    tmp_path: Path, gpu: tuple[str, tuple[int, int]]
) -> None:
    assert is_silent("fp32_matmul_without_tf32", busy([(SGEMM, 9 * US)], gpu), tmp_path)


def test_a_few_fp32_products_are_left_alone(tmp_path: Path) -> None:
    trace = busy([(SGEMM, 49 * US), (TENSOR, 951 * US)])

    assert is_silent("fp32_matmul_without_tf32", trace, tmp_path)


@pytest.mark.parametrize(
    ("gpu", "why"),
    [
        (None, "the GPU's compute capability was not recorded"),
        (("Some GPU", (9, 0)), "what TF32 gains on Some GPU is not known"),
    ],
)
def test_without_facts_of_the_gpu_the_gain_is_not_known(tmp_path: Path, gpu: Any, why: str) -> None:
    assert reason("fp32_matmul_without_tf32", busy([(SGEMM, 9 * US)], gpu), tmp_path) == why


def test_products_in_16_bits_by_vector_units(tmp_path: Path) -> None:
    trace = busy([("volta_hgemm_128x64_nn", 30 * US), (TENSOR, 70 * US)])

    finding = found("no_tensor_cores", trace, tmp_path)

    assert finding.cost_ns == 30 * US
    assert finding.gain_ns is not None
    assert 0 < finding.gain_ns < 30 * US
    assert "30 %" in finding.says


def test_products_of_vectors_need_no_tensor_cores(tmp_path: Path) -> None:
    name = "void gemv2T_kernel_val<int, int, __half, __half, __half, float, 128, 16, 4, 4>(T1)"

    assert is_silent("no_tensor_cores", busy([(name, 30 * US)]), tmp_path)


def test_a_gpu_without_tensor_cores_has_none_to_use(tmp_path: Path) -> None:
    trace = busy([("maxwell_hgemm_128x64_nn", 30 * US)], ("Tesla P100-SXM2-16GB", (6, 0)))

    assert is_silent("no_tensor_cores", trace, tmp_path)


def test_without_the_capability_nobody_knows_of_tensor_cores(tmp_path: Path) -> None:
    trace = busy([("volta_hgemm_128x64_nn", 30 * US)], None)

    assert "capability was not recorded" in reason("no_tensor_cores", trace, tmp_path)


def _cutlass(align: int, *, dtype: str = "bf16") -> str:
    return f"cutlass_80_tensorop_{dtype}_s16816gemm_{dtype}_256x128_64x3_tn_align{align}"


@pytest.mark.parametrize("align", [1, 2])
def test_odd_sizes_are_read_of_the_names_of_cutlass(tmp_path: Path, align: int) -> None:
    finding = found(
        "unaligned_gemms", busy([(_cutlass(align), 9 * US), (TENSOR, 91 * US)]), tmp_path
    )

    assert finding.cost_ns == 9 * US
    assert finding.gain_ns is None
    assert "9.0 %" in finding.says


@pytest.mark.parametrize("name", [
    _cutlass(8), _cutlass(4), "cutlass_80_simt_sgemm_128x64_8x5_nn_align1",
])  # fmt: skip
def test_aligned_products_and_those_of_fp32_are_not_odd(tmp_path: Path, name: str) -> None:
    assert is_silent("unaligned_gemms", busy([(name, 9 * US)]), tmp_path)


# recompute


def test_forward_kernels_in_backward_are_computed_again(tmp_path: Path) -> None:
    forward = [("flash_fwd_kernel", 30 * US), (TENSOR, 70 * US)]
    backward = [("flash_fwd_kernel", 30 * US), ("flash_bwd_kernel", 60 * US)]
    trace = phased([[("forward", forward * 2), ("backward", backward)]])

    finding = found("recompute", trace, tmp_path)

    assert finding.cost_ns == 100 * US  # half of forward
    assert finding.says.startswith("Backward computes 50 % of forward again")


def test_backward_kernels_in_backward_are_no_forward(tmp_path: Path) -> None:
    forward = [("softmax_warp_forward", 30 * US), ("GeluCUDAKernelImpl", 70 * US)]
    backward = [("softmax_warp_backward", 30 * US), ("GeluBackwardCUDAKernelImpl", 60 * US)]

    trace = phased([[("forward", forward), ("backward", backward)]])

    assert is_silent("recompute", trace, tmp_path)


def test_names_that_say_nothing_of_forward_leave_it_open(tmp_path: Path) -> None:
    trace = phased([[("forward", [(TENSOR, 9)]), ("backward", [(TENSOR, 9)])]])

    assert "tells forward from backward" in reason("recompute", trace, tmp_path)


# what is not known of the work


def test_graphs_recorded_whole_hide_their_kernels(tmp_path: Path) -> None:
    trace = Nsys()
    main = trace.thread("python")
    main.graph(graph_id=1, at=0, run=(10, 1_000))
    main.kernel("k", at=5, run=(1_000, 1_010))

    finding = found("whole_graphs", trace, tmp_path)

    assert finding.cost_ns == 990
    assert "99 % of GPU time (990 ns)" in finding.says


def test_a_graph_of_one_percent_hides_nothing_that_matters(tmp_path: Path) -> None:
    trace = Nsys()
    main = trace.thread("python")
    main.graph(graph_id=1, at=0, run=(10, 20))
    main.kernel("k", at=5, run=(1_000, 1_990))

    assert is_silent("whole_graphs", trace, tmp_path)


def test_kernels_of_unknown_kind_are_named(tmp_path: Path) -> None:
    finding = found("unclassified", busy([("zzyzx", 6 * US), (TENSOR, 94 * US)]), tmp_path)

    assert "6.0 % of kernel time" in finding.says
    assert finding.subject == "zzyzx"
    assert is_silent("unclassified", busy([("zzyzx", 5 * US), (TENSOR, 95 * US)]), tmp_path)


def test_work_in_no_phase_is_told_with_its_reason(tmp_path: Path) -> None:
    trace = phased([[("forward", [(TENSOR, 80)])]])
    trace.thread("python").kernel("k", at=5_000, run=(6_000, 6_011))
    trace.kernel_without_launch("k", (7_000, 7_009))

    finding = found("unattributed", trace, tmp_path)

    assert numbers(finding)["phases", "GPU time in no phase"] == 20
    assert "11 % launched in no phase, 9.0 % launch not recorded" in finding.says


def test_a_tenth_in_no_phase_is_no_doubt(tmp_path: Path) -> None:
    trace = phased([[("forward", [(TENSOR, 90)])]])
    trace.thread("python").kernel("k", at=5_000, run=(6_000, 6_010))

    assert is_silent("unattributed", trace, tmp_path)


def test_what_the_recorder_says_it_lost_is_said_again(tmp_path: Path) -> None:
    trace = busy([(TENSOR, 9)])
    trace.diagnostic("Not all CUDA events might have been collected.")

    assert "Not all CUDA events" in found("lost_events", trace, tmp_path).says
    assert is_silent("lost_events", busy([(TENSOR, 9)]), tmp_path)


def overlapping(overlap_ns: int) -> Nsys:
    trace = Nsys()
    main = trace.thread("python")
    main.kernel("a", at=0, run=(0, 1_000), stream=7)
    main.kernel("b", at=1, run=(1_000 - overlap_ns, 2_000 - overlap_ns), stream=8)
    return trace


def test_work_that_overlaps_adds_up_to_more_than_time(tmp_path: Path) -> None:
    finding = found("overlapping_work", overlapping(101), tmp_path)

    assert numbers(finding)["totals", "of the sum"] == 101 / 2_000
    assert is_silent("overlapping_work", overlapping(100), tmp_path)


# copies


def copied(took: int, kind: str = "Pageable") -> Profile:
    """Return a copy from the host beside a kernel of 100 µs."""
    trace = Profile()
    main = trace.thread("python3")
    main.kernel(TENSOR, at=0, run=(10 * US, 110 * US))
    copy = main.copy(bytes=4_096, at=5 * US, run=(110 * US, 110 * US + took))
    if kind != "Pinned":
        copy.fields["name"] = f"Memcpy HtoD ({kind} -> Device)"
    return trace


def test_copies_of_pageable_memory_are_told(tmp_path: Path) -> None:
    finding = found("pageable_copies", copied(2 * US), tmp_path)

    assert finding.cost_ns == finding.gain_ns == 2 * US
    assert finding.says == "1 copy of pageable memory takes 2.00 µs (2.0 %) for 4.00 KiB."


@pytest.mark.parametrize(
    "trace", [copied(1 * US), copied(9 * US, "Pinned")], ids=["short", "pinned"]
)
def test_short_copies_and_those_of_pinned_memory_are_left_alone(
    tmp_path: Path, trace: Profile
) -> None:
    assert is_silent("pageable_copies", trace, tmp_path)


def test_where_names_do_not_tell_the_memory_nobody_knows(tmp_path: Path) -> None:
    trace = Nsys()
    trace.thread("python").copy(bytes=8, at=0, run=(0, 100))

    assert "torch.profiler's traces alone" in reason("pageable_copies", trace, tmp_path)


# grids


def of_grid(blocks: int, *, took: int = 100 * US, sms: int = 132, **args: Any) -> Profile:
    """Return a matrix product of so many blocks of 256 threads, of which one fits into an SM."""
    trace = Profile()
    trace.device(0, sm=sms)
    shape = {"grid": [blocks, 1, 1], "block": [256, 1, 1], "registers per thread": 255, **args}
    trace.thread("python3").kernel(SGEMM, at=0, run=(1_000, 1_000 + took), args=shape)
    return trace


def test_a_grid_smaller_than_the_gpu_leaves_the_rest_idle(tmp_path: Path) -> None:
    finding = found("small_gemms", of_grid(33), tmp_path)

    assert finding.cost_ns == 100 * US
    assert finding.gain_ns == 75 * US
    assert "too small for 132 SMs take 100.0 µs (1 call): 75 % of the SMs idle" in finding.says


def test_a_grid_nearly_as_large_as_the_gpu_is_left_alone(tmp_path: Path) -> None:
    assert is_silent("small_gemms", of_grid(126), tmp_path)  # 4.5 % idle
    assert is_silent("tail_effects", of_grid(126), tmp_path)


def test_a_last_wave_of_few_blocks_idles(tmp_path: Path) -> None:
    finding = found("tail_effects", of_grid(165), tmp_path)  # 1.25 of 2 waves

    assert finding.cost_ns == 100 * US
    assert finding.gain_ns == 37_500
    assert numbers(finding)["launch_shapes", "waves of the one that loses most"] == 1.25


@pytest.mark.parametrize("blocks", [132, 264, 200, 132 * 25 + 1])
def test_full_waves_and_many_of_them_are_left_alone(tmp_path: Path, blocks: int) -> None:
    assert is_silent("tail_effects", of_grid(blocks), tmp_path)


def test_without_the_gpu_nobody_knows_what_a_wave_is(tmp_path: Path) -> None:
    trace = Profile()
    trace.thread("python3").kernel(SGEMM, at=0, run=(1_000, 9_000))

    assert "multiprocessors" in reason("small_gemms", trace, tmp_path)
    assert "occupancy is not known" in reason("tail_effects", trace, tmp_path)


def test_without_grids_neither(tmp_path: Path) -> None:
    trace = of_grid(33)
    (kernel,) = (e for e in trace.events if e.fields.get("cat") == "kernel")
    del kernel.fields["args"]["grid"]

    assert "how large grids were" in reason("small_gemms", trace, tmp_path)
