"""Copies between the host's memory, pinned or pageable, and the device's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from tracelens.bench.case import Case, Measure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tracelens.bench.case import Target

_BYTES: Final = 256 * 2**20


def _cases(target: Target) -> Iterator[Case]:
    if not target.is_gpu:
        return
    for kind in ("pinned", "pageable"):
        for way in ("to_device", "to_host"):

            def build(on: Target, kind: str = kind, way: str = way) -> Callable[[], object]:
                return _copy(on, pinned=kind == "pinned", to_device=way == "to_device")

            yield Case(
                f"{way}.{kind}", "bytes_per_s", _BYTES, build, _BYTES, {"bytes": _BYTES},
                clock="device" if kind == "pinned" else "wall",
            )  # fmt: skip


def _copy(on: Target, *, pinned: bool, to_device: bool) -> Callable[[], object]:
    torch: Any = on.torch
    host = torch.rand(_BYTES // 4, dtype=torch.float32)
    if pinned:
        host = host.pin_memory()
    device = torch.rand(_BYTES // 4, dtype=torch.float32, device=on.device)
    if to_device:
        return lambda: device.copy_(host, non_blocking=pinned)
    return lambda: host.copy_(device, non_blocking=pinned)


MEASURE = Measure(_cases)
