"""Kernels beside others: how long each implementation takes, and how near that is to the limit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracelens.errors import NothingToShowError
from tracelens.reports import Grid, Paragraph, Point, Points, Section

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracelens.reports import Block
    from tracelens.reports.subject import Run, Subject


def _make(subject: Subject) -> list[Block]:
    def of_run(run: Run) -> Iterator[Block]:
        if run.bench is None:
            raise NothingToShowError("no kernel was measured by itself (tracelens bench does)")
        if run.bench.findings:
            yield Points(tuple(map(Point, run.bench.findings)))
        for filled in run.bench.tables:
            name = filled.name if filled.name == "bench" else f"bench_{filled.name}"
            yield Grid(subject.slug(run, name), filled)
        yield from (Paragraph(line, "note") for line in run.bench.trust)

    return subject.each(of_run)


SECTION = Section("Kernels beside others", _make)
