"""What a difference of step times is made of: from one run, part by part, to the other."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final

import plotly.graph_objects as go

from tracelens import units
from tracelens.figures.compare import bars
from tracelens_dashboards.names import for_plotly

if TYPE_CHECKING:
    from tracelens.analyses.compare.side import Side

MORE, LESS, WHOLE = "#d2503c", "#1f9a72", "#808890"
_NO_WIDTH: Final = "\u200b"


def explained(a: Side, b: Side) -> Any:
    """Return the bars from A to B; those between add up to the difference."""
    labels, lengths = bars(a, b)
    largest = max(map(abs, lengths))
    ladder = units.LADDERS["ns"]
    factor, unit = next((step for step in reversed(ladder) if step[0] <= largest), ladder[0])
    parts = units.column("more_ns", lengths[1:-1])
    figure = go.Figure()
    figure.add_waterfall(
        # Labels that are the same must not fall into one.
        y=[for_plotly(label) + _NO_WIDTH * place for place, label in enumerate(labels)],
        x=[length / factor for length in lengths],
        measure=["absolute", *["relative"] * len(parts), "total"],
        orientation="h",
        text=[units.time(lengths[0]), *parts, units.time(lengths[-1])],
        textposition="outside",
        textfont={"color": WHOLE},
        cliponaxis=False,
        increasing={"marker": {"color": MORE}},
        decreasing={"marker": {"color": LESS}},
        totals={"marker": {"color": WHOLE}},
        connector={"line": {"width": 1, "color": WHOLE}},
        hovertemplate="%{y}: %{text}<extra></extra>",
    )
    reached = [*accumulate(lengths[:-1]), lengths[-1]]
    room = 0.5 * (max(reached) - min(reached)) or 0.5 * max(reached)
    span = [max(0.0, min(reached) - room) / factor, (max(reached) + room) / factor]
    figure.update_layout(showlegend=False)
    figure.update_xaxes(ticksuffix=unit, range=span)
    figure.update_yaxes(autorange="reversed")
    return figure
