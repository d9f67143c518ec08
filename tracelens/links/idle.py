"""Idle times of each GPU, and what the thread that ended each one had been doing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens.trace.intervals import gaps

if TYPE_CHECKING:
    from polars._typing import PolarsDataType

    from tracelens.links.linked import Linked

LAUNCHING_NS: Final = 100_000
"""A thread that comes back to the CUDA API sooner than this was busy launching: an op of
PyTorch's eager mode takes 5 to 50 us on the CPU."""

CAUSES: Final = ("synchronising", "launch_bound", "no_api_call", "queued", "unknown")
_CAUSE_TYPE: Final = pl.Enum(CAUSES)
_SCHEMA: Final[dict[str, PolarsDataType]] = {
    "device": pl.Int32,
    "start_ns": pl.Int64,
    "end_ns": pl.Int64,
    "idle_ns": pl.Int64,
    "before": pl.UInt32,
    "after": pl.UInt32,
    "cause": _CAUSE_TYPE,
    "last_row": pl.UInt32,
}
_BLOCKING: Final = r"(?i)synchronize|^cu(da)?memcpy[^a]*(_v\d+)?$|^cu(da)?(free|malloc|memalloc)"


def idle(linked: Linked) -> pl.DataFrame:
    """Return every idle time between a device's first and last op.

    Columns: device, start_ns, end_ns, idle_ns, before and after (op_id of the neighbours),
    launch_row of the op after, cause, and last_row: the row in `api` of its thread's last call
    before that launch. The causes:

    - queued: the op had been launched already; the GPU waited for something else (another
      stream, an event, the launch itself to arrive).
    - synchronising: before it launched, the thread sat in a call that waits for the GPU (a
      synchronisation, a blocking copy, an allocation) that lasted into the idle time.
    - launch_bound: the thread came back to the API within `LAUNCHING_NS` of its last call, or of
      the beginning of the idle time: it launched as fast as it could, and the GPU was faster.
    - no_api_call: it made no call for longer than that: it was busy on the CPU.
    - unknown: the launch was not recorded.
    """
    devices = linked.ops["device"].unique().sort()
    parts = [_on_device(linked, device, alone=len(devices) == 1) for device in devices]
    return pl.concat(parts) if parts else pl.DataFrame(schema=_SCHEMA)


def _on_device(linked: Linked, device: int | None, *, alone: bool) -> pl.DataFrame:
    ops = linked.ops.select("op_id", "start_ns", "end_ns", "device")
    if not alone:
        ops = ops.filter(pl.col("device").eq_missing(device))
    found = gaps(ops)
    launch = linked.ops.select("op_id", "launch_row", "launch_ns")
    if linked.whole:
        # All ops are there, so op_id is the row.
        found = found.hstack(launch.drop("op_id")[found["after"]])
    else:
        found = found.join(
            launch, left_on="after", right_on="op_id", how="left", maintain_order="left"
        )
    late = pl.col("launch_ns") >= pl.col("start_ns")
    rows = found.select(pl.when(late).then("launch_row"))["launch_row"]
    found = found.hstack(_last_calls(linked, rows))
    into = pl.col("last_end_ns") > pl.col("start_ns") - LAUNCHING_NS
    pause = pl.col("launch_ns") - pl.max_horizontal("last_end_ns", "start_ns")
    cause = (
        pl.when(pl.col("launch_ns").is_null())
        .then(_cause("unknown"))
        .when(~late)
        .then(_cause("queued"))
        .when(pl.col("blocks") & into)
        .then(_cause("synchronising"))
        .when(pause < LAUNCHING_NS)
        .then(_cause("launch_bound"))
        .otherwise(_cause("no_api_call"))
    )
    return found.select(
        "start_ns",
        "end_ns",
        "before",
        "after",
        "last_row",
        device=pl.lit(device, pl.Int32),
        idle_ns=pl.col("end_ns") - pl.col("start_ns"),
        cause=cause,
    ).select(list(_SCHEMA))


def _cause(name: str) -> pl.Expr:
    return pl.lit(name, _CAUSE_TYPE)


def _last_calls(linked: Linked, rows: pl.Series) -> pl.DataFrame:
    """Return for calls, by their row in `api` or null, the call before on the same thread.

    Columns: last_row, last_end_ns, and blocks: whether that call waits for the GPU.
    """
    api = linked.trace.get("api")
    if api is None:
        nothing = {"last_row": pl.UInt32, "last_end_ns": pl.Int64, "blocks": pl.Boolean}
        return pl.DataFrame({n: pl.Series([None] * len(rows), dtype=t) for n, t in nothing.items()})
    names = linked.trace["names"].filter(pl.col("name").str.contains(_BLOCKING))
    blocking = names.select("name_id").collect()["name_id"]
    row = pl.col("row")
    before = (
        api.select("pid", "tid", "start_ns")
        .with_row_index("row")
        .sort("start_ns")
        .select("row", last_row=row.shift().over("pid", "tid"))
        .sort("row")
        .select("last_row")
    )
    last = before.collect()["last_row"].gather(rows)
    facts = api.select("end_ns", "name_id").collect()
    return pl.DataFrame(
        {
            "last_row": last,
            "last_end_ns": facts["end_ns"].gather(last),
            "blocks": facts["name_id"]
            .gather(last)
            .is_in(blocking.implode())
            .fill_null(value=False),
        }
    )
