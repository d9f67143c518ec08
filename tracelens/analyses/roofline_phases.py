"""Phases below the roofline: operations, bytes, and how much of the GPU's ceilings they reach."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import polars as pl

from tracelens.analyses import Analysis
from tracelens.analyses.phases import phases
from tracelens.analyses.roofline import costs_of, judged
from tracelens.links.gpu_ceilings import ceilings_of

if TYPE_CHECKING:
    from tracelens.hardware import Ceilings
    from tracelens.links.linked import Linked

_SCHEMA: Final = {
    "phase": pl.String,
    "busy_ns": pl.Int64,
    "time_ns": pl.Int64,
    "known_ns": pl.Int64,
    "known_share": pl.Float64,
    "flops": pl.Int64,
    "bytes": pl.Int64,
    "intensity": pl.Float64,
    "mfu": pl.Float64,
    "mbu": pl.Float64,
    "bound": pl.String,
    "bound_ns": pl.Int64,
    "lost_ns": pl.Int64,
    "impossible": pl.Int64,
}
SUMS: Final = {
    "time_ns": pl.Int64,
    "known_ns": pl.Int64,
    "flops": pl.Int64,
    "bytes": pl.Int64,
    "bound_ns": pl.Int64,
    "compute_bound_ns": pl.Int64,
    "lost_ns": pl.Int64,
    "impossible": pl.Int64,
    "with_flops": pl.Int64,
    "with_bytes": pl.Int64,
    "matmul_ns": pl.Float64,
    "memory_ns": pl.Float64,
}
"""What rows of costs add up to."""


@Analysis
def roofline_phases(linked: Linked) -> pl.DataFrame:
    """Return one row per phase, in the order of training; a null phase is work in none.

    - `busy_ns` is the union of all GPU work of the phase, `time_ns` the sum of durations of work
      inside the GPU, `known_ns` of that whose cost is known, `known_share` its share.
    - `flops`, `bytes`: of what is known; matrix products and everything else.
    - `mfu`: the least time of the matrix products, each at the peak of its number format, as a
      share of `busy_ns`; `mbu` that of the bytes at the memory's bandwidth.
    - `bound_ns`: the least time of all that is known, one call after the other; `bound` is what
      bounds most of it, `lost_ns` how much longer it took.
    - `impossible` counts rows of `roofline` that claim more than the GPU can do. They are in
      `time_ns` alone.

    Raises:
        NothingToShowError: the recording tells the cost of no work.
    """
    on = ceilings_of(linked)
    known = summed(costs_of(linked), ["phase"], on)
    busy = phases(linked).select("phase", "busy_ns")
    joined = busy.join(known, on="phase", how="inner", nulls_equal=True, maintain_order="left")
    return joined.with_columns(**of_sums(on)).select(
        pl.col(name).cast(kind) for name, kind in _SCHEMA.items()
    )


def summed(work: pl.DataFrame, by: list[str], on: Ceilings | None) -> pl.DataFrame:
    """Return sums of work with its costs (`SUMS`), as it stands to the ceilings."""
    rows = [_parts(row, by, on) for row in work.iter_rows(named=True)]
    parts = pl.DataFrame(rows, schema={**dict.fromkeys(by, pl.String), **SUMS})
    wide = [pl.col(n).cast(pl.Int128) if kind == pl.Int64 else n for n, kind in SUMS.items()]
    sums = parts.select(*by, *wide).group_by(by).agg(pl.col(*SUMS).sum())
    return sums.cast(SUMS, strict=False)  # type: ignore[arg-type]


def of_sums(on: Ceilings | None) -> dict[str, pl.Expr]:
    """Return the columns that follow from `SUMS` and `busy_ns`.

    Where no cost is known, or there are no ceilings to hold it against, they are null.
    """
    known = pl.col("known_ns") > 0
    computes, moves = pl.col("with_flops") > 0, pl.col("with_bytes") > 0
    found = {
        "mfu": pl.when(computes).then(pl.col("matmul_ns") / pl.col("busy_ns")),
        "mbu": pl.when(moves).then(pl.col("memory_ns") / pl.col("busy_ns")),
        "bound_ns": pl.col("bound_ns"),
        "lost_ns": pl.col("lost_ns"),
        "bound": pl.when(pl.col("compute_bound_ns") * 2 >= pl.col("bound_ns"))
        .then(pl.lit("compute"))
        .otherwise(pl.lit("memory")),
    }
    if on is None:
        found = {name: pl.lit(None) for name in found}
    return {
        "flops": pl.when(computes).then("flops"),
        "bytes": pl.when(moves).then("bytes"),
        **{name: pl.when(known).then(value) for name, value in found.items()},
        "known_share": (pl.col("known_ns") / pl.col("time_ns")).fill_nan(0.0),
        "intensity": pl.when(computes & (pl.col("bytes") > 0)).then(
            pl.col("flops") / pl.col("bytes")
        ),
    }


def _parts(row: dict[str, Any], by: list[str], on: Ceilings | None) -> dict[str, Any]:
    """Return what a row of costs adds to the sums."""
    found = judged(row, on)
    key = {name: row[name] for name in by}
    took = row["time_ns"]
    if row["source"] is None or not found.is_possible:
        wrong = row["source"] is not None
        return {**dict.fromkeys(SUMS, 0), **key, "time_ns": took, "impossible": int(wrong)}
    bound_ns = found.bound_ns or 0
    is_compute = found.ceiling is not None and found.ceiling != "bandwidth"
    return {
        **key,
        "time_ns": took,
        "known_ns": took,
        "flops": row["flops"] or 0,
        "bytes": found.bytes or 0,
        "with_flops": int(row["flops"] is not None),
        "with_bytes": int(found.bytes is not None),
        "matmul_ns": found.matmul_ns or 0.0,
        "memory_ns": found.memory_ns or 0.0,
        "bound_ns": bound_ns,
        "compute_bound_ns": bound_ns * is_compute,
        "lost_ns": 0 if found.bound_ns is None else took - bound_ns,
        "impossible": 0,
    }


ANALYSIS = roofline_phases
