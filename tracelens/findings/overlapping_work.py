"""Overlapping work: sums of durations exceed the time that passed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tracelens import units
from tracelens.analyses.totals import totals
from tracelens.findings import Evidence, Finding, Rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracelens.links.linked import Linked

_SHARE: Final = 0.05
"""Of GPU time: sums and shares by kernel then mean something else than time that passed."""


def _find(linked: Linked) -> Iterator[Finding]:
    sums = totals(linked).row(0, named=True)
    summed = sum(sums[f"{kind}_time_ns"] for kind in ("kernel", "copy", "memset", "graph"))
    over_ns = summed - sums["busy_ns"]
    if not summed or over_ns <= _SHARE * summed:
        return
    yield Finding(
        rule="overlapping_work",
        says=(
            f"Work overlaps for {units.time(over_ns)} ({units.share(over_ns / summed)} of GPU "
            "time): durations add up to more than the time that passed."
        ),
        evidence=(
            Evidence(
                "totals", "sum of durations less the time that the GPU was busy", over_ns, "ns"
            ),
            Evidence("totals", "of the sum", over_ns / summed, "share"),
        ),
        change="--table streams says which streams; busy time counts each moment once.",
    )


FINDING = Rule(_find)
