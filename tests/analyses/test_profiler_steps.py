"""Steps as torch.profiler marks them: work counts for the step that launched it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests import by_hand
from tests.asking import linked, table
from tests.kineto import Profile

if TYPE_CHECKING:
    from pathlib import Path

K = 1_000


def test_a_step_has_what_it_launched_though_the_gpu_runs_behind(tmp_path: Path) -> None:
    trace = Profile()
    main = trace.thread("python3")
    for number, (start, end) in enumerate(((0, 100), (100, 200), (200, 300))):
        gpu = ((150 + 100 * number) * K, (250 + 100 * number) * K)
        main.annotation(f"ProfilerStep#{number + 4}", start * K, end * K, gpu=gpu)
        main.op("aten::mm", (start + 10) * K, (start + 50) * K)
        # Each runs while the CPU is in the next step already.
        main.kernel(f"k{number}", at=(start + 20) * K, run=(gpu[0], gpu[0] + (number + 1) * K))

    rows = table(linked(trace.write(tmp_path / "trace.json")), "steps")

    assert [(row["name"], row["duration_ns"], row["kernel_time_ns"]) for row in rows] == [
        ("ProfilerStep#4", 100 * K, 1 * K),
        ("ProfilerStep#5", 100 * K, 2 * K),
        ("ProfilerStep#6", 100 * K, 3 * K),
    ]


def test_what_the_gpu_shows_of_annotations_is_no_range(tmp_path: Path) -> None:
    trace = Profile()
    main = trace.thread("python3")
    main.annotation("ProfilerStep#0", 0, 100 * K, gpu=(150 * K, 250 * K))
    main.op("aten::mm", 10 * K, 50 * K)
    main.python("train.py(3): main", 0, 100 * K)
    main.kernel("k", at=20 * K, run=(150 * K, 250 * K))

    rows = table(linked(trace.write(tmp_path / "trace.json")), "ranges")

    assert [(row["name"], row["instances"], row["kernels"]) for row in rows] == [
        ("ProfilerStep#0", 1, 1)
    ]


@pytest.mark.corpus
def test_steps_of_a_recording_hold_the_work_that_a_plain_sweep_finds(corpus: Path) -> None:
    path = corpus / "kineto" / "profilerstep-no-phases-h200.json.gz"
    trace = by_hand.read(path)
    steps = [e for e in trace.by_cat["user_annotation"] if e["name"].startswith("ProfilerStep#")]
    calls, times = Counter[str](), Counter[str]()
    for event, call, _ in trace.launching():
        if event["cat"] != "kernel":
            continue
        # Autograd's thread launches for the step of the main thread: the time alone tells.
        at = by_hand.ns(call)
        (step,) = (s for s in steps if by_hand.ns(s) <= at < by_hand.ns(s) + by_hand.ns(s, "dur"))
        calls[step["name"]] += 1
        times[step["name"]] += by_hand.ns(event, "dur")

    rows = table(linked(path), "steps")

    assert {row["name"]: row["kernels"] for row in rows} == calls
    assert {row["name"]: row["kernel_time_ns"] for row in rows} == times
    windows = {e["name"]: by_hand.ns(e, "dur") for e in trace.by_cat["gpu_user_annotation"]}
    assert all(row["duration_ns"] != windows[row["name"]] for row in rows)
