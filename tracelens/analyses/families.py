"""What kind of work each phase does: matmul, attention, elementwise and the other families."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from tracelens.analyses import Analysis

if TYPE_CHECKING:
    from tracelens.links.linked import Linked


@Analysis
def families(linked: Linked) -> pl.DataFrame:
    """Return one row per phase and family, largest first inside a phase.

    `share_of_phase` is of the phase's kernel and graph time, 0..1. CUDA graphs launched as a
    whole are the family `cuda_graph`: no kernels are known of them, and their time stands in
    `graph_time_ns`.
    """
    is_kernel = pl.col("kind") == "kernel"
    time = pl.col("kernel_time_ns") + pl.col("graph_time_ns")
    return (
        by_name(linked)
        .lazy()
        .join(linked.names.lazy(), on=["name_id", "kind"], how="left")
        .group_by("phase", "family")
        .agg(
            kernels=pl.col("count").filter(is_kernel).sum().cast(pl.Int64),
            kernel_time_ns=pl.col("time_ns").filter(is_kernel).sum(),
            graph_time_ns=pl.col("time_ns").filter(~is_kernel).sum(),
        )
        .with_columns(share_of_phase=(time / time.sum().over("phase")).fill_nan(0.0))
        .sort("phase", time, "family", descending=[False, True, False], nulls_last=True)
        .with_columns(pl.col("phase").cast(pl.String))
        .collect()
    )


def by_name(linked: Linked) -> pl.DataFrame:
    """Return count and time_ns of kernels and graphs by phase, name_id, kind and `how`.

    Names are few: what is asked of families or words of names is asked of hundreds of rows.
    """
    return linked.once("by_name", _by_name)


def _by_name(linked: Linked) -> pl.DataFrame:
    return (
        linked.ops.lazy()
        .filter(pl.col("kind").is_in(["kernel", "graph"]))
        .group_by("phase", "name_id", "kind", "how")
        .agg(
            count=pl.len().cast(pl.Int64),
            time_ns=(pl.col("end_ns") - pl.col("start_ns")).sum(),
        )
        .collect()
    )


ANALYSIS = families
