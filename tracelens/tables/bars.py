"""Tables as bars: which tables have a picture, and the parts that add up in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tracelens import colours, units

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tracelens.tables import Filled

    Row = dict[str, Any]

_MOST_BARS: Final = 40
_OF: Final = ("rank", "device")
_BUSY, _IDLE, _FREE = "#2f7fc1", "#b8791b", "#8a9099"


@dataclass(frozen=True)
class Part:
    """A piece of a bar: what it is, how long (in any unit), and its length as text."""

    name: str
    colour: str
    length: float
    said: str


@dataclass(frozen=True)
class Bar:
    """A bar of parts; ``said`` stands at its end."""

    label: str
    parts: Sequence[Part]
    said: str


def bars_of(filled: Filled) -> list[Bar]:
    """Return a table as bars; none if it has no picture, no rows, or too many of them."""
    make = _PICTURES.get(filled.name)
    if make is None or filled.frame.height > _MOST_BARS:
        return []
    return make(filled.frame.to_dicts())


def _phases(rows: Sequence[Row]) -> list[Bar]:
    """Return a bar per phase: how its kernel and graph time divides among kinds of work."""
    bars = []
    for row in rows:
        time = row["kernel_time_ns"] + (row.get("graph_time_ns") or 0)
        parts = [
            Part(
                name.replace("_", "/"),
                colour,
                time * _known(row.get(name)),
                f"{units.time(time * _known(row.get(name)))}, {units.share(row.get(name))}",
            )
            for name, colour in colours.GROUPS.items()
        ]
        bars.append(Bar(_label(row, row["phase"]), parts, units.time(time)))
    return bars


def _steps(rows: Sequence[Row]) -> list[Bar]:
    """Return a bar per step: how long the GPU was busy with what it launched, and idle."""
    return [
        Bar(
            _label(row, f"step {row['step']}"),
            [
                Part("GPU busy", _BUSY, _known(row["busy_ns"]), units.time(row["busy_ns"])),
                Part("GPU idle", _IDLE, _known(row["idle_ns"]), units.time(row["idle_ns"])),
            ],
            units.time(_known(row["busy_ns"]) + _known(row["idle_ns"])),
        )
        for row in rows
    ]


def _fragmentation(rows: Sequence[Row]) -> list[Bar]:
    """Return a bar per moment: what was active of the reserved bytes, and what was free where."""
    bars = []
    for row in rows:
        unused = max(row["unused_bytes"], 0)
        split = min(row["inactive_split_bytes"], unused)
        sizes = (
            ("active", _BUSY, row["active_bytes"]),
            ("free between live blocks", _IDLE, split),
            ("other free", _FREE, unused - split),
        )
        parts = [Part(name, colour, size, units.size(size)) for name, colour, size in sizes]
        bars.append(Bar(_label(row, row["at"]), parts, units.size(row["reserved_bytes"])))
    return bars


def _tells(row: Row, of: str) -> bool:
    """Tell whether a number is worth a word: a rank is even if 0, where there are several."""
    return bool(row.get(of)) or (of == "rank" and row.get(of) is not None)


def _label(row: Row, name: object) -> str:
    """Return a bar's label: of several runs, ranks or devices it says which one it is of."""
    more = [row.get("run"), *(f"{of} {row[of]}" for of in _OF if _tells(row, of))]
    return " · ".join(str(text) for text in (name, *more) if text is not None)


def _known(value: float | None) -> float:
    return value if value is not None and value > 0 else 0.0


_PICTURES: Final[dict[str, Callable[[Sequence[Row]], list[Bar]]]] = {
    "overview": _phases,
    "steps": _steps,
    "fragmentation": _fragmentation,
}
