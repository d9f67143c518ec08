"""What is done on a GPU, followed on one made of Python: its clock, its queue, its names."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from tracelens import tools
from tracelens.bench import child, environment, timing
from tracelens.bench.case import Case, Target
from tracelens.bench.job import Job

ABOUT = SimpleNamespace(
    name="NVIDIA H200",
    major=9,
    minor=0,
    multi_processor_count=132,
    total_memory=150_109_880_320,
    L2_cache_size=62_914_560,
    uuid="9b7c4d52-0000-0000-0000-000000000000",
)
SMI = "580.95, 345 MHz, 3201 MHz, 1980 MHz, 3201 MHz, 71.32 W, 700.00 W, 31\n"


@dataclass
class Cuda:
    """A GPU whose clock goes on by what it is given: a kernel of `kernel_s` for each call."""

    kernel_s: float = 1e-3
    now_s: float = 0.0
    done: list[str] = field(default_factory=list)
    chosen: int | None = None
    count: int = 2

    def call(self) -> None:
        self.done.append("call")
        self.now_s += self.kernel_s

    def _sleep(self, cycles: int) -> None:
        self.done.append("busy")
        self.now_s += cycles / 1.98e9

    def synchronize(self, _device: object = None) -> None:
        self.done.append("wait")

    def Event(self, *, enable_timing: bool) -> Any:  # noqa: N802 (torch's name)
        assert enable_timing
        return Event(self)

    def is_available(self) -> bool:
        return True

    def device_count(self) -> int:
        return self.count

    def set_device(self, number: int) -> None:
        self.chosen = number

    def get_device_properties(self, _device: object) -> Any:
        return ABOUT

    def mem_get_info(self, _device: object) -> tuple[int, int]:
        return (140 * 2**30, 150 * 2**30)


@dataclass
class Event:
    cuda: Cuda
    at_s: float = -1.0

    def record(self) -> None:
        self.cuda.done.append("event")
        self.at_s = self.cuda.now_s

    def synchronize(self) -> None:
        self.cuda.done.append("until")

    def elapsed_time(self, end: Event) -> float:
        return 1e3 * (end.at_s - self.at_s)


def torch_with(cuda: Cuda) -> Any:
    version = SimpleNamespace(cuda="13.0")
    return SimpleNamespace(
        cuda=cuda, version=version, __version__="2.11", get_num_threads=lambda: 1
    )


def on(cuda: Cuda) -> Target:
    return Target(torch_with(cuda), "cuda:0", quick=True)


def test_calls_are_timed_between_two_events_after_the_gpu_is_through_with_all_else() -> None:
    cuda = Cuda()
    run, most = timing.runner(cuda.call, on(cuda), "device")

    assert run(3) == pytest.approx(3e-3)
    assert cuda.done == ["wait", "event", "call", "call", "call", "event", "until"]
    assert most > 1000


def test_calls_are_queued_behind_something_long_that_is_not_counted() -> None:
    cuda = Cuda(kernel_s=2e-6)
    run, most = timing.runner(cuda.call, on(cuda), "queued")

    assert run(3) == pytest.approx(6e-6)
    assert cuda.done == ["wait", "busy", "event", "call", "call", "call", "event", "until"]
    # All of them, each with a kernel or two, have to fit into the queue.
    assert most * 2 <= 1024


def test_what_a_call_takes_of_the_host_is_timed_without_waiting_for_the_gpu() -> None:
    cuda = Cuda()
    run, most = timing.runner(cuda.call, on(cuda), "host")

    run(2)

    assert cuda.done == ["wait", "call", "call"]
    assert most * 2 <= 1024


def test_what_the_wall_clock_times_is_waited_for() -> None:
    cuda = Cuda()
    run, _ = timing.runner(cuda.call, on(cuda), "wall")

    run(2)

    assert cuda.done == ["wait", "call", "call", "wait"]


def test_a_case_on_a_gpu_says_which_clock_was_read() -> None:
    cuda = Cuda(kernel_s=2e-3)
    case = Case("copy", "bytes_per_s", 8 * 10**9, lambda _target: cuda.call)

    found = child.one(case, on(cuda))

    assert found.clock == "CUDA events"
    assert found.median_s == pytest.approx(2e-3)
    assert found.value == pytest.approx(4e12)
    assert found.settled


@pytest.mark.parametrize(
    ("asked", "device", "number"), [("auto", "cuda:0", 0), ("1", "cuda:1", 1), ("cpu", "cpu", None)]
)
def test_the_gpu_that_is_asked_for_is_taken(asked: str, device: str, number: int | None) -> None:
    cuda = Cuda()

    target, name = child._target(torch_with(cuda), Job(asked, quick=True))

    assert target.device == device
    assert cuda.chosen == number
    if number is not None:
        assert name == "NVIDIA H200"
        assert (target.l2_bytes, target.capability) == (62_914_560, (9, 0))
        assert target.free_bytes == 140 * 2**30


def test_a_gpu_that_is_not_there_is_named() -> None:
    with pytest.raises(SystemExit, match=r"torch 2\.11 sees 2 GPUs here: no number 2\."):
        child._target(torch_with(Cuda()), Job("2"))


def test_an_h200_is_measured_in_every_format_and_within_a_minute_if_quick() -> None:
    target, _ = child._target(torch_with(Cuda()), Job("auto", quick=True))

    cases = list(child.cases(target))

    names = {one.name for one in cases}
    assert {
        "copy",
        "read",
        "fill",
        "launch",
        "call",
        "to_device.pinned",
        "to_host.pageable",
    } < names
    assert {f"matmul.{one}" for one in ("fp64", "fp32", "tf32", "bf16", "fp16", "int8", "fp8")} < (
        names
    )
    each = timing.QUICK.warmup_s + timing.QUICK.budget_s
    assert len(cases) * each < 30
    assert all(one.needs_bytes < 2**32 for one in cases)


def test_the_gpus_state_is_that_of_the_gpu_that_torch_means(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def ask(*command: str) -> tools.Answer:
        asked.append(command)
        return tools.Answer(SMI)

    monkeypatch.setattr(tools, "paths_of", lambda _name: ["smi"])
    monkeypatch.setattr(tools, "ask", ask)
    torch = torch_with(Cuda())

    facts = environment.facts(torch, "cuda:0")
    later = environment.after(torch, "cuda:0")

    assert asked[0][:3] == ("smi", "-i", "GPU-9b7c4d52-0000-0000-0000-000000000000")
    assert facts["driver"] == "580.95"
    assert facts["before"]["clocks.sm"] == "345 MHz"
    assert facts["before"]["power.limit"] == "700.00 W"
    assert later == {
        "after": {
            "clocks.sm": "345 MHz", "clocks.mem": "3201 MHz", "power.draw": "71.32 W",
            "temperature.gpu": "31",
        }
    }  # fmt: skip
    assert (facts["gpus"], facts["sm_count"], facts["cuda"]) == (2, 132, "13.0")


@pytest.mark.parametrize(
    "answer", [tools.Answer("No devices were found", "status 6"), tools.Answer("1, 2"), None]
)
def test_without_nvidia_smi_the_state_is_not_known(
    answer: tools.Answer | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tools, "paths_of", lambda _name: ["smi"] if answer else [])
    monkeypatch.setattr(tools, "ask", lambda *_command: answer)

    facts = environment.facts(torch_with(Cuda()), "cuda:0")

    assert facts["driver"] is None
    assert facts["before"] == {}


def test_variables_that_matter_are_kept_and_secrets_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NCCL_NVLS_ENABLE", "0")
    monkeypatch.setenv("NVIDIA_API_KEY", "secret")
    monkeypatch.setenv("TORCH_TOKEN", "secret")

    variables = environment.facts(torch_with(Cuda()), "cpu")["variables"]

    assert variables["NCCL_NVLS_ENABLE"] == "0"
    assert "secret" not in variables.values()


def test_after_an_error_of_cuda_the_process_ends_for_another_to_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cuda = Cuda()

    def gone(_device: object = None) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    def failing(_target: Target) -> Any:
        monkeypatch.setattr(cuda, "synchronize", gone)
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    cases = [Case("a", "s", 0, failing), Case("b", "s", 0, lambda _target: cuda.call)]
    monkeypatch.setattr(child, "cases", lambda _target: iter(cases))
    monkeypatch.setattr(child, "_target", lambda _torch, _asked: (on(cuda), "NVIDIA H200"))
    monkeypatch.setattr(environment, "facts", lambda _torch, _device: {})
    answers: list[Any] = []

    assert child.measure(Job(), answers.append) == 3
    assert [one.failed.name for one in answers if one.failed] == ["a"]
    assert not any(one.over for one in answers)
