"""What a reader of a snapshot's numbers must know: what was set aside, lost or never recorded."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from tracelens.readers.torch_snapshot.handed import shown
from tracelens.trace.model import Caveat

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import polars as pl

    from tracelens.readers.torch_snapshot.handed import Handed

HOW: Final = (
    "Call torch.cuda.memory._record_memory_history() before the work, and "
    "torch.cuda.memory._dump_snapshot(FILE) after it."
)
_WHY: Final[Mapping[str, str]] = {
    "trace entries": "they have no action, address or size that can be true",
    "segments": "they have no device, address or size that can be true",
    "blocks": "they have no size or state that can be true, or their segment was set aside",
    "annotations": "they have no name, stage, device or time that can be true",
    "times": "they cannot be true: these events have none",
    "stacks": "they are no lists of frames: these events have none",
    "streams": "they are no addresses: these events have none",
    "pools": "they are no pairs of numbers: these events have none",
    "contexts": "they are no text: these events have none",
    "remarks": "they are no text: these events have none",
    "rows": "they are not shaped as the others",
}


@dataclass
class Said:
    """Counts, by what was counted, of what was set aside while tables were made.

    ``unbegun`` annotations end without having begun; ``unasked`` blocks have no requested size.
    """

    aside: Counter[str] = field(default_factory=Counter)
    unbegun: int = 0
    unasked: int = 0

    def add(self, what: str, count: int) -> None:
        """Count."""
        self.aside[what] += count


@dataclass
class History:
    """What is known of all events together, noted piece by piece, in order.

    ``events`` counts them by device; ``back`` counts how often time goes back on a device.
    """

    events: Counter[int] = field(default_factory=Counter)
    last_ns: int | None = None
    back: int = 0
    _last: dict[int, int] = field(default_factory=dict)

    def noted(self, piece: pl.DataFrame) -> pl.DataFrame:
        """Note events of one device, and return them."""
        if not piece.height:
            return piece
        device = piece["device"][0]
        self.events[device] += piece.height
        times = piece["time_ns"].drop_nulls()
        if times.len():
            first, last, latest = times[0], times[-1], times.max()
            self.back += int((times.diff() < 0).sum()) + (first < self._last.get(device, first))
            self._last[device] = last
            self.last_ns = latest if self.last_ns is None else max(self.last_ns, latest)  # type: ignore[type-var,assignment]
        return piece


def of_timeline(said: Said) -> tuple[Caveat, ...]:
    """Return the caveats of a profiler timeline."""
    missing = Caveat(
        "missing",
        "A timeline of the profiler holds sums per category only: no blocks, stacks or devices.",
    )
    return (missing, *_aside(said))


def of_snapshot(
    handed: Handed, history: History, said: Said, *, has_segments: bool
) -> tuple[Caveat, ...]:
    """Return the caveats of a snapshot."""
    facts = handed.facts
    for table, what in (
        ("memory", "trace entries"),
        ("segments", "segments"),
        ("blocks", "blocks"),
        ("annotations", "annotations"),
    ):
        said.add(what, facts["aside"].get(table, 0))
    return (
        *(() if said.aside["trace entries"] else _missing(history, has_segments=has_segments)),
        *_overflows(facts["rings"]),
        *_aside(said),
        *_details(facts, history, said),
    )


def _missing(history: History, *, has_segments: bool) -> Iterator[Caveat]:
    if not history.events:
        held = "the state at its end only" if has_segments else "nothing at all"
        yield Caveat("missing", f"No history was recorded: the snapshot holds {held}. {HOW}")
    elif max(history.events.values()) == 1 and has_segments:
        yield Caveat(
            "missing",
            "The history holds one event per device: with enabled='state' PyTorch keeps no more. "
            f"{HOW}",
        )
    elif history.last_ns is None:
        yield Caveat(
            "missing",
            "No times were recorded (PyTorch before 2.2): events are known by their order only.",
        )


def _overflows(rings: Mapping[str, Mapping[str, int]]) -> Iterator[Caveat]:
    kept = rings.get("trace_alloc_max_entries", {})
    for device, overflowed in rings.get("trace_alloc_overflowed", {}).items():
        if overflowed:
            most = f" of {kept[device]:,} events" if device in kept else ""
            yield Caveat(
                "lost",
                f"The history{most} of device {device} was full: its oldest events were "
                "overwritten. Record with a larger max_entries.",
            )


def _aside(said: Said) -> Iterator[Caveat]:
    for what, count in sorted(said.aside.items()):
        if count:
            yield Caveat("damaged", f"{count:,} {what} were set aside: {_WHY[what]}.")


def _details(facts: Mapping[str, Any], history: History, said: Said) -> Iterator[Caveat]:
    if facts["bytes_left"]:
        yield Caveat(
            "damaged",
            f"{facts['bytes_left']:,} bytes after the end of the snapshot were not read.",
        )
    if facts["damaged_frames"]:
        yield Caveat("damaged", f"{facts['damaged_frames']:,} frames of stacks are none.")
    if facts["cut_texts"]:
        yield Caveat("note", f"{facts['cut_texts']:,} texts were cut: they are very long.")
    if said.unbegun:
        yield Caveat(
            "lost", f"{said.unbegun:,} annotations end without having begun: they are not shown."
        )
    if said.unasked:
        yield Caveat(
            "missing",
            f"{said.unasked:,} blocks have no requested size: their rounded size stands for it.",
        )
    if history.back:
        yield Caveat(
            "note", f"Time goes back {history.back:,} times: events are in the file's order."
        )
    for table, length in sorted(facts["unread"].items()):
        yield Caveat("note", f"{shown(table)} ({length:,} entries) is not read.")
    if facts["unread_keys"]:
        keys = ", ".join(map(shown, facts["unread_keys"][:8]))
        yield Caveat("note", f"What events say under {keys} is not read.")
    if not facts["limited"]:
        yield Caveat(
            "note", "This system cannot limit the memory of the process that read the snapshot."
        )
