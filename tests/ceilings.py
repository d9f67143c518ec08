"""Measured ceilings by hand: those of an H200 whose figures are easily recognised."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tracelens.hardware import measured
from tracelens.hardware.measured import Measured, Result

if TYPE_CHECKING:
    from pathlib import Path

NAME = "NVIDIA H200"


def result(name: str, value: float, **more: Any) -> Result:
    """Return a result of one sample; a rate unless ``unit`` says otherwise."""
    unit = "flops_per_s" if name.startswith("matmul") else "bytes_per_s"
    given: dict[str, Any] = {"unit": unit, "median_s": 1e-3, **more}
    return Result(name=name, value=value, mad_s=0.0, samples_s=[1e-3], size=given.pop("size", {}),
                  clock="CUDA events", **given)  # fmt: skip


SEEN = Measured(
    device=NAME,
    made="2026-11-20T15:00:00+00:00",
    results=[
        result("copy", 4.2e12),
        result("copy", 4.3e12),
        result("fill", 3.4e12),
        result("matmul.bf16", 730e12),
        result("matmul.bf16", 690e12),
        result("launch", 2e-6, unit="s", median_s=2e-6),
        result("all_reduce", 3e11, size={"bytes": 2**30, "ranks": 2}, note="nccl"),
        result("all_reduce", 1e9, size={"bytes": 2**10, "ranks": 2}, note="nccl"),
        result("to_device.pinned", 5.5e10),
    ],
    environment={"driver": "580.95"},
)


def written(file: Path, what: Measured = SEEN) -> Path:
    """Write a file of measured ceilings."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(measured.encode(what), encoding="utf-8")
    return file
