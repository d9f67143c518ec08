"""The timeline: what ran when, on each thread and each stream, from all of it to one kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dash import html

from tracelens_dashboards import timeline
from tracelens_dashboards.pages import Page

if TYPE_CHECKING:
    from tracelens_dashboards.library import Opened

_KEYS = (
    ("w s, ctrl + wheel", "zoom in and out at the pointer"),
    ("a d, shift + wheel, drag", "move left and right"),
    ("wheel", "scroll the rows; zoom where all rows fit, and on the time axis"),
    ("f", "show the picked item or the selection; once more: everything"),
    ("click", "pick: details, and an arrow from the API call to what it launched"),
    ("← →", "the kernel before, the next one"),
    ("/", "search by name; n and N, or Enter: walk from hit to hit"),
    ("shift + drag, r", "select a range for its statistics; r selects what is picked"),
    ("m", "mark the time at the pointer, or take a mark away"),
    ("Esc", "undo the selection, the pick, the search"),
)


def _layout(opened: Opened, _asked: dict[str, str]) -> Any:
    """Return the container; `assets/timeline*.js` fill it and read the rest from the URL."""
    waiting = html.P("Reading the recording …", className="waiting", role="status")
    of: Any = {"data-run-id": opened.item.id}
    return html.Div([waiting], id="timeline", key=opened.item.id, **of)


PAGE = Page(
    title="Timeline",
    order=1,
    layout=_layout,
    needs="trace",
    register=timeline.register,
    keys=_KEYS,
)
