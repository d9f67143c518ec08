"""Idle times of each GPU, and what the thread that ended each one had been doing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import polars as pl

from tracelens.trace.intervals import gaps

if TYPE_CHECKING:
    from collections.abc import Iterator

    from polars._typing import PolarsDataType

    from tracelens.links.linked import Linked

LAUNCHING_NS: Final = 100_000
"""A thread that comes back to the CUDA API sooner than this was busy launching: an op of
PyTorch's eager mode takes 5 to 50 us on the CPU."""

CAUSES: Final = ("synchronising", "launch_bound", "no_api_call", "queued", "unknown")
_CAUSE_TYPE: Final = pl.Enum(CAUSES)
SCHEMA: Final[dict[str, PolarsDataType]] = {
    "device": pl.Int32,
    "start_ns": pl.Int64,
    "end_ns": pl.Int64,
    "idle_ns": pl.Int64,
    "before": pl.UInt32,
    "after": pl.UInt32,
    "cause": _CAUSE_TYPE,
    "last_row": pl.UInt32,
}
_MOST_THREADS: Final = 32
_PART_ROWS: Final = 4_000_000
BLOCKING: Final = r"(?i)synchronize|^cu(da)?memcpy[^a]*(_v\d+)?$|^cu(da)?(free|malloc|memalloc)"
"""Names of calls that wait for the GPU: synchronisations, blocking copies, allocations."""


MOST: Final = 1000
"""So many of the longest idle times are kept."""


class Sums(NamedTuple):
    """What one pass over all idle times gives.

    ``times`` has device, cause and idle_ns of each; ``longest_of`` the longest of each device and
    cause and ``longest`` the `MOST` longest of all, as `idle` gives them.
    """

    times: pl.DataFrame
    longest_of: pl.DataFrame
    longest: pl.DataFrame


def sums(linked: Linked) -> Sums:
    """Look at every idle time, once."""
    return linked.once("idle sums", _sums)


def _sums(linked: Linked) -> Sums:
    key = ["device", "cause"]
    times = [pl.DataFrame(schema={name: SCHEMA[name] for name in (*key, "idle_ns")})]
    longest_of = longest = pl.DataFrame(schema=SCHEMA)
    for part in idle(linked):
        times.append(part.select(times[0].columns))
        firsts = part.filter(pl.col("idle_ns") == pl.col("idle_ns").max().over(key))
        both = _longest_first(pl.concat([longest_of, firsts]))
        longest_of = both.unique(key, keep="first", maintain_order=True)
        # Of one column that is ten times as fast as of all.
        least = min(part["idle_ns"].top_k(MOST), default=0)
        more = pl.concat([longest, part.filter(pl.col("idle_ns") >= least)])
        longest = _longest_first(more).head(MOST)
    return Sums(pl.concat(times), longest_of, longest)


def _longest_first(found: pl.DataFrame) -> pl.DataFrame:
    return found.sort("idle_ns", "start_ns", descending=[True, False])


def idle(linked: Linked) -> Iterator[pl.DataFrame]:
    """Give every idle time between a device's first and last op, in parts of bounded size.

    Columns: device, start_ns, end_ns, idle_ns, before and after (op_id of the neighbours),
    cause, and last_row: the row in `api` of its thread's last call before that launch. The
    causes:

    - queued: the op had been launched already; the GPU waited for something else (another
      stream, an event, the launch itself to arrive).
    - synchronising: before it launched, the thread sat in a call that waits for the GPU (a
      synchronisation, a blocking copy, an allocation) that lasted into the idle time.
    - launch_bound: the thread came back to the API within `LAUNCHING_NS` of its last call, or of
      the beginning of the idle time: it launched as fast as it could, and the GPU was faster.
    - no_api_call: it made no call for longer than that: it was busy on the CPU.
    - unknown: the launch was not recorded.
    """
    calls = _last_calls(linked)
    devices = linked.ops["device"].unique().sort()
    for device in devices:
        ops = linked.ops.lazy().select("op_id", "start_ns", "end_ns", "device")
        if len(devices) > 1:
            ops = ops.filter(pl.col("device").eq_missing(pl.lit(device, pl.Int32)))
        ordered = _in_order(linked, ops.drop("device"))
        reached_ns: int | None = None
        holder: int | None = None
        for part in ordered.iter_slices(_PART_ROWS):
            yield _with_cause(linked, gaps(part, reached_ns, holder), device, calls)
            last = part.filter(pl.col("end_ns") == pl.col("end_ns").max()).row(-1, named=True)
            if reached_ns is None or last["end_ns"] >= reached_ns:
                reached_ns, holder = last["end_ns"], last["op_id"]


