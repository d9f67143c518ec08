"""Whole graphs: CUDA graphs that were recorded without their kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tracelens import units
from tracelens.analyses.totals import totals
from tracelens.findings import Evidence, Finding, Rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracelens.links.linked import Linked

_SHARE: Final = 0.01
"""Of GPU time: what is not known of less changes no answer."""


def _find(linked: Linked) -> Iterator[Finding]:
    sums = totals(linked).row(0, named=True)
    time_ns = sums["graph_time_ns"]
    work_ns = time_ns + sums["kernel_time_ns"]
    if not work_ns or time_ns / work_ns <= _SHARE:
        return
    yield Finding(
        rule="whole_graphs",
        says=(
            f"{units.share(time_ns / work_ns)} of GPU time ({units.time(time_ns)}) ran inside CUDA "
            "graphs whose kernels were not recorded."
        ),
        evidence=(
            Evidence("totals", "time in graphs", time_ns, "ns"),
            Evidence("graphs", "graph launches", sums["graph_launches"], "count"),
        ),
        change="Record with --cuda-graph-trace=node to see inside.",
        cost_ns=time_ns,
    )


FINDING = Rule(_find)
