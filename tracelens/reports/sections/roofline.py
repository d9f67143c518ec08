"""Roofline: how much of the GPU's arithmetic and bandwidth the work uses, and what it loses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracelens.analyses.roofline_formulas import parts_of
from tracelens.capture import summary
from tracelens.errors import NothingToShowError
from tracelens.render import _roofline_svg
from tracelens.render._bars_svg import legend
from tracelens.reports import Figure, Grid, Point, Points, Section
from tracelens.reports.drawing import STYLE, whole
from tracelens.tables.roofline_plot import COLOURS, plot
from tracelens.tables.roofline_report import TABLES, ceilings_of, shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracelens.reports import Block
    from tracelens.reports.subject import Run, Subject
    from tracelens.tables import Filled, Report


def _make(subject: Subject) -> list[Block]:
    def of_run(run: Run) -> Iterator[Block]:
        if run.work is None:
            raise NothingToShowError(run.why_no("roofline"))
        told = run.manifest
        parts = parts_of(told.cost) if told else None
        report = shown(run.work, TABLES, parts, summary.step_ns(told) if told else None)
        tables = {table.name: table for table in report.tables if table.frame.height}
        if not tables:
            raise NothingToShowError(run.why_no("roofline"))
        if report.findings:
            yield Points(tuple(map(Point, report.findings)))
        if figure := _drawn(subject.slug(run, "roofline_drawn"), tables.get("roofline"), run.work):
            yield figure
        for name, table in tables.items():
            yield Grid(subject.slug(run, name), table)

    return subject.each(of_run)


def _drawn(name: str, table: Filled | None, report: Report) -> Figure | None:
    """Return the roofline of ops and shapes; None if no point can be drawn."""
    if table is None:
        return None
    title = "Ops and shapes below the roofline"
    found = plot(table, ceilings_of(report), title)
    if found is None:
        return None
    used = {point.bound for point in found.points}
    entries = [(bound or "not known", colour) for bound, colour in COLOURS.items() if bound in used]
    lines = [*_roofline_svg.drawn(found), legend(entries)]
    return Figure(name, title, whole(lines), _roofline_svg.STYLE + STYLE, found.note)


SECTION = Section("Use of compute and of memory bandwidth", _make)
