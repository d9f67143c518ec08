"""The replay of an allocator's history: what was allocated, active and reserved after each event.

Order is the order of the recording, never the time: frees and allocations of one microsecond are
common. The state before the first event follows from the state at the end, which a snapshot
knows to the byte, less what the events changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens.links.category_sums import category_sums, totals
from tracelens.trace.schema import BLOCKS, MEMORY, SEGMENTS

if TYPE_CHECKING:
    from tracelens.trace.model import Trace

_MOST_BYTES: Final = 1 << 50
_ON_DEVICE: Final = ("device", "array", "device static")
_ROWS: Final = ("alloc", "free_requested", "free_completed", "free")
_KEPT: Final = (
    "device", "pid", "tid", "time_ns", "action", "address", "size_bytes", "stream", "stack_id",
    "free_bytes",
)  # fmt: skip
CURVES: Final = ("allocated_bytes", "active_bytes", "reserved_bytes")
"""Bytes requested and not yet freed; those and what waits for a stream (active); and what the
allocator held of the device. Of recordings other than snapshots: see `Replay.kind`."""
_CHANGE: Final = (
    pl.when(pl.col("action") == "alloc")
    .then(pl.col("size_bytes"))
    .when(pl.col("action") == "free")
    .then(-pl.col("size_bytes"))
    .otherwise(0)
)
# An event may lack its total: then it is the nearest one that was told, and what changed between.
_PROCESS: Final = ["device", "pid"]
_CHANGED: Final = _CHANGE.cum_sum().over(_PROCESS)
_TOTAL: Final = _CHANGED + (
    (pl.col("allocated_bytes") - _CHANGED).forward_fill().backward_fill().fill_null(0)
).over(_PROCESS)

_LIVES: Final = {
    "device": pl.Int32,
    "address": pl.Int64,
    "size_bytes": pl.Int64,
    "stack_id": pl.UInt32,
    "alloc_index": pl.Int64,
    "requested_index": pl.Int64,
    "completed_index": pl.Int64,
    "pre_existing": pl.Boolean,
}
_DEVICES: Final = {
    "device": pl.Int32,
    "events": pl.Int64,
    "unmatched_frees": pl.Int64,
    "one_free": pl.Boolean,
    **{f"baseline_{curve}": pl.Int64 for curve in CURVES},
    **{f"end_{curve}": pl.Int64 for curve in CURVES},
}


@dataclass(frozen=True)
class Replay:
    """The history of every device.

    ``kind`` tells what was recorded: `snapshot` (every event and the state at the end),
    `totals` (the allocator's own totals after each event, as torch.profiler records them),
    `deltas` (allocations and frees alone, as Nsight Systems records those of CUDA itself) or
    `sums` (sums by category and no events: see `links.category_sums`).

    ``events`` are the events device by device, in order: `index` is the place in the device's
    history, `action` a Categorical, `allocated_bytes`, `active_bytes` and `reserved_bytes` what
    held after the event.

    ``lives`` has a row per block: its address, bytes as requested, the stack that allocated it,
    and the index of its events. A null `alloc_index` is before the first event, a null
    `completed_index` after the last one. `pre_existing` blocks are older than the recording.

    ``devices`` has a row per device: what held before the first event (baseline) and after the
    last one, null where that is not known; `unmatched_frees` of blocks that the events do not
    allocate; `one_free` where only one of the two steps of a free was recorded.
    """

    kind: str
    events: pl.DataFrame
    lives: pl.DataFrame
    devices: pl.DataFrame


def replay(trace: Trace) -> Replay:
    """Replay the `memory` table of a trace; without one, all that is known is the end state."""
    if (sums := category_sums(trace)) is not None:
        return _of_sums(totals(sums))
    table = trace.get("memory")
    everything = MEMORY.empty().lazy() if table is None else table
    kinds = pl.col("memory_kind")
    rows = everything.filter(kinds.is_null() | kinds.is_in(_ON_DEVICE))
    # Comparing a million numbers takes 0.1 ms, as many words of one length 9 ms.
    events = rows.with_columns(
        pl.col("device").fill_null(0), pl.col("action").cast(pl.Categorical)
    ).select(*_KEPT, "allocated_bytes", "reserved_bytes")
    raw = events.collect()
    if not raw["device"].is_sorted():
        raw = raw.sort("device", maintain_order=True)
    blocks = _end_blocks(trace)
    kind = _kind(trace, raw)
    raw = _indexed(raw)
    facts, curves = _curves(raw, trace, blocks, kind)
    lives = _lives(raw, blocks)
    if kind == "totals":
        lives = pl.concat([lives, _unseen(lives, facts)])
    unmatched = lives.filter(
        pl.col("alloc_index").is_null() & pl.col("completed_index").is_not_null()
    )
    facts = facts.join(
        unmatched.group_by("device").agg(unmatched_frees=pl.len().cast(pl.Int64)),
        on="device",
        how="left",
    ).with_columns(pl.col("unmatched_frees").fill_null(0))
    return Replay(
        kind, raw.select("index", *_KEPT).hstack(curves), lives, facts.select(list(_DEVICES))
    )


def _of_sums(held: pl.DataFrame) -> Replay:
    """Return sums as the history of one device, which begins with the first of them."""
    nothing = {n: t for n, t in MEMORY.schema().items() if n in _KEPT}
    events = held.with_columns(
        pl.lit(None, t).alias(n) for n, t in nothing.items() if n != "time_ns"
    ).with_columns(
        device=pl.lit(0, pl.Int32),
        pid=pl.lit(0, pl.Int32),
        action=pl.lit("sum").cast(pl.Categorical),
        allocated_bytes="bytes",
        active_bytes="bytes",
        reserved_bytes=pl.lit(None, pl.Int64),
    )
    edges = {"baseline": pl.col("bytes").first(), "end": pl.col("bytes").last()}
    row = held.select(
        device=pl.lit(0),
        events=pl.len(),
        unmatched_frees=pl.lit(0),
        one_free=pl.lit(value=False),
        **{f"{at}_{c}": edge for at, edge in edges.items() for c in CURVES[:2]},
        **{f"{at}_{CURVES[2]}": pl.lit(None) for at in edges},
    )
    devices = row.head(held.height).select(pl.col(n).cast(t) for n, t in _DEVICES.items())
    return Replay(
        "sums", events.select("index", *_KEPT, *CURVES), pl.DataFrame(schema=dict(_LIVES)), devices
    )


def _kind(trace: Trace, raw: pl.DataFrame) -> str:
    if "blocks" in trace:
        return "snapshot"
    return "totals" if raw["allocated_bytes"].null_count() < raw.height else "deltas"


def _end_blocks(trace: Trace) -> pl.DataFrame:
    """Return the blocks in use at the end, with `pending` for those that wait for a stream."""
    table = trace.get("blocks")
    blocks = BLOCKS.empty().lazy() if table is None else table
    return (
        blocks.filter(pl.col("state").str.starts_with("active"))
        .select(
            pl.col("device").fill_null(0),
            "address",
            "stack_id",
            size_bytes=_possible("requested_bytes"),
            held_bytes="size_bytes",
            pending=pl.col("state") != "active_allocated",
        )
        .collect()
    )


def _indexed(raw: pl.DataFrame) -> pl.DataFrame:
    place = pl.int_range(pl.len(), dtype=pl.Int64)
    return raw.with_columns(
        size_bytes=_possible("size_bytes"),
        index=place if _is_one(raw) else place.over("device"),
    )


def _possible(size: str) -> pl.Expr:
    """Return sizes, and nothing in place of what no device holds: sums stay within 64 bits."""
    return pl.when(pl.col(size).is_between(0, _MOST_BYTES)).then(size).otherwise(0)


def _is_one(raw: pl.DataFrame) -> bool:
    """Tell whether all rows are of one device, which spares grouping them."""
    return raw["device"].is_empty() or raw["device"][0] == raw["device"][-1]


def _curves(
    raw: pl.DataFrame, trace: Trace, blocks: pl.DataFrame, kind: str
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return a row per device with baselines and ends, and the curves in the order of events."""
    if kind == "totals":
        return _of_totals(raw)
    size, action = pl.col("size_bytes"), pl.col("action")
    plus = pl.when(action == "alloc").then(size)
    asked, done = action == "free_requested", action == "free_completed"
    waiting = blocks.group_by("device").agg(waiting=pl.col("pending").sum())
    by_device = _of_each(
        raw, events=pl.len().cast(pl.Int64), asked=asked.sum(), done=done.sum()
    ).join(waiting, on="device", how="left", maintain_order="left")
    # Recorders may leave out one of the two steps of a free (skip_actions). What was asked for
    # and waits at the end was not left out.
    never_asked = (pl.col("asked") == 0) & (pl.col("done") > 0)
    never_done = (pl.col("done") == 0) & (pl.col("asked") > pl.col("waiting").fill_null(0))
    flags = by_device.with_columns(one_free=never_asked | never_done)
    no_asked = flags.filter(never_asked)["device"].to_list()
    no_done = flags.filter(never_done)["device"].to_list()
    freed = (action == "free") | asked
    completed = (action == "free") | done
    if no_asked:
        freed |= done & pl.col("device").is_in(no_asked)
    if no_done:
        completed |= asked & pl.col("device").is_in(no_done)
    grown = action.is_in(["segment_alloc", "segment_map"])
    shrunk = action.is_in(["segment_free", "segment_unmap"])
    minus = -size
    active = plus.when(completed).then(minus).otherwise(0)
    reserved = pl.when(grown).then(size).when(shrunk).then(minus).otherwise(0)
    changes = {
        "allocated_bytes": plus.when(freed).then(minus).otherwise(0),
        "active_bytes": active,
        "reserved_bytes": active if kind == "deltas" else reserved,
    }
    sums = raw.select(
        "device",
        **{
            curve: change.cum_sum() if _is_one(raw) else change.cum_sum().over("device")
            for curve, change in changes.items()
        },
    )
    net = _of_each(sums, **{curve: pl.col(curve).last() for curve in CURVES})
    ends = _ends(trace, blocks) if kind == "snapshot" else net.rename(_prefixed("end_"))
    facts = (
        flags.join(ends, on="device", how="full", coalesce=True)
        .join(net, on="device", how="left")
        .with_columns(pl.col("events", *_prefixed("end_").values(), *CURVES).fill_null(0))
        .with_columns(pl.col("one_free").fill_null(value=False))
        .with_columns(
            **{f"baseline_{c}": pl.col(f"end_{c}") - pl.col(c) for c in CURVES},
        )
        .sort("device")
    )
    started = _baselines(raw, facts)
    return facts, sums.select(pl.col(c) + started[c] for c in CURVES)


def _of_each(rows: pl.DataFrame, **facts: pl.Expr) -> pl.DataFrame:
    """Return facts of each device; grouping takes ten times as long as looking at one device."""
    if rows.height and _is_one(rows):
        return rows.select(pl.col("device").first(), **facts)
    return rows.group_by("device", maintain_order=True).agg(**facts)


def _prefixed(prefix: str) -> dict[str, str]:
    return {curve: f"{prefix}{curve}" for curve in CURVES}


def _baselines(raw: pl.DataFrame, facts: pl.DataFrame) -> pl.DataFrame:
    """Return the baselines of each event's device; a single row where there is one device."""
    named = facts.select("device", **{c: f"baseline_{c}" for c in CURVES})
    if not raw.height:
        return named.clear()
    if _is_one(raw):
        return named.filter(pl.col("device") == raw["device"][0])
    return raw.select("device").join(named, on="device", how="left", maintain_order="left")


def _of_totals(raw: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the row per device and the curves of a recording that has totals.

    Totals are each process's own: those of the processes on one device add up. The first one
    gives the baseline; what was reserved before is not known.
    """
    held = raw.select(
        *_PROCESS,
        change=_CHANGE,
        allocated=_TOTAL,
        reserved=pl.col("reserved_bytes").forward_fill().over(_PROCESS),
    )
    first = held.group_by(_PROCESS).agg(
        allocated=pl.col("allocated").first() - pl.col("change").first(),
        reserved=pl.col("reserved").drop_nulls().first(),
    )
    baseline = first.group_by("device").agg(pl.col("allocated", "reserved").sum())
    steps = held.with_columns(
        pl.col("allocated").diff().over(_PROCESS).fill_null(pl.col("change")),
        pl.col("reserved").diff().over(_PROCESS).fill_null(0),
    )
    starts = steps.join(baseline, on="device", how="left", maintain_order="left", suffix="_first")
    allocated, reserved = (
        pl.col(name).cum_sum().over("device") + pl.col(f"{name}_first")
        for name in ("allocated", "reserved")
    )
    known = pl.lit(raw["reserved_bytes"].null_count() < raw.height)
    curves = starts.select(
        allocated_bytes=allocated,
        active_bytes=allocated,
        reserved_bytes=pl.when(known).then(reserved),
    )
    facts = (
        curves.with_columns(raw["device"])
        .group_by("device", maintain_order=True)
        .agg(
            events=pl.len().cast(pl.Int64),
            one_free=pl.lit(value=False),
            **{f"end_{curve}": pl.col(curve).last() for curve in CURVES},
        )
        .join(baseline, on="device", how="left", maintain_order="left")
    )
    return facts.with_columns(
        baseline_allocated_bytes="allocated",
        baseline_active_bytes="allocated",
        baseline_reserved_bytes=pl.lit(None, pl.Int64),
    ), curves


def _unseen(lives: pl.DataFrame, facts: pl.DataFrame) -> pl.DataFrame:
    """Return one life for what was held before the first event and is never freed, if anything."""
    freed = lives.filter("pre_existing").group_by("device").agg(freed=pl.col("size_bytes").sum())
    rest = pl.col("baseline_active_bytes") - pl.col("freed").fill_null(0)
    return (
        facts.join(freed, on="device", how="left")
        .select("device", size_bytes=rest, pre_existing=pl.lit(value=True))
        .filter(pl.col("size_bytes") > 0)
        .select(
            pl.col(name)
            if name in {"device", "size_bytes", "pre_existing"}
            else pl.lit(None, dtype).alias(name)
            for name, dtype in _LIVES.items()
        )
    )


def _ends(trace: Trace, blocks: pl.DataFrame) -> pl.DataFrame:
    """Return what each device holds when the snapshot was taken."""
    table = trace.get("segments")
    segments = SEGMENTS.empty().lazy() if table is None else table
    held = (
        segments.group_by(pl.col("device").fill_null(0))
        .agg(end_reserved_bytes=_possible("size_bytes").sum())
        .collect()
    )
    used = blocks.group_by("device").agg(
        end_allocated_bytes=pl.col("size_bytes").filter(~pl.col("pending")).sum(),
        end_active_bytes=pl.col("size_bytes").sum(),
    )
    return held.join(used, on="device", how="full", coalesce=True)


def _lives(raw: pl.DataFrame, blocks: pl.DataFrame) -> pl.DataFrame:
    """Return every block with its events, paired by address in the order of the history.

    A block's events are its allocation, the request to free it and the free itself; each may be
    missing. An allocation begins a block, and a free ends it.
    """
    action = pl.col("action")
    rows = (
        raw.lazy()
        .filter(action.is_in(_ROWS))
        .select(
            *_PROCESS,
            "address",
            "size_bytes",
            "stack_id",
            "index",
            alloc=action == "alloc",
            ends=action.is_in(["free_completed", "free"]),
        )
        .collect()
    )
    alike = pl.col(_PROCESS).eq_missing(pl.col(_PROCESS).first()).all()
    is_one = rows.height and all(rows.select(alike).row(0))
    parts = [rows] if is_one else rows.partition_by(_PROCESS, maintain_order=True)
    lives = pl.concat([pl.DataFrame(schema=_LIVES), *map(_paired, parts)])
    key = ["device", "address"]
    open_lives = lives.filter(pl.col("completed_index").is_null())
    older = blocks.join(open_lives, on=key, how="anti").select(
        *key,
        "size_bytes",
        "stack_id",
        **{name: pl.lit(None, pl.Int64) for name in _LIVES if name.endswith("_index")},
        pre_existing=pl.lit(value=True),
    )
    return pl.concat([lives, older.select(list(_LIVES))])


def _paired(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the lives of the blocks of one device."""
    device = rows["device"].head(1)
    # What a sort by address would do, in half the time: addresses are used again and again.
    of_blocks = rows.drop(_PROCESS).group_by("address", maintain_order=True).agg(pl.all())
    rows = of_blocks.explode(of_blocks.columns[1:])
    address, alloc, ends = rows["address"], rows["alloc"], rows["ends"]
    begins = (
        (address != address.shift()).fill_null(value=True)
        | alloc
        | ends.shift().fill_null(value=True)
    )
    first = begins.arg_true()
    last = first.shift(-1, fill_value=rows.height) - 1
    # The request to free comes second, or first where the allocation was not recorded.
    second = pl.min_horizontal(pl.col("first") + pl.col("is_alloc"), pl.col("last"))
    places = pl.DataFrame({"first": first, "last": last, "is_alloc": alloc.gather(first)})
    asked_at = places.select(second).to_series()
    index = rows["index"]
    found = rows.select("address", "size_bytes", "stack_id", is_alloc="alloc")[first]
    found = found.with_columns(
        device=device.new_from_index(0, found.height),
        begun=index.gather(first),
        asked=index.gather(asked_at),
        ended=index.gather(last),
        is_asked=~(alloc | ends).gather(asked_at),
        is_end=ends.gather(last),
    )
    return found.select(
        "device",
        "address",
        "size_bytes",
        stack_id=pl.when("is_alloc").then("stack_id"),
        alloc_index=pl.when("is_alloc").then("begun"),
        requested_index=pl.when("is_asked").then("asked"),
        completed_index=pl.when("is_end").then("ended"),
        pre_existing=~pl.col("is_alloc"),
    )
