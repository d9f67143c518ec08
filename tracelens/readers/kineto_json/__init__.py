"""torch.profiler traces: Kineto's JSON of 2020 to 2026."""

from __future__ import annotations

import mmap
import re
from typing import TYPE_CHECKING, Any, Final

from tracelens.errors import UnreadableError
from tracelens.readers import Progress, Reader, no_progress

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import polars as pl

    from tracelens.readers.kineto_json.decode import Document
    from tracelens.readers.kineto_json.events import Events
    from tracelens.trace.model import Caveat, Trace

_MARKS: Final = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")
_OTHERS: Final = re.compile(
    rb'^\s*(?:\{\s*"(?:segments|device_traces|allocator_settings|external_annotations)"'
    rb'|\[\s*\[|\[\s*\{[^{}\[\]]*"total_size")'
)
_PRODUCER: Final = "torch.profiler (Kineto)"
_RECORD: Final = (
    "Record with torch.profiler.profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) "
    "and write it with prof.export_chrome_trace(FILE)"
)
_EXPORT: Final = "nsys export --type sqlite FILE.nsys-rep"


def recognises(path: Path, head: bytes) -> bool:
    """Tell whether this is JSON, and not of a memory snapshot."""
    if path.is_dir() or _OTHERS.match(head):
        return False
    for mark in _MARKS:
        head = head.removeprefix(mark)
    return head.replace(b"\0", b"").lstrip()[:1] in (b"{", b"[") and len(head) > 0


def read(path: Path, *, everything: bool = False, progress: Progress = no_progress) -> Trace:
    """Read a trace.

    Raises:
        UnreadableError: it is other JSON, or damaged before its first event.
    """
    from tracelens.readers.kineto_json import facts
    from tracelens.readers.kineto_json.cpu import Ranges, calls
    from tracelens.readers.kineto_json.gpu import Work
    from tracelens.readers.kineto_json.memory import memory
    from tracelens.trace.model import Source, Trace

    progress("decoding", 0, 3)
    events, around = _events(path, everything=everything)
    progress("GPU work and calls", 1, 3)
    api = calls(events, everything=everything)
    work = Work(events, api, everything=everything)
    progress("ops and ranges", 2, 3)
    ranges = Ranges(events)
    launchers = ranges.launchers(work.ops, api)
    tables = {
        "gpu_ops": _filled(work.ops.drop("external_id")),
        "api": _filled(api),
        "ranges": _filled(ranges.table()),
        "ops": ranges.ops(),
        "launched_by": _filled(launchers),
        "collectives": work.collectives(),
        "memory": memory(events),
        "threads": facts.threads(events),
        "devices": facts.devices(around),
        "names": facts.names(events),
    }
    version = around.get("schema_version")
    source = Source(
        path,
        "kineto-json",
        _PRODUCER,
        None if version is None else str(version),
        facts.facts(around, events.epoch_ns),
    )
    present = {name: frame.lazy() for name, frame in tables.items() if frame is not None}
    return Trace(source, present, _caveats(events, work.ops["pid"].null_count()))


def _events(path: Path, *, everything: bool) -> tuple[Events, Mapping[str, Any]]:
    """Return the events and what stands around them; their text is let go."""
    from tracelens.readers.kineto_json.decode import document
    from tracelens.readers.kineto_json.events import Events

    with path.open("rb") as file:
        text = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    found = document(memoryview(text))
    events = Events(found, everything=everything)
    _check(path, found, events)
    return events, found.around


def _check(path: Path, document: Document, events: Events) -> None:
    """Refuse JSON that is something else, or holds nothing."""
    name = path.name
    if document.events is None:
        what = "damaged before its first event" if document.said else "JSON without traceEvents"
        raise UnreadableError(
            f"{name} is no torch.profiler trace: it is {what}. {_RECORD}. "
            f"From an Nsight Systems report, make SQLite: {_EXPORT}"
        )
    if not events.count:
        raise UnreadableError(f"{name} is a trace without events. {_RECORD}.")
    if not events.has_work and not document.around:
        raise UnreadableError(
            f"{name} is a trace in Chrome's format, but not by torch.profiler: no event has a "
            f"category that it writes. {_RECORD}."
        )


def _filled(frame: pl.DataFrame) -> pl.DataFrame | None:
    return frame if frame.height else None


def _caveats(events: Events, unplaced: int) -> tuple[Caveat, ...]:
    from tracelens.trace.model import Caveat

    said = []
    if not any(events.of(kind).height for kind in ("kernel", "copy", "memset")):
        said.append(Caveat("missing", f"The trace holds no GPU work. {_RECORD}."))
    if unplaced:
        text = f"{unplaced:,} GPU ops cannot be told to belong to one of several processes."
        said.append(Caveat("missing", text))
    return (*said, *events.said)


READER = Reader(recognises, read)
