"""Grid, block, registers and shared memory of kernels: read out of the recording when asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens.errors import TracelensError
from tracelens.readers.open import open_trace

if TYPE_CHECKING:
    from tracelens_dashboards.library import Opened

SHAPE: Final = (
    "grid_x", "grid_y", "grid_z", "block_x", "block_y", "block_z", "registers", "shared_bytes",
)  # fmt: skip
_MOST: Final = 2_000_000
"""Of larger recordings it would take long, and much memory."""


def launch_shapes(opened: Opened) -> pl.DataFrame:
    """Return `SHAPE` of each GPU op, by op_id; without rows where not recorded or too much."""
    return opened.once("timeline launch shapes", lambda: _read(opened))


def _read(opened: Opened) -> pl.DataFrame:
    nothing = pl.DataFrame(schema=dict.fromkeys(SHAPE, pl.Int32))
    height = opened.linked.ops.height
    if height > _MOST:
        return nothing
    try:
        table = open_trace(opened.trace.source.path, everything=True).get("gpu_ops")
    except TracelensError:
        return nothing
    if table is None or not set(SHAPE) <= set(table.collect_schema().names()):
        return nothing
    found = table.select(SHAPE).collect()
    return found if found.height == height else nothing
