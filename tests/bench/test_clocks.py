"""How calls are timed, followed on a GPU made of Python: its work is done when it is waited for."""

from __future__ import annotations

import gc
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from tracelens.bench import clocks, metering
from tracelens.bench.case import Target
from tracelens.bench.cell import GpuState

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CYCLES_PER_S = 1e9


@dataclass
class Gpu:
    """A GPU and its host: each has a clock of its own, and the GPU works off what is queued."""

    host_s: float = 0.0
    device_s: float = 0.0
    launch_s: float = 5e-6
    room: int = 1024
    queued: list[float] = field(default_factory=list)
    captures: bool = False

    def launch(self, seconds: float) -> None:
        """Queue a kernel; where the queue is full, wait for the first of it."""
        self.host_s += self.launch_s
        self.queued = [end for end in self.queued if end > self.host_s]
        if len(self.queued) >= self.room:
            self.host_s = self.queued[0]
        self.device_s = max(self.device_s, self.host_s) + seconds
        self.queued.append(self.device_s)

    def kernel(self, seconds: float) -> Callable[[], object]:
        """Return a call that queues a kernel."""
        return lambda: self.launch(seconds)

    def synchronize(self, _device: object = None) -> None:
        self.host_s = max(self.host_s, self.device_s)

    def _sleep(self, cycles: int) -> None:
        self.launch(cycles / CYCLES_PER_S)

    def Event(self, *, enable_timing: bool) -> Event:  # noqa: N802 (torch's name)
        assert enable_timing
        return Event(self)

    @property
    def target(self) -> Target:
        torch = SimpleNamespace(cuda=self, zeros=None)
        return Target(torch, "cuda:0", l2_bytes=1000)


@dataclass
class Event:
    gpu: Gpu
    at_s: float = 0.0

    def record(self) -> None:
        self.at_s = max(self.gpu.device_s, self.gpu.host_s)

    def query(self) -> bool:
        return self.gpu.host_s >= self.at_s

    def synchronize(self) -> None:
        self.gpu.host_s = max(self.gpu.host_s, self.at_s)

    def elapsed_time(self, end: Event) -> float:
        return 1e3 * (end.at_s - self.at_s)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    found = Gpu()
    monkeypatch.setattr(clocks.time, "perf_counter", lambda: found.host_s)
    monkeypatch.setattr(clocks.time, "perf_counter_ns", lambda: round(found.host_s * 1e9))
    return found


def test_kernel_time_is_the_gpus_alone(gpu: Gpu) -> None:
    def call() -> None:
        gpu.host_s += 80e-6  # the host is far slower than the kernel
        gpu.launch(10e-6)

    found = clocks.Blocked(gpu.target).block([call] * 30)

    assert found == pytest.approx([10e-6] * 30)
    # Events alone would have found the host's pace.
    assert clocks.Events(gpu.target).block([call] * 30)[-1] > 50e-6


def test_a_wait_that_was_too_short_is_made_longer(gpu: Gpu) -> None:
    meter = clocks.Blocked(gpu.target)

    def call() -> None:
        gpu.host_s += 2e-3
        gpu.launch(1e-6)

    assert meter.block([call] * 20) == pytest.approx([1e-6] * 20)
    assert 0.04 < meter._wait_s < 0.2
    assert meter.block([gpu.kernel(1e-6)] * 20) == pytest.approx([1e-6] * 20)


def test_a_call_that_waits_for_the_gpu_cannot_be_queued(gpu: Gpu) -> None:
    def call() -> None:
        gpu.launch(1e-6)
        gpu.synchronize()

    with pytest.raises(clocks.NotQueuedError, match="1 calls could not be queued"):
        clocks.Blocked(gpu.target).block([call])


def test_what_is_more_than_the_queue_holds_cannot_be_queued(gpu: Gpu) -> None:
    def call() -> None:
        for _ in range(3000):
            gpu.launch(1e-6)

    with pytest.raises(clocks.NotQueuedError):
        clocks.Blocked(gpu.target).block([call])


