"""Grid, block, registers and shared memory of kernels: read out of the recording when asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens.errors import NothingToShowError, UnreadableError
from tracelens.readers.open import open_trace

if TYPE_CHECKING:
    from tracelens.links.linked import Linked

SHAPE: Final = (
    "grid_x", "grid_y", "grid_z", "block_x", "block_y", "block_z", "registers", "shared_bytes",
)  # fmt: skip
_MOST: Final = 5_000_000
"""Of larger recordings it would take long, and much memory."""


def launch_shapes(linked: Linked) -> pl.DataFrame:
    """Return op_id and `SHAPE` of the GPU ops of a linked trace, in order of its ops.

    Raises:
        NothingToShowError: they were not recorded, or the recording is too large or gone.
    """
    table = _with_shapes(linked)
    rows = table.select(SHAPE).with_row_index("op_id").collect()
    if linked.whole and rows.height == linked.ops.height:
        found = rows
    else:
        found = linked.ops.select("op_id").join(rows, on="op_id", how="left", maintain_order="left")
    if found["grid_x"].null_count() == found.height:
        raise NothingToShowError("the recording does not tell how large grids were")
    return found


def _with_shapes(linked: Linked) -> pl.LazyFrame:
    table = linked.trace["gpu_ops"]
    if set(SHAPE) <= set(table.collect_schema().names()):
        return table
    path = linked.trace.source.path
    height = table.select(pl.len()).collect().item()
    if height > _MOST:
        raise NothingToShowError(f"grids of more than {_MOST:,} GPU ops are not read")
    try:
        again = open_trace(path, everything=True).get("gpu_ops")
    except UnreadableError as error:
        raise NothingToShowError(f"grids are read out of the recording itself: {error}") from error
    lacks = again is None or not set(SHAPE) <= set(again.collect_schema().names())
    if again is None or lacks or again.select(pl.len()).collect().item() != height:
        raise NothingToShowError("the recording does not tell how large grids were")
    return again
