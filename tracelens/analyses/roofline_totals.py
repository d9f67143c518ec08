"""All GPU work below the roofline: what is known of it, MFU and MBU, with and without idle time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens import units
from tracelens.analyses import Analysis
from tracelens.analyses.roofline import costs_of
from tracelens.analyses.roofline_phases import of_sums, summed
from tracelens.analyses.totals import totals
from tracelens.links.gpu_ceilings import ceilings_of

if TYPE_CHECKING:
    from tracelens.links.linked import Linked

_LISTED: Final = 3
_SCHEMA: Final = {
    "busy_ns": pl.Int64,
    "time_ns": pl.Int64,
    "known_ns": pl.Int64,
    "known_share": pl.Float64,
    "unknown": pl.String,
    "flops": pl.Int64,
    "bytes": pl.Int64,
    "intensity": pl.Float64,
    "mfu": pl.Float64,
    "mbu": pl.Float64,
    "bound": pl.String,
    "bound_ns": pl.Int64,
    "lost_ns": pl.Int64,
    "span_ns": pl.Int64,
    "mfu_of_span": pl.Float64,
    "mbu_of_span": pl.Float64,
    "impossible": pl.Int64,
    "gpu": pl.String,
    "ceilings": pl.String,
}


@Analysis
def roofline_totals(linked: Linked) -> pl.DataFrame:
    """Return one row: the columns of `roofline_phases` over all work, and some more.

    - `unknown`: what takes most of the time whose cost is not known, with its share.
    - `span_ns`: first start to last end per device, summed; `mfu_of_span` and `mbu_of_span` are
      of it, idle time included.
    - `gpu`, `ceilings`: whose ceilings, and where they are from; null: not known.

    Raises:
        NothingToShowError: the recording tells the cost of no work.
    """
    on = ceilings_of(linked)
    work = costs_of(linked)
    whole = totals(linked).select("busy_ns", "span_ns")
    sums = pl.concat([whole, summed(work, [], on)], how="horizontal")
    span = pl.col("span_ns")
    name = None if on is None else on.device.name if on.device else on.name
    return (
        sums.with_columns(**of_sums(on))
        .with_columns(
            mfu_of_span=pl.when(pl.col("mfu").is_not_null()).then(pl.col("matmul_ns") / span),
            mbu_of_span=pl.when(pl.col("mbu").is_not_null()).then(pl.col("memory_ns") / span),
            unknown=pl.lit(_unknown(work)),
            gpu=pl.lit(name),
            ceilings=pl.lit(on.origin if on else None),
        )
        .select(pl.col(name).cast(kind) for name, kind in _SCHEMA.items())
    )


def _unknown(work: pl.DataFrame) -> str:
    """Return the names of what has no known cost, with their shares of the time."""
    total = work["time_ns"].sum()
    rest = (
        work.filter(pl.col("source").is_null())
        .group_by("name")
        .agg(pl.col("time_ns").sum())
        .sort("time_ns", "name", descending=[True, False])
    )
    said = [f"{name} {units.share(took / total)}" for name, took in rest.head(_LISTED).iter_rows()]
    more = [f"{rest.height - _LISTED} more"] if rest.height > _LISTED else []
    return ", ".join([*said, *more])


ANALYSIS = roofline_totals
