"""Attention: every implementation gives the same result; each has the costs it should have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch.utils.flop_counter import sdpa_backward_flop_count, sdpa_flop_count
from tracelens_workloads.attention import Attention

from tests.running import counted_flops, made, matmul_flops, moved_bytes, peak_bytes, recorded
from tracelens.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

SMALL: dict[str, Any] = {"batch": 2, "heads": 3, "seq": 16, "d": 4}
MODES = ("forward", "forward-backward")


def reference(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
    """Attention of one query after another: what `--kernel` of these tests names."""
    rows = []
    for i in range(q.shape[2]):
        seen = i + 1 if causal else k.shape[2]
        scores = (q[:, :, i : i + 1] * k[:, :, :seen]).sum(-1) / q.shape[3] ** 0.5
        rows.append((scores.softmax(-1)[..., None] * v[:, :, :seen]).sum(2))
    return torch.stack(rows, 2)


def result(**options: Any) -> list[Tensor]:
    """Return what attention gives on the same numbers, and the gradients it leaves."""
    torch.manual_seed(0)
    program: Any = made("attention", **SMALL, **options).program("cpu")
    y = program._forward(*program._inputs)
    y.backward(*program._gradients)
    return [y.detach(), *(x.grad for x in program._inputs)]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("implementation", ["naive", "sdpa", "sdpa-flash"])
def test_every_implementation_gives_what_attention_is(implementation: str, causal: bool) -> None:
    kernel = f"{__name__}:reference"

    expected = result(implementation="kernel", kernel=kernel, causal=causal)
    found = result(implementation=implementation, causal=causal)

    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("causal", [False, True])
def test_naive_products_are_counted_and_a_mask_skips_none_of_them(causal: bool, mode: str) -> None:
    attention = made("attention", **SMALL, causal=causal, mode=mode)

    passes = {"forward": 1, "forward-backward": 3}[mode]
    assert matmul_flops(attention.cost()) == passes * 4 * 2 * 3 * 16**2 * 4
    assert counted_flops(attention.program("cpu")) == matmul_flops(attention.cost())


def test_fused_products_are_those_of_pytorchs_own_formula_and_half_with_a_mask() -> None:
    shape = (2, 3, 16, 4)
    forward = sdpa_flop_count(shape, shape, shape)
    backward = sdpa_backward_flop_count(shape, shape, shape, shape)

    whole = made("attention", **SMALL, implementation="sdpa-flash").cost()
    masked = made("attention", **SMALL, implementation="sdpa-flash", causal=True).cost()

    assert [work.flops for works in whole.phases.values() for work in works] == [forward, backward]
    assert backward == 2.5 * forward
    assert masked.flops == whole.flops / 2


def test_the_scores_cross_memory_four_times_and_those_of_a_fused_kernel_never() -> None:
    q = torch.empty(8, 1, 4096, 64)
    scores_bytes = 8 * 4096**2 * 4

    naive = made("attention-d64-s4096").cost()
    fused = made("attention-d64-s4096", implementation="sdpa").cost()

    assert moved_bytes(naive, "forward") == 4 * scores_bytes + 4 * q.nbytes
    statistics = 8 * 4096 * 4
    assert moved_bytes(fused, "forward") == 4 * q.nbytes + statistics
    assert moved_bytes(fused, "backward") == 8 * q.nbytes + statistics


def test_each_naive_part_moves_the_tensors_that_it_reads_and_writes() -> None:
    q = torch.empty(2, 3, 16, 4)
    scores = torch.empty(2, 3, 16, 16)

    cost = made("attention", **SMALL).cost()

    assert {work.part: work.bytes for work in cost.phases["forward"]} == {
        "scores": 2 * q.nbytes + scores.nbytes,
        "softmax": 2 * scores.nbytes,
        "output": scores.nbytes + 2 * q.nbytes,
    }
    # output: P, dO, V -> dP, dV; softmax: P, dP -> dS; scores: dS, Q, K -> dQ, dK.
    assert {work.part: work.bytes for work in cost.phases["backward"]} == {
        "output": 2 * scores.nbytes + 3 * q.nbytes,
        "softmax": 3 * scores.nbytes,
        "scores": scores.nbytes + 4 * q.nbytes,
    }


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("causal", [False, True])
def test_the_memory_of_naive_attention_is_that_of_its_score_matrices(
    causal: bool, mode: str, tmp_path: Path
) -> None:
    attention = made("attention", batch=2, seq=256, d=4, causal=causal, mode=mode)

    assert 1 <= attention.cost().memory_bytes / peak_bytes(attention, tmp_path) < 1.05


@pytest.mark.parametrize("implementation", ["naive", "sdpa"])
def test_what_stands_in_memory_before_backward_is_what_autograd_keeps(implementation: str) -> None:
    attention = made("attention", **SMALL, implementation=implementation)
    assert isinstance(attention, Attention)
    program: Any = attention.program("cpu")
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        y = program._forward(*program._inputs)
    for tensor in (y, *program._inputs, *program._gradients):
        keep(tensor)

    assert sum(attention.memory_before_backward().values()) == sum(kept.values())


def test_naive_parts_are_marked_in_both_directions() -> None:
    program = made("attention", **SMALL, repeats=2).program("cpu")

    events = recorded(program)

    for phase in ("forward", "backward"):
        ranges = [event.time_range for event in events if event.name == phase]
        assert len(ranges) == 2
        for part in ("scores", "softmax", "output"):
            parts = [event.time_range for event in events if event.name == part]
            for around in ranges:
                inside = [p for p in parts if around.start <= p.start and p.end <= around.end]
                assert len(inside) == 1, (phase, part)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"seq": 0}, "--seq is 0; it must be at least 1"),
        ({"implementation": "kernel"}, "module:function"),
        ({"implementation": "kernel", "kernel": "module"}, "module:function"),
        ({"kernel": "module:function"}, "only called with --implementation kernel"),
        ({"implementation": "flex", "compile": "default"}, "is always compiled"),
        ({"implementation": "flash"}, "sdpa-flash"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        made("attention", **options)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"implementation": "sdpa-cudnn"}, "needs an NVIDIA GPU"),
        ({"implementation": "kernel", "kernel": "no_such_module:f"}, "no_such_module"),
        ({"implementation": "kernel", "kernel": "math:no_such"}, "no_such"),
    ],
)
def test_what_this_machine_does_not_have_is_refused_before_anything_runs(
    options: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        made("attention", **SMALL, **options).program("cpu")


def test_variants_have_shorter_sequences_first() -> None:
    shorter = made("attention-d128-s16384").variants()

    assert next(iter(shorter)).options()["seq"] == 8192


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, when it compiles
def test_marks_do_not_break_the_graph_of_what_is_compiled() -> None:
    program: Any = made("attention", **SMALL).program("cpu")  # with its ranges
    whole = torch.compile(program._forward, backend="eager", fullgraph=True)

    eager, compiled = (forward(*program._inputs) for forward in (program._forward, whole))

    torch.testing.assert_close(compiled, eager)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("implementation", ["sdpa-flash", "sdpa-cudnn", "flex"])
def test_implementations_of_gpus_run_there(implementation: str) -> None:
    options = {"implementation": implementation, "causal": True, "dtype": "bf16"}
    program = made("attention", batch=2, seq=256, d=64, **options).program("cuda")

    program.step()
