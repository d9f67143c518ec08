"""Marks that a program puts on its own work: steps, phases, and layers in both directions.

They go to NVTX and to torch's `record_function` at once, and cost next to nothing while nothing
records: one test of a few flags. Nothing here imports torch; where the program has not, there is
nothing of torch's to mark.
"""

from __future__ import annotations

from tracelens.marks.ranges import is_recording, phase, span
from tracelens.marks.steps import on_step, step

__all__ = ["is_recording", "on_step", "phase", "span", "step"]
