"""A table as a figure: bars whose parts add up, such as GPU time by phase and kind of work."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any, Final

from tracelens import units
from tracelens.errors import NothingToShowError
from tracelens.figures.files import LOOK, as_file, empty
from tracelens.tables.bars import bars_of

if TYPE_CHECKING:
    from tracelens.tables import Filled

_MARGINS: Final = 220  # pixels around the bars
_BAR: Final = 70


def draw(filled: Filled, title: str, form: str) -> bytes:
    """Return a table of times as a file: `html` (complete, with all it needs), `svg` or `png`.

    Raises:
        UsageError: plotly, kaleido or the browser that kaleido draws with is not installed.
        NothingToShowError: the table has no rows, or too many.
    """
    bars = bars_of(filled)
    if not any(part.length for bar in bars for part in bar.parts):
        raise NothingToShowError(f"There is nothing to draw: {filled.table.title} has no rows.")
    return as_file(_figure(filled, title), form, height=_MARGINS + _BAR * len(bars))


def _figure(filled: Filled, title: str) -> Any:
    figure = empty()
    bars = bars_of(filled)
    longest = max(sum(part.length for part in bar.parts) for bar in bars)
    ladder = units.LADDERS["ns"]
    factor, unit = next((step for step in reversed(ladder) if step[0] <= longest), ladder[0])
    labels = [escape(bar.label) for bar in bars]
    for parts in zip(*(bar.parts for bar in bars), strict=True):
        if not any(part.length for part in parts):
            continue
        figure.add_bar(
            x=[part.length / factor for part in parts],
            y=labels,
            name=escape(parts[0].name),
            orientation="h",
            marker={"color": parts[0].colour, "line": {"width": 0}},
            customdata=[part.said for part in parts],
            hovertemplate="%{y}, %{fullData.name}: %{customdata}<extra></extra>",
        )
    figure.update_layout(
        **LOOK,
        title=escape(f"{title}: {filled.table.title}"),
        barmode="stack",
        bargap=0.35,
        legend={"orientation": "h", "y": -0.25, "traceorder": "normal"},
    )
    figure.update_xaxes(ticksuffix=unit, rangemode="tozero")
    figure.update_yaxes(autorange="reversed", automargin=True, rangemode="normal")
    return figure
