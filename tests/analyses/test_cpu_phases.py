"""What the CPU did in each phase, by the ops that torch.profiler recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.asking import Shell, linked, table
from tests.kineto import Profile

if TYPE_CHECKING:
    from pathlib import Path

    from tests.asking import Row

US = 1_000


def training() -> Profile:
    """Return a step in which autograd's own thread computes, and `loss` is no phase."""
    trace = Profile()
    main = trace.thread("python3")
    main.annotation("forward", 0, 100 * US)
    main.op("aten::linear", 10 * US, 60 * US)
    main.op("aten::addmm", 20 * US, 50 * US, dims=[[2], [4, 8], [8, 2], [], []])
    main.op("aten::gelu", 60 * US, 70 * US)
    main.annotation("loss", 100 * US, 120 * US)
    main.op("aten::nll_loss", 105 * US, 110 * US)
    main.annotation("backward", 120 * US, 300 * US)
    engine = trace.thread("pt_autograd_0", tid=200)
    engine.op("aten::mm", 150 * US, 250 * US, dims=[[4, 8], [8, 2]])
    return trace


def rows(trace: Profile, folder: Path, **cut: Any) -> list[Row]:
    return table(linked(trace.write(folder / "trace.json"), **cut), "cpu_phases")


def test_an_op_counts_in_the_phase_it_is_called_in_on_autograds_thread_too(tmp_path: Path) -> None:
    found = {row["phase"]: row for row in rows(training(), tmp_path)}

    assert list(found) == ["forward", "backward", None]
    assert {phase: (row["calls"], row["self_cpu_ns"]) for phase, row in found.items()} == {
        "forward": (3, 60 * US),
        "backward": (1, 100 * US),
        None: (1, 5 * US),
    }
    assert [row["share"] for row in found.values()] == pytest.approx([60 / 165, 100 / 165, 5 / 165])


def test_matmul_is_the_time_in_products_with_the_wrapper_around_them(tmp_path: Path) -> None:
    forward, backward, rest = rows(training(), tmp_path)

    assert forward["matmul"] == pytest.approx(50 / 60)
    assert (backward["matmul"], rest["matmul"]) == (1.0, 0.0)
    assert (forward["flops"], backward["flops"], rest["flops"]) == (128, 128, None)
    assert backward["flops_per_s"] == pytest.approx(128 / 100e-6)


def test_one_phase_can_be_asked_for(tmp_path: Path) -> None:
    (row,) = rows(training(), tmp_path, phases=("(none)",))

    assert (row["phase"], row["calls"]) == (None, 1)


def test_a_recording_of_the_cpu_alone_shows_its_phases_unasked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = training().write(tmp_path / "trace.json")

    said = Shell(capsys)("summarize", str(path))

    assert said.status == 0
    assert "CPU time of PyTorch ops by phase" in said.out


spans = st.tuples(st.integers(0, 400), st.integers(1, 60))


@given(st.lists(spans, max_size=8), st.lists(spans, max_size=8))
def test_the_phases_add_up_to_the_time_in_ops(
    tmp_path_factory: pytest.TempPathFactory,
    main: list[tuple[int, int]],
    engine: list[tuple[int, int]],
) -> None:
    trace = training()
    for tid, ops in ((300, main), (400, engine)):
        thread = trace.thread("worker", tid=tid)
        end = 0
        for gap, took in ops:
            thread.op("aten::add", (end + gap) * US, (end + gap + took) * US)
            end += gap + took

    found = rows(trace, tmp_path_factory.mktemp("trace"))

    assert sum(row["self_cpu_ns"] for row in found) == 165 * US + US * sum(
        took for _, took in [*main, *engine]
    )
    assert sum(row["calls"] for row in found) == 5 + len(main) + len(engine)
    assert sum(row["share"] for row in found) == pytest.approx(1)
