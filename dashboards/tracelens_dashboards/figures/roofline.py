"""The roofline: operations per second by operations per byte, below what the GPU can do."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, Final

import plotly.graph_objects as go
import polars as pl

from tracelens import units
from tracelens.hardware import BANDWIDTH, MATMUL, VECTOR
from tracelens_dashboards.names import for_plotly

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tracelens.hardware import Ceilings

LARGEST_PX: Final = 46
SMALLEST_PX: Final = 5
_LINE: Final = "#808890"
_ROUND: Final = re.compile(r"\.0+(?= )")
_ROOM: Final = 3.0
"""So many times what is drawn the axes reach beyond it."""
_LEGEND: Final = {
    "orientation": "h",
    "x": 0,
    "y": -0.14,
    "yanchor": "top",
    "itemsizing": "constant",
}


def drawable(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the rows that have a place: their operations and bytes are known, and possible."""
    return rows.filter((pl.col("intensity") > 0) & (pl.col("flops_per_s") > 0))


def roofline(
    rows: pl.DataFrame,
    on: Ceilings | None,
    *,
    by: str,
    colour: Callable[[str], str],
    places: list[str],
) -> Any:
    """Return the rows as points, as large as their time, below the ceilings.

    Args:
        rows: what `drawable` leaves of the analysis `roofline`, each with its phase.
        on: what the GPU can do; None: not known, and no lines.
        by: the column that points are coloured by.
        colour: the colour of one of its values.
        places: where a click on each row leads.
    """
    figure = go.Figure()
    intensities = rows["intensity"].to_list()
    rates = rows["flops_per_s"].to_list()
    low, high = _reach(intensities, _ridges(rows, on))
    for name in _ceilings(rows, on):
        _ceiling(figure, name, on, low, high)
    if on is not None and on.bandwidth_bytes_per_s:
        _label(
            figure,
            f"memory {units.rate(on.bandwidth_bytes_per_s)}",
            low,
            "left",
            low * on.bandwidth_bytes_per_s,
        )
    sizes = _sizes(rows["time_ns"].to_list())
    texts = _texts(rows)
    kinds = rows[by].fill_null(units.NOTHING).to_list()
    for kind in dict.fromkeys(kinds):
        mine = [place for place, other in enumerate(kinds) if other == kind]
        figure.add_scatter(
            x=[intensities[place] for place in mine],
            y=[rates[place] for place in mine],
            mode="markers",
            name=for_plotly(kind),
            marker={
                "color": colour(kind),
                "size": [sizes[place] for place in mine],
                "opacity": 0.7,
                "line": {"width": 1, "color": colour(kind)},
            },
            customdata=[[texts[place], places[place]] for place in mine],
            hovertemplate="%{customdata[0]}<extra></extra>",
        )
    figure.update_layout(
        hovermode="closest",
        legend=_LEGEND,
        xaxis={
            "type": "log",
            "title": "FLOP per byte",
            "range": [math.log10(low), math.log10(high)],
            "dtick": 1,
        },
        yaxis={"type": "log", **_decades([*rates, *(_rates(rows, on))])},
    )
    return figure


def _ceilings(rows: pl.DataFrame, on: Ceilings | None) -> Iterator[str]:
    """Give the names of the compute ceilings to draw: those that rows are held against."""
    if on is None:
        return
    formats = rows["format"].drop_nulls().unique().sort().to_list()
    yield from (f"{MATMUL}{name}" for name in formats if name in on.matmul_flops_per_s)
    if rows["format"].null_count() and on.vector_flops_per_s:
        yield VECTOR


def _ridges(rows: pl.DataFrame, on: Ceilings | None) -> list[float]:
    if on is None or not on.bandwidth_bytes_per_s:
        return []
    return [rate / on.bandwidth_bytes_per_s for rate in _rates(rows, on)]


def _rates(rows: pl.DataFrame, on: Ceilings | None) -> list[float]:
    return [rate for name in _ceilings(rows, on) if on and (rate := on.rate(name))]


