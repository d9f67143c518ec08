"""Times of steps, without a profiler and under one."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tracelens.capture.folder import Pass
    from tracelens.reports.subject import Run

TIMER = "timer"


def timer(run: Run) -> Pass | None:
    """Return the pass that timed steps without a profiler."""
    passes = run.manifest.passes if run.manifest else []
    return next((one for one in passes if one.recorder == TIMER and one.steps_ns), None)


def timed_ns(run: Run) -> Sequence[int]:
    """Return the times of steps without a profiler, in nanoseconds; none if not measured."""
    found = timer(run)
    return found.steps_ns if found else []


def profiled_ns(run: Run) -> list[int]:
    """Return the times of the recorded steps on the CPU, in nanoseconds."""
    steps = run.table("steps")
    return [] if steps is None else steps.frame["duration_ns"].drop_nulls().to_list()
