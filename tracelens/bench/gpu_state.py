"""What a GPU says of its clocks, power, heat and throttling, by NVIDIA's management library.

It is asked by the thread that measures, between blocks of calls and while the GPU works one off:
a thread of its own would take the interpreter's lock from the calls that are timed. Nothing is
ever set.
"""

from __future__ import annotations

import ctypes
import statistics
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from tracelens.bench.cell import GpuState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_LIBRARY: Final = "libnvidia-ml.so.1"
_SM, _MEM = 1, 2  # of nvmlClockType_t
_CHIP: Final = 0  # of nvmlTemperatureSensors_t
_PROGRAMS: Final = (
    "nvmlDeviceGetComputeRunningProcesses_v3",
    "nvmlDeviceGetComputeRunningProcesses_v2",
)
_MORE: Final = 7  # NVML_ERROR_INSUFFICIENT_SIZE: the number is told, there is no room for the list
_MEGA: Final = 1e6

REASONS: Final[Mapping[int, str]] = {
    0x04: "power limit",
    0x08: "hardware slowdown",
    0x20: "software thermal limit",
    0x40: "hardware thermal limit",
    0x80: "power brake",
}
"""Bits of nvmlClocksEventReasons that hold the clock down; idleness and settings do not count."""


@dataclass(frozen=True)
class Gpu:
    """One GPU, as the library knows it."""

    library: Any
    handle: ctypes.c_void_p

    def state(self) -> GpuState:
        """Return what it says now; what it does not say is None."""
        sm = self._number("nvmlDeviceGetClockInfo", _SM)
        mem = self._number("nvmlDeviceGetClockInfo", _MEM)
        power = self._number("nvmlDeviceGetPowerUsage")
        return GpuState(
            sm_hz=None if sm is None else sm * _MEGA,
            mem_hz=None if mem is None else mem * _MEGA,
            power_w=None if power is None else power / 1e3,
            temperature_c=self._number("nvmlDeviceGetTemperature", _CHIP),
            throttled=self._throttled(),
        )

    def whole_state(self) -> GpuState:
        """Return the same, and how many programs compute on it, which takes longer to ask."""
        return replace(self.state(), programs=self._programs())

    def clock_hz(self) -> float | None:
        """Return the multiprocessors' clock alone, which is asked for often."""
        found = self._number("nvmlDeviceGetClockInfo", _SM)
        return None if found is None else found * _MEGA

    def _throttled(self) -> tuple[str, ...]:
        bits = ctypes.c_ulonglong()
        if self._ask("nvmlDeviceGetCurrentClocksThrottleReasons", ctypes.byref(bits)):
            return tuple(text for bit, text in REASONS.items() if bits.value & bit)
        return ()

    def _programs(self) -> int | None:
        count = ctypes.c_uint(0)
        for function in _PROGRAMS:
            status = self._status(function, ctypes.byref(count), None)
            if status in (0, _MORE):
                return count.value
        return None

    def _number(self, function: str, *which: int) -> float | None:
        found = ctypes.c_uint()
        asked = self._ask(function, *map(ctypes.c_uint, which), ctypes.byref(found))
        return float(found.value) if asked else None

    def _ask(self, function: str, *given: Any) -> bool:
        return self._status(function, *given) == 0

    def _status(self, function: str, *given: Any) -> int | None:
        try:
            return int(getattr(self.library, function)(self.handle, *given))
        except AttributeError:  # an old driver
            return None


def find(uuid: object) -> Gpu | None:
    """Return the GPU of a UUID, as torch gives it; None if the library is not here or has none."""
    if uuid is None:
        return None
    name = str(uuid) if str(uuid).startswith(("GPU-", "MIG-")) else f"GPU-{uuid}"
    try:
        library = ctypes.CDLL(_LIBRARY)
        handle = ctypes.c_void_p()
        ready = library.nvmlInit_v2() == 0
        found = ready and library.nvmlDeviceGetHandleByUUID(name.encode(), ctypes.byref(handle))
    except (OSError, AttributeError):
        return None
    return Gpu(library, handle) if ready and found == 0 else None


def merged(states: Iterable[GpuState]) -> GpuState | None:
    """Return the medians of several states, and every reason of throttling; None: there is none."""
    found = list(states)
    if not found:
        return None
    return GpuState(
        sm_hz=_median(one.sm_hz for one in found),
        mem_hz=_median(one.mem_hz for one in found),
        power_w=_median(one.power_w for one in found),
        temperature_c=_median(one.temperature_c for one in found),
        programs=max((one.programs for one in found if one.programs is not None), default=None),
        throttled=tuple(dict.fromkeys(reason for one in found for reason in one.throttled)),
    )


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None
