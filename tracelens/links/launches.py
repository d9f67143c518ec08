"""Which API call launched which GPU op, and when: by correlation id, or by the recorder's word."""

from __future__ import annotations

import itertools
from typing import Final

import polars as pl

LAUNCH_COLUMNS: Final = {
    "launch_row": pl.UInt32,
    "launch_ns": pl.Int64,
    "launch_tid": pl.Int32,
}
_KEY: Final = (pl.col("pid").cast(pl.Int64) * 2**32 + pl.col("correlation")).alias("key")
_JOINED_AT_ONCE: Final = 4_000_000


def launches(
    ops: pl.LazyFrame,
    api: pl.LazyFrame | None,
    launched_by: pl.LazyFrame | None = None,
    ranges: pl.LazyFrame | None = None,
) -> pl.DataFrame:
    """Return for every op, in order, the call that launched it: `LAUNCH_COLUMNS`, or nulls.

    `launch_row` is the call's row in `api`. A correlation id is unique inside a process only, so
    both are the key. Many ops of one call (the kernels of a CUDA graph) are normal; of several
    calls with one id, the shortest is the one that launched: the others enclose it.

    An op whose call was not recorded was launched when the PyTorch op began that the recorder
    names as its launcher (``launched_by``), if it names one; its `launch_row` stays null.
    """
    found = _by_correlation(ops, api)
    if launched_by is None or ranges is None or not found["launch_row"].null_count():
        return found
    return _named(found, ops, launched_by, ranges)


def _by_correlation(ops: pl.LazyFrame, api: pl.LazyFrame | None) -> pl.DataFrame:
    if api is None:
        missing = {name: pl.lit(None, dtype) for name, dtype in LAUNCH_COLUMNS.items()}
        return ops.select(**missing, op_id="op_id").drop("op_id").collect()
    rows = _launch_rows(ops.select(_KEY).collect(), api)
    return pl.DataFrame(
        {
            "launch_row": rows,
            "launch_ns": _column(api, "start_ns").gather(rows),
            "launch_tid": _column(api, "tid").gather(rows),
        }
    )


def _named(
    found: pl.DataFrame, ops: pl.LazyFrame, launched_by: pl.LazyFrame, ranges: pl.LazyFrame
) -> pl.DataFrame:
    """Return the launches with time and thread of the named PyTorch op where there is no call."""
    begun = ranges.select("range_id", "pid", named_ns="start_ns", named_tid="tid")
    named = launched_by.join(begun, on="range_id").unique("op_id", keep="any")
    of_ops = ops.select("op_id", "pid").join(
        named, on=["op_id", "pid"], how="left", maintain_order="left"
    )
    no_call = pl.col("launch_row").is_null()
    return found.hstack(of_ops.select("named_ns", "named_tid").collect()).select(
        "launch_row",
        launch_ns=pl.when(no_call).then("named_ns").otherwise("launch_ns"),
        launch_tid=pl.when(no_call).then("named_tid").otherwise("launch_tid"),
    )


def _launch_rows(keys: pl.DataFrame, api: pl.LazyFrame) -> pl.Series:
    """Return the row of each key's call, joining some millions at a time to bound memory."""
    calls = api.select(_KEY).with_row_index("launch_row").collect()
    calls = calls.filter(pl.col("key").is_not_null())
    if calls.height <= _JOINED_AT_ONCE:
        return _joined(keys, calls, api)
    cuts = calls["key"].sort()[_JOINED_AT_ONCE::_JOINED_AT_ONCE].unique().sort()
    rows = pl.repeat(None, keys.height, dtype=pl.UInt32, eager=True)
    bounds = [None, *cuts, None]
    for first, end in itertools.pairwise(bounds):
        inside = pl.lit(value=True) if first is None else pl.col("key") >= first
        inside &= pl.lit(value=True) if end is None else pl.col("key") < end
        some = keys.with_row_index("place").filter(inside)
        rows = rows.scatter(some["place"], _joined(some, calls.filter(inside), api))
    return rows.alias("launch_row")


def _joined(keys: pl.DataFrame, calls: pl.DataFrame, api: pl.LazyFrame) -> pl.Series:
    """Return the row of each key's call, in order of the keys."""
    joined = keys.join(calls, on="key", how="left", maintain_order="left")
    if joined.height > keys.height:
        took = api.select(took=pl.col("end_ns") - pl.col("start_ns")).collect()["took"]
        ranked = calls.with_columns(took=took.gather(calls["launch_row"]))
        shortest = ranked.sort("took", "launch_row").unique("key", keep="first")
        joined = keys.join(shortest, on="key", how="left", maintain_order="left")
    return joined["launch_row"]


def _column(frame: pl.LazyFrame, name: str) -> pl.Series:
    return frame.select(name).collect()[name]
