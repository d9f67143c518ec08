"""Which API call launched which GPU op, by process and correlation id."""

from __future__ import annotations

from typing import Final

import polars as pl

LAUNCH_COLUMNS: Final = {
    "launch_ns": pl.Int64,
    "launch_end_ns": pl.Int64,
    "launch_tid": pl.Int32,
    "launch_name_id": pl.Int32,
}
_KEY: Final = (pl.col("pid").cast(pl.Int64) * 2**32 + pl.col("correlation")).alias("key")


def launched(ops: pl.LazyFrame, api: pl.LazyFrame | None) -> pl.DataFrame:
    """Return the ops in their order with `LAUNCH_COLUMNS`, null where no call is recorded.

    A correlation id is unique inside a process only, so both are the key. Many ops of one call
    (the kernels of a CUDA graph) are normal; of several calls with one id, the shortest is the
    one that launched: the others enclose it.
    """
    if api is None:
        missing = {name: pl.lit(None, dtype) for name, dtype in LAUNCH_COLUMNS.items()}
        return ops.with_columns(**missing).collect()
    calls = api.select(
        _KEY,
        launch_ns="start_ns",
        launch_end_ns="end_ns",
        launch_tid="tid",
        launch_name_id="name_id",
    ).collect()
    calls = calls.filter(pl.col("key").is_not_null())
    if calls["key"].n_unique() < calls.height:
        took = pl.col("launch_end_ns") - pl.col("launch_ns")
        calls = calls.sort(took, "launch_ns").unique("key", keep="first")
    keyed = ops.with_columns(_KEY)
    return (
        keyed.join(calls.lazy(), on="key", how="left", maintain_order="left").drop("key").collect()
    )
