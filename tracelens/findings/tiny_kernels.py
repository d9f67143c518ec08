"""Tiny kernels: a phase launches many kernels that take less time than launching them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens import units
from tracelens.findings import Evidence, Finding, Rule
from tracelens.findings._work import (
    is_worth,
    kernels,
    per_step,
    share_of_kernels,
    step_count,
    time_of,
)
from tracelens.findings.for_loop_optimizer import is_for_loop
from tracelens.links.linked import NO_PHASE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracelens.links.linked import Linked

TINY_NS: Final = 10_000
"""An op of PyTorch's eager mode takes 5 to 50 µs to launch: a kernel of less is not worth it."""

_MANY: Final = 200
"""In a step: launching them takes a millisecond of the CPU at least."""


def _find(linked: Linked) -> Iterator[Finding]:
    found = kernels(linked)
    whole_ns = time_of(found)
    tiny = found.filter(pl.col("time_ns") < TINY_NS * pl.col("count"))
    for (phase,), rows in tiny.group_by("phase", maintain_order=True):
        count, time_ns = int(rows["count"].sum()), time_of(rows)
        if count < _MANY * step_count(linked) or not is_worth(linked, time_ns):
            continue
        if phase == "optimizer" and is_for_loop(linked, found):
            continue
        mean = units.time(round(time_ns / count))
        who = phase or f"Work in no phase {NO_PHASE}"
        yield Finding(
            rule="tiny_kernels",
            says=f"{who} launches {per_step(linked, count, 'tiny kernel')} of {mean} on average.",
            evidence=(
                Evidence("overview", "kernels of less than 10 µs in the phase", count, "count"),
                Evidence("overview", "their time", time_ns, "ns"),
                share_of_kernels("of kernel time", time_ns, whole_ns),
            ),
            change="torch.compile fuses them."
            if _is_graph(linked)
            else "torch.compile fuses them; a CUDA graph launches all.",
            cost_ns=time_ns,
            gain_ns=time_ns,
            assumption="the kernels around them did their work at no cost of time",
            subject=str(phase) if phase else None,
        )


def _is_graph(linked: Linked) -> bool:
    """Tell whether most kernels were launched with others: by a CUDA graph, that is."""
    launches = linked.ops.filter(pl.col("kind") == "kernel")["launch_row"].drop_nulls()
    return launches.n_unique() * 2 < launches.len()


FINDING = Rule(_find)
