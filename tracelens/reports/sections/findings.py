"""Findings in words: each with its numbers, the table they are from, and what to try."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracelens import units
from tracelens.errors import NothingToShowError
from tracelens.reports import Paragraph, Point, Points, Section

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tracelens.findings import Finding
    from tracelens.reports import Block
    from tracelens.reports.subject import Run, Subject


def _make(subject: Subject) -> list[Block]:
    return subject.each(_of_run)


def _of_run(run: Run) -> Iterator[Block]:
    found = run.looked()
    if not found.findings and not found.could_not:
        raise NothingToShowError("no rule could look")
    if found.findings:
        yield Points(tuple(map(_point, found.findings)))
    else:
        yield Paragraph("No rule that could look found anything to change.")
    if found.could_not:
        yield Paragraph("Rules that could not look, and why:")
        yield Points(tuple(map(Point, _by_reason(found.could_not))))


def _by_reason(could_not: Mapping[str, str]) -> list[str]:
    """Return why rules could not look, those with one reason together."""
    rules: dict[str, list[str]] = {}
    for name, why in could_not.items():
        rules.setdefault(why, []).append(name)
    return [f"{', '.join(names)}: {why}" for why, names in rules.items()]


def _point(finding: Finding) -> Point:
    below = []
    if finding.evidence:
        numbers = [
            f"{e.says} {units.column(e.unit, [e.value])[0]} (table {e.table})"
            for e in finding.evidence
        ]
        below.append(f"Evidence: {'; '.join(numbers)}.")
    if finding.change:
        below.append(f"To try: {finding.change}")
    if gain := _gain(finding):
        below.append(gain)
    return Point(finding.says, tuple(below))


def _gain(finding: Finding) -> str:
    gains = [
        *([units.time(finding.gain_ns)] if finding.gain_ns else []),
        *([units.size(finding.gain_bytes)] if finding.gain_bytes else []),
    ]
    if not gains:
        return ""
    assumed = f", if {finding.assumption}" if finding.assumption else ""
    return f"Expected gain: {' and '.join(gains)} at most{assumed}."


SECTION = Section("Findings", _make)
