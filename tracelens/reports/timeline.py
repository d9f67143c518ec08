"""A step over time as a drawing: how busy the GPU was, in the colours of the phases."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens import colours, units
from tracelens.analyses.utilization import utilization
from tracelens.render._bars_svg import STYLE as BARS
from tracelens.render._bars_svg import legend
from tracelens.reports import Figure
from tracelens.reports.drawing import rules, text, whole

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tracelens.analyses.utilization import Utilization
    from tracelens.links.linked import Linked

_WIDTH: Final = 1000
_LEFT: Final = 60
_TOP: Final = 14
_HEIGHT: Final = 150
_BELOW: Final = 24
_TICKS: Final = 5
_STYLE: Final = """\
.strip { width: 100%; height: auto; margin: .5rem 0 0; font: 13px system-ui, sans-serif; }
.strip text { fill: var(--faint); } .strip line { stroke: var(--line); }
"""


def drawn(name: str, linked: Linked) -> Figure:
    """Return the drawing of a typical step, or of all that was recorded where no step is marked.

    Raises:
        NothingToShowError: there is no GPU work.
    """
    found = utilization(linked)
    of = "the whole recording" if found.step is None else f"step {found.step}"
    title = f"How busy GPU {found.device} was over {of}"
    note = (
        "Height is the share of time in which the GPU worked, by the phase that launched the "
        "work; what is empty is idle time."
    )
    style = rules(BARS + _STYLE)
    return Figure(name, title, whole(_lines(found, title)), style, note)


def _lines(found: Utilization, title: str) -> Iterator[str]:
    height = _TOP + _HEIGHT + _BELOW
    yield f'<svg class="strip" viewBox="0 0 {_WIDTH} {height}" role="img">'
    yield f"<title>{text(title)}</title>"
    yield from _scale(found)
    phases = _in_order(found)
    layers = [_heights(found, phase) for phase in phases]
    sums = list(itertools.accumulate(layers, _added))
    for phase, tops in reversed(list(zip(phases, sums, strict=True))):
        yield f'<path fill="{colours.phase(phase)}" d="{_area(tops)}"/>'
    yield "</svg>"
    yield legend([(phase, colours.phase(phase)) for phase in phases])


def _in_order(found: Utilization) -> list[str]:
    """Return the phases in the order in which they begin."""
    begins = found.frame.group_by("phase").agg(pl.col("part").min()).sort("part", "phase")
    return begins["phase"].to_list()


def _heights(found: Utilization, phase: str) -> list[float]:
    heights = [0.0] * found.parts
    rows = found.frame.filter(pl.col("phase") == phase)
    for part, share in rows.select("part", "share").iter_rows():
        heights[part] = share
    return heights


def _added(one: Sequence[float], other: Sequence[float]) -> list[float]:
    return [a + b for a, b in zip(one, other, strict=True)]


def _area(tops: Sequence[float]) -> str:
    """Return a path along the tops; parts of one height are one stretch of it."""
    bottom = _TOP + _HEIGHT
    path = [f"M{_LEFT} {bottom}"]
    part = 0
    for top, alike in itertools.groupby(bottom - min(top, 1) * _HEIGHT for top in tops):
        part += len(list(alike))
        x = _LEFT + (_WIDTH - _LEFT) * part / len(tops)
        path.append(f"V{top:.1f}H{x:.1f}")
    return f"{''.join(path)}V{bottom}Z"


def _scale(found: Utilization) -> Iterator[str]:
    """Give a line at nothing, half and all, and times along the bottom."""
    for share in (0.0, 0.5, 1.0):
        y = _TOP + _HEIGHT * (1 - share)
        yield f'<line x1="{_LEFT}" x2="{_WIDTH}" y1="{y:g}" y2="{y:g}"/>'
        yield f'<text x="{_LEFT - 8}" y="{y + 4:g}" text-anchor="end">{share:.0%}</text>'
    span = found.end_ns - found.start_ns
    labels = units.column("ns", [span * i / _TICKS for i in range(_TICKS + 1)])
    for i, label in enumerate(labels):
        x = _LEFT + (_WIDTH - _LEFT) * i / _TICKS
        anchor = "start" if i == 0 else "end" if i == _TICKS else "middle"
        y = _TOP + _HEIGHT + 18
        yield f'<text x="{x:g}" y="{y}" text-anchor="{anchor}">{text(label)}</text>'
