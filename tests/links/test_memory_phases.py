"""Which phase and step allocator events belong to, and what tells it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from tests.kineto import BASE_NS, Profile
from tests.snapshots import MIB, Snapshot, training
from tracelens.errors import UsageError
from tracelens.links.memory import Ask, Memory, remember
from tracelens.readers.open import open_trace

if TYPE_CHECKING:
    from pathlib import Path

    from tests.snapshots import Device
    from tracelens.trace.model import Trace

CLOCK_US = BASE_NS // 1000 + 60_000_000
FORWARD = ("model.py:20 forward", "site-packages/torch/nn/modules/module.py:1 _call_impl")
LOSS = ("train.py:8 main",)
BACKWARD = ("site-packages/torch/_tensor.py:5 backward", "train.py:9 main")
STEP = ("/usr/lib/python3/dist-packages/torch/optim/adamw.py:30 step", "train.py:10 main")
ENGINE = ("??:0 at::empty()", "??:0 torch::autograd::Engine::thread_main()", "??:0 clone")


def written(snapshot: Snapshot, folder: Path) -> Trace:
    """Return the snapshot's trace, by way of a file."""
    return open_trace(snapshot.write(folder / "snapshot.pickle"), cache=False)


def placed(memory: Memory, action: str = "alloc") -> list[tuple[Any, ...]]:
    """Return phase, step and how of events of one action, in order."""
    events = memory.events.filter(pl.col("action") == action)
    texts = pl.col("phase", "how").cast(pl.String)
    return events.with_columns(texts).select("phase", "step", "how").rows()


def loop(gpu: Device, *, engine: bool = False) -> None:
    """Do one step of training without annotations."""
    activation = gpu.alloc(MIB, stack=FORWARD)
    loss = gpu.alloc(4, stack=LOSS)
    gradient = gpu.alloc(MIB, stack=ENGINE if engine else None)
    gpu.free(activation, stack=ENGINE if engine else None)
    gpu.free(gpu.alloc(2 * MIB, stack=STEP), stack=STEP)
    gpu.free(gradient, stack=STEP)
    gpu.free(loss, stack=LOSS)


def test_annotations_say_the_phase_and_the_step(tmp_path: Path) -> None:
    memory = remember(written(training(steps=2), tmp_path))

    forward = [("forward", 0, "annotations")] * 3
    assert placed(memory)[:3] == forward
    assert placed(memory)[4] == ("optimizer", 0, "annotations")
    assert placed(memory)[5] == ("forward", 1, "annotations")
    assert memory.phase_source == "ranges"
    assert memory.steps_by == "ranges"


def test_allocations_without_frames_after_a_forward_are_backward_and_said_to_be_inferred(
    tmp_path: Path,
) -> None:
    memory = remember(written(training(steps=2), tmp_path))

    assert placed(memory)[3] == ("backward (inferred)", 0, "inferred")


def test_where_annotations_name_backward_nothing_is_inferred(tmp_path: Path) -> None:
    snapshot = Snapshot()
    gpu = snapshot.device()
    with snapshot.range("forward"):
        gpu.alloc(100, stack=FORWARD)
    gpu.alloc(200)
    with snapshot.range("backward"):
        gpu.alloc(300)
    with snapshot.range("optimizer"):
        gpu.alloc(400, stack=STEP)

    found = placed(remember(written(snapshot, tmp_path)))

    assert [phase for phase, _, _ in found] == ["forward", None, "backward", "optimizer"]


def test_without_annotations_call_stacks_tell(tmp_path: Path) -> None:
    snapshot = Snapshot()
    gpu = snapshot.device()
    for _ in range(2):
        loop(gpu)

    memory = remember(written(snapshot, tmp_path))

    assert placed(memory) == [
        (phase, step, how)
        for step in range(2)
        for phase, how in (
            ("forward", "stacks"),
            (None, "none"),
            ("backward (inferred)", "inferred"),
            ("optimizer", "stacks"),
        )
    ]
    assert memory.phase_source == "inferred"
    assert memory.steps_by == "stacks"


def test_frames_of_autograd_s_engine_are_backward(tmp_path: Path) -> None:
    snapshot = Snapshot()
    loop(snapshot.device(), engine=True)

    assert placed(remember(written(snapshot, tmp_path)))[2] == ("backward", None, "stacks")


def test_a_forward_that_runs_again_inside_of_backward_is_backward(tmp_path: Path) -> None:
    snapshot = Snapshot()
    gpu = snapshot.device()
    gpu.alloc(1, stack=FORWARD)
    again = "site-packages/torch/utils/checkpoint.py:7 recompute_fn"
    gpu.alloc(2, stack=("model.py:20 forward", again))
    gpu.alloc(3, stack=(*FORWARD, *ENGINE[1:]))
    gpu.alloc(4, stack=STEP)

    found = placed(remember(written(snapshot, tmp_path)))

    assert [phase for phase, _, _ in found] == ["forward", "backward", "backward", "optimizer"]


