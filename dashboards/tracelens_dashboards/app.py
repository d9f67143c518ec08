"""The shell of the explorer: which recording, which page, light or dark; and the pages in it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl

import dash
import dash_mantine_components as dmc
from dash import ClientsideFunction, Input, Output, State, dcc, html

from tracelens import registry
from tracelens.errors import TracelensError
from tracelens_dashboards.names import plain

if TYPE_CHECKING:
    from tracelens_dashboards.library import Item, Library, Opened
    from tracelens_dashboards.pages import Page

_WATCH_MS: Final = 5_000
_PATH: Final = re.compile(r"^/([0-9a-f]{12})(?:/([a-z_]+))?/?$")


def create(library: Library) -> dash.Dash:
    """Return the app with all pages registered; `security.protect` comes after."""
    app = dash.Dash(
        "tracelens_dashboards",
        title="tracelens",
        update_title=None,  # type: ignore[arg-type] # dash's own stubs forget None
        serve_locally=True,
        suppress_callback_exceptions=True,
        enable_mcp=False,
    )
    app.layout = lambda: _shell(library)
    for page in pages().values():
        page.register(app, library)
    _register(app, library)
    return app


def pages() -> dict[str, Page]:
    """Return the pages by name, in the order of the navigation."""
    found = {name: entry.load() for name, entry in registry.entries("page").items()}
    return dict(sorted(found.items(), key=lambda item: (item[1].order, item[0])))


def query(search: str | None) -> dict[str, str]:
    """Return what a URL's query says, name -> value."""
    return dict(parse_qsl((search or "").removeprefix("?"), keep_blank_values=True))


def _shell(library: Library) -> Any:
    """Return what stands around the pages; read anew for each browser that comes."""
    return dmc.MantineProvider(
        id="theme",
        defaultColorScheme="auto",
        children=[
            dcc.Location(id="url", refresh="callback-nav"),
            dcc.Interval(id="watch", interval=_WATCH_MS),
            dmc.AppShell(
                [
                    dmc.AppShellHeader(_header(library), px="md"),
                    dmc.AppShellNavbar(html.Nav(id="navigation"), p="xs"),
                    dmc.AppShellMain(html.Main(id="page")),
                ],
                header={"height": 52},
                navbar={"width": 160, "breakpoint": "sm"},
                padding="md",
            ),
            dmc.Modal(id="keys", title="Keys", children=_keys()),
        ],
    )


def _header(library: Library) -> Any:
    return dmc.Group(
        [
            dcc.Link("tracelens", href="/", className="brand"),
            dmc.Select(
                id="run",
                data=_choices(library.items),
                searchable=True,
                w=420,
                **{"aria-label": "Recording"},
            ),
            dmc.Button("Look for new runs", id="refresh", variant="subtle", size="xs"),
            html.Span(id="notice", className="notice", role="status"),
            html.Span(style={"flex": 1}),
            dmc.Button("Copy link", id="copy-link", variant="subtle", size="xs"),
            dmc.Button("Light / dark", id="scheme", variant="subtle", size="xs"),
            dmc.Button("?", id="help", variant="subtle", size="xs", **{"aria-label": "Keys"}),
        ],
        h="100%",
        gap="sm",
        wrap="nowrap",
    )


def _keys() -> Any:
    rows = [("?", "this help"), ("1 … 9", "the pages"), ("t", "light or dark")]
    return html.Table(
        [html.Tr([html.Td(html.Kbd(key)), html.Td(does)]) for key, does in rows], id="key-list"
    )


def _choices(items: list[Item]) -> list[dict[str, str]]:
    return [{"value": item.id, "label": plain(item.title)} for item in items]


def _register(app: dash.Dash, library: Library) -> None:
    @app.callback(
        Output("page", "children"),
        Output("navigation", "children"),
        Output("run", "value"),
        Input("url", "pathname"),
        State("url", "search"),
    )
    def _page(path: str | None, search: str | None) -> tuple[Any, Any, Any]:
        chosen, name = _chosen(library, path)
        if chosen is None:
            return _nothing(library), [], None
        try:
            opened = library.open(chosen)
        except TracelensError as error:
            return _problem(error), [], None
        known = {n: p for n, p in pages().items() if _has(opened, p)}
        name = name if name in known else next(iter(known), "")
        links = [_link(chosen, n, p, active=n == name) for n, p in known.items()]
        return _layout(known.get(name), opened, query(search)), links, chosen

    @app.callback(
        Output("url", "pathname"),
        Output("url", "search"),
        Input("run", "value"),
        State("url", "pathname"),
        prevent_initial_call=True,
    )
    def _choose(chosen: str | None, path: str | None) -> tuple[Any, Any]:
        now, name = _chosen(library, path)
        if not chosen or chosen == now:
            return dash.no_update, dash.no_update
        return f"/{chosen}/{name}" if name else f"/{chosen}", ""

    @app.callback(
        Output("run", "data"),
        Output("notice", "children"),
        Input("refresh", "n_clicks"),
        Input("watch", "n_intervals"),
        prevent_initial_call=True,
    )
    def _watch(_clicks: int | None, _ticks: int | None) -> tuple[Any, Any]:
        if dash.ctx.triggered_id == "refresh":
            library.refresh()
            return _choices(library.items), ""
        unseen = library.unseen()
        runs = "run" if unseen == 1 else "runs"
        return dash.no_update, f"{unseen} new {runs}" if unseen else ""

    for name, button in (("copyLink", "copy-link"), ("toggleScheme", "scheme"), ("keys", "help")):
        app.clientside_callback(  # type: ignore[no-untyped-call] # dash has no type for it
            ClientsideFunction("shell", name),
            Output("keys", "opened") if name == "keys" else Output(button, "title"),
            Input(button, "n_clicks"),
            prevent_initial_call=True,
        )


def _chosen(library: Library, path: str | None) -> tuple[str | None, str]:
    """Return the recording and the page that a URL's path names; the first recording for `/`."""
    if found := _PATH.match(path or "/"):
        return found[1], found[2] or ""
    first = next(iter(library.items), None)
    return (first.id if first else None), ""


def _has(opened: Opened, page: Page) -> bool:
    there = {"any": True, "trace": opened.item.trace, "memory": opened.item.memory}
    return bool(there[page.needs])


def _link(chosen: str, name: str, page: Page, *, active: bool) -> Any:
    return dmc.NavLink(label=page.title, href=f"/{chosen}/{name}", active=active)


def _layout(page: Page | None, opened: Opened, asked: dict[str, str]) -> Any:
    if page is None:
        return html.P("There is no page for this recording.")
    try:
        return page.layout(opened, asked)
    except TracelensError as error:
        return _problem(error)


def _problem(error: TracelensError) -> Any:
    return dmc.Alert(plain(str(error), 2_000), title="Not to be shown", color="yellow")


def _nothing(library: Library) -> Any:
    why = [html.Li(plain(problem, 1_000)) for problem in library.problems]
    return dmc.Alert(
        [html.P("No recording was found in what was named at the start."), html.Ul(why)],
        title="Nothing to explore",
        color="yellow",
    )
