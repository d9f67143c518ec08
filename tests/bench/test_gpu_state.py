"""What a GPU says of itself, by a library made of Python."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

from tracelens.bench import gpu_state
from tracelens.bench.cell import GpuState

if TYPE_CHECKING:
    import pytest


class Library:
    """Answers as NVIDIA's does, with status 0, and status 3 (not supported) for temperatures."""

    def __init__(self, reasons: int = 0x4 | 0x1) -> None:
        self.reasons = reasons
        self.asked = b""

    def nvmlInit_v2(self) -> int:  # noqa: N802 (its name)
        return 0

    def nvmlDeviceGetHandleByUUID(self, uuid: bytes, handle: Any) -> int:  # noqa: N802
        self.asked = uuid
        return 0 if uuid.startswith(b"GPU-9b7c") else 6

    def nvmlDeviceGetClockInfo(self, _gpu: Any, kind: Any, found: Any) -> int:  # noqa: N802
        found._obj.value = {1: 1980, 2: 3201}[kind.value]
        return 0

    def nvmlDeviceGetPowerUsage(self, _gpu: Any, found: Any) -> int:  # noqa: N802
        found._obj.value = 71_320
        return 0

    def nvmlDeviceGetComputeRunningProcesses_v3(  # noqa: N802
        self, _gpu: Any, count: Any, _list: None
    ) -> int:
        count._obj.value = 2
        return 7

    def nvmlDeviceGetTemperature(self, _gpu: Any, _sensor: Any, _found: Any) -> int:  # noqa: N802
        return 3

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, _gpu: Any, found: Any) -> int:  # noqa: N802
        found._obj.value = self.reasons
        return 0


def test_clocks_power_and_throttling_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library()
    monkeypatch.setattr(ctypes, "CDLL", lambda _name: library)

    found = gpu_state.find("9b7c4d52-0000")

    assert found is not None
    assert library.asked == b"GPU-9b7c4d52-0000"
    assert found.state() == GpuState(
        sm_hz=1.98e9, mem_hz=3.201e9, power_w=71.32, throttled=("power limit",)
    )
    assert found.clock_hz() == 1.98e9
    assert found.whole_state().programs == 2


def test_idleness_is_no_throttling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _name: Library(reasons=0x1 | 0x2))

    found = gpu_state.find("9b7c4d52-0000")

    assert found is not None
    assert found.state().throttled == ()


def test_without_library_or_gpu_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(_name: str) -> Any:
        raise OSError("libnvidia-ml.so.1: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", absent)
    assert gpu_state.find("9b7c4d52-0000") is None
    monkeypatch.setattr(ctypes, "CDLL", lambda _name: Library())
    assert gpu_state.find("another") is None
    assert gpu_state.find(None) is None
    monkeypatch.setattr(ctypes, "CDLL", lambda _name: object())
    assert gpu_state.find("9b7c4d52-0000") is None


def test_an_old_driver_leaves_gaps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(Library, "nvmlDeviceGetPowerUsage")
    monkeypatch.setattr(ctypes, "CDLL", lambda _name: Library())

    found = gpu_state.find("9b7c4d52-0000")

    assert found is not None
    assert found.state().power_w is None
    monkeypatch.delattr(Library, "nvmlDeviceGetComputeRunningProcesses_v3")
    assert found.whole_state().programs is None
    assert found.state().sm_hz == 1.98e9


def test_several_states_become_medians_and_all_reasons() -> None:
    states = [
        GpuState(sm_hz=1.0, power_w=5.0, throttled=("power limit",)),
        GpuState(sm_hz=3.0, throttled=("hardware slowdown", "power limit")),
        GpuState(sm_hz=2.0, power_w=7.0, programs=1),
    ]

    assert gpu_state.merged(states) == GpuState(
        sm_hz=2.0, power_w=6.0, programs=1, throttled=("power limit", "hardware slowdown")
    )
    assert gpu_state.merged([]) is None
