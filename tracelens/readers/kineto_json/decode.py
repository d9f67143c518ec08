"""From the text of a trace to its events: a typed decode, and what to do where that fails.

The ladder: the whole text at once; event by event where a value has a type that it should not
have; after a repair of the text where it is no JSON (`repair`); and at last every piece of it that
is an event. What was repaired or lost is counted. Arguments stay as they are written.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import msgspec

from tracelens.readers.kineto_json import repair

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_ABSENT: Final = msgspec.Raw(b"")
_NO_ARGUMENTS: Final = msgspec.Raw(b"{}")
_EXACT_BELOW: Final = 2.0**43
"""Up to here a float of microseconds holds whole nanoseconds."""


class Event(msgspec.Struct, gc=False):
    """One event; times in microseconds. ``id`` is a flow's."""

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


class _Around(
    msgspec.Struct,
    gc=False,
    rename={
        "schema_version": "schemaVersion",
        "devices": "deviceProperties",
        "distributed": "distributedInfo",
        "base_ns": "baseTimeNanoseconds",
        "profiler_version": "PROFILER_VERSION",
    },
):
    """What stands around the events and matters."""

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


class _Typed(_Around, gc=False, rename={"events": "traceEvents"}):
    events: list[Event] | None = None


class _Exact(_Around, gc=False, rename={"events": "traceEvents"}):
    events: list[ExactEvent] | None = None


class _Raws(_Around, gc=False, rename={"events": "traceEvents"}):
    events: list[msgspec.Raw] | None = None


_MALFORMED: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_EXACT_EVENT: Final = msgspec.json.Decoder(ExactEvent)


@dataclass
class Decoded:
    """The events of a trace, and what stands around them by the names of `_Around`.

    ``events`` is None where the text is JSON without a list of events; ``said`` tells what was
    repaired and what was lost.
    """

    events: Sequence[Event] | Sequence[ExactEvent] | None
    around: Mapping[str, Any] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)


def decode(text: bytes | memoryview) -> Decoded:
    """Return the events of a trace: an object around a list of them, or the list alone."""
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
    events, lost = _each(repair.pieces(repaired))
    said.append(f"The text is damaged: {len(events):,} events could be read, {lost:,} could not.")
    return Decoded(events or None, {}, said)


def _well_formed(text: bytes | memoryview) -> Decoded:
    is_list = bytes(text[:64]).lstrip().startswith(b"[")
    try:
        found = _decoded(text, list[Event] if is_list else _Typed)
    except msgspec.ValidationError:
        return _of_odd_types(text, is_list=is_list)
    times = [e.ts for e in found.events or () if isinstance(e.ts, float)]
    if times and max(*times, -min(times)) >= _EXACT_BELOW:
        return _decoded(text, list[ExactEvent] if is_list else _Exact)
    return found


def _of_odd_types(text: bytes | memoryview, *, is_list: bool) -> Decoded:
    """Decode each event by itself: a value of a wrong type costs no other event."""
    try:
        raws = _decoded(text, list[msgspec.Raw] if is_list else _Raws)
    except msgspec.ValidationError:
        return Decoded(None)
    if raws.events is None:
        return raws
    events, lost = _each(raws.events)
    said = [f"{lost:,} events were set aside: they are not what an event is."] if lost else []
    return Decoded(events, raws.around, said)


def _decoded(text: bytes | memoryview, kind: Any) -> Decoded:
    found = msgspec.json.decode(text, type=kind)
    if isinstance(found, list):
        return Decoded(found)
    around = {
        name: _value(value)
        for name in _Around.__struct_fields__
        if (value := getattr(found, name)) is not _ABSENT
    }
    return Decoded(found.events, around)


def _each(texts: Iterable[Any]) -> tuple[list[ExactEvent], int]:
    """Return the events of texts, one each, and how many are none."""
    found = [_event(text) for text in texts]
    events = [event for event in found if event is not None]
    return events, len(found) - len(events)


def _event(text: Any) -> ExactEvent | None:
    try:
        return _EXACT_EVENT.decode(text)
    except _MALFORMED:
        value = _value(text)
    if not isinstance(value, dict) or not isinstance(value.get("ph"), str):
        return None
    return ExactEvent(
        value["ph"],
        _text(value.get("cat")),
        _text(value.get("name")),
        _number_or_text(value.get("pid")),
        _number_or_text(value.get("tid")),
        msgspec.Raw(msgspec.json.encode(value.get("ts"))),
        msgspec.Raw(msgspec.json.encode(value.get("dur", 0))),
        _number_or_text(value.get("id")),
        msgspec.Raw(msgspec.json.encode(value.get("args"))),
    )


def _value(text: Any) -> Any:
    try:
        return msgspec.json.decode(text)
    except _MALFORMED:
        return None


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _number_or_text(value: object) -> int | str:
    return value if isinstance(value, int) and not isinstance(value, bool) else _text(value)
