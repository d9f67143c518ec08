"""From what is known of runs to a document: every section that can be made, in order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tracelens import registry
from tracelens.errors import NothingToShowError
from tracelens.reports import Document, Made

if TYPE_CHECKING:
    from tracelens.reports import Section
    from tracelens.reports.subject import Subject

ORDER: Final = (
    "summary", "circumstances", "step_time", "comparison", "phases", "kernels", "over_time",
    "roofline", "memory", "ranks", "findings", "targets", "limits", "provenance",
)  # fmt: skip
"""The order of sections; those of other distributions come before the limits."""

TABLES: Final = (
    "totals", "overview", "phases", "families", "graphs", "kernels", "ops", "steps", "gaps",
    "launch_delay", "copies", "cpu_phases", "devices", "ranks", "collectives", "memory_by_phase",
    "roofline_totals", "roofline_phases", "roofline", "findings",
)  # fmt: skip
"""The tables of GPU work that sections ask for; those that no release has yet are passed over."""

_LAST: Final = ORDER.index("limits")


def tables() -> tuple[str, ...]:
    """Return the tables of GPU work to ask for."""
    known = registry.entries("table")
    return tuple(name for name in TABLES if name in known)


def document(subject: Subject, title: str, *, date: str = "", top: int | None = 20) -> Document:
    """Return the report.

    Args:
        subject: what it is about.
        title: its title.
        date: what stands below the title; nothing is asked of the clock.
        top: rows of each table.

    Raises:
        NothingToShowError: no run holds anything that a report could show.
    """
    made: list[Made] = []
    left_out: dict[str, str] = {}
    for name in sections():
        section: Section = registry.load("section", name)
        try:
            made.append(Made(name, section.title, tuple(section.make(subject))))
        except NothingToShowError as error:
            left_out[section.title] = str(error)
    return Document(title, date, tuple(made), left_out, top)


def sections() -> tuple[str, ...]:
    """Return the names of all sections, in order."""
    known = registry.names("section")
    others = (name for name in known if name not in ORDER)
    return (*ORDER[:_LAST], *others, *ORDER[_LAST:])