def _in_order(linked: Linked, ops: pl.LazyFrame) -> pl.DataFrame:
    """Return ops in order of start, of those that start together the one launched first first."""
    ordered = ops.sort("start_ns", maintain_order=True).collect()
    start = pl.col("start_ns")
    together = (start == start.shift()) | (start == start.shift(-1))
    places = ordered.select(pl.arg_where(together))["start_ns"]
    if places.is_empty():
        return ordered
    # They are few, and stand side by side: put in order among themselves, they fit their places.
    tied = ordered[places].join(linked.ops.select("op_id", "launch_ns"), on="op_id", how="left")
    tied = tied.sort("start_ns", "launch_ns", "end_ns", maintain_order=True)
    columns = (ordered[name].scatter(places, tied[name]) for name in ordered.columns)
    return pl.DataFrame(list(columns))


def _with_cause(
    linked: Linked, found: pl.DataFrame, device: int | None, calls: pl.DataFrame
) -> pl.DataFrame:
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
    last = calls["last_row"].gather(rows)
    found = found.with_columns(
        last_row=last,
        last_end_ns=calls["end_ns"].gather(last),
        blocks=calls["blocks"].gather(last).fill_null(value=False),
    )
    into = pl.col("last_end_ns") > pl.col("start_ns") - LAUNCHING_NS
    pause = pl.col("launch_ns") - pl.max_horizontal("last_end_ns", "start_ns")
    cause = (
        pl.when(pl.col("launch_row").is_null())
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
    ).select(list(SCHEMA))


def _cause(name: str) -> pl.Expr:
    return pl.lit(name, _CAUSE_TYPE)


def _last_calls(linked: Linked) -> pl.DataFrame:
    """Return, by row of `api`: the call's end, whether it waits for the GPU, and last_row.

    `last_row` is the call before on the same thread.
    """
    api = linked.trace.get("api")
    if api is None:
        nothing = {"last_row": pl.UInt32, "end_ns": pl.Int64, "blocks": pl.Boolean}
        return pl.DataFrame(schema=nothing)
    names = linked.trace["names"].filter(pl.col("name").str.contains(BLOCKING))
    blocking = names.select("name_id").collect()["name_id"]
    before = _calls_before(api)
    facts = api.select("end_ns", blocks=pl.col("name_id").is_in(blocking.implode()))
    return before.to_frame("last_row").hstack(facts.collect())


def _calls_before(api: pl.LazyFrame) -> pl.Series:
    """Return for each call the row of the call before it on its thread, thread by thread.

    Recorders write the calls of a thread in order, or nearly: sorting them all at once would need
    twice their memory.
    """
    calls = api.select("pid", "tid", "start_ns").collect()
    threads = calls.select("pid", "tid").unique()
    if threads.height > _MOST_THREADS:
        row = pl.col("row")
        ordered = calls.with_row_index("row").sort("start_ns", maintain_order=True)
        before = ordered.select("row", last=row.shift().over("pid", "tid")).sort("row")
        return before["last"]
    last = pl.repeat(None, calls.height, dtype=pl.UInt32, eager=True)
    for pid, tid in threads.iter_rows():
        mine = pl.col("pid").eq_missing(pid) & pl.col("tid").eq_missing(tid)
        rows = calls.select(pl.arg_where(mine))["pid"]
        starts = calls["start_ns"].gather(rows)
        if not starts.is_sorted():
            rows = rows.gather(starts.arg_sort())
        last = last.scatter(rows, rows.shift())
    return last
