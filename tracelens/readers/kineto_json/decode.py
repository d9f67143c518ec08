"""From the text of a trace to its events: what stands around them, and each as it is written.

The ladder: the text as it is; repaired where it is no JSON (`repair`); closed where it was cut
off; and at last every piece of it that is an event. Then the events are decoded many at once, and
one by one where one of them has a value that no event should have. All that was repaired or lost
is counted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import msgspec

from tracelens.readers.kineto_json import repair

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_ABSENT: Final = msgspec.Raw(b"")
_NO_ARGUMENTS: Final = msgspec.Raw(b"{}")
_EXACT_BELOW: Final = 2.0**43
"""Up to here a float of microseconds holds whole nanoseconds."""


class Event(msgspec.Struct, gc=False):
    """One event; times in microseconds, arguments as they are written. ``id`` is a flow's."""

    ph: str = ""
    cat: str = ""
    name: str = ""
    pid: int | str = 0
    tid: int | str = 0
    ts: float | int = 0
    dur: float | int = 0
    id: int | str = 0
    args: msgspec.Raw = _NO_ARGUMENTS


class ExactEvent(msgspec.Struct, gc=False):
    """The same, with times as they are written: a float cannot hold 19 digits."""

    ph: str = ""
    cat: str = ""
    name: str = ""
    pid: int | str = 0
    tid: int | str = 0
    ts: msgspec.Raw = msgspec.Raw(b"0")
    dur: msgspec.Raw = msgspec.Raw(b"0")
    id: int | str = 0
    args: msgspec.Raw = _NO_ARGUMENTS


class _Document(
    msgspec.Struct,
    gc=False,
    rename={
        "events": "traceEvents",
        "schema_version": "schemaVersion",
        "devices": "deviceProperties",
        "distributed": "distributedInfo",
        "base_ns": "baseTimeNanoseconds",
        "profiler_version": "PROFILER_VERSION",
    },
):
    events: list[msgspec.Raw] | None = None
    schema_version: msgspec.Raw = _ABSENT
    devices: msgspec.Raw = _ABSENT
    distributed: msgspec.Raw = _ABSENT
    base_ns: msgspec.Raw = _ABSENT
    profiler_version: msgspec.Raw = _ABSENT
    trace_id: msgspec.Raw = _ABSENT
    cupti_version: msgspec.Raw = _ABSENT
    cuda_runtime_version: msgspec.Raw = _ABSENT
    cuda_driver_version: msgspec.Raw = _ABSENT
    hip_runtime_version: msgspec.Raw = _ABSENT
    hip_driver_version: msgspec.Raw = _ABSENT
    record_shapes: msgspec.Raw = _ABSENT
    profile_memory: msgspec.Raw = _ABSENT
    with_stack: msgspec.Raw = _ABSENT
    with_flops: msgspec.Raw = _ABSENT
    with_modules: msgspec.Raw = _ABSENT


_MALFORMED: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_EVENTS: Final = msgspec.json.Decoder(list[Event])
_EXACT_EVENTS: Final = msgspec.json.Decoder(list[ExactEvent])
_EXACT_EVENT: Final = msgspec.json.Decoder(ExactEvent)


@dataclass
class Document:
    """The events of a trace as texts, and what stands around them by the names of `_Document`.

    ``events`` is None where the text is JSON without a list of events; ``said`` tells what was
    repaired and what was lost.
    """

    events: Sequence[msgspec.Raw] | Sequence[bytes] | None
    around: Mapping[str, Any] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)


def document(text: bytes | memoryview) -> Document:
    """Take a trace apart: it is an object around a list of events, or the list alone."""
    try:
        return _well_formed(text)
    except _MALFORMED:
        pass
    repaired, said = repair.repaired(bytes(text))
    for candidate, tail in ((repaired, ()), *repair.closed(repaired)):
        try:
            found = _well_formed(candidate)
        except _MALFORMED:
            continue
        found.said[:0] = [*said, *tail]
        return found
    pieces = list(repair.pieces(repaired))
    said.append("The text is damaged: every event was looked for by itself.")
    return Document(pieces or None, {}, said)


def decoded(texts: Sequence[Any]) -> tuple[list[Event] | list[ExactEvent], int]:
    """Return the events of texts, one each, and how many texts are none."""
    joined = b"[" + b",".join(texts) + b"]"
    try:
        events = _EVENTS.decode(joined)
        times = [event.ts for event in events if isinstance(event.ts, float)]
        if not times or max(*times, -min(times)) < _EXACT_BELOW:
            return events, 0
        return _EXACT_EVENTS.decode(joined), 0
    except _MALFORMED:
        pass
    found = [_event(text) for text in texts]
    exact = [event for event in found if event is not None]
    return exact, len(found) - len(exact)


def value(text: msgspec.Raw | bytes) -> Any:
    """Return what JSON says, None where it is none; bytes that are no UTF-8 are replaced."""
    try:
        return msgspec.json.decode(text)
    except UnicodeDecodeError:
        return value(bytes(text).decode(errors="replace").encode())
    except (msgspec.DecodeError, RecursionError):
        return None


def _well_formed(text: bytes | memoryview) -> Document:
    try:
        if bytes(text[:64]).lstrip().startswith(b"["):
            return Document(msgspec.json.decode(text, type=list[msgspec.Raw]))
        found = msgspec.json.decode(text, type=_Document)
    except msgspec.ValidationError:
        return Document(None)
    around = {
        name: value(getattr(found, name))
        for name in _Document.__struct_fields__
        if name != "events" and getattr(found, name) is not _ABSENT
    }
    return Document(found.events, around)


def _event(text: Any) -> ExactEvent | None:
    try:
        return _EXACT_EVENT.decode(text)
    except _MALFORMED:
        said = value(text)
    if not isinstance(said, dict) or not isinstance(said.get("ph"), str):
        return None
    return ExactEvent(
        said["ph"],
        _text(said.get("cat")),
        _text(said.get("name")),
        _number_or_text(said.get("pid")),
        _number_or_text(said.get("tid")),
        msgspec.Raw(msgspec.json.encode(said.get("ts"))),
        msgspec.Raw(msgspec.json.encode(said.get("dur", 0))),
        _number_or_text(said.get("id")),
        msgspec.Raw(msgspec.json.encode(said.get("args"))),
    )


def _text(said: object) -> str:
    return "" if said is None else str(said)


def _number_or_text(said: object) -> int | str:
    return said if isinstance(said, int) and not isinstance(said, bool) else _text(said)
