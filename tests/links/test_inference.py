"""Phases where no range names them: what gives training away, and what does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.asking import linked, phase_of, table
from tests.build import Nsys, training_step

if TYPE_CHECKING:
    from pathlib import Path

ADAM = "void at::native::multi_tensor_apply_kernel<at::native::FusedAdamMathFunctor<float, 4>>(int)"
GELU = "void at::native::vectorized_elementwise_kernel<4, at::native::GeluCUDAKernel>(int)"
GRAD = "void at::native::layer_norm_grad_input_kernel<float, float>(float const*)"


def test_a_step_without_names_divides_as_with_names(tmp_path: Path) -> None:
    trace = Nsys()
    step = training_step(trace, ranges=False)

    of = linked(trace, tmp_path)
    kernels = {row["phase"]: row["kernels"] for row in table(of, "phases")}

    assert of.phase_source == "inferred"
    assert {phase: kernels.get(phase, 0) for phase in step.kernels} == step.kernels
    assert of.coverage()["inferred"] == 10


def test_what_an_autograd_worker_launches_is_backward(tmp_path: Path) -> None:
    trace = Nsys()
    trace.thread("python").kernel(GELU, at=0, run=(10, 20))
    trace.thread("pt_autograd_0", tid=101).kernel("gemm", at=30, run=(40, 50))
    trace.thread("pt_autograd_1", tid=102).kernel("gemm on gpu 1", at=31, run=(40, 50), device=1)

    of = linked(trace, tmp_path)

    assert of.phase_source == "inferred"
    assert phase_of(of) == {
        GELU: ("forward", "inferred"),
        "gemm": ("backward", "inferred"),
        "gemm on gpu 1": ("backward", "inferred"),
    }


def test_an_optimizer_is_known_by_its_kernels(tmp_path: Path) -> None:
    trace = Nsys()
    main = trace.thread("python")
    main.kernel(GELU, at=0, run=(10, 20))
    main.kernel(ADAM, at=30, run=(40, 50))

    of = linked(trace, tmp_path)

    assert phase_of(of) == {GELU: ("forward", "inferred"), ADAM: ("optimizer", "inferred")}


def test_without_thread_names_the_second_thread_with_gradients_is_autograd(tmp_path: Path) -> None:
    trace = Nsys("3.25.0")
    main, worker = trace.thread(None, pid=100, tid=5_001), trace.thread(None, pid=100, tid=7_003)
    main.kernel(GELU, at=0, run=(10, 20))
    worker.kernel(GRAD, at=30, run=(40, 50))
    worker.kernel("gemm", at=35, run=(50, 60))

    of = linked(trace, tmp_path)

    assert of.phase_source == "inferred"
    assert phase_of(of) == {
        GELU: ("forward", "inferred"),
        GRAD: ("backward", "inferred"),
        "gemm": ("backward", "inferred"),
    }


def test_a_second_thread_without_gradients_is_no_autograd(tmp_path: Path) -> None:
    trace = Nsys("3.25.0")
    for tid, name in ((5_001, "a"), (7_003, "b")):
        trace.thread(None, pid=100, tid=tid).kernel(name, at=tid, run=(tid, tid + 1))

    of = linked(trace, tmp_path)

    assert of.phase_source == "none"
    assert set(phase_of(of).values()) == {(None, "none")}


def test_a_solver_has_no_phases(tmp_path: Path) -> None:
    trace = Nsys()
    main = trace.thread("cloverleaf")
    main.push("timestep", 0, 100).push("PdV", 10, 50)
    main.kernel("PdV_kernel(bool, int)", at=20, run=(30, 60))
    trace.thread("helper", tid=101).kernel("flux_calc", at=25, run=(60, 70))

    of = linked(trace, tmp_path)

    assert of.phase_source == "none"
    assert set(phase_of(of).values()) == {(None, "none")}
    assert [(row["phase"], row["kernels"]) for row in table(of, "phases")] == [(None, 2)]


def test_inference_of_a_model_is_no_training(tmp_path: Path) -> None:
    trace = Nsys()
    main = trace.thread("python")
    main.kernel(GELU, at=0, run=(10, 20))
    main.kernel("ampere_sgemm_128x64_tn", at=5, run=(20, 30))

    assert linked(trace, tmp_path).phase_source == "none"


def test_autograd_of_one_process_is_no_evidence_for_another(tmp_path: Path) -> None:
    trace = Nsys()
    training_step(trace, pid=100, ranges=False)
    trace.thread("python", pid=200).kernel("solve", at=0, run=(5_000, 5_001))

    of = linked(trace, tmp_path)
    rows = {row["phase"]: row["kernels"] for row in table(of, "phases")}

    assert rows == {"forward": 4, "backward": 3, "optimizer": 2, None: 1}


def test_an_autograd_thread_that_launches_nothing_is_no_evidence(tmp_path: Path) -> None:
    trace = Nsys()
    trace.thread("pt_autograd_0", tid=101)
    trace.thread("python").kernel(GELU, at=0, run=(10, 20))

    assert linked(trace, tmp_path).phase_source == "none"


def test_names_beat_inference_in_every_process_of_the_trace(tmp_path: Path) -> None:
    trace = Nsys()
    main, autograd = trace.thread("python"), trace.thread("pt_autograd_0", tid=101)
    main.push("forward", 0, 100)
    autograd.kernel("recomputed", at=50, run=(200, 210))

    of = linked(trace, tmp_path)

    assert of.phase_source == "ranges"
    assert phase_of(of) == {"recomputed": ("forward", "same_process")}


def test_work_without_a_launch_takes_the_inferred_phase_of_its_neighbours(tmp_path: Path) -> None:
    trace = Nsys()
    trace.thread("python").kernel(GELU, at=0, run=(10, 20))
    autograd = trace.thread("pt_autograd_0", tid=101)
    autograd.kernel("g1", at=30, run=(40, 50))
    trace.kernel_without_launch("lost", (50, 60))
    autograd.kernel("g2", at=35, run=(60, 70))

    assert phase_of(linked(trace, tmp_path))["lost"] == ("backward", "inferred")


def test_ranges_of_one_rank_do_not_silence_the_evidence_of_another(tmp_path: Path) -> None:
    """Many programs push their ranges on rank 0 alone; each process is attributed by itself."""
    trace = Nsys()
    step = training_step(trace, pid=100)
    training_step(trace, pid=200, ranges=False)

    of = linked(trace, tmp_path)
    rows = {row["phase"]: row["kernels"] for row in table(of, "phases")}

    assert {phase: rows.get(phase, 0) for phase in step.kernels} == {
        phase: 2 * many for phase, many in step.kernels.items()
    }
