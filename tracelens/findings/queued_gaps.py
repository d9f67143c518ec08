"""Queued gaps: the GPU idles between work that had all been launched already."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tracelens import units
from tracelens.findings import Finding, Rule
from tracelens.findings._work import Idle, many

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracelens.links.linked import Linked

_LEAST: Final = 0.1
"""A kernel starts 1 to 2 µs after the one before it, whatever one does: of kernels of 20 µs that
is up to a tenth of the time."""


def _find(linked: Linked) -> Iterator[Finding]:
    idle = Idle(linked, "queued")
    if idle.share < _LEAST:
        return
    each = units.time(idle.idle_ns / idle.gaps)
    yield Finding(
        rule="queued_gaps",
        says=f"{idle.says()} between work already launched: {many(idle.gaps, 'gap')} of {each}.",
        evidence=idle.evidence(),
        change="Fewer, larger kernels (torch.compile), or CUDA graphs.",
        cost_ns=idle.idle_ns,
        gain_ns=idle.idle_ns,
        assumption="each op began when the one before it ended",
    )


FINDING = Rule(_find)
