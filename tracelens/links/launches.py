"""Which API call launched which GPU op, by process and correlation id."""

from __future__ import annotations

from typing import Final

import polars as pl

LAUNCH_COLUMNS: Final = {
    "launch_row": pl.UInt32,
    "launch_ns": pl.Int64,
    "launch_tid": pl.Int32,
}
_KEY: Final = (pl.col("pid").cast(pl.Int64) * 2**32 + pl.col("correlation")).alias("key")


def launches(ops: pl.LazyFrame, api: pl.LazyFrame | None) -> pl.DataFrame:
    """Return for every op, in order, the call that launched it: `LAUNCH_COLUMNS`, or nulls.

    `launch_row` is the call's row in `api`. A correlation id is unique inside a process only, so
    both are the key. Many ops of one call (the kernels of a CUDA graph) are normal; of several
    calls with one id, the shortest is the one that launched: the others enclose it.
    """
    if api is None:
        missing = {name: pl.lit(None, dtype) for name, dtype in LAUNCH_COLUMNS.items()}
        return ops.select(**missing, op_id="op_id").drop("op_id").collect()
    calls = api.select(_KEY, "start_ns", "end_ns", "tid").with_row_index("launch_row").collect()
    rows = calls.select("key", "launch_row").filter(pl.col("key").is_not_null())
    keyed = ops.select(_KEY).collect()
    row = _joined(keyed, rows)
    if len(row) > keyed.height:
        took = pl.col("end_ns") - pl.col("start_ns")
        shortest = calls.sort(took, "start_ns").unique("key", keep="first")
        row = _joined(keyed, shortest.select("key", "launch_row"))
    return pl.DataFrame(
        {
            "launch_row": row,
            "launch_ns": calls["start_ns"].gather(row),
            "launch_tid": calls["tid"].gather(row),
        }
    )


def _joined(keyed: pl.DataFrame, rows: pl.DataFrame) -> pl.Series:
    """Return the row of each key; more than there are keys if several rows share one."""
    return keyed.join(rows, on="key", how="left", maintain_order="left")["launch_row"]
