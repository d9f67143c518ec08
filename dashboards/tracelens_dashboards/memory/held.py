"""What was live at one moment: the toolkit's table, and the same as tiles."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from tracelens import registry
from tracelens.analyses.memory.categories import by_category
from tracelens.analyses.memory.live import live_at
from tracelens.links import moments
from tracelens.links.memory import Ask
from tracelens.tables.build import filled
from tracelens_dashboards import palette
from tracelens_dashboards.memory.course import NAMELESS, colour_of, place_of
from tracelens_dashboards.names import plain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tracelens.tables import Filled
    from tracelens_dashboards.memory.course import Recording
    from tracelens_dashboards.memory.view import View

MOST_TILES: Final = 100


@dataclass(frozen=True)
class Held:
    """What was live: `position` says when (see `course.History`), `filled` is the table."""

    position: int
    active_bytes: int
    filled: Filled


@dataclass(frozen=True)
class Tile:
    """One row of the table as a rectangle, in parts of the whole picture.

    `row` is None for what is left of small rows, all together.
    """

    row: int | None
    left: float
    top: float
    width: float
    height: float
    label: str
    size_bytes: int
    colour: str


def held(recording: Recording, seen: View) -> Held:
    """Return what was live at the moment of a view, by stack, file, category or phase."""
    history = recording.history(seen.device)
    position = place_of(history, seen.at)
    index = position - 1 if position else None
    moment = moments.moment(recording.memory, seen.device, seen.at, index)
    memory = recording.categorised
    by = "stack" if seen.group == "category" else seen.group
    asked = replace(memory, ask=Ask(group=by))
    frame = live_at(asked, moment, memory.live_at(seen.device, index))
    name = "live"
    if seen.group == "category":
        name, frame = "categories", by_category(frame)
    table = registry.load("memory_table", name)
    columns = tuple(
        replace(c, shown=c.shown and c.name not in ("device", "at")) for c in table.columns
    )
    return Held(position, moment.active_bytes, filled(name, replace(table, columns=columns), frame))


def tiles(frame: pl.DataFrame, group: str, aspect: float) -> list[Tile]:
    """Return the rows as tiles, those of one category side by side, as squares as can be.

    Args:
        frame: the table `live` or `categories`.
        group: what it is grouped by.
        aspect: width of the picture by its height.
    """
    positive = frame.with_row_index("row").filter(pl.col("bytes") > 0)
    if positive.is_empty():
        return []
    colouring = "phase" if group == "phase" else "category"
    head, tail = positive.head(MOST_TILES), positive.slice(MOST_TILES)
    rows = [
        (row["row"], _label(row, group), row["bytes"], row[colouring])
        for row in head.iter_rows(named=True)
    ]
    small = int(tail["bytes"].sum())
    families: dict[Any, list[Any]] = {}
    for row in rows:
        families.setdefault(row[3], []).append(row)
    whole = [(key, sum(r[2] for r in members)) for key, members in families.items()]
    if small:
        whole.append((_Rest, small))
        families[_Rest] = [(None, f"{tail.height} smaller", small, None)]
    whole.sort(key=lambda pair: -pair[1])
    placed = []
    for (key, _), box in zip(
        whole, squarified([size for _, size in whole], (0.0, 0.0, aspect, 1.0)), strict=True
    ):
        colour = palette.NONE if key is _Rest else colour_of(key, colouring)
        members = sorted(families[key], key=lambda row: -row[2])
        inside = squarified([row[2] for row in members], box)
        placed += [
            Tile(row[0], x / aspect, y, width / aspect, height, row[1], row[2], colour)
            for row, (x, y, width, height) in zip(members, inside, strict=True)
        ]
    return placed


class _Rest:
    """Stands for what is too small to have a tile of its own."""


def squarified(
    sizes: Sequence[float], box: tuple[float, float, float, float]
) -> list[tuple[float, float, float, float]]:
    """Return a rectangle (x, y, width, height) per size, the largest first, that fill the box.

    After Bruls, Huizing and van Wijk: a row takes one more as long as that makes it squarer.
    """
    x, y, width, height = box
    total = sum(sizes)
    scale = width * height / total if total else 0.0
    areas = [size * scale for size in sizes]
    found: list[tuple[float, float, float, float]] = []
    begin = 0
    while begin < len(areas):
        side = min(width, height)
        end = begin + 1
        while end < len(areas) and _worst(areas[begin : end + 1], side) <= _worst(
            areas[begin:end], side
        ):
            end += 1
        row = areas[begin:end]
        thick = sum(row) / side if side else 0.0
        along = y if width >= height else x
        for area in row:
            length = area / thick if thick else 0.0
            found.append(
                (x, along, thick, length) if width >= height else (along, y, length, thick)
            )
            along += length
        if width >= height:
            x, width = x + thick, max(width - thick, 0.0)
        else:
            y, height = y + thick, max(height - thick, 0.0)
        begin = end
    return found


def _worst(row: Sequence[float], side: float) -> float:
    """Return how far from square the worst rectangle of a row is."""
    total = sum(row)
    return max(side**2 * max(row) / total**2, total**2 / (side**2 * min(row)))


def _label(row: dict[str, Any], group: str) -> str:
    if group in ("category", "phase"):
        return plain(str(row[group] or NAMELESS[group]))
    via = f" by way of {row['via']}" if row.get("via") else ""
    return plain(f"{row['site'] or row['category'] or NAMELESS['site']}{via}")
