"""Targets: thresholds for metrics of configurations, applied to measured runs.

`load` reads a file of targets, `measured` what was measured, `report` holds one against the other.
"""

from __future__ import annotations

from tracelens.targets.file import Target, Targets, load
from tracelens.targets.grade import Graded, Judged, grade
from tracelens.targets.measured import Measured, Reading
from tracelens.targets.measured import found as measured
from tracelens.targets.report import of_graded, passes_gate, report

__all__ = [
    "Graded",
    "Judged",
    "Measured",
    "Reading",
    "Target",
    "Targets",
    "grade",
    "load",
    "measured",
    "of_graded",
    "passes_gate",
    "report",
]
