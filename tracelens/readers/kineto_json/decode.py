"""From the text of a trace to its events: what stands around them, and each as it is written.

The ladder: the text as it is; in UTF-8 and without `NaN`; with the end that was cut off; and at
last every piece of it that begins as an event does. Then the events are decoded many at once, and
one by one where one of them is no JSON (`repair`) or has a value that no event should have. All
that was repaired or lost is counted.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from math import isfinite
from typing import TYPE_CHECKING, Any, Final

import msgspec

from tracelens.readers.kineto_json import repair

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_ABSENT: Final = msgspec.Raw(b"")
_NO_ARGUMENTS: Final = msgspec.Raw(b"{}")
_NO_TIME: Final = msgspec.Raw(b"null")
_EXACT_BELOW: Final = 2.0**43
"""Up to here a float of microseconds holds whole nanoseconds."""


class Event(msgspec.Struct, gc=False):
    """One event; times in microseconds, arguments as they are written. ``id`` is a flow's."""

    ph: str = ""
    cat: str = ""
    name: str = ""
    pid: int | str = 0
    tid: int | str = 0
    ts: float | int | None = None
    dur: float | int | None = None
    id: int | str = 0
    args: msgspec.Raw = _NO_ARGUMENTS


class ExactEvent(msgspec.Struct, gc=False):
    """The same, with times as they are written: a float cannot hold 19 digits."""

    ph: str = ""
    cat: str = ""
    name: str = ""
    pid: int | str = 0
    tid: int | str = 0
    ts: msgspec.Raw = _NO_TIME
    dur: msgspec.Raw = _NO_TIME
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


@dataclass
class Decoded:
    """Events, how many of them had to be mended first, and how many texts are none."""

    events: list[Event] | list[ExactEvent]
    mended: int = 0
    lost: int = 0


def document(text: bytes | memoryview) -> Document:
    """Take a trace apart: it is an object around a list of events, or the list alone."""
    try:
        return _well_formed(text)
    except _MALFORMED:
        pass
    plain, said = repair.plain(bytes(text))
    try:
        found = _well_formed(plain)
    except _MALFORMED as error:
        found = _of_damaged(plain, str(error))
    found.said[:0] = said
    return found


def decoded(texts: Sequence[Any]) -> Decoded:
    """Return the events of texts, one each."""
    joined = b"[" + b",".join(texts) + b"]"
    try:
        events = _EVENTS.decode(joined)
        times = [event.ts for event in events if isinstance(event.ts, float)]
        if not times or max(*times, -min(times)) < _EXACT_BELOW:
            return Decoded(events)
        return Decoded(_EXACT_EVENTS.decode(joined))
    except _MALFORMED:
        pass
    exact: list[ExactEvent] = []
    found = Decoded(exact)
    for text in texts:
        event, mended = _event(text)
        found.mended += mended
        if event is None:
            found.lost += 1
        else:
            exact.append(event)
    return found


def value(text: msgspec.Raw | bytes) -> Any:
    """Return what JSON says, None where it is none; what no text can hold is replaced."""
    try:
        return msgspec.json.decode(text)
    except _MALFORMED:
        pass
    try:
        # Numbers beyond all bounds, and halves of pairs, are no trouble to it.
        found = json.loads(bytes(text).decode(errors="replace"), strict=False, parse_float=_finite)
        again = json.dumps(found, ensure_ascii=False).encode("utf-8", "replace")
        return msgspec.json.decode(again)
    except (ValueError, RecursionError, msgspec.DecodeError):
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


def _of_damaged(text: bytes, problem: str) -> Document:
    """Return the events of a text that is no JSON, and say what was lost."""
    for candidate, what in repair.ended(text, problem):
        try:
            found = _well_formed(candidate)
        except _MALFORMED:
            continue
        if found.events is not None:
            return Document(found.events, found.around, [*found.said, what])
    pieces = repair.pieces(text)
    said = [f"The file is damaged: {len(pieces):,} events in it were looked for one by one."]
    if not text.rstrip(b"\0 \t\r\n").endswith((b"}", b"]")):
        said.append("The file is cut off at its end.")
    around = _well_formed(repair.surroundings(text)).around
    return Document(pieces or None, around, said)


def _event(text: Any) -> tuple[ExactEvent | None, bool]:
    """Return an event, or None where the text is none, and whether it had to be mended."""
    try:
        return _EXACT_EVENT.decode(text), False
    except (msgspec.ValidationError, UnicodeDecodeError):
        return _odd_event(value(text)), False
    except _MALFORMED:
        mended = repair.mended(bytes(text))
    if mended is None:
        return None, False
    try:
        return _EXACT_EVENT.decode(mended), True
    except _MALFORMED:
        return _odd_event(value(mended)), True


def _odd_event(said: Any) -> ExactEvent | None:
    """Return the event of an object in which some values have other types."""
    if not isinstance(said, dict) or not isinstance(said.get("ph"), str):
        return None
    return ExactEvent(
        said["ph"],
        _text(said.get("cat")),
        _text(said.get("name")),
        _number_or_text(said.get("pid")),
        _number_or_text(said.get("tid")),
        msgspec.Raw(msgspec.json.encode(said.get("ts"))),
        msgspec.Raw(msgspec.json.encode(said.get("dur"))),
        _number_or_text(said.get("id")),
        msgspec.Raw(msgspec.json.encode(said.get("args"))),
    )


def _finite(digits: str) -> float | None:
    number = float(digits)
    return number if isfinite(number) else None


def _text(said: object) -> str:
    return "" if said is None else str(said)


def _number_or_text(said: object) -> int | str:
    return said if isinstance(said, int) and not isinstance(said, bool) else _text(said)
