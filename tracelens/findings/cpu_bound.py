"""CPU-bound: the GPU idles while the launching thread is busy with something else than CUDA."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracelens.findings import Finding, Rule
from tracelens.findings._work import LEAST_IDLE, Idle, many

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracelens.links.linked import Linked


def _find(linked: Linked) -> Iterator[Finding]:
    idle = Idle(linked, "no_api_call")
    if idle.share < LEAST_IDLE:
        return
    yield Finding(
        rule="cpu_bound",
        says=(
            f"{idle.says()}: the launching thread is busy outside of CUDA "
            f"({many(idle.gaps, 'gap')})."
        ),
        evidence=idle.evidence(),
        change="--table longest_gaps shows when; let other threads do it.",
        cost_ns=idle.idle_ns,
        gain_ns=idle.idle_ns,
        assumption="what the thread did then ran beside the GPU's work",
    )


FINDING = Rule(_find)
