"""Pictures of memory that need no script: fragmentation as bars."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from dash import html

from tracelens import units

if TYPE_CHECKING:
    import polars as pl

_MOMENTS: Final = {"peak": "At the peak", "oom": "Out of memory", "end": "At the end"}
_PIECES: Final = (
    ("active", "#2f7fc1", "active"),
    ("split", "#d97706", "free between live blocks (inactive split)"),
    ("whole", "#b9c1ca", "free in empty segments"),
)


def fragmentation(frame: pl.DataFrame) -> Any:
    """Return a bar per moment: what of the reserved bytes was active, and what was free where."""
    most = max(1, int(frame["reserved_bytes"].max() or 0))  # type: ignore[arg-type] # an integer column
    bars = [_bar(row, most) for row in frame.iter_rows(named=True)]
    legend = [
        html.Span([html.Span(className="square", style={"backgroundColor": colour}), text])
        for _, colour, text in _PIECES
    ]
    return html.Div([*bars, html.Div(legend, className="memory-legend")], className="memory-bars")


def _bar(row: dict[str, Any], most: int) -> Any:
    active, unused = row["active_bytes"], max(row["unused_bytes"], 0)
    split = min(row["inactive_split_bytes"], unused)
    sizes = {"active": active, "split": split, "whole": unused - split}
    pieces = [
        html.Span(
            style={"width": f"{100 * sizes[name] / most:.3f}%", "backgroundColor": colour},
            title=f"{units.size(sizes[name])} {text}",
        )
        for name, colour, text in _PIECES
    ]
    return html.Div(
        [
            html.Span(_MOMENTS.get(row["at"], row["at"]), className="memory-bar-label"),
            html.Div(pieces, className="memory-bar"),
            html.Span(units.size(row["reserved_bytes"]), className="number"),
        ],
        className="memory-bar-row",
    )
