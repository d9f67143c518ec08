"""Findings: one file = one rule over analyses, which says what to change and what that would gain.

A rule's file has the constant `FINDING`. It yields findings where its evidence is there, none
where the recording shows that all is well, and raises NothingToShowError where the recording
cannot tell: *nothing found* and *could not look* differ.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from tracelens import registry
from tracelens.errors import NothingToShowError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import polars as pl

    from tracelens.links.linked import Linked
    from tracelens.links.memory import Memory

About = Literal["work", "memory", "ranks"]
"""What a rule looks at: GPU work (`Linked`), memory (`Memory`) or the ranks of a job (`Ranks`)."""

NOT_ASKED: Final = "looking takes long: --table findings asks every rule"


@dataclass(frozen=True)
class Evidence:
    """A number that a finding rests on, and the table that has it.

    Attributes:
        table: the name of the table, as for `--table` of `tracelens summarize` or, where the
            rule is about memory, of `tracelens memory`.
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
    """One thing that costs time or memory, or limits trust, with its evidence.

    Attributes:
        rule: the name of the rule that found it.
        says: one sentence, with the numbers in it.
        evidence: the numbers, and where they stand; the first names the table to look at.
        change: what to try.
        cost_ns: the time that this is about, in the window that was recorded; findings are
            ordered by it. None where it is about memory or trust. Costs of two findings may be
            of the same time.
        gain_ns: what the change could save of the window at most; None where nothing can be said.
        cost_bytes: the memory that this is about.
        gain_bytes: what the change could save of it at most.
        assumption: what the gain rests on.
        subject: what it is about, where that is one thing: a phase, or the name of a kernel.
    """

    rule: str
    says: str
    evidence: tuple[Evidence, ...]
    change: str = ""
    cost_ns: int | None = None
    gain_ns: int | None = None
    cost_bytes: int | None = None
    gain_bytes: int | None = None
    assumption: str = ""
    subject: str | None = None


@dataclass(frozen=True)
class Ranks:
    """The ranks of a job side by side.

    Attributes:
        table: the rows of `analyses.ranks`, with what each rank waited where that is known.
        collectives: the rows of `links.collectives.matched`.
    """

    table: pl.DataFrame
    collectives: pl.DataFrame


@dataclass(frozen=True)
class Rule:
    """One rule.

    Attributes:
        find: yields findings, or raises NothingToShowError where the recording cannot tell.
        about: what it is given.
        costly: whether it needs what no summary computes; then it is asked on request alone.
    """

    find: Callable[[Any], Iterable[Finding]]
    about: About = "work"
    costly: bool = False


@dataclass(frozen=True)
class Looked:
    """What the rules found, the costliest first, and why some could not look (rule -> reason)."""

    findings: tuple[Finding, ...] = ()
    could_not: Mapping[str, str] = field(default_factory=dict)


def look(of: Linked | Memory | Ranks, about: About = "work", *, costly: bool = True) -> Looked:
    """Ask every rule about something.

    Those on ranks are asked about the communication of a single trace, too.

    Args:
        of: a trace made ready, as the rules expect it.
        about: which rules.
        costly: whether to ask those, too, that need more than a summary computes.
    """
    from tracelens.findings._alone import as_ranks
    from tracelens.links.linked import Linked

    looked = _asked(of, about, costly=costly)
    alone = as_ranks(of) if isinstance(of, Linked) else None
    return looked if alone is None else joined([looked, _asked(alone, "ranks", costly=costly)])


def rules(about: About) -> Mapping[str, Rule]:
    """Return the rules on something, by name."""
    loaded = {name: entry.load() for name, entry in registry.entries("finding").items()}
    return {name: rule for name, rule in loaded.items() if rule.about == about}


def _asked(of: object, about: About, *, costly: bool) -> Looked:
    found: list[Finding] = []
    could_not: dict[str, str] = {}
    for name, rule in rules(about).items():
        if rule.costly and not costly:
            could_not[name] = NOT_ASKED
            continue
        try:
            found += rule.find(of)
        except NothingToShowError as error:
            could_not[name] = str(error)
    return Looked(ordered(found), could_not)


def joined(parts: Iterable[Looked]) -> Looked:
    """Return what was found in several recordings, as one."""
    found: list[Finding] = []
    could_not: dict[str, str] = {}
    for part in parts:
        found += part.findings
        could_not |= part.could_not
    return Looked(ordered(found), could_not)


def ordered(found: Sequence[Finding]) -> tuple[Finding, ...]:
    """Return findings in order of time, then of memory; the rest keeps its order behind."""
    return tuple(sorted(found, key=lambda f: (-(f.cost_ns or 0), -(f.cost_bytes or 0))))
