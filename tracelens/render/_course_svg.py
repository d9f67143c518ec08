"""Memory over time as an SVG inside of a page: no script, and the page's own colours."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens import colours, units
from tracelens.analyses.memory.composition import by_life
from tracelens.render._bars_svg import legend
from tracelens.render._shape import clean

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tracelens.tables import Course

_WIDTH: Final = 1000
_HEIGHT: Final = 220
_LEFT: Final = 80
_TOP: Final = 28
_BAND: Final = 20
_FINE: Final = 2  # places across one unit of the drawing
_LABEL_WIDTH: Final = 8  # of one letter, about
STYLE: Final = """\
.course { width: 100%; height: auto; margin: 1rem 0; font: 13px system-ui, sans-serif; }
.course .live { fill: var(--bar); } .course .edge { fill: none; stroke: var(--ink); }
.course .held { fill: none; stroke: var(--faint); stroke-dasharray: 3 3; }
.course text { fill: var(--faint); } .course .peak { fill: var(--ink); font-weight: 600; }
.course line { stroke: var(--line); } .course .error { stroke: var(--alarm); stroke-width: 2; }
"""


def drawn(course: Course) -> Iterator[str]:
    """Give the lines of a drawing of what was active and reserved, with phases below it."""
    place = _Place(course)
    x = [place.x(value) for value in course.frame["x"]]
    active = course.frame["active_bytes"].to_list()
    steps = _steps(x, [place.y(value) for value in active])
    bottom = place.y(0)
    height = _TOP + _HEIGHT + 2 * _BAND
    title = course.title.replace(" █", "").replace(" ╌", "")
    said = f"{title}: peak {units.size(course.peak_bytes)}"
    yield f'<svg class="course" viewBox="0 0 {_WIDTH} {height}" role="img">'
    yield f"<title>{_text(said)}</title>"
    yield from place.scale()
    layers = _layers(course)
    if layers:
        yield from _areas(layers, x, place)
    else:
        yield f'<path class="live" d="{_area(x, active, place)}"/>'
    yield f'<path class="edge" d="M{steps}"/>'
    held = [
        (at, r) for at, r in zip(x, course.frame["reserved_bytes"], strict=True) if r is not None
    ]
    if held:
        line = _steps([at for at, _ in held], [place.y(r) for _, r in held])
        yield f'<path class="held" d="M{line}"/>'
    for error in course.errors_x:
        at = place.x(error)
        yield f'<line class="error" x1="{at:.1f}" x2="{at:.1f}" y1="{_TOP}" y2="{bottom:.1f}"/>'
    yield place.peak()
    for row, name in enumerate(("phase", "step")):
        yield from _labels(x, course.frame[name].to_list(), bottom + _BAND * (row + 0.75), name)
    yield "</svg>"
    if layers:
        yield legend([(layer.name, layer.colour) for layer in layers])


@dataclass(frozen=True)
class _Layer:
    """A group, and what it held at each moment of a course."""

    name: str
    colour: str
    sizes: Sequence[int]


def _layers(course: Course) -> list[_Layer]:
    """Return what was active by group, that which lies at the bottom first."""
    if course.groups is None:
        return []
    rows = course.groups()
    colour = colours.phase if course.by_phase else colours.category
    nameless = "no phase" if course.by_phase else "no rule fits"
    found = []
    for group in by_life(rows):
        sizes = [0] * course.frame.height
        mine = rows.filter(pl.col("group").eq_missing(pl.lit(group, pl.String)))
        for place, size in mine.select("place", "bytes").iter_rows():
            sizes[place] = size
        found.append(_Layer(group or nameless, colour(group), sizes))
    return found


def _areas(layers: Sequence[_Layer], x: Sequence[float], place: _Place) -> Iterator[str]:
    """Give the areas, the sum of all first: those further down lie on top of it."""
    sums = list(itertools.accumulate(([*layer.sizes] for layer in layers), _added))
    for layer, held in reversed(list(zip(layers, sums, strict=True))):
        area = _area(x, held, place)
        yield f'<path fill="{layer.colour}" d="{area}"><title>{_text(layer.name)}</title></path>'


def _added(one: Sequence[int], other: Sequence[int]) -> list[int]:
    return [a + b for a, b in zip(one, other, strict=True)]


def _area(x: Sequence[float], held: Sequence[int], place: _Place) -> str:
    """Return the path of an area down to zero; of one pixel it shows the most that was held."""
    tops: dict[int, int] = {}
    for at, size in zip(x, held, strict=True):
        pixel = round(at * _FINE)
        tops[pixel] = max(tops.get(pixel, 0), size)
    bottom = place.y(0)
    path = [f"M{x[0]:.1f} {bottom:.1f}"]
    last = ""
    for pixel, size in tops.items():
        height = f"{place.y(size):.1f}"
        if height != last:
            path.append(f"H{pixel / _FINE:g}V{height}")
        last = height
    return f"{''.join(path)}H{x[-1]:.1f}V{bottom:.1f}Z"


class _Place:
    """Where a moment and a number of bytes stand in the drawing."""

    def __init__(self, course: Course) -> None:
        held = course.frame["reserved_bytes"].drop_nulls().to_list()
        self._course = course
        self._first = int(course.frame["x"][0])
        self._span = max(1, int(course.frame["x"][-1]) - self._first)
        self._most: int = max([course.peak_bytes, 1, *held])

    def x(self, value: int) -> float:
        return _LEFT + (value - self._first) / self._span * (_WIDTH - _LEFT - 2)

    def y(self, size: int) -> float:
        return _TOP + _HEIGHT * (1 - size / self._most)

    def scale(self) -> Iterator[str]:
        """Give lines and numbers at the bottom, the middle and the top."""
        marks = [0, self._most // 2, self._most]
        for size, label in zip(marks, units.column("bytes", marks), strict=True):
            y = self.y(size)
            yield f'<line x1="{_LEFT}" x2="{_WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>'
            yield f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{_text(label)}</text>'

    def peak(self) -> str:
        """Return the mark of the peak, on the side where there is room."""
        x, y = self.x(self._course.peak_x), self.y(self._course.peak_bytes)
        anchor = "start" if x < _WIDTH / 2 else "end"
        text = _text(f"peak {units.size(self._course.peak_bytes)}")
        return (
            f'<circle class="peak" cx="{x:.1f}" cy="{y:.1f}" r="3"/>'
            f'<text class="peak" x="{x:.1f}" y="{_TOP - 10}" text-anchor="{anchor}">{text}</text>'
        )


def _steps(x: Sequence[float], y: Sequence[float]) -> str:
    """Return a line that holds its height until the next moment."""
    parts = [f"{x[0]:.1f} {y[0]:.1f}"]
    parts += [f"H{at:.1f}V{height:.1f}" for at, height in zip(x[1:], y[1:], strict=True)]
    return "".join(parts)


def _labels(x: Sequence[float], names: Sequence[object], y: float, kind: str) -> Iterator[str]:
    """Give a label where each phase or step begins, if it has room until the next one."""
    begins = [i for i, name in enumerate(names) if i == 0 or name != names[i - 1]]
    ends = [*begins[1:], len(names) - 1]
    for begin, end in zip(begins, ends, strict=True):
        if names[begin] is None:
            continue
        text = clean(str(names[begin]) if kind == "phase" else f"step {names[begin]}")
        if x[end] - x[begin] >= _LABEL_WIDTH * len(text):
            yield f'<text x="{x[begin]:.1f}" y="{y:.1f}">{escape(text)}</text>'


def _text(text: str) -> str:
    return escape(clean(text))
