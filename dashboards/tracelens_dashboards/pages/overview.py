"""What was captured, and the answer first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dash import html

from tracelens_dashboards.names import plain
from tracelens_dashboards.pages import Page

if TYPE_CHECKING:
    from tracelens_dashboards.library import Opened


def _layout(opened: Opened, _asked: dict[str, str]) -> Any:
    from tracelens.tables.trust import headline

    return html.Div([html.H1(plain(opened.item.title)), html.P(plain(headline(opened.linked)))])


PAGE = Page(title="Overview", order=0, layout=_layout)
