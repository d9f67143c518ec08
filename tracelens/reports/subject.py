"""What a report is about: runs, what is known of each, and what they are held against."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from tracelens.errors import NothingToShowError
from tracelens.findings import joined
from tracelens.reports import Heading, Paragraph

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from tracelens.capture.folder import Manifest
    from tracelens.findings import Looked
    from tracelens.links.linked import Linked
    from tracelens.reports import Block
    from tracelens.reports.provenance import File
    from tracelens.tables import Filled, Report


_SUBSTANCE: Final = (
    "overview", "graphs", "copies", "memsets", "steps", "ops", "cpu_phases", "ranges", "api",
)  # fmt: skip
"""Tables that hold rows only where something was recorded; totals have one of zeros."""


@dataclass(frozen=True)
class Run:
    """One run, as far as it could be looked at.

    Attributes:
        label: what tells it apart from the others.
        path: where it lies, as it was named.
        work: the report on its GPU work.
        memory: the report on its memory; of several recordings, the one with the highest peak.
        bench: the report on kernels that were measured beside others.
        others: how many other recordings of memory there are.
        linked: the recording with its work attributed, where it is one that was read here.
        manifest: what run.json says, where a capture wrote one.
        files: what was read.
        why_not: why `work` or `memory` is missing.
    """

    label: str
    path: str
    work: Report | None = None
    memory: Report | None = None
    bench: Report | None = None
    others: int = 0
    linked: Linked | None = None
    manifest: Manifest | None = None
    files: tuple[File, ...] = ()
    why_not: Mapping[str, str] = field(default_factory=dict)

    def reports(self) -> list[Report]:
        """Return what was reported of its work, of its memory and of kernels."""
        parts = (self.work, self.memory, self.bench)
        return [report for report in parts if report is not None]

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to show of it."""
        if self.memory is not None or (self.bench is not None and self.bench.tables):
            return False
        return not any(map(self.table, _SUBSTANCE))

    @property
    def why_empty(self) -> str:
        """Why there is nothing to show of it."""
        return "; ".join(dict.fromkeys([self.why_no("overview"), *self.why_not.values()]))

    def looked(self) -> Looked:
        """Return what the rules found, in its work and in its memory, each finding once."""
        found = joined(report.found for report in self.reports())
        return replace(found, findings=tuple(dict.fromkeys(found.findings)))

    def table(self, name: str) -> Filled | None:
        """Return a table of its GPU work, if it is there and not empty."""
        return _named(self.work, name)

    def why_no(self, name: str) -> str:
        """Return why a table of its GPU work is missing."""
        if self.work is None:
            return self.why_not.get("work", "no GPU work was recorded")
        return self.work.left_out.get(name, "it was not asked for")

    def of_memory(self, name: str) -> Filled | None:
        """Return a table of the memory with the highest peak, if it is there and not empty."""
        return _named(self.memory, name)


@dataclass(frozen=True)
class Subject:
    """All that a report is made of.

    Attributes:
        runs: in the order in which they were named.
        comparison: of several runs: how they differ.
        grades: of targets that were given: which are met.
        why_not: why `comparison` or `grades` is missing.
    """

    runs: tuple[Run, ...]
    comparison: Report | None = None
    grades: Report | None = None
    why_not: Mapping[str, str] = field(default_factory=dict)

    def each(self, make: Callable[[Run], Iterable[Block]]) -> list[Block]:
        """Return the blocks of each run, under its label where there are several.

        Raises:
            NothingToShowError: no run has any.
        """
        anything = False
        reasons: dict[str, None] = {}
        found: list[Block] = []
        for run in self.runs:
            if len(self.runs) > 1:
                found.append(Heading(run.label))
            try:
                found += make(run)
            except NothingToShowError as error:
                reasons[str(error)] = None
                found.append(Paragraph(f"Nothing to show: {str(error).rstrip('.')}.", "note"))
            else:
                anything = True
        if not anything:
            raise NothingToShowError("; ".join(reasons))
        return found

    def slug(self, run: Run, name: str) -> str:
        """Return a name for a table or figure of a run, unique among all runs."""
        if len(self.runs) == 1:
            return name
        return f"{name}-{self.runs.index(run) + 1}"


def _named(report: Report | None, name: str) -> Filled | None:
    tables = () if report is None else report.tables
    return next((t for t in tables if t.name == name and t.frame.height), None)
