"""What stands out of a summary: sentences computed from the tables, each with its numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens import units
from tracelens.analyses.families import families
from tracelens.analyses.gaps import gaps
from tracelens.analyses.overview import overview
from tracelens.analyses.totals import totals

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracelens.links.linked import Linked

_IDLE_SHARE: Final = 0.1
_GRAPH_SHARE: Final = 0.01
_UNCLASSIFIED_SHARE: Final = 0.05
_TINY_KERNEL_NS: Final = 10_000
_MANY_KERNELS: Final = 500
_CAUSE: Final = {
    "launch_bound": "the launching thread could not launch fast enough",
    "synchronising": "the launching thread waited in {call}",
    "no_api_call": "the launching thread made no CUDA call (busy on the CPU)",
    "queued": "work was already launched (waiting for a copy, an event or the launch itself)",
    "unknown": "of launches that were not recorded",
}


def findings(linked: Linked) -> tuple[str, ...]:
    """Return sentences, the one about most time first."""
    if linked.ops.is_empty():
        return ()
    return (*_idle(linked), *_graphs(linked), *_tiny_kernels(linked), *_unclassified(linked))


def _idle(linked: Linked) -> Iterator[str]:
    sums = totals(linked).row(0, named=True)
    if not sums["span_ns"] or sums["idle_ns"] / sums["span_ns"] < _IDLE_SHARE:
        return
    causes = gaps(linked).group_by("cause").agg(pl.col("idle_ns", "gaps").sum())
    idle = sums["idle_ns"]
    top = causes.sort("idle_ns", descending=True).head(2).iter_rows(named=True)
    reasons = [
        f"{units.share(row['idle_ns'] / idle)} of that, {_CAUSE[row['cause']]}".format(
            call="a CUDA call that blocks"
        )
        + f" ({units.count(row['gaps'])} gaps)"
        for row in top
    ]
    yield (
        f"The GPU idles {units.share(idle / sums['span_ns'])} of {units.time(sums['span_ns'])}: "
        f"{'; '.join(reasons)}. See --table gaps."
    )


def _graphs(linked: Linked) -> Iterator[str]:
    sums = totals(linked).row(0, named=True)
    work = sums["graph_time_ns"] + sums["kernel_time_ns"]
    if work and sums["graph_time_ns"] / work > _GRAPH_SHARE:
        yield (
            f"{units.share(sums['graph_time_ns'] / work)} of GPU time "
            f"({units.time(sums['graph_time_ns'])}) ran inside CUDA graphs that were recorded as a "
            "whole: no kernels, families or phases are known of it. "
            "Record with --cuda-graph-trace=node to see inside."
        )


def _tiny_kernels(linked: Linked) -> Iterator[str]:
    steps = max(1, linked.steps.height)
    for row in overview(linked).iter_rows(named=True):
        if row["kernels"] < _MANY_KERNELS or not row["kernel_time_ns"]:
            continue
        mean = row["kernel_time_ns"] / row["kernels"]
        if mean < _TINY_KERNEL_NS:
            count = units.count(row["kernels"] // steps) + " kernels"
            each = " a step" if steps > 1 else ""
            advice = (
                "A foreach or fused optimizer does the same work in a few dozen launches."
                if row["phase"] == "optimizer"
                else "Fusing them (torch.compile) or CUDA graphs would save launches."
            )
            yield (
                f"{row['phase']} launches {count}{each} of {units.time(round(mean))} "
                f"on average. {advice}"
            )


def _unclassified(linked: Linked) -> Iterator[str]:
    table = families(linked)
    total = int(table["kernel_time_ns"].sum())
    other = int(table.filter(pl.col("family") == "other")["kernel_time_ns"].sum())
    if total and other / total > _UNCLASSIFIED_SHARE:
        yield (
            f"{units.share(other / total)} of kernel time is of kernels whose names say nothing of "
            "their kind (family other). See --table kernels."
        )
