"""One recording of several, read and reduced to tables, often in a process of its own."""

from __future__ import annotations

import socket
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from tracelens.analyses.memory.devices import devices
from tracelens.analyses.memory_by_phase import held, work
from tracelens.analyses.ranks import ranks
from tracelens.errors import UnreadableError
from tracelens.links.collectives import collectives
from tracelens.links.linked import link
from tracelens.links.memory import Ask, remember
from tracelens.readers.open import open_trace
from tracelens.run import Known
from tracelens.tables import build
from tracelens.tables.standout import looked_at_memory
from tracelens.tables.trust import gpus

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import polars as pl

    from tracelens.findings import Looked
    from tracelens.links.linked import Cut
    from tracelens.tables import Report
    from tracelens.trace.model import Trace

OF_RANKS: Final = ("ranks", "collectives", "overview")
"""What a summary of a run of several ranks shows when no table was named."""


@dataclass(frozen=True)
class Task:
    """What to read, and the tables wanted; without names those that suit the recording.

    ``at`` is where the reading process finds the file, ``path`` how it was named.
    """

    path: Path
    at: Path
    tables: tuple[str, ...]
    cut: Cut
    cache: bool


@dataclass(frozen=True)
class Work:
    """The GPU work of a recording, reduced.

    ``suits`` are the tables that a summary of it alone shows. ``ranks`` and ``by_phase`` are the
    frames of `analyses.ranks` and of `analyses.memory_by_phase.work`, ``collectives`` has a row
    for each collective; ``whole`` tells whether nothing was cut away.
    """

    report: Report
    suits: tuple[str, ...]
    gpus: Mapping[str, int]
    ranks: pl.DataFrame
    collectives: pl.DataFrame
    by_phase: pl.DataFrame
    whole: bool


@dataclass(frozen=True)
class Held:
    """The memory of a snapshot: by phase and step, the most that was active, and what was found."""

    by_phase: pl.DataFrame
    peak_bytes: int
    found: Looked


@dataclass(frozen=True)
class Reduced:
    """What a recording says of itself, and its GPU work or, of a snapshot, memory."""

    known: Known
    work: Work | None = None
    held: Held | None = None


def reduced(task: Task) -> Reduced:
    """Read a recording that is one of several, and reduce it.

    Raises:
        UnreadableError: it cannot be read.
        UsageError: what was asked for is not in it.
        NothingToShowError: it is a snapshot that holds no memory events.
    """
    if not task.at.exists():
        raise UnreadableError(
            f"{socket.gethostname()} has no file {task.at}. Workers on other machines need the "
            "files at the same path."
        )
    trace = open_trace(task.at, cache=task.cache)
    trace = replace(trace, source=replace(trace.source, path=task.path))
    known = Known(trace.source.format, trace.source.facts)
    if known.is_snapshot:
        return Reduced(known, held=_held(trace, task.cut))
    return Reduced(known, work=_work(trace, task))


def _work(trace: Trace, task: Task) -> Work:
    linked = link(trace, task.cut)
    suits = build.defaults(linked)
    names = task.tables or tuple(dict.fromkeys((*suits, *OF_RANKS)))
    return Work(
        build.report(linked, names),
        suits,
        gpus(linked) if linked.ops.height else {},
        ranks(linked),
        linked.once("collectives", collectives),
        work(linked),
        linked.whole,
    )


def _held(trace: Trace, cut: Cut) -> Held:
    memory = remember(trace, Ask(phase_rules=cut.phase_rules))
    peak = int(devices(memory)["peak_active_bytes"].sum())
    return Held(held(memory), peak, looked_at_memory(memory))
