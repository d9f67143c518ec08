"""Comparison: how the runs differ, beyond the noise of their steps, and what explains it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracelens.errors import NothingToShowError
from tracelens.reports import Grid, Paragraph, Point, Points, Section

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracelens.reports import Block
    from tracelens.reports.subject import Subject


def _make(subject: Subject) -> Iterator[Block]:
    report = subject.comparison
    if report is None:
        raise NothingToShowError(subject.why_not.get("comparison", "there is one run alone"))
    yield Paragraph(report.headline)
    first, *others = (run.label for run in subject.runs)
    yield Paragraph(f"A is {first}, B is {' or '.join(others)}.", "note")
    if report.findings:
        yield Points(tuple(map(Point, report.findings)))
    for filled in report.tables:
        if filled.frame.height:
            yield Grid(filled.name, filled)
    yield from (Paragraph(line, "note") for line in report.trust)
    yield from (Paragraph(f"Warning: {text}", "warning") for text in report.warnings)
    for name, why in report.left_out.items():
        yield Paragraph(f"Not compared: {name}: {why}", "note")


SECTION = Section("Comparison", _make)
