"""Findings: one file = one rule over analyses, which says what to change and what that would gain.

A rule's file has the constant `FINDING`. It yields findings where its evidence is there, none
where the recording shows that all is well, and raises NothingToShowError where the recording
cannot tell: *nothing found* and *could not look* differ.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tracelens import registry
from tracelens.errors import NothingToShowError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from tracelens.links.linked import Linked


@dataclass(frozen=True)
class Evidence:
    """A number that a finding rests on, and the table that has it.

    Attributes:
        table: the name of the table, as for `summarize --table`.
        says: what the number is, in a few words.
        value: the number, in base units (ns, bytes, a count, a share from 0 to 1).
        unit: its unit, one of `tables.Unit`.
    """

    table: str
    says: str
    value: float
    unit: str


@dataclass(frozen=True)
class Finding:
    """One thing that costs time or memory, with its evidence.

    Attributes:
        rule: the name of the rule that found it.
        says: one or two sentences, with the numbers in them.
        evidence: the numbers, and where they stand.
        change: what to try.
        cost_ns: the time that this is about, in the window that was recorded; findings are
            ordered by it. None where it is about memory or trust.
        gain_ns: what the change could save of the window at most; None where nothing can be said.
        assumption: what the gain rests on.
    """

    rule: str
    says: str
    evidence: tuple[Evidence, ...]
    change: str = ""
    cost_ns: int | None = None
    gain_ns: int | None = None
    assumption: str = ""


@dataclass(frozen=True)
class Rule:
    """One rule; `find` raises NothingToShowError where the recording cannot tell."""

    find: Callable[[Linked], Iterable[Finding]]


@dataclass(frozen=True)
class Looked:
    """What the rules found, the costliest first, and why some could not look (rule -> reason)."""

    findings: tuple[Finding, ...] = ()
    could_not: Mapping[str, str] = field(default_factory=dict)


def look(linked: Linked) -> Looked:
    """Ask every rule."""
    found: list[Finding] = []
    could_not: dict[str, str] = {}
    for name, entry in registry.entries("finding").items():
        rule: Rule = entry.load()
        try:
            found += rule.find(linked)
        except NothingToShowError as error:
            could_not[name] = str(error)
    found.sort(key=lambda finding: -(finding.cost_ns or 0))
    return Looked(tuple(found), could_not)
