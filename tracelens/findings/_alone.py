"""The communication of a trace recorded alone, as the rules on ranks are asked about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracelens.analyses.ranks import ranks
from tracelens.findings import Ranks
from tracelens.links.collectives import collectives, matched

if TYPE_CHECKING:
    from tracelens.links.linked import Linked


def as_ranks(linked: Linked) -> Ranks | None:
    """Return the trace as the only rank of its job, or None where it does not communicate."""
    found = linked.once("collectives", collectives)
    return None if found.is_empty() else Ranks(ranks(linked), matched(found))
