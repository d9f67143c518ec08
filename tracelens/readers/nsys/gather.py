"""Reading one nsys table in parallel parts, by column name; what cannot be true is set aside."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens.readers import Progress, no_progress
from tracelens.trace.model import Caveat

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from tracelens.readers.nsys.storage import Storage

    Part = Callable[[], pl.DataFrame]
    Change = Callable[[pl.DataFrame], pl.DataFrame]

THREADS: Final = "TRACELENS_THREADS"
"""Exports of ours have this table: tid, where it has no 24 bits, by globalTid."""
_MOST_MACHINES: Final = 128
SPILL_PARTS: Final = 24
"""Tables of more parts than this go through Parquet files, so that memory stays bounded."""
_MOST_NS: Final = 2**62
_MOST_APART_NS: Final = 2**62 + 2**61
_LONG_NS: Final = 2**52
_DAY_NS: Final = 86_400 * 10**9


@dataclass
class Gather:
    """Reads the tables of one export.

    ``spill`` is a folder for the parts of large tables; ``everything`` adds the columns that are
    read on request only; ``caveats`` collects what had to be set aside.
    """

    storage: Storage
    spill: Path
    everything: bool = False
    progress: Progress = no_progress
    caveats: list[Caveat] = field(default_factory=list)
    extent: tuple[int, int] | None = None
    """First start and last end of what `near` has returned so far."""
    _aside: list[tuple[str, int]] = field(default_factory=list)

    @cached_property
    def machines(self) -> Mapping[int, int]:
        """Return numbers for machines (virtual ones) that share process ids; mostly empty."""
        rows = [*self.storage.records("PROCESSES"), *self.storage.records("ThreadNames")]
        ids = [row.get("globalPid", row.get("globalTid")) for row in rows]
        processes = {i >> 24 for i in ids if isinstance(i, int)}
        if THREADS in self.storage.tables():
            return {p >> 24: _machine(p >> 24) for p in processes if 1 < p >> 24 <= 2**8}
        if len({p % 2**24 for p in processes}) == len(processes):
            return {}
        uppers = sorted({p >> 24 for p in processes})
        return {upper: number for number, upper in enumerate(uppers) if 0 < number < _MOST_MACHINES}

    @cached_property
    def tids(self) -> Mapping[int, int]:
        """Return the thread ids that global ids stand for, where it is not the lower bits."""
        rows = ((row.get("globalTid"), row.get("tid")) for row in self.storage.records(THREADS))
        return {g: t for g, t in rows if isinstance(g, int) and isinstance(t, int)}

    def has(self, table: str, needed: Sequence[str]) -> bool:
        """Tell whether a table can be used; one that lacks needed columns is a caveat."""
        have = self.storage.tables().get(table)
        if have is None:
            return False
        missing = [column for column in needed if column not in have]
        if missing:
            self.note("damaged", f"{table} was set aside: it has no column {', '.join(missing)}.")
        return not missing

    def read(
        self,
        table: str,
        columns: Mapping[str, str],
        change: Change,
        texts: Sequence[str] = (),
    ) -> pl.LazyFrame:
        """Return ``change`` of every part of a table, in the file's order.

        ``columns`` maps our names to nsys's; those that this export does not have are null.
        ``texts`` are read as bytes under nsys's names.
        """
        have = self.storage.tables()[table]
        present = {ours: theirs for ours, theirs in columns.items() if theirs in have}
        stored = [text for text in texts if text in have]
        select = [
            *(pl.col(theirs).alias(ours) for ours, theirs in present.items()),
            *stored,
            *(pl.lit(None, pl.Int64).alias(ours) for ours in columns if ours not in present),
            *(pl.lit(b"", pl.Binary).alias(text) for text in texts if text not in have),
        ]
        parts = self.storage.pieces(table, sorted(set(present.values())), stored)

        done = itertools.count(1)

        def changed(part: Part) -> pl.DataFrame:
            frame = change(part().select(select))
            self.progress(table, next(done), len(parts))
            return frame

        if len(parts) > SPILL_PARTS:
            return self._spilled(table, parts, changed)
        with ThreadPoolExecutor(_workers()) as pool:
            return pl.concat(list(pool.map(changed, parts)), rechunk=True).lazy()

    def sound(self, table: str, frame: pl.DataFrame, needed: Sequence[str] = ()) -> pl.DataFrame:
        """Return the rows that have what is ``needed``, a start, and an end not before it.

        The others are counted.
        """
        tests = [pl.col(column).is_not_null() for column in needed]
        tests.append((pl.col("end_ns") >= pl.col("start_ns")).fill_null(value=False))
        sound = frame.select(sound=pl.all_horizontal(tests))["sound"]
        if sound.all():
            return frame
        self._aside.append((table, int((~sound).sum())))
        return frame.filter(sound)

    def near(self, frames: Mapping[str, pl.LazyFrame]) -> dict[str, pl.LazyFrame]:
        """Return the rows whose times can be added and subtracted in 64 bits; others are counted.

        The rest may lie decades apart, by one flipped bit, which `said` says.
        """
        facts = [_facts(frame) for frame in frames.values()]
        extents = [e for e in (self.extent, *(extent for extent, _ in facts)) if e is not None]
        if not extents:
            return dict(frames)
        first, last = min(e[0] for e in extents), max(e[1] for e in extents)
        if last - first < _MOST_APART_NS and all(took < _MOST_NS for _, took in facts):
            self.extent = first, last
            return dict(frames)
        starts = pl.concat([frame.select("start_ns") for frame in frames.values()])
        middle = self.extent[0] if self.extent else int(starts.median().collect().item())
        return {name: self._near(name, frame, middle) for name, frame in frames.items()}

    def _near(self, name: str, frame: pl.LazyFrame, middle: int) -> pl.LazyFrame:
        reach = _MOST_APART_NS // 2
        low, high = max(middle - reach, -(2**63)), min(middle + reach, 2**63 - 1)
        times = pl.col("start_ns", "end_ns").is_between(low, high).fill_null(value=True)
        whole = frame.collect()
        kept = whole.filter(pl.all_horizontal(times))
        extent, took = _facts(kept.lazy())
        if took >= _MOST_NS:
            kept = kept.filter(pl.col("end_ns") - pl.col("start_ns") <= _MOST_NS // kept.height)
        if extent is not None:
            known = self.extent or extent
            self.extent = min(known[0], extent[0]), max(known[1], extent[1])
        if far := whole.height - kept.height:
            self.note(
                "damaged",
                f"{far:,} rows of {name} were set aside: their times cannot be true.",
            )
        if "op_id" in kept.columns:
            kept = kept.with_columns(op_id=pl.int_range(pl.len(), dtype=pl.UInt32))
        return kept.lazy()

    def note(self, kind: str, text: str) -> None:
        """Add a caveat."""
        self.caveats.append(Caveat(kind, text))

    def said(self) -> tuple[Caveat, ...]:
        """Return all caveats, with one for each table that rows were set aside of."""
        rows: Counter[str] = Counter()
        for table, bad in self._aside:
            rows[table] += bad
        why = "they have no start, end or thread, or end before they start."
        aside = [
            Caveat("damaged", f"{bad:,} rows of {table} were set aside: {why}")
            for table, bad in sorted(rows.items())
        ]
        first, last = self.extent or (0, 0)
        if last - first > _LONG_NS:
            days = (last - first) // _DAY_NS
            text = (
                f"Some times are {days:,} days apart: what spans them, as idle time, is not real."
            )
            aside.append(Caveat("damaged", text))
        return (*self.caveats, *aside)

    def _spilled(
        self, table: str, parts: Sequence[Part], changed: Callable[[Part], pl.DataFrame]
    ) -> pl.LazyFrame:
        folder = self.spill / table
        folder.mkdir(parents=True, exist_ok=True)

        def write(number: int, part: Part) -> Path:
            file = folder / f"{number:06}.parquet"
            changed(part).write_parquet(file, compression="uncompressed", statistics=False)
            return file

        with ThreadPoolExecutor(_workers()) as pool:
            files = list(pool.map(write, range(len(parts)), parts))
        return pl.scan_parquet(files)


def _facts(frame: pl.LazyFrame) -> tuple[tuple[int, int] | None, float]:
    """Return the first and last time, and the sum of durations, which may not fit 64 bits."""
    start, end = pl.col("start_ns"), pl.col("end_ns")
    took = end.cast(pl.Float64) - start.cast(pl.Float64)
    last = pl.max_horizontal(start.max(), end.max())
    found = frame.select(first=start.min(), last=last, took=took.sum()).collect()
    first, last_ns, total = found.row(0)
    return (None if first is None else (first, last_ns)), total


def cast(schema: Mapping[str, object]) -> list[pl.Expr]:
    """Return the columns of a schema in order, as its types; values that do not fit are null."""
    return [pl.col(name).cast(dtype, strict=False) for name, dtype in schema.items()]  # type: ignore[arg-type]


def pid(column: str, machines: Mapping[int, int]) -> pl.Expr:
    """Return the process id of a global id: 8 bits hardware, 8 vm, 24 pid, 24 tid.

    ``machines`` numbers the upper 16 bits where one pid occurs on several machines: those beyond
    the first get ids above 2**24.
    """
    number = (pl.col(column) // 2**24 % 2**24).cast(pl.Int32)
    for upper, machine in machines.items():
        number += pl.when(pl.col(column) // 2**48 == upper).then(machine * 2**24).otherwise(0)
    return number.cast(pl.Int32)


def tid(column: str, tids: Mapping[int, int]) -> pl.Expr:
    """Return the thread id in nsys's global thread ids; ``tids`` are those that are not in them."""
    plain = (pl.col(column) % 2**24).cast(pl.Int32)
    if not tids:
        return plain
    return pl.col(column).replace_strict(tids, default=plain, return_dtype=pl.Int32)


def _machine(upper: int) -> int:
    """Return what the upper bits that we wrote stand for: bits 24 to 31 of the process id."""
    return upper - 1 if upper <= _MOST_MACHINES else upper - 1 - 2**8


def _workers() -> int:
    return min(8, os.cpu_count() or 1)