def test_the_cache_is_overwritten_outside_of_the_events(gpu: Gpu) -> None:
    order: list[str] = []

    def flush() -> None:
        order.append("flush")
        gpu.launch(50e-6)

    def call() -> None:
        order.append("call")
        gpu.launch(10e-6)

    found = clocks.Blocked(gpu.target, flush=flush).block([call] * 3)

    assert found == pytest.approx([10e-6] * 3)
    assert order == ["flush", "call"] * 3


def test_the_gpu_is_asked_while_it_works(gpu: Gpu) -> None:
    behind: list[float] = []
    meter = clocks.Blocked(gpu.target, while_busy=lambda: behind.append(gpu.device_s - gpu.host_s))

    meter.block([gpu.kernel(1e-3)] * 5)

    assert len(behind) == 1
    assert behind[0] > 4e-3


def test_latency_is_from_an_idle_device_until_it_is_idle_again(gpu: Gpu) -> None:
    found = clocks.Single(gpu.target, gpu.kernel(1.0)).block([gpu.kernel(30e-6)] * 4)

    assert found == pytest.approx([35e-6] * 4)


def test_throughput_hides_the_host_behind_the_device_or_the_reverse(gpu: Gpu) -> None:
    meter = clocks.BackToBack(gpu.target)

    assert meter.block([gpu.kernel(30e-6)] * 100) == [pytest.approx(30e-6, rel=0.01)]
    assert meter.block([gpu.kernel(1e-6)] * 100) == [pytest.approx(5e-6, rel=0.01)]


def test_nothing_takes_no_time(gpu: Gpu) -> None:
    assert clocks.overhead_s(clocks.Blocked(gpu.target)) == 0
    assert clocks.overhead_s(clocks.Single(Target(None, "cpu"))) >= 0


def test_hot_calls_come_after_one_that_is_not_counted(gpu: Gpu) -> None:
    calls = [gpu.kernel(1e-6), gpu.kernel(2e-6)]
    done: list[float] = []
    launch = gpu.launch

    def noting(seconds: float) -> None:
        done.append(seconds)
        launch(seconds)

    gpu.launch = noting  # type: ignore[method-assign]

    def timed(l2: Any) -> metering.Timed:
        found = metering.timed(calls, "throughput", l2, target=gpu.target, gpu=None, force=Forced)
        done.clear()
        return found

    timed("hot").take(3)
    assert done == [1e-6] * 4
    timed("cold").take(3)
    assert done == [1e-6, 2e-6, 1e-6]


class Forced:
    """Counts how often it lasts."""

    count = 0

    def __enter__(self) -> None:
        Forced.count += 1

    def __exit__(self, *_error: object) -> None:
        pass


def test_calls_are_made_with_their_configuration_and_the_gpus_state_is_kept(gpu: Gpu) -> None:
    class Told:
        def state(self) -> GpuState:
            return GpuState(sm_hz=gpu.host_s)

    before = Forced.count
    found = metering.timed(
        [gpu.kernel(1e-6)],
        "kernel_time",
        "hot",
        target=gpu.target,
        gpu=Told(),
        force=Forced,  # type: ignore[arg-type]
    )

    block = found.take(4)

    assert len(block.samples) == 4
    assert block.state is not None
    assert found.meter.clock == "blocked stream"
    assert Forced.count >= before + 2


def test_garbage_is_not_collected_meanwhile() -> None:
    assert gc.isenabled()
    with clocks.undisturbed():
        assert not gc.isenabled()
    assert gc.isenabled()


@pytest.mark.parametrize(
    ("text", "expected"), [("36608K\n", 36608 << 10), ("", 32 << 20), ("what\n", 32 << 20)]
)
def test_the_processors_cache_is_known_or_taken_for_one(
    text: str, expected: int, tmp_path: Path
) -> None:
    if text:
        file = tmp_path / clocks._CPU_CACHES
        file.parent.mkdir(parents=True)
        file.write_text(text)

    assert clocks.cpu_cache_bytes(tmp_path) == expected
