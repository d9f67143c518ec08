"""What stands out of a report: the costliest findings as sentences, each with its numbers."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Final

from tracelens.findings import look

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracelens.findings import Finding, Looked
    from tracelens.links.linked import Linked
    from tracelens.links.memory import Memory

MOST: Final = 5
"""Sentences: the rest stands in the table `findings`."""

_WIDTH: Final = 76
_LINES: Final = 2
"""On a terminal of 80 columns: what does not fit is left to the table."""

_SAID_BY_TRUST: Final = frozenset({"lost_events", "overlapping_work", "unattributed"})
"""The lines on trust say the same at the head of each report."""


def sentences(looked: Looked, most: int | None = MOST) -> tuple[str, ...]:
    """Return the costliest findings as sentences, with the change where there is room for it."""
    told = [found for found in looked.findings if found.rule not in _SAID_BY_TRUST]
    return tuple(sentence(found) for found in told[:most])


def sentence(found: Finding) -> str:
    """Return what a finding says, what to change, and where to look, as far as there is room."""
    text = found.says
    for more in _more(found):
        if len(textwrap.wrap(f"{text} {more}", _WIDTH)) <= _LINES:
            text = f"{text} {more}"
    return text


def findings(linked: Linked) -> tuple[str, ...]:
    """Return what stands out of GPU work."""
    return sentences(looked_at(linked))


def looked_at(linked: Linked, *, costly: bool = False) -> Looked:
    """Return what the rules find in GPU work, asked once."""
    name = "looked at everything" if costly else "looked"
    return linked.once(name, lambda of: look(of, costly=costly))


def looked_at_memory(memory: Memory) -> Looked:
    """Return what the rules find in a recording of memory, asked once."""
    return memory.once("looked", lambda of: look(of, "memory"))


def _more(found: Finding) -> Iterator[str]:
    if found.change:
        yield found.change
    if found.evidence and "--table" not in found.change:
        yield f"See --table {found.evidence[0].table}."
