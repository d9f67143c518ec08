"""What torch.profiler records of the marks of a piece of work, read back by tracelens."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import torch

from tracelens.readers.open import open_trace

if TYPE_CHECKING:
    from collections.abc import Callable

_OF_TORCH = ("Optimizer.", "ProfilerStep", "DistributedDataParallel.", "gloo:")


def profile() -> torch.profiler.profile:
    """Return a profiler of the CPU."""
    return torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU])


def marks_of(work: Callable[[], object]) -> list[str]:
    """Return the marks that a profiler sees while the work runs, as `paths`."""
    with profile() as profiler:
        work()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(file))
        return paths(file)


def paths(file: Path) -> list[str]:
    """Return the ranges of a trace in order, each as `forward > Model > layer`.

    Ranges of torch itself are left out. Threads follow one another, each from its own beginning.

    Raises:
        AssertionError: two ranges of a thread overlap and neither holds the other.
    """
    trace = open_trace(file, everything=True)
    ranges = trace["ranges"].filter(pl.col("kind") == "annotation")
    rows = ranges.join(trace["names"], on="name_id").select("tid", "start_ns", "end_ns", "name")
    order = sorted(rows.collect().iter_rows(), key=lambda row: (row[0], row[1], -row[2]))
    found: list[str] = []
    stack: list[tuple[int, int, str]] = []
    for tid, start, end, name in order:
        if name.startswith(_OF_TORCH):
            continue
        while stack and (stack[-1][0] != tid or stack[-1][1] <= start):
            stack.pop()
        assert not stack or end <= stack[-1][1], f"{name} goes on after {stack[-1][2]}"
        stack.append((tid, end, name))
        found.append(" > ".join(one for _, _, one in stack))
    return found
