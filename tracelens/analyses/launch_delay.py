"""From the launching call to the kernel's start: time in the call, and time in the queue."""

from __future__ import annotations

import polars as pl

from tracelens.analyses import Analysis
from tracelens.errors import NothingToShowError
from tracelens.links.linked import Linked


def launch_delay(linked: Linked) -> pl.DataFrame:
    """Return one row per kernel name with linked launches, most time first.

    `api` is how long the call took. `queue` is from the call's end to the kernel's start; a
    kernel that started before its call returned was not queued and does not count there.
    `total` is from the call's start to the end of the later of the two.
    """
    linked_ops = linked.ops.lazy().filter(
        pl.col("kind") == "kernel", pl.col("launch_ns").is_not_null()
    )
    waited = pl.col("start_ns") - pl.col("launch_end_ns")
    queue = pl.when(waited > 0).then(waited)
    api = pl.col("launch_end_ns") - pl.col("launch_ns")
    last = pl.max_horizontal("launch_end_ns", "end_ns")
    table = (
        linked_ops.group_by("name_id", "kind")
        .agg(
            calls=pl.len().cast(pl.Int64),
            api_mean_ns=api.mean(),
            api_median_ns=api.median(),
            queued=queue.count().cast(pl.Int64),
            queue_mean_ns=queue.mean(),
            queue_median_ns=queue.median(),
            queue_max_ns=queue.max(),
            kernel_mean_ns=(pl.col("end_ns") - pl.col("start_ns")).mean(),
            total_mean_ns=(last - pl.col("launch_ns")).mean(),
            total_ns=(last - pl.col("launch_ns")).sum(),
        )
        .join(linked.names.lazy(), on=["name_id", "kind"], how="left")
        .sort("total_ns", "name", descending=[True, False])
        .drop("name_id", "kind", "family")
        .collect()
    )
    if table.is_empty():
        raise NothingToShowError("no kernel's launch was recorded")
    return table


ANALYSIS = Analysis(launch_delay)
