"""Top kernels: which took most of the GPU's time."""

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
        found = run.table("kernels")
        if found is None:
            raise NothingToShowError(run.why_no("kernels"))
        yield Grid(subject.slug(run, "kernels"), found)
        if (ops := run.table("ops")) is not None:
            yield Grid(subject.slug(run, "ops"), ops)

    return subject.each(of_run)


SECTION = Section("Top kernels", _make)
