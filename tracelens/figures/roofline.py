"""The roofline as a figure: each op and shape below the ceilings of the GPU, on two log axes."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING, Any, Final

from tracelens import units
from tracelens.errors import NothingToShowError
from tracelens.figures.files import LOOK, as_file, empty
from tracelens.tables.roofline_plot import COLOURS, decades, plot, rate_said
from tracelens.tables.roofline_report import ceilings_of

if TYPE_CHECKING:
    from tracelens.tables import Filled, Report
    from tracelens.tables.roofline_plot import Plot

_INK: Final = "#1c2126"
_LARGEST: Final = 60  # pixels across of a point that takes all the time
_SMALLEST: Final = 5
_UNKNOWN: Final = "bound not known"


def draw(filled: Filled, report: Report, title: str, form: str) -> bytes:
    """Return the table `roofline` of a report as a file: `html` (complete), `svg` or `png`.

    Raises:
        UsageError: plotly, kaleido or the browser that kaleido draws with is not installed.
        NothingToShowError: no work has operations, bytes and a time.
    """
    found = plot(filled, ceilings_of(report), f"{title}: {filled.table.title}")
    if found is None:
        raise NothingToShowError(
            "There is nothing to draw: no op has operations, bytes and a time that are possible."
        )
    return as_file(_figure(found), form, height=700)


def _figure(found: Plot) -> Any:
    figure = empty()
    _add_roofs(figure, found)
    for bound, colour in COLOURS.items():
        points = [point for point in found.points if point.bound == bound]
        if points:
            figure.add_scatter(
                x=[point.intensity for point in points],
                y=[point.flops_per_s for point in points],
                mode="markers",
                name=bound or _UNKNOWN,
                marker={
                    "color": colour,
                    "opacity": 0.6,
                    "size": [max(_LARGEST * p.share**0.5, _SMALLEST) for p in points],
                    "line": {"width": 0.5, "color": "white"},
                },
                customdata=[escape(point.said) for point in points],
                hovertemplate="%{customdata}<extra></extra>",
            )
    look = {key: value for key, value in LOOK.items() if key not in ("xaxis", "yaxis", "margin")}
    figure.update_layout(
        **look,
        title=escape(found.title),
        legend={"orientation": "h", "y": -0.13, "traceorder": "normal", "itemsizing": "constant"},
        margin={"l": 70, "r": 30, "t": 80, "b": 130},
        annotations=[
            *figure.layout.annotations,
            {
                "text": escape(found.note), "xref": "paper", "yref": "paper", "x": 0, "y": -0.24,
                "showarrow": False, "xanchor": "left", "font": {"size": 12},
            },
        ],
    )  # fmt: skip
    grid = {"type": "log", "gridcolor": "#e5e8eb", "zeroline": False}
    across, up = decades(found.x), decades(found.y)
    figure.update_xaxes(
        **grid, title="FLOP per byte", tickvals=across, ticktext=[f"{x:,g}" for x in across]
    )
    figure.update_yaxes(**grid, tickvals=up, ticktext=[rate_said(y) for y in up])
    return figure


def _add_roofs(figure: Any, found: Plot) -> None:
    """Draw the memory's bandwidth up to the highest ridge, and a level for each ceiling."""
    rate = found.bandwidth_bytes_per_s
    if not found.roofs or not rate:
        return
    end = max(roof.ridge for roof in found.roofs)
    start = max(found.x[0], found.y[0] / rate)
    style = {"mode": "lines", "line": {"width": 1.5, "color": _INK}, "showlegend": False}
    figure.add_scatter(x=[start, end], y=[start * rate, end * rate], hoverinfo="skip", **style)
    figure.add_annotation(
        x=math.log10(start) * 0.6 + math.log10(end) * 0.4,
        y=math.log10(start * rate) * 0.6 + math.log10(end * rate) * 0.4,
        text=f"memory, {escape(units.rate(rate))}",
        showarrow=False,
        xanchor="right",
        yanchor="bottom",
    )
    for roof in found.roofs:
        figure.add_scatter(
            x=[roof.ridge, found.x[1]], y=[roof.flops_per_s] * 2, hoverinfo="skip", **style
        )
        figure.add_annotation(
            x=math.log10(found.x[1]),
            y=math.log10(roof.flops_per_s),
            text=escape(f"{roof.name}, {roof.said}"),
            showarrow=False,
            xanchor="right",
            yanchor="bottom",
        )
