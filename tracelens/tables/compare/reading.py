"""From recordings to sides of a comparison: each is read and reduced, often in its own process."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from tracelens.analyses.compare.prepare import memory_of, prepared
from tracelens.analyses.compare.side import (
    IDLE,
    OPS,
    RANGES,
    STEPS,
    WORK,
    Memory,
    Side,
    merged,
    repeated,
)
from tracelens.errors import NothingToShowError, UsageError
from tracelens.links.linked import Cut, link
from tracelens.links.ops import ops_of
from tracelens.readers.open import open_trace
from tracelens.run import MANIFEST, Known, as_run
from tracelens.tables.trust import gpus

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tracelens.run import Place
    from tracelens.trace.model import Trace

_MOST_OPS: Final = 300_000
"""Of larger recordings the numbers of thread blocks are not read: that takes a second reading."""


@dataclass(frozen=True)
class Task:
    """A recording to read: ``path`` is how it was named, ``phases`` are the user's rules."""

    path: Path
    phases: Mapping[str, str] = field(default_factory=dict)
    cache: bool = True


@dataclass(frozen=True)
class Read:
    """What a recording was reduced to: a side, or of a memory snapshot what it held."""

    known: Known
    side: Side | None = None
    memory: Memory | None = None


def read(task: Task) -> Read:
    """Read a recording and reduce it.

    Raises:
        UnreadableError: it cannot be read.
        NothingToShowError: it holds nothing that can be compared.
    """
    trace = open_trace(task.path, cache=task.cache)
    known = Known(trace.source.format, trace.source.facts)
    if known.is_snapshot:
        return Read(known, memory=memory_of(trace, task.phases))
    linked = link(trace, Cut(phase_rules=task.phases))
    used = gpus(linked) if linked.ops.height else {}
    if ops_of(linked) is None and 0 < linked.ops.height <= _MOST_OPS:
        linked = link(_with_blocks(trace, task.path), Cut(phase_rules=task.phases))
    return Read(known, prepared(linked, task.path.name, used))


def _with_blocks(trace: Trace, path: Path) -> Trace:
    """Return the trace with the grids of its kernels, which tell renamed ones where no op does."""
    whole = open_trace(path, everything=True)
    ops, before = whole.get("gpu_ops"), trace.get("gpu_ops")
    if ops is None or before is None:
        return trace
    return replace(trace, tables={**trace.tables, "gpu_ops": ops}, entry=None)


def side_of(place: Place, reads: Mapping[Path, Read], label: str) -> Side:
    """Return the side that a place is: one recording, or the ranks and snapshots of one run.

    Args:
        place: what was named.
        reads: what its recordings were reduced to.
        label: what the side is called.

    Raises:
        UsageError: its recordings are not those of one run.
    """
    timed = timed_steps(place.path)
    if timed and not reads:
        bare = replace(_bare("timer"), is_stepped=True, gpus=_gpus_told(place.path))
        return replace(bare, label=label, path=str(place.path), timed_ns=timed)
    run, why_not = as_run(place, {path: one.known for path, one in reads.items()})
    traces = [path for path, one in reads.items() if one.side is not None]
    snapshots = [one.memory for one in reads.values() if one.memory is not None]
    if run is None and len(traces) > 1:
        raise UsageError(
            f"{place.path} holds {len(traces)} recordings that are not the ranks of one run. "
            f"{' '.join(why_not)} Name one of them, or --rank N."
        )
    if run is not None:
        sides = [
            _with_memory(side, reads[rank.snapshot].memory if rank.snapshot else None)
            for rank in run.ranks
            if (side := reads[rank.trace].side) is not None
        ]
    else:
        sides = [_with_memory(side, None) for one in reads.values() if (side := one.side)]
        if sides and len(snapshots) == 1:
            sides = [_with_memory(sides[0], snapshots[0])]
    if not sides:
        if not snapshots:
            raise NothingToShowError(f"{place.path} holds nothing to compare.")
        sides = [replace(_bare("torch-snapshot"), memory=snapshots[0])]
    whole = merged(sides)
    caveats = (*whole.caveats, *(run.caveats if run else ()))
    return replace(whole, label=label, path=str(place.path), timed_ns=timed, caveats=caveats)


def timed_steps(folder: Path) -> tuple[int, ...]:
    """Return the times of steps that a capture took without a profiler (run.json), if it did."""
    try:
        passes = _told(folder)["passes"]
        timed = [p for p in passes if p["recorder"] == "timer" and p["state"] == "done"]
        times = timed[-1]["steps_ns"]
    except (LookupError, TypeError):
        return ()
    if not isinstance(times, list) or not all(type(t) is int and t >= 0 for t in times):
        return ()
    return tuple(times)


def _gpus_told(folder: Path) -> dict[str, int]:
    """Return how many GPUs of which name a capture ran on (run.json)."""
    told = _told(folder)
    try:
        names = [str(one["name"]) for one in told["machine"]["gpus"]]
        ranks = int(told["options"].get("world_size", 1))
    except (LookupError, TypeError, ValueError, AttributeError):
        return {}
    return dict(Counter(names[:ranks])) if told.get("device") != "cpu" else {}


def _told(folder: Path) -> dict[str, Any]:
    """Return what run.json says; nothing where there is none that can be understood."""
    try:
        said = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def _with_memory(side: Side, memory: Memory | None) -> Side:
    """Return the side with the memory of a snapshot, which knows more than the trace."""
    return side if memory is None else replace(side, memory=memory)


def _bare(format_: str) -> Side:
    """Return a side of which no work is known: of memory alone, or of times of steps alone."""
    return Side(
        "", "", format_, None, {}, 1, is_stepped=False,
        steps=pl.DataFrame(schema=STEPS), work=pl.DataFrame(schema=WORK),
        idle=pl.DataFrame(schema=IDLE), ranges=pl.DataFrame(schema=RANGES),
        ops=pl.DataFrame(schema=OPS),
    )  # fmt: skip


def sides(named: Sequence[tuple[str, Place]], reads: Mapping[Path, Read]) -> list[Side]:
    """Return the sides of a comparison, in the order in which they were named first.

    Args:
        named: each place with the name that it was given, empty without one; places of one name
            are recordings of the same, in turns.
        reads: what the recordings of all places were reduced to.

    Raises:
        UsageError: a place holds recordings that are not those of one run, or there is one side.
    """
    labels = _distinct([name or place.path.name or str(place.path) for name, place in named])
    turns: dict[str, list[Side]] = {}
    for (name, place), label in zip(named, labels, strict=True):
        mine = {recording.path: reads[recording.path] for recording in place.recordings}
        side = side_of(place, mine, name or label)
        turns.setdefault(side.label, []).append(side)
    if len(turns) < 2:
        raise UsageError("All runs have one name: name two runs at least.")
    return [repeated(of) for of in turns.values()]


def _distinct(labels: Sequence[str]) -> list[str]:
    """Return the labels; those that are there twice are told apart by A, B, ..."""
    return [
        label if labels.count(label) == 1 else f"{label} ({chr(ord('A') + i % 26)})"
        for i, label in enumerate(labels)
    ]
