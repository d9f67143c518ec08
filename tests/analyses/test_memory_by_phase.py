"""Work and memory of two passes of one run: which steps are the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.asking import Shell
from tests.build import Nsys
from tests.snapshots import Snapshot

if TYPE_CHECKING:
    from pathlib import Path

KIB = 1024


def work(folder: Path, steps: int) -> None:
    """Write a recording of steps that are all called `step`."""
    trace = Nsys()
    main = trace.thread("python")
    for number in range(steps):
        at = number * 1_000
        main.push("step", at, at + 900)
        main.push("forward", at, at + 500)
        main.kernel("gemm", at=at + 10, run=(at + 100, at + 200 + number))
    trace.write(folder / "run.sqlite")


def memory(folder: Path, sizes: list[int]) -> None:
    """Write a snapshot of steps that are all called `step`, each with so much in forward."""
    snapshot = Snapshot()
    gpu = snapshot.device()
    for size in sizes:
        with snapshot.range("step"), snapshot.range("forward"):
            block = gpu.alloc(size)
        gpu.free(block)
    snapshot.write(folder / "memory.pickle")


@pytest.mark.parametrize("warmups", [[], [70 * KIB], [70 * KIB, 60 * KIB]])
def test_the_last_steps_are_the_same_where_one_pass_recorded_the_warm_up_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], warmups: list[int]
) -> None:
    work(tmp_path, steps=2)
    memory(tmp_path, [*warmups, 20 * KIB, 30 * KIB])

    said = Shell(capsys)("summarize", tmp_path, "-t", "memory_by_phase", "-f", "json")

    (found,) = said.json["tables"].values()
    forward = [row for row in found if row["phase"] == "forward"]
    assert [(r["step"], r["kernel_time_ns"], r["peak_active_bytes"]) for r in forward] == [
        (0, 100, 20 * KIB),
        (1, 101, 30 * KIB),
    ]
