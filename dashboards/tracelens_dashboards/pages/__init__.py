"""Pages of the explorer: one file = one page, with the constant `PAGE`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

    import dash

    from tracelens_dashboards.library import Library, Opened

Needs = Literal["any", "trace", "traces", "memory"]


def _nothing(app: dash.Dash, library: Library) -> None:
    """Register no callbacks."""


@dataclass(frozen=True)
class Page:
    """One page.

    Attributes:
        title: in the navigation.
        order: its place there, from 0.
        layout: makes the page of one opened recording, given the URL's query (name -> value).
            Raises NothingToShowError where the recording holds nothing of it: the shell shows why.
        needs: recordings that have it: any, those with a trace, those with a trace beside others
            that have one, those with memory.
        register: adds the page's callbacks and routes to the app, once, before it serves. State is
            never kept on the server: all of it stands in the URL, and comes with each request.
        keys: what its keys do, (key, what it does), for the help that `?` opens. The page's own
            script listens to them; `?`, `t` and the digits are the shell's.
    """

    title: str
    order: int
    layout: Callable[[Opened, dict[str, str]], Any]
    needs: Needs = "any"
    register: Callable[[dash.Dash, Library], None] = _nothing
    keys: tuple[tuple[str, str], ...] = ()
