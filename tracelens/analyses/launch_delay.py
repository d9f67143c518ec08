"""From the launching call to the kernel's start: time in the call, and time in the queue."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from tracelens.analyses import Analysis
from tracelens.errors import NothingToShowError

if TYPE_CHECKING:
    from tracelens.links.linked import Linked


@Analysis
def launch_delay(linked: Linked) -> pl.DataFrame:
    """Return one row per kernel name with linked launches, most time first.

    `api` is how long the call took. `queue` is from the call's end to the kernel's start; a
    kernel that started before its call returned was not queued and does not count there.
    `total` is from the call's start to the end of the later of the two.
    """
    kernels = linked.ops.filter(pl.col("kind") == "kernel", pl.col("launch_row").is_not_null())
    if kernels.is_empty():
        raise NothingToShowError("no kernel's launch was recorded")
    ends = linked.trace["api"].select("end_ns").collect()["end_ns"]
    kernels = kernels.with_columns(returned_ns=ends.gather(kernels["launch_row"]))
    waited = pl.col("start_ns") - pl.col("returned_ns")
    queue = pl.when(waited > 0).then(waited)
    api = pl.col("returned_ns") - pl.col("launch_ns")
    total = pl.max_horizontal("returned_ns", "end_ns") - pl.col("launch_ns")
    return (
        kernels.lazy()
        .group_by("name_id", "kind")
        .agg(
            calls=pl.len().cast(pl.Int64),
            api_mean_ns=api.mean(),
            api_median_ns=api.median(),
            queued=queue.count().cast(pl.Int64),
            queue_mean_ns=queue.mean(),
            queue_median_ns=queue.median(),
            queue_max_ns=queue.max(),
            kernel_mean_ns=(pl.col("end_ns") - pl.col("start_ns")).mean(),
            total_mean_ns=total.mean(),
            # Clocks that lie apart would overflow 64 bits.
            total_ns=total.cast(pl.Int128).sum().cast(pl.Int64, strict=False),
        )
        .join(linked.names.lazy(), on=["name_id", "kind"], how="left")
        .sort("total_ns", "name", descending=[True, False])
        .collect()
    )


ANALYSIS = launch_delay
