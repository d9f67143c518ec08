"""Tail effects: grids a little larger than full waves, so that the last one is nearly empty."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens import units
from tracelens.analyses.launch_shapes import launch_shapes
from tracelens.errors import NothingToShowError
from tracelens.findings import Evidence, Finding, Rule
from tracelens.findings._work import is_worth, many

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracelens.links.linked import Linked

_EVEN: Final = ("gemm", "conv", "attention", "triton_template")
"""Families whose blocks take as long as one another; blocks of others wait for memory, and those
that remain get more of it."""

_FULLEST: Final = 0.5
"""Of the last wave: a fuller one costs less than what estimates of occupancy are wrong by."""


def _find(linked: Linked) -> Iterator[Finding]:
    shapes = launch_shapes(linked).filter(pl.col("family").is_in(_EVEN))
    if shapes.is_empty():
        return
    known = shapes.filter(pl.col("waves").is_not_null())
    if known.is_empty():
        raise NothingToShowError(
            "occupancy is not known: registers, shared memory or the GPU's facts were not recorded"
        )
    waves = pl.col("waves")
    last = waves - waves.floor()
    tails = known.filter(waves > 1, last > 0, last <= _FULLEST)
    lost = pl.col("total_ns") * (1 - waves / waves.ceil())
    time_ns = int(tails["total_ns"].sum())
    lost_ns = round(float(tails.select(lost.sum()).item()))
    if not is_worth(linked, lost_ns):
        return
    top = tails.sort(lost, descending=True).row(0, named=True)
    calls = int(tails["calls"].sum())
    yield Finding(
        rule="tail_effects",
        says=(
            f"Kernels that leave their last wave nearly empty take {units.time(time_ns)} "
            f"({many(calls, 'call')}): {units.share(lost_ns / time_ns)} of it is lost to idle SMs."
        ),
        evidence=(
            Evidence("launch_shapes", "time of such kernels", time_ns, "ns"),
            Evidence("launch_shapes", "calls of them", calls, "count"),
            Evidence("launch_shapes", "waves of the one that loses most", top["waves"], "count"),
            Evidence(
                "launch_shapes", "of their time lost to SMs that idle", lost_ns / time_ns, "share"
            ),
        ),
        change="Other tile sizes (max-autotune), or split-k.",
        cost_ns=time_ns,
        gain_ns=lost_ns,
        assumption="blocks take equally long, and the last wave was spread over all of the GPU",
        subject=top["name"],
    )


FINDING = Rule(_find, costly=True)
