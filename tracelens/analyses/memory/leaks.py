"""Blocks that outlive the step after the one that allocated them: what may leak."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from tracelens.analyses import Analysis
from tracelens.errors import NothingToShowError

if TYPE_CHECKING:
    from tracelens.links.memory import Memory

_LEAST = 2


@Analysis
def leaks(memory: Memory) -> pl.DataFrame:
    """Return one row per device and line whose blocks of step k are still active after step k+1.

    `steps` counts the steps that left such blocks; where more than one did, `grows` is true: the
    line leaks step by step. What the first step alone leaves is most often state made once, as an
    optimizer's.

    Raises:
        NothingToShowError: the recording has fewer than two steps.
    """
    ends = (
        memory.events.lazy()
        .filter(pl.col("step").is_not_null())
        .group_by("device", "step")
        .agg(last=pl.col("index").max())
        .collect()
    )
    if ends["step"].n_unique() < _LEAST:
        raise NothingToShowError("leaks show between steps, and fewer than two steps are known")
    after = ends.select("device", step=pl.col("step") - 1, next_last="last").join(
        ends, on=["device", "step"], how="semi"
    )
    watched = after["step"].n_unique()
    found = (
        memory.lives.lazy()
        .filter(pl.col("step").is_not_null())
        .join(after.lazy(), on=["device", "step"])
        .filter(pl.col("completed_index").fill_null(2**62) > pl.col("next_last"))
        .join(memory.stacks.lazy().select("stack_id", "site", "via"), on="stack_id", how="left")
        .group_by("device", "phase", "site", "via")
        .agg(
            bytes=pl.col("size_bytes").sum(),
            blocks=pl.len().cast(pl.Int64),
            steps=pl.col("step").n_unique().cast(pl.Int64),
        )
        .with_columns(
            bytes_per_step=(pl.col("bytes") / pl.col("steps")).cast(pl.Int64),
            grows=pl.col("steps") > 1,
            steps_watched=pl.lit(watched, pl.Int64),
            phase=pl.col("phase").cast(pl.String),
        )
    )
    order = ["grows", "bytes", "device", "site", "via", "phase"]
    return found.sort(order, descending=[True, True, False, False, False, False]).collect()


ANALYSIS = leaks
