"""From the columns that the child handed over to the tables of a trace, with what to know of them.

Times are Unix time. A timeline becomes `counters`, one per category and in bytes: it holds sums,
neither blocks nor addresses, so that it cannot be a `memory` table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens.readers.torch_snapshot import caveats
from tracelens.readers.torch_snapshot.annotations import paired, ranges
from tracelens.readers.torch_snapshot.handed import BAD
from tracelens.readers.torch_snapshot.timeline import CATEGORIES
from tracelens.trace.model import Source, Trace
from tracelens.trace.schema import (
    BLOCKS,
    COUNTERS,
    DEVICES,
    FRAMES,
    MEMORY,
    NAMES,
    SEGMENTS,
    STACKS,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tracelens.readers.torch_snapshot.handed import Handed
    from tracelens.trace.schema import Table

SPILL_ROWS: Final = 4 << 20
"""So many events of longer histories go to a Parquet file each, so that memory stays bounded."""
_PRODUCER: Final = "PyTorch"
_NEED_A_BLOCK: Final = (
    "alloc", "free_requested", "free_completed", "free", "segment_alloc", "segment_free",
    "segment_map", "segment_unmap",
)  # fmt: skip
"""Actions that mean nothing without an address and a size."""
_ODDITIES: Final = {
    "stack_id": "stacks", "stream": "streams", "pool": "pools", "context": "contexts",
    "metadata": "remarks",
}  # fmt: skip
"""Columns of which a value that cannot be true is set aside by itself, and what it is called."""
_WORDS: Final = ("action", "pool", "context", "metadata")
"""Columns of events that are texts."""
_MOST_NS: Final = 2**62
_MOST_DEVICE: Final = 2**31 - 1
_EPOCH_NS: Final = 10**18
"""Times of a timeline from here on are Unix time (2001), not time since the machine started."""


def snapshot(path: Path, handed: Handed) -> Trace:
    """Return the trace of a snapshot.

    Its `memory` table is absent where no history was recorded.
    """
    said = caveats.Said()
    segments, kept = _segments(handed, said)
    tables = {"segments": segments.lazy(), "blocks": _blocks(handed, kept, said).lazy()}
    annotations = paired(handed, said)
    history = caveats.History()
    if events := _memory(handed, history, said):
        tables["memory"] = pl.concat(events)
    tables |= {"frames": _frames(handed).lazy(), "stacks": _stacks(handed).lazy()}
    found, names = None, list[str]()
    if annotations is not None:
        found, names = ranges(annotations[0], history.last_ns), annotations[1]
        tables["ranges"] = found.lazy()
    tables["names"] = pl.LazyFrame(
        {"name_id": range(len(names)), "name": names}, schema=dict(NAMES.schema())
    )
    tables["devices"] = _devices(history, segments, found).lazy()
    source = Source(path, "torch-snapshot", _PRODUCER, None, _facts(handed))
    noted = caveats.of_snapshot(handed, history, said, has_segments=bool(segments.height))
    return Trace(source, tables, noted, (handed.scratch,))


def timeline(path: Path, handed: Handed) -> Trace:
    """Return the trace of a profiler timeline: one counter per category, in bytes."""
    said = caveats.Said()
    found = handed.whole(handed.kind)
    made = _samples if handed.kind == "samples" else _changes
    samples = COUNTERS.empty() if found is None else made(found, said)
    said.add("rows", handed.facts["aside"])
    first_ns = samples["time_ns"].min()
    is_unix = isinstance(first_ns, int) and first_ns > _EPOCH_NS
    source = Source(
        path, "torch-memory-timeline", _PRODUCER, None, {"epoch_ns": "0"} if is_unix else {}
    )
    tables = {"counters": samples.lazy(), "names": NAMES.empty().lazy()}
    return Trace(source, tables, caveats.of_timeline(said))


def _memory(handed: Handed, history: caveats.History, said: caveats.Said) -> list[pl.LazyFrame]:
    """Return the events device by device in the file's order: one part, or several through files.

    They are taken as the child hands them over, while it goes on.
    """
    parts: list[pl.LazyFrame] = []
    held: pl.DataFrame | None = None
    for piece in handed.pieces("memory"):
        events = history.noted(_entries(piece, handed.texts, said))
        # Not a chunk per piece: looking up rows takes three times as long in chunks.
        held = events if held is None else held.extend(events)
        if held.height > SPILL_ROWS:
            file = handed.scratch.path / f"memory-{len(parts):06}.parquet"
            _events(held, handed).write_parquet(file, compression="lz4", statistics=False)
            parts.append(pl.scan_parquet(file, glob=False))
            held = None
    return parts if held is None else [*parts, _events(held, handed).lazy()]


def _entries(piece: pl.DataFrame, texts: Sequence[str], said: caveats.Said) -> pl.DataFrame:
    """Return what of one device's trace can be true, in its order; texts are still numbers."""
    of_block = pl.col("action").is_in([n for n, text in enumerate(texts) if text in _NEED_A_BLOCK])
    placed = _true("address").is_not_null() & (_true("size_bytes") >= 0).fill_null(value=False)
    sound = _true("action").is_not_null() & (placed | ~of_block)
    kept = piece.filter(sound)
    said.add("trace entries", piece.height - kept.height)
    time_ns = _time_ns()
    said.add("times", int(kept.select(_lost("time_us", time_ns)).item()))
    for column, what in _ODDITIES.items():
        said.add(what, int(kept.select((pl.col(column) == BAD).sum()).item()))
    size = _true("size_bytes")
    return kept.select(
        pl.col("device").cast(pl.Int32),
        _true("address"),
        _true("stream"),
        _true("stack_id").cast(pl.UInt32, strict=False),
        _true("free_bytes"),
        *(_true(column).cast(pl.UInt32) for column in _WORDS),
        time_ns=time_ns,
        size_bytes=pl.when(size >= 0).then(size),
    )


