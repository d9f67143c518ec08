"""Rooms: folders in which one file is one thing, found by its file name and one constant.

`names` reads file names and first sentences from the source text and imports nothing, so that
`tracelens list` and `--help` stay fast; `load` imports the one file that is asked for. Other
distributions add things by an entry point in the group ``tracelens.<kind>``.
"""

from __future__ import annotations

import ast
import difflib
import functools
import importlib
import importlib.metadata
import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tracelens.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping


_FIRST_LINE: Final = re.compile(r'"""(\w[^\\\n]*?)(?:"""|\n)')


@dataclass(frozen=True)
class Room:
    """One folder of things: its package, and the constant that each of its files defines."""

    package: str
    constant: str


ROOMS: Final[Mapping[str, Room]] = {
    "command": Room("tracelens.cli", "COMMAND"),
    "reader": Room("tracelens.readers", "READER"),
    "analysis": Room("tracelens.analyses", "ANALYSIS"),
    "table": Room("tracelens.tables", "TABLE"),
    "finding": Room("tracelens.findings", "FINDING"),
    "memory_analysis": Room("tracelens.analyses.memory", "ANALYSIS"),
    "memory_table": Room("tracelens.tables.memory", "TABLE"),
    "audit_check": Room("tracelens.audit.checks", "CHECK"),
    "renderer": Room("tracelens.render", "RENDERER"),
    "section": Room("tracelens.reports.sections", "SECTION"),
    "exporter": Room("tracelens.exports", "EXPORTER"),
    "recorder": Room("tracelens.capture.recorders", "RECORDER"),
    "measure": Room("tracelens.bench.measures", "MEASURE"),
    "workload": Room("tracelens_workloads", "WORKLOAD"),
    "kernel": Room("tracelens_kernels.ops", "KERNEL"),
    "page": Room("tracelens_dashboards.pages", "PAGE"),
}


@dataclass(frozen=True)
class Entry:
    """One thing in a room; ``summary`` is the first sentence of its file."""

    name: str
    module: str
    summary: str
    constant: str

    def load(self) -> Any:
        """Import the file and return its constant."""
        return getattr(importlib.import_module(self.module), self.constant)


@functools.cache
def entries(kind: str) -> Mapping[str, Entry]:
    """Return every thing of a kind, by name, built-in first, then by entry point."""
    room = ROOMS[kind]
    found = {e.name: e for e in _built_in(room)}
    for point in _entry_points().select(group=f"tracelens.{kind}"):
        source = point.dist.name if point.dist else "another distribution"
        module, _, constant = point.value.partition(":")
        found.setdefault(
            point.name, Entry(point.name, module, f"From {source}.", constant or room.constant)
        )
    return found


def names(kind: str) -> tuple[str, ...]:
    """Return the names of every thing of a kind, sorted."""
    return tuple(sorted(entries(kind)))


def load(kind: str, name: str) -> Any:
    """Import one thing.

    Raises:
        UsageError: there is no such thing; the message names the nearest one.
    """
    known = entries(kind)
    stem = name.replace("-", "_")
    if stem not in known:
        raise UsageError(unknown(kind, name, known))
    return known[stem].load()


def unknown(kind: str, name: str, known: Mapping[str, object]) -> str:
    """Return the sentence that says a name is not known and which one may be meant."""
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"Did you mean {near[0]}?" if near else f"Known: {', '.join(sorted(known))}."
    return f"There is no {kind} named {name!r}. {hint}"


@functools.cache
def _entry_points() -> Any:
    """Look at the distributions once: each time takes 2 ms."""
    return importlib.metadata.entry_points()


def _built_in(room: Room) -> list[Entry]:
    spec = importlib.util.find_spec(room.package)
    if spec is None or not spec.submodule_search_locations:
        return []
    folder = Path(spec.submodule_search_locations[0])
    files = [*folder.glob("*.py"), *folder.glob("*/__init__.py")]
    found = (_entry(room, file, folder) for file in sorted(files))
    return [entry for entry in found if entry]


def _entry(room: Room, file: Path, folder: Path) -> Entry | None:
    stem = file.stem if file.parent == folder else file.parent.name
    text = file.read_text(encoding="utf-8")
    if stem == "__init__" or not re.search(rf"^{room.constant}\b", text, re.MULTILINE):
        return None
    return Entry(stem, f"{room.package}.{stem}", _summary(text), room.constant)


def _summary(text: str) -> str:
    """Return the first line of a file's docstring; parsing the file takes 1 ms."""
    if plain := _FIRST_LINE.match(text):
        return plain[1]
    return (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]
