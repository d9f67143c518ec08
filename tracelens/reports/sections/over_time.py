"""Over time: a typical step, how busy the GPU was in it, and why it idled."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracelens.errors import NothingToShowError
from tracelens.reports import Grid, Paragraph, Section
from tracelens.reports.timeline import drawn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracelens.reports import Block
    from tracelens.reports.subject import Run, Subject

_TABLES = ("gaps", "launch_delay")


def _make(subject: Subject) -> list[Block]:
    def of_run(run: Run) -> Iterator[Block]:
        tables = [found for name in _TABLES if (found := run.table(name)) is not None]
        if run.linked is not None:
            yield drawn(subject.slug(run, "timeline"), run.linked)
        elif not tables:
            raise NothingToShowError(run.why_no("gaps"))
        else:
            yield Paragraph("No step is drawn of several recordings that are one run.", "note")
        yield from (Grid(subject.slug(run, found.name), found) for found in tables)

    return subject.each(of_run)


SECTION = Section("A step over time, and idle time", _make)
