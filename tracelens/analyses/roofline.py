"""Ops and kernels below the roofline: what they reach of the GPU's ceilings, and what that costs.

Operations and bytes are the least that the inputs of each op ask for (`links.op_costs`), or what
the GPU itself counted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import polars as pl

from tracelens.analyses import Analysis
from tracelens.errors import NothingToShowError
from tracelens.links.bounds import Judged, Piece, judge
from tracelens.links.costs import costs
from tracelens.links.counters import of_linked as counters_of
from tracelens.links.gpu_ceilings import ceilings_of
from tracelens.links.op_inputs import shapes
from tracelens.links.ops import ops_of

if TYPE_CHECKING:
    from tracelens.hardware import Ceilings
    from tracelens.links.linked import Linked

_KEY: Final = ["name", "dims", "types", "dtype", "format", "certain", "matmul", "source"]
_KNOWN: Final = pl.col("source").is_not_null()
_NO_VECTOR: Final = ("float64", "complex32", "complex64", "complex128")
"""Types whose operations the vector ceiling, which is of fp32, is not stated for."""
_SCHEMA: Final = {
    "name": pl.String,
    "shapes": pl.String,
    "dtype": pl.String,
    "calls": pl.Int64,
    "kernels": pl.Int64,
    "time_ns": pl.Int64,
    "share": pl.Float64,
    "flops": pl.Int64,
    "bytes": pl.Int64,
    "intensity": pl.Float64,
    "flops_per_s": pl.Float64,
    "bytes_per_s": pl.Float64,
    "ceiling": pl.String,
    "share_of_ceiling": pl.Float64,
    "bound": pl.String,
    "bound_ns": pl.Int64,
    "lost_ns": pl.Int64,
    "verdict": pl.String,
    "remark": pl.String,
    "source": pl.String,
    "format": pl.String,
    "certain": pl.Boolean,
    "causal": pl.Boolean,
    "dims": pl.String,
    "types": pl.String,
}


@Analysis
def roofline(linked: Linked) -> pl.DataFrame:
    """Return one row per op, shapes and types of its inputs, most time lost first.

    Work without a known cost stands last, by its op or kernel, without a `source`; `share` is of
    the time of all rows, which is that of all work inside the GPU (kernels, graphs, memsets,
    copies within it).

    - `kernels` counts memsets and copies, too; `time_ns` is the sum of their durations.
    - `intensity` is FLOP per byte; `flops_per_s` and `bytes_per_s` what was reached.
    - `ceiling`, `bound`, `bound_ns`, `verdict`: see `links.bounds`; `lost_ns` is `time_ns` less
      `bound_ns`. What is `impossible` has no rates, no share and no time lost.
    - `format` is the number format of matrix products; where fp32 may have been tf32, `certain`
      is false, and the ceiling is the higher one.
    - `causal`: products that a causal mask hides are not in `flops`; `remark` says these two.

    Raises:
        NothingToShowError: the recording tells the cost of no work.
    """
    return against(linked, costs_of(linked))


def costs_of(linked: Linked) -> pl.DataFrame:
    """Return `links.costs.costs` of a trace, computed once.

    Raises:
        NothingToShowError: the recording tells the cost of no work.
    """
    counters = counters_of(linked)
    if linked.ops.is_empty() or (ops_of(linked) is None and counters is None):
        raise NothingToShowError(_why_unknown(linked))
    found = linked.once("costs", lambda of: costs(of, counters))
    if found.filter(_KNOWN).is_empty():
        raise NothingToShowError(_why_unknown(linked))
    return found


def against(linked: Linked, work: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of `roofline` for work with its costs, as `links.costs.costs` has it."""
    on = ceilings_of(linked)
    rows = (
        work.group_by(_KEY)
        .agg(
            pl.col("causal").any(),
            pl.col("calls", "gpu_ops", "time_ns").sum(),
            pl.col("alike_bytes").cast(pl.Int128).sum().cast(pl.Int64, strict=False).fill_null(0),
            *(_sum_if_known(name) for name in ("flops", "bytes")),
        )
        .sort(*_KEY)
    )
    table = pl.DataFrame(
        [_row(row, on) for row in rows.iter_rows(named=True)],
        schema={n: t for n, t in _SCHEMA.items() if n not in ("shapes", "share")},
    )
    total = pl.col("time_ns").sum()
    return (
        table.with_columns(
            shapes=shapes(table["dims"]), share=(pl.col("time_ns") / total).fill_nan(0.0)
        )
        .sort(
            _KNOWN, "lost_ns", "time_ns", "name", "dims", "types",
            descending=[True, True, True, False, False, False],
            nulls_last=True,
        )
        .select(list(_SCHEMA))
    )  # fmt: skip


def judged(row: dict[str, Any], on: Ceilings | None) -> Judged:
    """Return how a row of costs stands to the ceilings."""
    return judge(
        Piece(
            time_ns=row["time_ns"],
            calls=row["calls"],
            kernels=row["gpu_ops"],
            flops=row["flops"],
            bytes=row["bytes"],
            alike_bytes=row["alike_bytes"],
            matmul=row["matmul"],
            format=row["format"],
            vector=row["dtype"] not in _NO_VECTOR,
        ),
        on,
    )


def _row(row: dict[str, Any], on: Ceilings | None) -> dict[str, Any]:
    found = judged(row, on)
    flops, size, took = row["flops"], found.bytes, row["time_ns"]
    timed = found.is_possible and took > 0
    is_lost = found.bound_ns is not None and found.is_possible
    return {
        **{name: row[name] for name in ("name", "dtype", "calls", "time_ns", "source", "format")},
        **{name: row[name] for name in ("certain", "causal", "dims", "types")},
        "kernels": row["gpu_ops"],
        "flops": flops,
        "bytes": size,
        "intensity": flops / size if flops is not None and size else None,
        "flops_per_s": flops * 1e9 / took if flops is not None and timed else None,
        "bytes_per_s": size * 1e9 / took if size is not None and timed else None,
        "ceiling": found.ceiling,
        "share_of_ceiling": found.share,
        "bound": found.bound,
        "bound_ns": found.bound_ns,
        "lost_ns": took - found.bound_ns if is_lost and found.bound_ns is not None else None,
        "verdict": found.verdict,
        "remark": _remark(row),
    }


def _remark(row: dict[str, Any]) -> str:
    """Say how operations were counted where it could be otherwise."""
    causal = "causal half" if row["causal"] else ""
    return ", ".join(filter(None, (causal, "" if row["certain"] else "tf32 or fp32")))


def _sum_if_known(name: str) -> pl.Expr:
    """Sum what may be large; None where one of the numbers is not known."""
    total = pl.col(name).cast(pl.Int128).sum().cast(pl.Int64, strict=False)
    return pl.when(pl.col(name).is_not_null().all()).then(total).alias(name)


def _why_unknown(linked: Linked) -> str:
    if linked.ops.is_empty():
        return "there is no GPU work among the events"
    if "op_counters" in linked.trace:
        return (
            "the counters do not tell both operations and bytes: ncu --set roofline records them "
            "(tracelens capture --with ncu:roofline)"
        )
    if ops_of(linked) is None:
        return (
            "what GPU work computes and moves is not in the recording: torch.profiler with "
            "record_shapes=True records the shapes of PyTorch's ops (a Run folder of a workload "
            "has its formulas)"
        )
    return (
        "shapes of inputs were not recorded, or those of no op with a formula: "
        "torch.profiler.profile(record_shapes=True) records them"
    )


ANALYSIS = roofline
