"""Limits: what these recordings cannot tell, how far to trust them, and what was lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens.errors import NothingToShowError
from tracelens.render._shape import reasons
from tracelens.reports import Grid, Paragraph, Point, Points, Section
from tracelens.tables import Column, Filled, Table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tracelens.reports import Block
    from tracelens.reports.subject import Run, Subject

COVERAGE: Final = Table(
    analysis="coverage",
    title="How GPU work came by its phase",
    columns=(
        Column("how", "how", "text"),
        Column("ops", "ops", "count"),
        Column("share", "share", "share"),
    ),
    note="Counts, not times, of kernels, copies, memsets and graph launches.",
)
_HOW: Final = {
    "own_thread": "by a range of the thread that launched it",
    "same_process": "by a range of another thread of its process",
    "inferred": "inferred",
    "ambiguous": "ambiguous: several ranges fit",
    "none": "in no phase",
    "unlinked": "its launch was not recorded",
}
_GENERAL: Final = (
    (
        "A recording disturbs what it records: durations of kernels are nearly right, times of "
        "steps and gaps on the CPU are longer than without a profiler."
    ),
    "One run says nothing of another day, driver, clock or temperature.",
)


def _make(subject: Subject) -> list[Block]:
    blocks = subject.each(lambda run: _of_run(subject, run))
    return [*blocks, Paragraph("Of every report:"), Points(tuple(map(Point, _GENERAL)))]


def _of_run(subject: Subject, run: Run) -> Iterator[Block]:
    warnings = [text for report in run.reports() for text in report.warnings]
    for text in dict.fromkeys(warnings):
        yield Paragraph(f"Warning: {text}", "warning")
    if run.work is not None and run.work.coverage.get("gpu_ops"):
        yield Grid(subject.slug(run, "coverage"), _coverage(run.work.coverage))
    lost = [*run.why_not.values(), *(why for report in run.reports() for why in reasons(report))]
    if lost:
        yield Paragraph("Not in this report:")
        yield Points(tuple(map(Point, dict.fromkeys(lost))))
    elif not warnings and run.work is None:
        raise NothingToShowError("no warnings, and nothing is missing")


def _coverage(counts: Mapping[str, int]) -> Filled:
    total = counts.get("gpu_ops", 0)
    rows = [
        (said, counts.get(how, 0), counts.get(how, 0) / total if total else 0.0)
        for how, said in _HOW.items()
    ]
    schema = {"how": pl.String, "ops": pl.Int64, "share": pl.Float64}
    return Filled("coverage", COVERAGE, pl.DataFrame(rows, schema=schema, orient="row"))


SECTION = Section("What this report cannot tell", _make)
