"""Small products: grids of fewer blocks than the GPU has multiprocessors, so that some are idle."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from tracelens import units
from tracelens.analyses.launch_shapes import launch_shapes
from tracelens.errors import NothingToShowError
from tracelens.findings import Evidence, Finding, Rule
from tracelens.findings._work import is_worth, many

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracelens.links.linked import Linked


def _find(linked: Linked) -> Iterator[Finding]:
    shapes = launch_shapes(linked)
    products = shapes.filter(pl.col("family").is_in(["gemm", "triton_template"]))
    if products.is_empty():
        return
    known = products.filter(pl.col("sm_count") > 0)
    if known.is_empty():
        raise NothingToShowError("how many multiprocessors the GPU has was not recorded")
    small = known.filter(pl.col("blocks") < pl.col("sm_count"))
    idle = 1 - pl.col("blocks") / pl.col("sm_count")
    time_ns = int(small["total_ns"].sum())
    idle_ns = round(float(small.select((pl.col("total_ns") * idle).sum()).item()))
    if not is_worth(linked, idle_ns):
        return
    sms = int(small["sm_count"].max())  # type: ignore[arg-type]
    calls = int(small["calls"].sum())
    top = small.row(0, named=True)
    yield Finding(
        rule="small_gemms",
        says=(
            f"Products too small for {sms} SMs take {units.time(time_ns)} "
            f"({many(calls, 'call')}): {units.share(idle_ns / time_ns)} of the SMs idle meanwhile."
        ),
        evidence=(
            Evidence("launch_shapes", "time of products with fewer blocks than SMs", time_ns, "ns"),
            Evidence("launch_shapes", "calls of them", calls, "count"),
            Evidence("launch_shapes", "of the SMs idle meanwhile", idle_ns / time_ns, "share"),
            Evidence("devices", "multiprocessors", sms, "count"),
        ),
        change="Larger batches, or batched, grouped or split-k products.",
        cost_ns=time_ns,
        gain_ns=idle_ns,
        assumption="the same work was spread over all multiprocessors without loss",
        subject=top["name"],
    )


FINDING = Rule(_find, costly=True)
