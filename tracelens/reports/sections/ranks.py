"""Ranks: how evenly they work, what they wait for, and their collectives."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracelens.errors import NothingToShowError
from tracelens.reports import Grid, Section

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracelens.reports import Block
    from tracelens.reports.subject import Run, Subject


def _make(subject: Subject) -> list[Block]:
    def of_run(run: Run) -> Iterator[Block]:
        found = run.table("ranks")
        if found is None or (found.frame.height < 2 and run.table("collectives") is None):
            raise NothingToShowError("one process alone was recorded, without collectives")
        yield Grid(subject.slug(run, "ranks"), found)
        if (collectives := run.table("collectives")) is not None:
            yield Grid(subject.slug(run, "collectives"), collectives)

    return subject.each(of_run)


SECTION = Section("Ranks and communication", _make)
