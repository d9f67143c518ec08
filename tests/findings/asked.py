"""What one rule finds in a trace, or why it could not look."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.asking import linked
from tracelens.findings import look
from tracelens.links.linked import link
from tracelens.links.memory import remember
from tracelens.readers.open import open_trace

if TYPE_CHECKING:
    from pathlib import Path

    from tests.build import Nsys
    from tests.kineto import Profile
    from tests.snapshots import Snapshot
    from tracelens.findings import Finding, Looked


def looked(trace: Nsys | Profile | Snapshot, folder: Path) -> Looked:
    """Return what all rules find in a trace, by way of a file in the folder."""
    from tests.build import Nsys
    from tests.kineto import Profile

    if isinstance(trace, Nsys):
        return look(linked(trace, folder))
    if isinstance(trace, Profile):
        return look(link(open_trace(trace.write(folder / "rank0.json"), cache=False)))
    return look(remember(open_trace(trace.write(folder / "snapshot.pickle"))), "memory")


def found(rule: str, trace: Nsys | Profile | Snapshot, folder: Path) -> Finding:
    """Return the only finding of a rule."""
    (finding,) = (f for f in looked(trace, folder).findings if f.rule == rule)
    return finding


def is_silent(rule: str, trace: Nsys | Profile | Snapshot, folder: Path) -> bool:
    """Tell whether a rule looked and found nothing."""
    answer = looked(trace, folder)
    return rule not in answer.could_not and all(f.rule != rule for f in answer.findings)


def reason(rule: str, trace: Nsys | Profile | Snapshot, folder: Path) -> str:
    """Return why a rule could not look."""
    return looked(trace, folder).could_not[rule]


def numbers(finding: Finding) -> dict[tuple[str, str], float]:
    """Return the numbers of a finding's evidence, by table and what they are."""
    return {(one.table, one.says): one.value for one in finding.evidence}
