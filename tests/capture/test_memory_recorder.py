"""The memory recorder: what is asked of torch, when snapshots are taken, and that they are read.

Where torch has no GPU, stand-ins take the place of its allocator's calls.
"""

from __future__ import annotations

import pickle
import pickletools
from typing import TYPE_CHECKING, Any

import pytest
import torch

from tests.snapshots import MIB, Snapshot
from tracelens import registry
from tracelens.capture.recorder import Made, Recorder, Wanted
from tracelens.capture.recorders.memory import MAX_ENTRIES, write
from tracelens.errors import CaptureError, UsageError
from tracelens.readers.open import open_trace

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MEMORY = torch.cuda.memory


@pytest.fixture
def recorder() -> Recorder:
    found: Recorder = registry.load("recorder", "memory")
    return found


class Cuda:
    """A CUDA that is set up on demand, and an allocator with a history, by torch's own names."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[dict[str, Any]] = []
        self.observers: list[Callable[..., None]] = []
        self.queued: list[Callable[[], None]] = []
        self.is_set_up = False
        self.snapshot = Snapshot()
        self.gpu = self.snapshot.device(0)
        attach = "_cuda_attach_out_of_memory_observer"
        monkeypatch.setattr(torch._C, attach, self.observers.append, raising=False)
        monkeypatch.setattr(torch.cuda, "_lazy_call", self._lazy_call)
        monkeypatch.setattr(MEMORY, "_record_memory_history", self._record)
        monkeypatch.setattr(MEMORY, "_snapshot", self.snapshot.content)

    def set_up(self) -> None:
        self.is_set_up = True
        for call in self.queued:
            call()

    def run_out(self, size: int) -> torch.OutOfMemoryError:
        """Run out of memory as torch does: the observers are told, then the error is raised."""
        for observer in self.observers:
            observer(0, size, 10 * MIB, 0)
        return torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {size} bytes.")

    def _lazy_call(self, call: Callable[[], None]) -> None:
        if self.is_set_up:
            call()
        else:
            self.queued.append(call)

    def _record(
        self,
        enabled: str | None = "all",
        context: str | None = "all",
        stacks: str = "all",
        max_entries: int = 2**63 - 1,
    ) -> None:
        """Take what torch 2.1 takes."""
        self.calls.append(
            {"enabled": enabled, "context": context, "stacks": stacks, "max_entries": max_entries}
        )


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Cuda:
    return Cuda(monkeypatch)


def live_bytes(file: Path) -> int:
    """Return what the reader finds in use at the end of a snapshot."""
    with file.open("rb") as content:
        segments = pickle.load(content)["segments"]  # noqa: S301 (the test has written it)
    blocks = [block for segment in segments for block in segment["blocks"]]
    open_trace(file, cache=False)
    return sum(b["requested_size"] for b in blocks if b["state"] == "active_allocated")


def test_it_records_from_the_moment_that_cuda_is_set_up_and_sets_nothing_up_itself(
    recorder: Recorder, tmp_path: Path, cuda: Cuda
) -> None:
    recorder.session(Wanted(tmp_path, "cuda"), None).open()
    assert cuda.calls == []

    cuda.set_up()
    assert cuda.calls == [
        {"enabled": "all", "context": "all", "stacks": "python", "max_entries": MAX_ENTRIES}
    ]
    assert len(cuda.observers) == 1


def test_marks_of_all_threads_are_asked_for_where_torch_can(
    recorder: Recorder, tmp_path: Path, cuda: Cuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []

    def of_2_8(
        enabled: str = "all",
        *,
        clear_history: bool = False,
        global_record_annotations: bool = False,
    ) -> None:
        asked.append({"global_record_annotations": global_record_annotations})

    monkeypatch.setattr(MEMORY, "_record_memory_history", of_2_8)
    recorder.session(Wanted(tmp_path, "cuda"), None).open()
    cuda.set_up()

    assert asked == [{"global_record_annotations": True}]


def test_this_version_of_torch_takes_all_that_is_asked_for() -> None:
    import inspect

    known = inspect.signature(torch.cuda.memory._record_memory_history).parameters

    assert {"enabled", "context", "stacks", "max_entries", "global_record_annotations"} <= set(
        known
    )


@pytest.mark.parametrize(
    ("options", "asked"),
    [
        ({"stacks": "all"}, {"context": "all", "stacks": "all"}),
        ({"stacks": "none"}, {"context": None, "stacks": "python"}),
        ({"max-entries": "5000"}, {"max_entries": 5000}),
    ],
)
def test_options_become_arguments(
    recorder: Recorder, tmp_path: Path, cuda: Cuda, options: dict[str, Any], asked: dict[str, Any]
) -> None:
    recorder.session(Wanted(tmp_path, "cuda", options=options), None).open()
    cuda.set_up()

    assert cuda.calls[0].items() >= asked.items()


@pytest.mark.parametrize(
    "options", [{"stacks": "both"}, {"max-entries": "many"}, {"max-entries": 0}]
)
def test_options_that_mean_nothing_are_refused(
    recorder: Recorder, tmp_path: Path, options: dict[str, Any]
) -> None:
    with pytest.raises(UsageError, match=next(iter(options))):
        recorder.unusable(Wanted(tmp_path, "cuda", options=options))


def test_the_snapshot_is_of_the_end_of_the_window(
    recorder: Recorder, tmp_path: Path, cuda: Cuda
) -> None:
    session = recorder.session(Wanted(tmp_path, "cuda"), None)
    session.open()
    cuda.set_up()
    cuda.gpu.alloc(3 * MIB)
    session.end()
    cuda.gpu.alloc(5 * MIB)

    assert session.close(None) == [Made("memory.pickle")]
    assert live_bytes(tmp_path / "memory.pickle") == 3 * MIB
    assert cuda.calls[-1]["enabled"] is None
    assert recorder.finish(Wanted(tmp_path, "cuda"), lambda _: None) == []


def test_the_snapshot_of_running_out_is_taken_before_the_error_frees_anything(
    recorder: Recorder, tmp_path: Path, cuda: Cuda
) -> None:
    session = recorder.session(Wanted(tmp_path, "cuda", processes=2), 1)
    session.open()
    cuda.set_up()
    held = cuda.gpu.alloc(7 * MIB)
    error = cuda.run_out(9 * MIB)
    cuda.gpu.free(held)

    assert session.close(error) == [Made("memory.rank1.pickle", 1)]
    assert live_bytes(tmp_path / "memory.rank1.pickle") == 7 * MIB


def test_a_program_that_goes_on_after_running_out_is_recorded_to_its_end(
    recorder: Recorder, tmp_path: Path, cuda: Cuda
) -> None:
    session = recorder.session(Wanted(tmp_path, "cuda"), None)
    session.open()
    cuda.set_up()
    for _ in range(20):
        cuda.run_out(9 * MIB)
    cuda.gpu.alloc(2 * MIB)
    session.end()

    assert session.close(None) == [Made("memory.pickle")]
    assert live_bytes(tmp_path / "memory.pickle") == 2 * MIB


def test_a_program_that_fails_otherwise_leaves_a_snapshot_too(
    recorder: Recorder, tmp_path: Path, cuda: Cuda
) -> None:
    session = recorder.session(Wanted(tmp_path, "cuda"), None)
    session.open()
    cuda.set_up()
    cuda.gpu.alloc(MIB)

    assert session.close(ValueError("nan")) == [Made("memory.pickle")]
    assert live_bytes(tmp_path / "memory.pickle") == MIB


def test_a_snapshot_that_cannot_be_written_inside_the_allocator_does_not_hide_the_error(
    recorder: Recorder, tmp_path: Path, cuda: Cuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone() -> None:
        raise RuntimeError("CUDA error: device-side assert triggered")

    session = recorder.session(Wanted(tmp_path, "cuda"), None)
    session.open()
    cuda.set_up()
    monkeypatch.setattr(MEMORY, "_snapshot", gone)

    assert isinstance(cuda.run_out(MIB), torch.OutOfMemoryError)


def test_a_program_without_gpu_memory_leaves_nothing_and_is_told_so(
    recorder: Recorder, tmp_path: Path, cuda: Cuda
) -> None:
    session = recorder.session(Wanted(tmp_path, "cuda"), None)
    session.open()

    assert session.close(None) == []
    with pytest.raises(CaptureError, match="allocated nothing on a GPU"):
        recorder.finish(Wanted(tmp_path, "cuda"), lambda _: None)


def test_a_torch_that_keeps_no_history_is_told_and_disturbs_nothing(
    recorder: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if hasattr(torch._C, "_cuda_record_memory_history"):
        pytest.skip("this torch keeps a history: it is built for GPUs")
    monkeypatch.setattr(torch.cuda, "_lazy_call", lambda call: call())
    session = recorder.session(Wanted(tmp_path, "cuda"), None)
    session.open()

    with pytest.raises(CaptureError, match="no memory history"):
        session.close(None)


def test_on_the_cpu_the_torch_recorder_is_named(recorder: Recorder, tmp_path: Path) -> None:
    assert "--with torch:memory" in str(recorder.unusable(Wanted(tmp_path, "cpu")))
    assert recorder.unusable(Wanted(tmp_path, "cuda")) is None
    assert recorder.files(Wanted(tmp_path, "cuda", processes=2)) == [
        "memory.rank0.pickle",
        "memory.rank1.pickle",
    ]


def test_snapshots_are_written_whole_and_for_all_viewers(tmp_path: Path) -> None:
    file = tmp_path / "memory.pickle"
    write({"segments": []}, file)
    protocols = [argument for code, argument, _ in pickletools.genops(file.read_bytes())][:1]
    assert protocols == [4]

    with pytest.raises((AttributeError, pickle.PicklingError)):
        write({"segments": [lambda: None]}, file)
    assert pickle.loads(file.read_bytes()) == {"segments": []}  # noqa: S301 (our own)
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_a_real_gpu_has_its_parameters_in_the_history(recorder: Recorder, tmp_path: Path) -> None:
    session = recorder.session(Wanted(tmp_path, "cuda"), None)
    session.open()
    torch.cuda.init()
    layer = torch.nn.Linear(512, 512, device="cuda")
    layer(torch.ones(4, 512, device="cuda")).sum().backward()
    session.end()

    assert session.close(None) == [Made("memory.pickle")]
    sizes = sum(p.numel() * p.element_size() for p in layer.parameters())
    assert live_bytes(tmp_path / "memory.pickle") >= 2 * sizes
