"""Fragmentation: memory that the allocator holds and cannot use, by three numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens.analyses import Analysis
from tracelens.errors import NothingToShowError
from tracelens.links.free_space import free_space
from tracelens.links.moments import named

if TYPE_CHECKING:
    from tracelens.links.memory import Memory

_SCHEMA: Final = {
    "device": pl.Int32,
    "at": pl.String,
    "index": pl.Int64,
    "reserved_bytes": pl.Int64,
    "active_bytes": pl.Int64,
    "unused_bytes": pl.Int64,
    "unused_share": pl.Float64,
    "inactive_split_bytes": pl.Int64,
    "size_bytes": pl.Int64,
    "stranded_bytes": pl.Int64,
    "largest_free_bytes": pl.Int64,
}


@Analysis
def fragmentation(memory: Memory) -> pl.DataFrame:
    """Return one row per device and moment: peak, end and the last out-of-memory error.

    (1) `unused_bytes` is reserved less active; its course over time stands in `timeline`.
    (2) `inactive_split_bytes` are free pieces of segments that also hold live blocks, which the
    allocator cannot give back to the device. (3) `stranded_bytes` are free pieces smaller than
    `size_bytes`: the request of the error, or else the largest allocation of the recording. They
    cannot serve such a request, however many they are.

    Raises:
        NothingToShowError: the recording does not know segments.
    """
    biggest = dict(memory.lives.group_by("device").agg(pl.col("size_bytes").max()).iter_rows())
    rows = []
    for at in ("peak", "oom", "end"):
        for moment in named(memory, at):
            gaps = free_space(memory, moment.device, moment.index)
            if gaps is None or moment.reserved_bytes is None:
                raise NothingToShowError("segments are known of PyTorch's memory snapshots only")
            size = biggest.get(moment.device)
            if at == "oom" and moment.index is not None:
                size = memory.of(moment.device).row(moment.index, named=True)["size_bytes"]
            unused = moment.reserved_bytes - moment.active_bytes
            rows.append(
                {
                    "device": moment.device,
                    "at": at,
                    "index": moment.index,
                    "reserved_bytes": moment.reserved_bytes,
                    "active_bytes": moment.active_bytes,
                    "unused_bytes": unused,
                    "unused_share": unused / moment.reserved_bytes if moment.reserved_bytes else 0,
                    "inactive_split_bytes": gaps.filter("split")["bytes"].sum(),
                    "size_bytes": size,
                    "stranded_bytes": gaps.filter(pl.col("bytes") < (size or 0))["bytes"].sum(),
                    "largest_free_bytes": gaps["bytes"].max() or 0,
                }
            )
    return pl.DataFrame(rows, schema=_SCHEMA, strict=False).sort("device", maintain_order=True)


ANALYSIS = fragmentation
