"""Targets and grades: which thresholds the runs meet, and which nothing could meet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracelens.errors import NothingToShowError
from tracelens.reports import Grid, Paragraph, Point, Points, Section

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracelens.reports import Block
    from tracelens.reports.subject import Subject


def _make(subject: Subject) -> Iterator[Block]:
    report = subject.grades
    if report is None:
        raise NothingToShowError(subject.why_not.get("grades", "no targets were given (--targets)"))
    yield Paragraph(report.headline)
    if report.findings:
        yield Points(tuple(map(Point, report.findings)))
    for filled in report.tables:
        if filled.frame.height:
            yield Grid(f"targets_{filled.name}".replace("targets_targets", "targets"), filled)
    yield from (Paragraph(line, "note") for line in report.trust)
    yield from (Paragraph(f"Warning: {text}", "warning") for text in report.warnings)


SECTION = Section("Targets", _make)
