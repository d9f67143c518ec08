"""For-loop optimizer: the optimizer updates one parameter after the other, with many kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens import units
from tracelens.errors import NothingToShowError
from tracelens.findings import Evidence, Finding, Rule
from tracelens.findings._work import (
    is_worth,
    kernels,
    per_step,
    share_of_kernels,
    step_count,
    time_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracelens.links.linked import Linked

_MANY: Final = 200
"""In a step. Foreach and fused optimizers launch some dozens, whatever the model; a loop over the
parameters launches about ten for each, and models have hundreds."""

_MOST: Final = 0.5
"""Of the optimizer's kernels: a loop launches next to nothing else."""


def is_for_loop(linked: Linked, found: pl.DataFrame) -> bool:
    """Tell whether the optimizer's kernels, of `_work.kernels`, are those of a loop."""
    mine = found.filter(pl.col("phase") == "optimizer")
    looped = _looped(mine)
    count = int(looped["count"].sum())
    return count >= _MANY * step_count(linked) and count > _MOST * int(mine["count"].sum())


def _looped(mine: pl.DataFrame) -> pl.DataFrame:
    return mine.filter(pl.col("family") == "elementwise")


def _find(linked: Linked) -> Iterator[Finding]:
    found = kernels(linked)
    mine = found.filter(pl.col("phase") == "optimizer")
    if mine.is_empty() and linked.phase_source == "none":
        raise NothingToShowError("no phases are known")
    if not is_for_loop(linked, found):
        return
    rows = _looped(mine)
    count, time_ns = int(rows["count"].sum()), time_of(rows)
    if not is_worth(linked, time_ns):
        return
    mean = units.time(round(time_ns / count))
    yield Finding(
        rule="for_loop_optimizer",
        says=f"optimizer launches {per_step(linked, count, 'kernel')} of {mean} on average.",
        evidence=(
            Evidence("families", "elementwise kernels of the optimizer", count, "count"),
            Evidence("families", "their time", time_ns, "ns"),
            share_of_kernels("of kernel time", time_ns, time_of(found)),
        ),
        change="A foreach or fused optimizer does the same work in a few dozen launches.",
        cost_ns=time_ns,
        gain_ns=time_ns,
        assumption=(
            "a fused step took no time; it does read and write parameters, gradients and state once"
        ),
        subject="optimizer",
    )


FINDING = Rule(_find)
