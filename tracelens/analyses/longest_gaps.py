"""The longest times in which a GPU had nothing to do, and what its next kernel waited for."""

from __future__ import annotations

from typing import Final

import polars as pl

from tracelens.analyses import Analysis
from tracelens.analyses.api import plain_name
from tracelens.links.linked import Linked
from tracelens.trace.intervals import gaps

LAUNCHING_NS: Final = 100_000
"""A thread that comes back to the CUDA API sooner than this was busy launching (PyTorch's eager
mode takes 5 to 50 us per op)."""

CAUSES: Final = ("synchronising", "launch_bound", "no_api_call", "queued", "unknown")
_SYNCHRONISING: Final = r"(?i)synchronize|^cu(da)?Memcpy[^A]*$|^cu(da)?(Free|Malloc|MemAlloc)"


def all_gaps(linked: Linked) -> pl.DataFrame:
    """Return every gap per device: start_ns, end_ns, idle_ns, before, after (op_ids), thread, cause.

    The cause is what the thread that launched the next op did while the GPU was idle:

    - queued: it had launched already; the GPU waited for something else (another stream, an
      event, the launch itself to arrive).
    - synchronising: it sat in a call that waits for the GPU (a synchronisation, a blocking copy,
      an allocation) when or after the gap began.
    - launch_bound: it came back to the API within `LAUNCHING_NS` of its last call: it was
      launching as fast as it could, and the GPU was faster.
    - no_api_call: it made no call for longer than that: it was busy on the CPU.
    - unknown: the launch of the next op was not recorded.
    """
    found = gaps(linked.ops.lazy(), ["device"]).collect()
    after = linked.ops.select(after="op_id", pid="pid", thread="launch_tid", launch_ns="launch_ns")
    found = found.join(after, on="after", how="left").with_columns(
        idle_ns=pl.col("end_ns") - pl.col("start_ns")
    )
    return _with_cause(linked, found)


def longest_gaps(linked: Linked) -> pl.DataFrame:
    """Return every gap with the names of the ops around it, longest first."""
    names = linked.ops.select("op_id", "name_id", "kind").join(
        linked.names.select("name_id", "kind", "short_name"), on=["name_id", "kind"], how="left"
    )
    label = names.select("op_id", "short_name")
    return (
        all_gaps(linked)
        .sort("idle_ns", "start_ns", descending=[True, False])
        .join(label.rename({"op_id": "before", "short_name": "before_name"}), on="before", how="left", maintain_order="left")
        .join(label.rename({"op_id": "after", "short_name": "after_name"}), on="after", how="left", maintain_order="left")
        .select("device", "idle_ns", "cause", "call", "before_name", "after_name", "thread", "start_ns", "end_ns")
    )  # fmt: skip


def _with_cause(linked: Linked, found: pl.DataFrame) -> pl.DataFrame:
    """Return gaps with `cause` and `call` (the call made last before the launch)."""
    api = linked.trace.get("api")
    late = pl.col("launch_ns") >= pl.col("start_ns")
    if api is None:
        return found.with_columns(cause=pl.lit("unknown"), call=pl.lit(None, pl.String))
    found = _with_last_call(linked, found, api)
    waited = (
        pl.col("call_blocks").fill_null(value=False)
        & (pl.col("last_end_ns") > pl.col("start_ns") - LAUNCHING_NS)
    )  # fmt: skip
    pause = pl.col("launch_ns") - pl.max_horizontal("last_end_ns", "start_ns")
    cause = (
        pl.when(pl.col("launch_ns").is_null())
        .then(pl.lit("unknown"))
        .when(~late)
        .then(pl.lit("queued"))
        .when(waited)
        .then(pl.lit("synchronising"))
        .when(pause < LAUNCHING_NS)
        .then(pl.lit("launch_bound"))
        .otherwise(pl.lit("no_api_call"))
    )
    return found.with_columns(cause=cause)


def _with_last_call(linked: Linked, found: pl.DataFrame, api: pl.LazyFrame) -> pl.DataFrame:
    """Return gaps with the end, name and nature of the thread's last call before the launch."""
    names = linked.trace["names"].with_columns(call=plain_name(pl.col("name")))
    blocking = names.with_columns(call_blocks=pl.col("call").str.contains(_SYNCHRONISING))
    threads = found.select(pl.col("pid"), pl.col("thread")).unique()
    calls = (
        api.join(threads.lazy(), left_on=["pid", "tid"], right_on=["pid", "thread"], how="semi")
        .select("pid", pl.col("tid").alias("thread"), "name_id", "start_ns", last_end_ns="end_ns")
        .sort("start_ns")
    )
    late = found.lazy().filter(pl.col("launch_ns") >= pl.col("start_ns")).sort("launch_ns")
    last = late.select("pid", "thread", "launch_ns", "after").join_asof(
        calls,
        left_on="launch_ns",
        right_on="start_ns",
        by=["pid", "thread"],
        strategy="backward",
        allow_exact_matches=False,
        check_sortedness=False,
    )
    known = last.join(blocking.select("name_id", "call", "call_blocks"), on="name_id", how="left")
    columns = ("after", "last_end_ns", "call", "call_blocks")
    return found.lazy().join(known.select(columns), on="after", how="left").collect()


ANALYSIS = Analysis(longest_gaps)
