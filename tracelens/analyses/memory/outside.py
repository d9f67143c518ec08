"""Device memory outside the caching allocator: the CUDA context, NCCL, cuBLAS, other processes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens.analyses import Analysis
from tracelens.analyses.memory.ooms import ooms
from tracelens.errors import NothingToShowError

if TYPE_CHECKING:
    from tracelens.links.memory import Memory

_SCHEMA: Final = {
    "device": pl.Int32,
    "index": pl.Int64,
    "total_bytes": pl.Int64,
    "free_bytes": pl.Int64,
    "reserved_bytes": pl.Int64,
    "outside_bytes": pl.Int64,
}


@Analysis
def outside(memory: Memory) -> pl.DataFrame:
    """Return one row per out-of-memory error of a device whose size is known.

    `outside_bytes` is the device's memory less what was free and what the allocator held. Other
    processes on the device count in it.

    Raises:
        NothingToShowError: it cannot be known.
    """
    if memory.kind != "snapshot":
        raise NothingToShowError("it is known at an out-of-memory error in a snapshot only")
    sizes = _sizes(memory)
    errors = ooms(memory).filter(pl.col("free_bytes").is_not_null())
    if errors.is_empty():
        raise NothingToShowError(
            "a snapshot sees PyTorch's caching allocator only; what else is on the device can be "
            "told at an out-of-memory error, of which there is none (nvidia-smi shows it)"
        )
    known = errors.join(sizes, on="device")
    if known.is_empty():
        raise NothingToShowError(
            "a snapshot does not say how much memory the device has; a recording of the same run "
            "by torch.profiler or nsys does"
        )
    rest = pl.col("total_bytes") - pl.col("free_bytes") - pl.col("reserved_bytes")
    return known.with_columns(outside_bytes=rest).select(list(_SCHEMA))


def _sizes(memory: Memory) -> pl.DataFrame:
    sizes = pl.DataFrame(schema={"device": pl.Int32, "total_bytes": pl.Int64})
    for trace in (memory.trace, memory.other):
        table = None if trace is None else trace.get("devices")
        if table is not None:
            found = table.select("device", total_bytes="memory_bytes").drop_nulls().unique("device")
            sizes = pl.concat([sizes, found.collect()])
    return sizes.unique("device", keep="first")


ANALYSIS = outside
