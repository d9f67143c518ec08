"""What a URL of the memory page says: which device, axis, part, grouping and moment."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tracelens_dashboards.memory.course import Recording

AXES: Final = {"time": "Time", "event": "Event"}
BY: Final = {"category": "Category", "phase": "Phase", "site": "Line of code"}
GROUPS: Final = {"stack": "Stack", "file": "File", "category": "Category", "phase": "Phase"}
LIVES: Final = {"stacked": "Stacked", "address": "By address"}
MOMENTS: Final = ("peak", "oom", "end", "start")
_WIDTH: Final = 1_000
_WIDEST: Final = 4_000


@dataclass(frozen=True)
class View:
    """What to show, with defaults for what a URL does not say, or says wrongly.

    Attributes:
        device: CUDA device.
        axis: `time` or `event`.
        begin: where the part begins on the axis; None: with the recording.
        end: where it ends; None: with the recording.
        by: what the course is stacked by: `category`, `phase` or `site`.
        group: what is put together of what was live: `stack`, `file`, `category` or `phase`.
        lives: what the y axis of the lifetimes is: `stacked` or `address`.
        at: one of MOMENTS, or the index of an event.
        width: pixels across.
    """

    device: int
    axis: str
    begin: float | None
    end: float | None
    by: str
    group: str
    lives: str
    at: str
    width: int


def view(asked: Mapping[str, str], recording: Recording) -> View:
    """Return what a query asks for of a recording."""
    device = _number(asked.get("device"))
    device = recording.first if device not in recording.devices else int(device or 0)
    history = recording.history(device)
    axis = _one(asked.get("x"), AXES, history.axis)
    at = asked.get("at", "peak")
    known = at in MOMENTS or (at.isdecimal() and at.isascii() and int(at) < history.events)
    return View(
        device=device,
        axis=axis if axis == "event" or history.times is not None else "event",
        begin=_number(asked.get("from")),
        end=_number(asked.get("to")),
        by=_one(asked.get("by"), BY, "category"),
        group=_one(asked.get("group"), GROUPS, "stack"),
        lives=_one(asked.get("lives"), LIVES, "stacked"),
        at=at if known and (at != "oom" or history.errors.size) else "peak",
        width=int(min(max(_number(asked.get("width")) or _WIDTH, 50), _WIDEST)),
    )


def _one(said: str | None, known: Mapping[str, str], default: str) -> str:
    return said if said is not None and said in known else default


def _number(said: str | None) -> float | None:
    try:
        number = float(said or "")
    except ValueError:
        return None
    return number if math.isfinite(number) else None
