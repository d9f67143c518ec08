"""Launch-bound: the GPU idles since the launching thread cannot launch as fast as it works."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tracelens.findings import Finding, Rule
from tracelens.findings._work import LEAST_IDLE, Idle, many
from tracelens.links.idle import LAUNCHING_NS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracelens.links.linked import Linked

_FEWER: Final = "CUDA graphs or torch.compile launch less; so do larger batches."
_WARM_UP: Final = "Warm up before recording: first calls load modules."


def _find(linked: Linked) -> Iterator[Finding]:
    idle = Idle(linked, "launch_bound")
    if idle.share < LEAST_IDLE:
        return
    slow = idle.idle_ns >= LAUNCHING_NS * idle.gaps
    why = "single CUDA calls take long" if slow else "kernels end before the next is launched"
    yield Finding(
        rule="launch_bound",
        says=f"{idle.says()}: {why} ({many(idle.gaps, 'gap')}).",
        evidence=idle.evidence(),
        change=_WARM_UP if slow else _FEWER,
        cost_ns=idle.idle_ns,
        gain_ns=idle.idle_ns,
        assumption="launches cost the CPU nothing, so that none of these gaps is left",
    )


FINDING = Rule(_find)
