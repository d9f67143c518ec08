"""Roofline: how much of the GPU's arithmetic and bandwidth the work uses, and what it loses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracelens.errors import NothingToShowError
from tracelens.reports import Grid, Paragraph, Section

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracelens.reports import Block
    from tracelens.reports.subject import Run, Subject

_TABLES = ("roofline_totals", "roofline_phases", "roofline")


def _make(subject: Subject) -> list[Block]:
    def of_run(run: Run) -> Iterator[Block]:
        tables = [found for name in _TABLES if (found := run.table(name)) is not None]
        if not tables:
            raise NothingToShowError(run.why_no("roofline"))
        yield from (Grid(subject.slug(run, found.name), found) for found in tables)
        if count := _impossible(run):
            rows = "row stands" if count == 1 else "rows stand"
            yield Paragraph(
                f"{count} {rows} above what the GPU can do: there operations, bytes or times were "
                "counted wrongly, and no conclusion holds.",
                "warning",
            )

    return subject.each(of_run)


def _impossible(run: Run) -> int:
    totals = run.table("roofline_totals")
    return 0 if totals is None else int(totals.frame["impossible"].fill_null(0).sum())


SECTION = Section("Use of compute and of memory bandwidth", _make)
