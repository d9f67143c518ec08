"""Roofline: how much of the GPU's arithmetic and bandwidth the work uses, and what it loses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracelens.errors import NothingToShowError
from tracelens.reports import Grid, Section

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracelens.reports import Block
    from tracelens.reports.subject import Run, Subject

_TABLES = ("roofline_phases", "roofline")


def _make(subject: Subject) -> list[Block]:
    def of_run(run: Run) -> Iterator[Block]:
        tables = [found for name in _TABLES if (found := run.table(name)) is not None]
        if not tables:
            raise NothingToShowError(run.why_no("roofline"))
        yield from (Grid(subject.slug(run, found.name), found) for found in tables)

    return subject.each(of_run)


SECTION = Section("Use of compute and of memory bandwidth", _make)