def test_a_recording_that_begins_after_a_forward_knows_it_by_the_clock(tmp_path: Path) -> None:
    snapshot = Snapshot()
    gpu = snapshot.device()
    with snapshot.range("forward"):
        gpu.alloc(100, stack=FORWARD)
    gpu.alloc(200)
    with snapshot.range("Optimizer.step#AdamW.step"):
        gpu.alloc(300, stack=STEP)
    snapshot.ring = 2

    found = placed(remember(written(snapshot, tmp_path)))

    assert [phase for phase, _, _ in found] == ["backward (inferred)", "optimizer"]


def test_frames_that_were_never_recorded_tell_nothing(tmp_path: Path) -> None:
    snapshot = Snapshot()
    gpu = snapshot.device()
    for size in (1, 2, 3):
        gpu.alloc(size)

    memory = remember(written(snapshot, tmp_path))

    assert placed(memory) == [(None, None, "none")] * 3
    assert memory.phase_source == "none"


def test_rules_of_the_user_come_first(tmp_path: Path) -> None:
    snapshot = Snapshot()
    gpu = snapshot.device()
    with snapshot.range("sampling"):
        gpu.alloc(100)

    memory = remember(written(snapshot, tmp_path), Ask(phase_rules={"generation": "^sampling$"}))

    assert placed(memory) == [("generation", None, "annotations")]


def test_another_recording_of_the_run_tells_phases_by_the_clock(tmp_path: Path) -> None:
    snapshot = Snapshot()
    gpu = snapshot.device()
    gpu.alloc(100, at=CLOCK_US + 10)
    gpu.alloc(200, at=CLOCK_US + 30)
    gpu.alloc(300, at=CLOCK_US + 60)
    trace = written(snapshot, tmp_path)
    other = profiled(tmp_path, CLOCK_US)

    memory = remember(trace, other=other)

    assert placed(memory) == [
        ("forward", 0, "recording"),
        ("backward", 0, "recording"),
        (None, None, "none"),
    ]
    assert memory.phase_source == "ranges"
    assert memory.other is other


@pytest.mark.parametrize("shift_us", [-10_000_000, 10_000_000])
def test_a_recording_of_another_time_tells_nothing(tmp_path: Path, shift_us: int) -> None:
    snapshot = Snapshot()
    snapshot.device().alloc(100)

    memory = remember(written(snapshot, tmp_path), other=profiled(tmp_path, CLOCK_US + shift_us))

    assert placed(memory) == [(None, None, "none")]
    assert memory.other is None


def test_a_recording_without_a_clock_tells_nothing(tmp_path: Path) -> None:
    snapshot = Snapshot()
    snapshot.device().alloc(100, at=CLOCK_US + 10)
    other = profiled(tmp_path, CLOCK_US)
    blind = replace(other, source=replace(other.source, facts={}))

    assert placed(remember(written(snapshot, tmp_path), other=blind)) == [(None, None, "none")]


def profiled(folder: Path, begins_us: int) -> Trace:
    """Return a torch.profiler trace with a forward and a backward in one step."""
    trace = Profile(start_ns=begins_us * 1000)
    main = trace.thread("python3")
    main.annotation("step 0", 0, 50_000)
    main.annotation("forward", 5_000, 20_000)
    main.annotation("backward", 25_000, 40_000)
    main.annotation("step 1", 50_000, 55_000)
    return open_trace(trace.write(folder / "trace.json"), cache=False)


def test_an_unknown_group_is_refused(tmp_path: Path) -> None:
    trace = written(training(1), tmp_path)

    with pytest.raises(UsageError, match="one of stack, phase, file"):
        remember(trace, Ask(group="colour"))


def test_an_unknown_device_is_refused_and_the_known_ones_are_named(tmp_path: Path) -> None:
    trace = written(training(1, device=2), tmp_path)

    with pytest.raises(UsageError, match="Devices with memory: 2"):
        remember(trace, Ask(device=5))


@pytest.mark.parametrize(
    ("ring", "warm", "truncated"), [(None, False, False), (None, True, None), (3, False, True)]
)
def test_a_full_ring_is_told_from_a_late_beginning(
    tmp_path: Path, ring: int | None, warm: bool, truncated: bool | None
) -> None:
    snapshot = Snapshot("2.12")
    gpu = snapshot.device()
    gpu.recording = not warm
    gpu.alloc(100)
    gpu.recording = True
    gpu.free(gpu.alloc(200))
    snapshot.ring = ring

    memory = remember(written(snapshot, tmp_path))

    assert memory.devices["truncated"].to_list() == [truncated]


def test_a_phase_before_the_first_event_shows_that_events_are_lost(tmp_path: Path) -> None:
    snapshot = training(steps=2, torch="2.11")
    snapshot.ring = 10

    memory = remember(written(snapshot, tmp_path))

    assert memory.devices["truncated"].to_list() == [True]
