"""Kernels by the size of their launch: grid, block, occupancy, and waves over the GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens.analyses import Analysis
from tracelens.errors import NothingToShowError
from tracelens.hardware.occupancy import blocks_per_sm
from tracelens.links.launch_shapes import SHAPE
from tracelens.links.launch_shapes import launch_shapes as of_ops
from tracelens.trace.store import remembered

if TYPE_CHECKING:
    from polars._typing import PolarsDataType

    from tracelens.links.linked import Linked

_SUMS: Final[dict[str, PolarsDataType]] = {
    "name_id": pl.Int32,
    "device": pl.Int32,
    **dict.fromkeys(SHAPE, pl.Int32),
    "calls": pl.Int64,
    "total_ns": pl.Int64,
}
_SCHEMA: Final[dict[str, PolarsDataType]] = {
    "name": pl.String,
    "short_name": pl.String,
    "family": pl.String,
    "device": pl.Int32,
    "grid": pl.String,
    "block": pl.String,
    "blocks": pl.Int64,
    "threads": pl.Int64,
    "registers": pl.Int32,
    "shared_bytes": pl.Int32,
    "sm_count": pl.Int32,
    "blocks_per_sm": pl.Int32,
    "waves": pl.Float64,
    "calls": pl.Int64,
    "total_ns": pl.Int64,
    "share": pl.Float64,
}


@Analysis
def launch_shapes(linked: Linked) -> pl.DataFrame:
    """Return one row per kernel, device, grid, block, registers and shared memory, by time.

    `blocks` are those of the grid, `threads` those of a block, `blocks_per_sm` how many fit into
    a multiprocessor (`hardware.occupancy`), `waves` how often the grid fills the GPU: blocks over
    `sm_count` times `blocks_per_sm`. Null is what the recording does not tell. `share` is of all
    kernel time, 0..1.

    Raises:
        NothingToShowError: there are no kernels, or their launches' sizes were not recorded.
    """
    if not (linked.ops["kind"] == "kernel").any():
        raise NothingToShowError("no kernel was recorded")
    sums = (
        remembered(linked.trace, "launch_shapes", lambda: _summed(linked), _fits)
        if linked.whole
        else _summed(linked)
    )
    return _described(linked, sums)


def _fits(frame: pl.DataFrame) -> bool:
    return dict(frame.schema) == dict(_SUMS)


def _summed(linked: Linked) -> pl.DataFrame:
    shapes = of_ops(linked).lazy().select(SHAPE)
    ops = pl.concat([linked.ops.lazy(), shapes], how="horizontal")
    return (
        ops.filter(pl.col("kind") == "kernel")
        .group_by("name_id", "device", *SHAPE)
        .agg(
            calls=pl.len().cast(pl.Int64),
            total_ns=(pl.col("end_ns") - pl.col("start_ns")).sum(),
        )
        .select(pl.col(name).cast(dtype) for name, dtype in _SUMS.items())
        .collect()
    )


def _described(linked: Linked, sums: pl.DataFrame) -> pl.DataFrame:
    names = linked.names.filter(pl.col("kind") == "kernel").drop("kind")
    rows = sums.join(names, on="name_id", how="left").join(
        _facts(linked), on="device", how="left", nulls_equal=True
    )
    axes = {what: [f"{what}_{axis}" for axis in "xyz"] for what in ("grid", "block")}
    known = rows.with_columns(
        grid=pl.concat_str(axes["grid"], separator=" x "),
        block=pl.concat_str(axes["block"], separator=" x "),
        blocks=_product(axes["grid"]),
        threads=_product(axes["block"]),
    )
    keys = ["capability", "threads", "registers", "shared_bytes"]
    fitting = [
        None if None in row else blocks_per_sm(*row) for row in known.select(keys).iter_rows()
    ]
    of_wave = pl.col("sm_count") * pl.col("blocks_per_sm")
    total = pl.col("total_ns")
    return (
        known.with_columns(blocks_per_sm=pl.Series(fitting, dtype=pl.Int32))
        .with_columns(
            waves=pl.when(of_wave > 0).then(pl.col("blocks") / of_wave),
            share=(total / total.sum()).fill_nan(0.0),
        )
        .sort("total_ns", "name", "device", "grid", "block", descending=[True, *[False] * 4])
        .select(pl.col(name).cast(dtype) for name, dtype in _SCHEMA.items())
    )


def _product(columns: list[str]) -> pl.Expr:
    first, second, third = (pl.col(name).cast(pl.Int64) for name in columns)
    return first * second * third


def _facts(linked: Linked) -> pl.DataFrame:
    """Return device, sm_count and capability, as one process saw them."""
    table = linked.trace.get("devices")
    schema = {"device": pl.Int32, "sm_count": pl.Int32, "capability": pl.String}
    if table is None:
        return pl.DataFrame(schema=schema)
    return table.select(list(schema)).collect().unique("device", keep="first")


ANALYSIS = launch_shapes
