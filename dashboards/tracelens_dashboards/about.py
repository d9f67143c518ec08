"""What was captured, and on what: the recording's own facts, its devices, and its Run folder."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from dash import html

from tracelens import run, units
from tracelens.tables import Column, build
from tracelens_dashboards import parts
from tracelens_dashboards.names import plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from tracelens.trace.model import Trace
    from tracelens_dashboards.library import Opened

_LARGEST_BYTES: Final = 4 << 20
_LONGEST: Final = 600
_MOST_FACTS: Final = 40
_LAST_NS: Final = 1 << 62
_PASSES: Final = (
    Column("recorder", "recorder", "text"),
    Column("state", "state", "text"),
    Column("seconds", "took (s)", "count"),
    Column("why", "why", "text"),
)
_TOLD: Final = {
    "name": "run",
    "workload": "workload",
    "created": "captured",
    "command": "command",
    "steps": "steps recorded",
    "warmup": "steps before",
    "device": "device",
    "tracelens": "tracelens",
}


def card(opened: Opened) -> Any:
    """Return the part of the overview that tells what was captured."""
    trace = opened.trace if opened.item.trace is not None else opened.memory.trace
    said = manifest(opened.item.folder)
    rows = [*_files(opened), *_recorded(trace), *_of_run(said)]
    return parts.card(
        "What was captured",
        _told(rows),
        *_facts(trace),
        *_devices(opened, trace),
        *_passes(said),
        *_caveats(trace),
    )


def manifest(folder: Path | None) -> dict[str, Any]:
    """Return what run.json of a folder says; empty where there is none, or it is damaged."""
    if folder is None:
        return {}
    file = folder / run.MANIFEST
    try:
        if file.stat().st_size > _LARGEST_BYTES:
            return {}
        said = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def _told(rows: Iterable[tuple[str, object]]) -> Any:
    return html.Table(html.Tbody([_row(name, value) for name, value in rows]), className="told")


def _row(name: str, value: object) -> Any:
    return html.Tr([html.Th(plain(name)), html.Td(plain(str(value), _LONGEST))])


def _files(opened: Opened) -> Iterator[tuple[str, object]]:
    item = opened.item
    if item.trace is not None:
        yield "trace", _file(item.trace)
    if item.memory is not None and item.memory != item.trace:
        yield "memory", _file(item.memory)


def _file(path: Path) -> str:
    try:
        size = f" ({units.size(path.stat().st_size)})" if path.is_file() else ""
    except OSError:
        size = ""
    return f"{path.name}{size}"


def _recorded(trace: Trace) -> Iterator[tuple[str, object]]:
    """Tell what the recorder said of the recording."""
    source = trace.source
    version = f", schema {source.schema_version}" if source.schema_version else ""
    yield "recorded by", f"{source.producer or source.format}{version}"
    epoch_ns = source.facts.get("epoch_ns", "")
    if epoch_ns.isdecimal() and 0 < int(epoch_ns) < _LAST_NS:
        when = datetime.fromtimestamp(int(epoch_ns) // 10**9, UTC)
        yield "time 0 of the recording", f"{when:%Y-%m-%d %H:%M:%S} UTC"
    rank, size = source.facts.get("rank"), source.facts.get("world_size")
    if rank is not None:
        yield "rank", f"{rank} of {size}" if size else rank


def _facts(trace: Trace) -> Iterator[Any]:
    """Tell the rest of what the recorder said, folded: it is in the recorder's own words."""
    facts = [(name, value) for name, value in trace.source.facts.items() if value]
    if facts:
        told = _told(facts[:_MOST_FACTS])
        yield html.Details([html.Summary("All that the recorder said"), told], className="beside")


def _of_run(said: dict[str, Any]) -> Iterator[tuple[str, object]]:
    """Tell of run.json what people ask for; it may be of any shape."""
    for key, name in _TOLD.items():
        if said.get(key) not in (None, "", []):
            yield name, _text(said[key])
    machine = said.get("machine")
    for key in ("processor", "platform", "python", "cuda", "versions", "environment"):
        if isinstance(machine, dict) and machine.get(key):
            yield key, _text(machine[key])
    revision = said.get("revision")
    if isinstance(revision, dict) and revision.get("commit"):
        changed = " (with changes)" if revision.get("changed") else ""
        yield "commit", f"{revision['commit']}{changed}"


def _text(value: object) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value))
    if isinstance(value, dict):
        return ", ".join(f"{name} {one}" for name, one in value.items())
    return str(value)


def _devices(opened: Opened, trace: Trace) -> Iterator[Any]:
    if opened.item.trace is not None and trace.get("devices") is not None:
        filled = build.fill(opened.linked, "devices")
        if filled.frame.height:
            yield parts.table(filled)


def _passes(said: dict[str, Any]) -> Iterator[Any]:
    passes = said.get("passes")
    rows = [one for one in passes if isinstance(one, dict)] if isinstance(passes, list) else []
    if rows:
        yield parts.heading("Passes of the capture")
        yield parts.table_of(_PASSES, [_pass(row) for row in rows])


def _pass(row: dict[str, Any]) -> dict[str, Any]:
    seconds = row.get("seconds")
    told = {name: str(row.get(name) or "") for name in ("recorder", "state", "why")}
    return {**told, "seconds": round(seconds, 1) if isinstance(seconds, int | float) else None}


def _caveats(trace: Trace) -> Iterator[Any]:
    if trace.caveats:
        yield parts.heading("What a reader of the numbers must know")
        yield html.Ul([html.Li(plain(c.text, 1_000)) for c in trace.caveats], className="note")
