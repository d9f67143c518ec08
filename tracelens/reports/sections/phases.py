"""Where the GPU time goes: phases, and the kinds of work in each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracelens.errors import NothingToShowError
from tracelens.reports import Grid, Paragraph, Section
from tracelens.reports.drawing import of_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracelens.reports import Block
    from tracelens.reports.subject import Run, Subject

_TABLES = ("totals", "overview", "families", "graphs", "copies")
_WITHOUT_WORK = ("cpu_phases", "copies", "memsets", "ranges", "api")


def _make(subject: Subject) -> list[Block]:
    def of_run(run: Run) -> Iterator[Block]:
        names = _TABLES if run.table("overview") else _WITHOUT_WORK
        tables = [found for name in names if (found := run.table(name)) is not None]
        if not tables:
            raise NothingToShowError(run.why_no("overview"))
        for found in tables:
            name = subject.slug(run, found.name)
            if (figure := of_table(f"{name}_drawn", found)) is not None:
                yield figure
            yield Grid(name, found)
        yield from (Paragraph(line, "note") for line in (run.work.trust if run.work else ()))

    return subject.each(of_run)


SECTION = Section("Where the GPU time goes", _make)