def _events(entries: pl.DataFrame, handed: Handed) -> pl.DataFrame:
    """Return the `memory` table of entries, with texts in place of their numbers."""
    texts = _texts(handed)
    made = {name: pl.col(name) for name in entries.columns if name not in _WORDS}
    made |= {
        word: _looked_up(texts, pl.col(word))
        for word in _WORDS
        if entries[word].null_count() < entries.height
    }
    return _in_schema(MEMORY, entries, {**made, "pid": pl.lit(0), "memory_kind": pl.lit("device")})


def _segments(handed: Handed, said: caveats.Said) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the segments, and their place in the file with what their blocks need of them."""
    found = handed.whole("segments")
    if found is None or not found.height:
        return SEGMENTS.empty(), pl.DataFrame(
            schema={"segment_id": pl.Int64, "device": pl.Int64, "start": pl.Int64}
        )
    texts = _texts(handed)
    listed = found.with_row_index("segment_id").with_columns(pl.col("segment_id").cast(pl.Int64))
    kept = listed.filter(_is_device(), _true("address").is_not_null(), _true("size_bytes") >= 0)
    said.add("segments", listed.height - kept.height)
    made = {
        "segment_id": pl.col("segment_id"),
        "device": pl.col("device"),
        "address": pl.col("address"),
        "size_bytes": pl.col("size_bytes"),
        "stream": _true("stream"),
        "pool": _text("pool", texts),
        "segment_kind": _text("segment_kind", texts),
        "expandable": _true("expandable").cast(pl.Boolean),
        "stack_id": _true("stack_id"),
    }
    places = kept.select("segment_id", "device", start="address")
    return _in_schema(SEGMENTS, kept, made), places


def _blocks(handed: Handed, segments: pl.DataFrame, said: caveats.Said) -> pl.DataFrame:
    """Return the blocks of segments that were kept.

    Up to PyTorch 2.0 blocks have no address: they follow one another from the segment's. Versions
    without requested sizes get the rounded ones, which is a caveat.
    """
    found = handed.whole("blocks")
    if found is None or not found.height:
        return BLOCKS.empty()
    texts = _texts(handed)
    of_segments = found.join(
        segments, on="segment_id", how="inner", validate="m:1", maintain_order="left"
    )
    size = _true("size_bytes")
    before = (size.fill_null(0).cum_sum() - size.fill_null(0)).over("segment_id")
    placed = of_segments.with_columns(address=_true("address").fill_null(pl.col("start") + before))
    kept = placed.filter(size >= 0, _true("state").is_not_null())
    said.add("blocks", found.height - kept.height)
    asked = _true("requested_bytes")
    asked = pl.when(asked >= 0).then(asked)
    in_use = _text("state", texts).str.starts_with("active")
    said.unasked = int(kept.select((asked.is_null() & in_use).sum()).item())
    made = {
        "segment_id": pl.col("segment_id"),
        "device": pl.col("device"),
        "address": pl.col("address"),
        "size_bytes": pl.col("size_bytes"),
        "requested_bytes": asked.fill_null(pl.col("size_bytes")),
        "state": _text("state", texts),
        "stack_id": _true("stack_id"),
    }
    return _in_schema(BLOCKS, kept, made)


def _stacks(handed: Handed) -> pl.DataFrame:
    lengths, frames = handed.whole("stack_lengths"), handed.whole("stack_frames")
    if lengths is None or frames is None or not frames.height:
        return STACKS.empty()
    depths = lengths.with_row_index("stack_id").with_columns(depth=pl.int_ranges("length"))
    rows = depths.filter(pl.col("length") > 0).explode("depth")
    made = {name: pl.col(name) for name in STACKS.schema()}
    return _in_schema(STACKS, rows.hstack(frames), made)


def _frames(handed: Handed) -> pl.DataFrame:
    found = handed.whole("frames")
    if found is None:
        return FRAMES.empty()
    texts = _texts(handed)
    made = {
        "frame_id": pl.col("frame_id"),
        "function": _text("function", texts),
        "file": _text("file", texts),
        "line": pl.col("line"),
    }
    return _in_schema(FRAMES, found.with_row_index("frame_id"), made)


def _devices(
    history: caveats.History, segments: pl.DataFrame, found: pl.DataFrame | None
) -> pl.DataFrame:
    """Return the devices that anything was recorded of; a snapshot tells no more of them."""
    used = {*history.events, *segments["device"].unique()}
    used |= set() if found is None else set(found["tid"].unique())
    return pl.DataFrame({"device": sorted(used)}, schema={"device": pl.Int32}).select(
        pl.col(name) if name == "device" else pl.lit(None, dtype).alias(name)
        for name, dtype in DEVICES.schema().items()
    )


def _facts(handed: Handed) -> Mapping[str, str]:
    """Return the allocator's settings, and of each device what became of its ring.

    `trace_alloc_overflowed` and `trace_alloc_max_entries` are JSON objects by device.
    """
    import json

    rings = handed.facts["rings"]
    return {
        "epoch_ns": "0",
        "visible_devices": str(handed.facts["visible_devices"]),
        **handed.facts["settings"],
        **{key: json.dumps(by_device) for key, by_device in rings.items()},
    }


def _samples(found: pl.DataFrame, said: caveats.Said) -> pl.DataFrame:
    """Return samples as they are; a time before the first one is the first one's."""
    at = _time_ns()
    kept = found.filter(at.is_not_null(), _true("value").is_not_null())
    said.add("rows", found.height - kept.height)
    return _counters(kept, at, pl.col("value").cast(pl.Float64))


