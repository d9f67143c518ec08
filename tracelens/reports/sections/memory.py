"""Memory: its course and peak, what was live then, and the largest allocations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tracelens import colours, units
from tracelens.errors import NothingToShowError
from tracelens.reports import Grid, Paragraph, Section
from tracelens.reports.drawing import of_bars, of_course
from tracelens.tables.bars import Bar, Part

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracelens.reports import Block, Figure
    from tracelens.reports.subject import Run, Subject
    from tracelens.tables import Filled

TABLES: Final = ("devices", "phases", "categories", "largest", "ooms", "fragmentation")
"""Tables of `tracelens memory` that a report shows."""

_MOST_COURSES: Final = 2


def _make(subject: Subject) -> list[Block]:
    def of_run(run: Run) -> Iterator[Block]:
        joined = run.table("memory_by_phase")
        if run.memory is None and joined is None:
            raise NothingToShowError(run.why_not.get("memory", "no memory was recorded"))
        if joined is not None:
            yield Grid(subject.slug(run, "memory_by_phase"), joined)
        yield from _of_recording(subject, run)

    return subject.each(of_run)


def _of_recording(subject: Subject, run: Run) -> Iterator[Block]:
    report = run.memory
    if report is None:
        return
    if run.others:
        yield Paragraph(
            f"Of {run.others + 1} recordings of memory, the one with the highest peak: "
            f"{report.headline}."
        )
    for number, course in enumerate(report.courses[:_MOST_COURSES]):
        more = f"_{number + 1}" if number else ""
        yield of_course(subject.slug(run, f"memory_course{more}"), course)
    joined = run.table("memory_by_phase") is not None
    for name in TABLES:
        found = run.of_memory(name)
        if found is None or (joined and name == "phases"):
            continue
        if name == "categories" and (figure := _peak(subject.slug(run, "memory_peak"), found)):
            yield figure
        yield Grid(subject.slug(run, f"memory_{name}"), found)
    yield from (Paragraph(line, "note") for line in report.trust)


def _peak(name: str, categories: Filled) -> Figure | None:
    """Return what was live at the peak as a bar for each device."""
    bars = []
    for (device,), rows in categories.frame.group_by("device", maintain_order=True):
        parts = [
            Part(
                row["category"] or "no rule fits",
                colours.category(row["category"]),
                row["bytes"],
                f"{units.size(row['bytes'])}, {units.share(row['share'])}",
            )
            for row in rows.iter_rows(named=True)
        ]
        bars.append(Bar(f"device {device}", parts, units.size(int(rows["bytes"].sum()))))
    return of_bars(name, "Live at the peak, by category", bars)


SECTION = Section("Memory", _make)
