"""Unattributed: GPU time of which nobody can tell the phase that launched it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens import units
from tracelens.analyses.families import by_name
from tracelens.errors import NothingToShowError
from tracelens.findings import Evidence, Finding, Rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracelens.links.linked import Linked

_SHARE: Final = 0.1
"""Of GPU time: shares of phases are then wrong by as much."""

_WHY: Final = {
    "none": "launched in no phase",
    "unlinked": "launch not recorded",
    "ambiguous": "several phases fit",
}


def _find(linked: Linked) -> Iterator[Finding]:
    if linked.phase_source == "none":
        raise NothingToShowError("no phases are known")
    by_how = by_name(linked).group_by(pl.col("how").cast(pl.String)).agg(pl.col("time_ns").sum())
    times = dict(by_how.iter_rows())
    whole_ns = sum(times.values())
    lost_ns = sum(times.get(how, 0) for how in _WHY)
    if not whole_ns or lost_ns <= _SHARE * whole_ns:
        return
    parts = [
        f"{units.share(times[how] / whole_ns)} {why}" for how, why in _WHY.items() if how in times
    ]
    yield Finding(
        rule="unattributed",
        says=(
            f"Of {units.share(lost_ns / whole_ns)} of GPU time ({units.time(lost_ns)}) no phase is "
            f"known: {', '.join(parts)}."
        ),
        evidence=(
            Evidence("phases", "GPU time in no phase", lost_ns, "ns"),
            Evidence("phases", "of GPU time", lost_ns / whole_ns, "share"),
        ),
        change="Record from before the first step on; give each phase a range.",
    )


FINDING = Rule(_find)
