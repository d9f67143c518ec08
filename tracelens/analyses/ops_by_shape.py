"""PyTorch's ops by name, shapes and type of their inputs: calls, time, and what they compute."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens.analyses import Analysis
from tracelens.analyses.ops import SEEN, costs
from tracelens.errors import NothingToShowError
from tracelens.links.op_inputs import dtype, shapes
from tracelens.links.ops import calls, ops_of

if TYPE_CHECKING:
    from tracelens.links.linked import Linked

_SCHEMA: Final = {
    "name": pl.String,
    "shapes": pl.String,
    "dtype": pl.String,
    "calls": pl.Int64,
    "self_gpu_time_ns": pl.Int64,
    "gpu_time_ns": pl.Int64,
    "kernels": pl.Int64,
    "cpu_ns": pl.Int64,
    "self_cpu_ns": pl.Int64,
    "flops": pl.Int64,
    "flops_per_s": pl.Float64,
    "dims": pl.String,
    "types": pl.String,
}
_KEY: Final = ["name_id", "dims", "types"]


@Analysis
def ops_by_shape(linked: Linked) -> pl.DataFrame:
    """Return one row per op's name, input shapes and input types, in the order of `ops`.

    `shapes` and `dtype` leave out what is no tensor; `dims` and `types` are what was recorded.

    Raises:
        NothingToShowError: no shapes were recorded.
    """
    found = ops_of(linked)
    if found is None:
        return pl.DataFrame(schema=_SCHEMA)
    frame = calls(linked, found).filter(pl.col("dims").is_not_null())
    if frame.is_empty():
        raise NothingToShowError(
            "shapes of inputs were not recorded: record_shapes=True of torch.profiler.profile or "
            "torch.autograd.profiler.emit_nvtx records them"
        )
    table = (
        frame.lazy()
        .group_by(_KEY)
        .agg(**costs())
        .filter(SEEN)
        .collect()
        .join(found.names, on="name_id", how="left")
    )
    return (
        table.with_columns(shapes=shapes(table["dims"]), dtype=dtype(table["types"]))
        .sort(
            "self_gpu_time_ns", "self_cpu_ns", "name", "dims", "types",
            descending=[True, True, False, False, False],
        )
        .select(list(_SCHEMA))
    )  # fmt: skip


ANALYSIS = ops_by_shape
