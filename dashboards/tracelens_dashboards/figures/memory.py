"""Pictures of memory that need no script: fragmentation as bars."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dash import html

from tracelens.tables.bars import bars_of
from tracelens_dashboards.names import plain

if TYPE_CHECKING:
    from tracelens.tables import Filled
    from tracelens.tables.bars import Bar


def fragmentation(filled: Filled) -> Any:
    """Return a bar per moment: what of the reserved bytes was active, and what was free where."""
    bars = bars_of(filled)
    most = max((sum(part.length for part in bar.parts) for bar in bars), default=0) or 1
    colours = {part.name: part.colour for bar in bars for part in bar.parts}
    legend = [
        html.Span([html.Span(className="square", style={"backgroundColor": colour}), name])
        for name, colour in colours.items()
    ]
    drawn = [_bar(bar, most) for bar in bars]
    return html.Div([*drawn, html.Div(legend, className="memory-legend")], className="memory-bars")


def _bar(bar: Bar, most: float) -> Any:
    parts = [
        html.Span(
            style={"width": f"{100 * part.length / most:.3f}%", "backgroundColor": part.colour},
            title=f"{part.said} {part.name}",
        )
        for part in bar.parts
    ]
    return html.Div(
        [
            html.Span(plain(bar.label), className="memory-bar-label"),
            html.Div(parts, className="memory-bar"),
            html.Span(bar.said, className="number"),
        ],
        className="memory-bar-row",
    )
