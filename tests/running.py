"""Workloads run on the CPU and looked at from outside: what they compute, keep and mark."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from tracelens import workload

if TYPE_CHECKING:
    from pathlib import Path

    from tracelens.workload import Cost, Program, Workload


def made(name: str, **options: Any) -> Workload:
    """Return a workload with the options of its preset and these."""
    kind, preset = workload.find(name)
    return workload.make(kind, {**preset, **options})


def matmul_flops(cost: Cost) -> int:
    """Return the operations of matrix products in a step."""
    return sum(work.flops for works in cost.phases.values() for work in works if work.matmul)


def moved_bytes(cost: Cost, phase: str) -> int:
    """Return the bytes that a phase moves at least."""
    return sum(work.bytes for work in cost.phases[phase])


def counted_flops(program: Program) -> int:
    """Return the operations of matrix products that PyTorch dispatches in a step."""
    with FlopCounterMode(display=False) as counter:
        program.step()
    return counter.get_total_flops()


def recorded(program: Program, steps: int = 1) -> list[Any]:
    """Return the events that torch.profiler records of some steps."""
    with profile(activities=[ProfilerActivity.CPU]) as recording:
        for _ in range(steps):
            program.step()
    return list(recording.events())


def peak_bytes(workload: Workload, folder: Path) -> int:
    """Return the most that CPU tensors take up while a workload is built and runs two steps."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recording:
        program = workload.program("cpu")
        program.step()
        program.step()
    recording.export_chrome_trace(str(folder / "memory.json"))
    events = json.loads((folder / "memory.json").read_text())["traceEvents"]
    changes = sorted((e for e in events if e["name"] == "[memory]"), key=lambda e: e["ts"])
    live = peak = 0
    for change in changes:
        live += change["args"]["Bytes"]
        peak = max(peak, live)
    return peak
