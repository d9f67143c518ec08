"""Recompute: kernels of forward that run again in backward, as activation checkpointing does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens import units
from tracelens.errors import NothingToShowError
from tracelens.findings import Evidence, Finding, Rule
from tracelens.findings._work import is_worth, kernels, share_of_kernels, time_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracelens.links.linked import Linked

_FORWARD: Final = (
    r"(?i)flash_fwd|fmha_cutlassF|fmha_fwd|softmax_warp_forward|SoftMaxForward|"
    r"layer_norm_kernel|RowwiseMoments|GeluCUDAKernel|silu_kernel|ClassNLLCriterion_updateOutput|"
    r"fused_dropout_kernel|max_pool_forward|bn_fw"
)
_BACKWARD: Final = r"(?i)backward|_bwd|gradInput|grad_input"
"""What computes no gradient, and so has nothing to do in backward; rather too few than one that
backward launches, too."""


def _find(linked: Linked) -> Iterator[Finding]:
    if linked.phase_source == "none":
        raise NothingToShowError("no phases are known")
    found = kernels(linked)
    name = pl.col("name")
    marks = found.filter(name.str.contains(_FORWARD), ~name.str.contains(_BACKWARD))
    by_phase = dict(marks.group_by("phase").agg(pl.col("count").sum()).iter_rows())
    first, again = by_phase.get("forward", 0), by_phase.get("backward", 0)
    if not first:
        raise NothingToShowError("no kernel of forward has a name that tells forward from backward")
    share = min(1.0, again / first)
    forward_ns = time_of(found.filter(pl.col("phase") == "forward"))
    time_ns, whole_ns = round(share * forward_ns), time_of(found)
    if not is_worth(linked, time_ns):
        return
    yield Finding(
        rule="recompute",
        says=(
            f"Backward computes {units.share(share)} of forward again: about "
            f"{units.time(time_ns)}, {units.share(time_ns / whole_ns)} of kernel time."
        ),
        evidence=(
            Evidence("kernels", "kernels of forward alone that ran in backward", again, "count"),
            Evidence("kernels", "of them in forward", first, "count"),
            Evidence("overview", "kernel time of forward", forward_ns, "ns"),
            share_of_kernels("of kernel time", time_ns, whole_ns),
        ),
        change="Where memory is left, checkpoint fewer layers.",
        cost_ns=time_ns,
        gain_ns=time_ns,
        assumption=(
            "nothing was computed again, and all of forward repeats as often as the kernels that "
            "tell; activations then stay in memory"
        ),
        subject="backward",
    )


FINDING = Rule(_find)
