"""Memory over time as a drawing of Unicode blocks, with phases and steps below it."""

from __future__ import annotations

import itertools
from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tracelens import units
from tracelens.render._shape import cells, clean, first, pad

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tracelens.tables import Course

    Style = Callable[[str], str]

ROWS: Final = 8
_EIGHTHS: Final = " ▁▂▃▄▅▆▇█"
_RESERVED: Final = "╌"
_FLOOR_SHARE: Final = 0.4
_CEILING_SHARE: Final = 0.95
_MOST_CHANGES: Final = 2  # of phase within one column, which then has none
_SHORT: Final = {
    "forward": ("fwd",),
    "backward": ("bwd",),
    "backward (inferred)": ("bwd (inferred)", "bwd"),
    "optimizer": ("optim", "opt"),
}
_COLOURS: Final = ("34", "32", "35", "36", "33", "31")
_MOST_LABELS: Final = 3  # columns that a label needs at least


@dataclass(frozen=True)
class _Columns:
    """What each terminal column stands for: the most that was active and reserved in it."""

    active: Sequence[int]
    reserved: Sequence[int | None]
    phases: Sequence[str | None]
    steps: Sequence[str | None]
    peak: int


def drawn(course: Course, width: int, *, colour: bool) -> list[str]:
    """Return the lines of a drawing at most `width` columns wide.

    The scale begins at zero, or, where little of it changes, at what was always held; both are
    written beside it.
    """
    least, most = _scale(course)
    labels = units.column("bytes", [most, (most + least) // 2, least])
    gutter = max(map(cells, labels)) + 2
    columns = _columns(course, width - gutter - 1)
    paint = _paints(columns.phases, colour=colour)
    faint: Style = _ansi("2") if colour else str
    lines = [_peak_line(course, columns.peak, gutter, width, colour=colour)]
    for row in range(ROWS):
        at = {0: 0, ROWS // 2: 1, ROWS - 1: 2}.get(row)
        label = "" if at is None else labels[at]
        edge = "┤" if label else "│"
        body = _row(columns, row, (least, most), paint, faint)
        lines.append(faint(f"{pad(label, gutter - 1, right=True)} {edge}") + body)
    lines.append(faint(" " * gutter + "└" + _ruler(course, width - gutter - 1)))
    errors = "✗ out of memory" if course.errors_x else ""
    note = " · ".join(text for text in (clean(course.note), errors) if text)
    below = (_marks(columns.phases, paint), _marks(columns.steps, {}), faint(note) if note else "")
    lines += [" " * (gutter + 1) + marks for marks in below if marks]
    return [line.rstrip() for line in lines]


def _scale(course: Course) -> tuple[int, int]:
    """Return the bytes at the bottom and at the top."""
    held = course.frame["reserved_bytes"].drop_nulls().to_list()
    most = max([course.peak_bytes, 1, *held])
    least = min([*course.frame["active_bytes"].to_list(), most])
    return (least if _FLOOR_SHARE < least / most < _CEILING_SHARE else 0), most


def _columns(course: Course, count: int) -> _Columns:
    """Return what stands in each of `count` columns; what holds lasts until the next event."""
    x, active, reserved, phases, steps = (
        course.frame[name].to_list()
        for name in ("x", "active_bytes", "reserved_bytes", "phase", "step")
    )
    span = max(1, x[-1] - x[0])
    edges = [x[0] + span * (i + 1) / count for i in range(count)]
    edges[-1] = x[-1] + 1
    tops: list[int] = []
    held: list[int | None] = []
    names: list[str | None] = []
    numbers: list[str | None] = []
    begin = 0
    for edge in edges:
        end = bisect_right(x, edge) if edge <= x[-1] else len(x)
        inside = slice(max(0, begin - 1), max(end, begin, 1))
        tops.append(max(active[inside]))
        known = [r for r in reserved[inside] if r is not None]
        held.append(max(known, default=None))
        changes = sum(a != b for a, b in itertools.pairwise(phases[inside]))
        # What happens between phases is short: a column that has a phase, too, shows that.
        named = [phase for phase in phases[inside] if phase is not None] or [None]
        names.append(named[-1] if changes <= _MOST_CHANGES else None)
        step = steps[inside.stop - 1]
        numbers.append(None if step is None else f"step {step}")
        begin = end
    peak = min(count - 1, int((course.peak_x - x[0]) / span * count))
    tops[peak] = max(tops[peak], course.peak_bytes)
    return _Columns(tops, held, names, numbers, peak)


def _row(
    columns: _Columns,
    row: int,
    scale_bytes: tuple[int, int],
    paint: dict[str | None, Style],
    faint: Style,
) -> str:
    """Return one row of the drawing, 0 on top; neighbours of one style are painted together."""
    least, most = scale_bytes
    scale = ROWS * 8 / max(1, most - least)
    floor = (ROWS - 1 - row) * 8
    pieces: list[tuple[Style, str]] = []
    for active, reserved, phase in zip(
        columns.active, columns.reserved, columns.phases, strict=True
    ):
        level = max(1, round((active - least) * scale)) - floor
        held = -1 if reserved is None else round((reserved - least) * scale)
        if level > 0:
            piece = (paint.get(phase, str), _EIGHTHS[min(level, 8)])
        elif floor < held <= floor + 8:
            piece = (faint, _RESERVED)
        else:
            piece = (str, " ")
        if pieces and pieces[-1][0] is piece[0]:
            piece = (piece[0], pieces.pop()[1] + piece[1])
        pieces.append(piece)
    return "".join(style(text) for style, text in pieces)


def _peak_line(course: Course, peak: int, gutter: int, width: int, *, colour: bool) -> str:
    """Return the line above the drawing: its title, and a mark over the peak."""
    text = f"peak {units.size(course.peak_bytes)}"
    place = gutter + 1 + peak
    left = place + 1 + cells(text) >= width
    mark = f"{text} ▼" if left else f"▼ {text}"
    start = place - cells(text) - 1 if left else place
    strong: Style = _ansi("1") if colour else str
    title = clean(course.title)
    if cells(title) + 2 <= start:
        return f"{pad(title, start, right=False)}{strong(mark)}"
    rest = width - start - cells(mark)
    after = pad(title, rest, right=True) if cells(title) + 2 <= rest else ""
    return f"{' ' * start}{strong(mark)}{after}"


def _ruler(course: Course, count: int) -> str:
    """Return the axis of time, with its length at the end."""
    x = course.frame["x"]
    span = int(x[-1] - x[0])
    text = units.time(span) if course.unit == "ns" else f"{units.count(span + 1)} events"
    line = ["─"] * max(0, count - cells(text) - 1)
    for error in course.errors_x:
        place = int((error - x[0]) / max(1, span) * count)
        if line:
            line[min(len(line) - 1, place)] = "✗"
    return f"{''.join(line)} {text}"


def _marks(labels: Sequence[str | None], paint: dict[str | None, Style]) -> str:
    """Return a line that says which label holds from where on; empty where none would fit."""
    runs: list[tuple[str | None, int]] = []
    for label in labels:
        if runs and runs[-1][0] == label:
            runs[-1] = (label, runs[-1][1] + 1)
        else:
            runs.append((label, 1))
    wide = [length for label, length in runs if label is not None and length >= _MOST_LABELS]
    if not wide or len(wide) < len(runs) // 3:
        return ""
    return "".join(
        " " * length if label is None else paint.get(label, str)(_fitted(clean(label), length))
        for label, length in runs
    )


def _fitted(label: str, length: int) -> str:
    room = length - 1
    short = _SHORT.get(label, (label.removeprefix("step "),))
    text = next((t for t in (label, *short) if cells(t) <= room), first(short[-1], room))
    return "╵" + pad(text, room, right=False)


def _paints(phases: Sequence[str | None], *, colour: bool) -> dict[str | None, Style]:
    if not colour:
        return {}
    known = dict.fromkeys(phase for phase in phases if phase is not None)
    return {phase: _ansi(code) for phase, code in zip(known, _COLOURS, strict=False)}


def _ansi(code: str) -> Style:
    return lambda text: f"\x1b[{code}m{text}\x1b[0m"