def _changes(found: pl.DataFrame, said: caveats.Said) -> pl.DataFrame:
    """Return the running sum of each category; what was there before has the first time."""
    at, size = _true("time_ns"), _true("bytes")
    fit = at.abs() < _MOST_NS
    kept = found.filter(fit.fill_null(value=False), size.is_not_null(), _true("category") >= 0)
    said.add("rows", found.height - kept.height)
    return _counters(kept, at, size.cast(pl.Float64).cum_sum().over("category"))


def _counters(rows: pl.DataFrame, at: pl.Expr, value: pl.Expr) -> pl.DataFrame:
    known = dict(enumerate(CATEGORIES))
    category = pl.col("category")
    name = category.replace_strict(
        known, default=pl.format("CATEGORY_{}", category), return_dtype=pl.String
    )
    first = pl.when(at >= 0).then(at).min()
    made = {
        "time_ns": pl.when(at >= 0).then(at).otherwise(first.fill_null(0)),
        "device": pl.lit(None),
        "name": pl.format("{} (bytes)", name),
        "value": value,
    }
    return _in_schema(COUNTERS, rows, made)


def _in_schema(table: Table, rows: pl.DataFrame, made: Mapping[str, pl.Expr]) -> pl.DataFrame:
    """Return the columns of a table's schema; those that are not made are null."""
    return rows.select(
        made.get(name, pl.lit(None)).cast(dtype, strict=False).alias(name)
        for name, dtype in table.schema().items()
    )


def _true(column: str) -> pl.Expr:
    """Return the values that can be true, null for others."""
    return pl.when(pl.col(column) != BAD).then(pl.col(column))


def _texts(handed: Handed) -> pl.Series:
    """Return the texts that were handed over until now."""
    return pl.Series(handed.texts, dtype=pl.String)


def _text(column: str, texts: pl.Series) -> pl.Expr:
    return _looked_up(texts, _true(column).cast(pl.UInt32))


def _looked_up(texts: pl.Series, numbers: pl.Expr) -> pl.Expr:
    return numbers.map_batches(texts.gather, return_dtype=pl.String)


def _is_device() -> pl.Expr:
    return pl.col("device").is_between(0, _MOST_DEVICE).fill_null(value=False)


def _time_ns() -> pl.Expr:
    time_us = _true("time_us")
    return pl.when(time_us.abs() < _MOST_NS // 1000).then(time_us * 1000)


def _lost(column: str, expr: pl.Expr) -> pl.Expr:
    """Return how many values are there that the expression makes null."""
    return (pl.col(column).is_not_null() & expr.is_null()).sum()