def _decades(rates: list[float]) -> dict[str, list[Any]]:
    """Return where an axis has its lines, and what stands beside them."""
    first, last = (math.floor(math.log10(of(rates))) for of in (min, max))
    places = [10.0**power for power in range(first, last + 2)]
    return {
        "tickvals": places,
        "ticktext": [_ROUND.sub("", units.column("flops_per_s", [place])[0]) for place in places],
        "range": [first - 0.2, math.log10(max(rates)) + 0.4],
    }


def _reach(intensities: list[float], ridges: list[float]) -> tuple[float, float]:
    every = [*intensities, *ridges] or [1.0]
    return min(every) / _ROOM, max(every) * _ROOM


def _ceiling(figure: Any, name: str, on: Ceilings | None, low: float, high: float) -> None:
    """Draw a ceiling: up with the memory's bandwidth to the ridge, and level from there."""
    rate = on.rate(name) if on else None
    if on is None or rate is None:
        return
    bandwidth = on.bandwidth_bytes_per_s
    ridge = min(max(rate / bandwidth, low), high) if bandwidth else low
    steep = [(low, low * bandwidth)] if bandwidth and ridge > low else []
    line = [*steep, (ridge, rate), (high, rate)]
    what = "vector, fp32" if name == VECTOR else name.removeprefix(MATMUL)
    said = f"{what}: {units.column('flops_per_s', [rate])[0]}, {on.origin_of(name)}"
    if bandwidth:
        said += f"; memory: {units.rate(bandwidth)}, {on.origin_of(BANDWIDTH)}"
    figure.add_scatter(
        x=[x for x, _ in line],
        y=[y for _, y in line],
        mode="lines",
        line={"color": _LINE, "width": 1.5, "dash": "dot" if name == VECTOR else "solid"},
        hovertemplate=f"{for_plotly(said)}<extra></extra>",
        showlegend=False,
    )
    _label(figure, f"{what} {units.column('flops_per_s', [rate])[0]}", high, "right", rate)


def _label(figure: Any, text: str, x: float, side: str, y: float) -> None:
    figure.add_annotation(
        x=math.log10(x),
        y=math.log10(y),
        text=for_plotly(text),
        showarrow=False,
        xanchor=side,
        yanchor="bottom",
        yshift=10,
    )


def _sizes(times: list[int]) -> list[float]:
    """Return diameters of circles whose areas are as the times."""
    longest = max(times, default=1) or 1
    return [max(SMALLEST_PX, LARGEST_PX * math.sqrt(time / longest)) for time in times]


def _texts(rows: pl.DataFrame) -> list[str]:
    """Return what stands beside the pointer."""
    said = {
        "time_ns": units.column("ns", rows["time_ns"]),
        "lost_ns": units.column("ns", rows["lost_ns"]),
        "intensity": units.column("flops_per_byte", rows["intensity"]),
        "flops_per_s": units.column("flops_per_s", rows["flops_per_s"]),
        "bytes_per_s": units.column("bytes_per_s", rows["bytes_per_s"]),
        "share_of_ceiling": units.column("share", rows["share_of_ceiling"]),
    }
    texts = []
    for place, row in enumerate(rows.iter_rows(named=True)):
        of = {name: column[place] for name, column in said.items()}
        phase, calls = row["phase"] or units.NOTHING, units.count(row["calls"])
        lines = [
            f"<b>{for_plotly(row['name'])}</b> {for_plotly(row['shapes'] or '')}",
            f"{for_plotly(phase)}: {of['time_ns']}, {calls} calls",
            f"{of['flops_per_s']}, {of['bytes_per_s']}, {of['intensity']} FLOP/byte",
        ]
        if row["bound"]:
            lines.append(
                f"bound by {row['bound']}: {of['share_of_ceiling']} of the ceiling, "
                f"{of['lost_ns']} lost"
            )
        texts.append("<br>".join(lines))
    return texts
