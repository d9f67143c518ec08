"""Unfused elementwise work: kernels that each pass over memory for one operation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens import units
from tracelens.findings import Evidence, Finding, Rule
from tracelens.findings._work import is_worth, kernels, many, share_of_kernels, time_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracelens.links.linked import Linked

_UNFUSED: Final = ("elementwise", "copy")
"""Families of one operation a kernel; casts are of the family copy. Triton's are fused."""

_SHARE: Final = 0.15
"""Of kernel time outside of the optimizer: GPT-2 XL in fp32 has less, since its products take long;
small models and mixed precision have more, and gain from fusing."""

_MANY: Final = 20
"""Kernels in chains: fewer are no habit of a model, but what one line does."""

_STREAM: Final = ["device", "pid", "context", "stream"]


def _find(linked: Linked) -> Iterator[Finding]:
    found = kernels(linked)
    outside = found.filter(pl.col("phase").fill_null("") != "optimizer")
    unfused = outside.filter(pl.col("family").is_in(_UNFUSED))
    time_ns, whole_ns = time_of(unfused), time_of(outside)
    if time_ns < _SHARE * whole_ns or not is_worth(linked, time_ns):
        return
    chains = _chains(linked, unfused["name_id"].unique())
    spared_ns = int(chains["spared_ns"].sum())
    in_chains = int(chains["kernels"].sum())
    if in_chains < _MANY or not is_worth(linked, spared_ns):
        return
    yield Finding(
        rule="unfused_elementwise",
        says=(
            f"{units.share(time_ns / whole_ns)} of kernel time outside the optimizer is unfused "
            f"elementwise work, {many(in_chains, 'kernel')} of it in chains."
        ),
        evidence=(
            Evidence("families", "time of elementwise and copy kernels", time_ns, "ns"),
            share_of_kernels("of kernel time outside of the optimizer", time_ns, whole_ns),
            Evidence("kernels", "that directly follow one another on a stream", in_chains, "count"),
        ),
        change="torch.compile fuses neighbours.",
        cost_ns=time_ns,
        gain_ns=spared_ns,
        assumption="each chain of neighbours took as long as its longest kernel",
    )


def _chains(linked: Linked, names: pl.Series) -> pl.DataFrame:
    """Return of each run of two and more such kernels on a stream: kernels, spared_ns."""
    ops = linked.with_columns_of_ops("context", "stream").filter(
        pl.col("kind") == "kernel", pl.col("phase").cast(pl.String).fill_null("") != "optimizer"
    )
    took = pl.col("end_ns") - pl.col("start_ns")
    fits = pl.col("name_id").is_in(names.implode())
    return (
        ops.select(*_STREAM, "start_ns", took=took, fits=fits)
        .sort(*_STREAM, "start_ns")
        .with_columns(run=pl.struct(*_STREAM, "fits").rle_id())
        .filter("fits")
        .group_by("run")
        .agg(kernels=pl.len(), spared_ns=pl.col("took").sum() - pl.col("took").max())
        .filter(pl.col("kernels") > 1)
        .collect()
    )


FINDING = Rule(_find)
