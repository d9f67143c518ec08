"""The shell of the explorer: which recording, which page, light or dark; and the pages in it."""

from __future__ import annotations

import json
import re
import traceback
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl

import dash
import dash_mantine_components as dmc
from dash import ClientsideFunction, Input, Output, State, dcc, html

from tracelens import registry
from tracelens.errors import TracelensError, UnreadableError
from tracelens_dashboards import palette
from tracelens_dashboards.names import plain

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tracelens_dashboards.library import Item, Library, Opened
    from tracelens_dashboards.pages import Page

_WATCH_MS: Final = 5_000
_PATH: Final = re.compile(r"^/([0-9a-f]{12})(?:/([^/]*))?/?$")
_KEYS: Final = (("1 … 9", "open a page"), ("t", "light or dark"), ("?", "this help"))
_LONGEST: Final = 2_000
_LACKS: Final = {
    "any": "",
    "trace": "it holds memory alone, and no GPU work.",
    "memory": "it holds no memory events.",
    "traces": "nothing else is open to compare it with. Name several recordings, or their folder.",
}
"""What a page needs -> why a recording has no such page."""


def create(library: Library) -> dash.Dash:
    """Return the app with all pages registered; `security.protect` comes after."""
    app = dash.Dash(
        "tracelens_dashboards",
        title="tracelens",
        update_title=None,  # type: ignore[arg-type] # dash's own stubs forget None
        serve_locally=True,
        suppress_callback_exceptions=True,
        enable_mcp=False,
        on_error=_failed,
    )
    app.layout = lambda: _shell(library)
    for page in pages().values():
        page.register(app, library)
    _register(app, library)
    _register_in_browser(app)
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
    colours: Any = {"data-palette": json.dumps(palette.for_browser())}
    return dmc.MantineProvider(
        id="theme",
        defaultColorScheme="auto",
        children=[
            dcc.Location(id="url", refresh="callback-nav"),
            dcc.Interval(id="watch", interval=_WATCH_MS),
            dcc.Store(id="shown"),
            dcc.Store(id="refreshed"),
            dcc.Store(id="changed"),
            html.Div(id="palette", hidden=True, **colours),
            dmc.AppShell(
                [
                    dmc.AppShellHeader(_header(library), px="md"),
                    dmc.AppShellNavbar(html.Nav(id="navigation"), p="xs"),
                    dmc.AppShellMain(html.Main(id="page")),
                ],
                header={"height": 52},
                navbar={"width": 150, "breakpoint": "sm"},
                padding="md",
            ),
            dmc.Modal(id="keys", title="Keys", children=html.Table(id="key-list")),
            dmc.Modal(id="problems", title="What could not be read", size="lg"),
        ],
    )


def _header(library: Library) -> Any:
    recording: Any = {"aria-label": "Recording"}
    return dmc.Group(
        [
            dcc.Link("tracelens", href="/", className="brand"),
            dmc.Select(
                id="run",
                data=_choices(library),
                searchable=True,
                allowDeselect=False,
                className="run-choice",
                **recording,
            ),
            _button("refresh", "Look for new runs"),
            html.Span(id="notice", className="notice", role="status"),
            _button("problems-open", ""),
            html.Span(className="shell-space"),
            _button("copy-link", "Copy link"),
            _button("scheme", "Light / dark"),
            _button("help", "Keys ?"),
        ],
        h="100%",
        gap="xs",
        wrap="nowrap",
    )


def _button(name: str, text: str) -> Any:
    return dmc.Button(text, id=name, variant="subtle", size="compact-sm")


def _choices(library: Library) -> list[dict[str, str]]:
    return [{"value": item.id, "label": _label(library, item)} for item in library.items]


def _label(library: Library, item: Item) -> str:
    return plain(item.title) + (" (cannot be read)" if library.is_failed(item.id) else "")


def _register(app: dash.Dash, library: Library) -> None:
    @app.callback(
        Output("page", "children"),
        Output("navigation", "children"),
        Output("run", "value"),
        Output("shown", "data"),
        Output("key-list", "children"),
        Input("url", "pathname"),
        Input("changed", "data"),
        State("url", "search"),
    )
    def _page(
        path: str | None, _changed: int | None, search: str | None
    ) -> tuple[Any, Any, Any, Any, Any]:
        try:
            chosen, name = _chosen(library, path)
            opened = library.open(chosen) if chosen else None
        except UnreadableError as error:
            return _astray(str(error)), [], None, {"title": "tracelens"}, _keys(None)
        if opened is None:
            return _nothing(library), [], None, {"title": "tracelens"}, _keys(None)
        known = {n: p for n, p in pages().items() if _has(library, opened, p)}
        name = name or next(iter(known), "")
        page = known.get(name)
        links = [_link(opened.item.id, n, p, active=n == name) for n, p in known.items()]
        title = f"{plain(opened.item.title)} · {page.title if page else 'no such page'}"
        shown = {"id": chosen, "page": name, "title": title}
        if page is None:
            return _no_page(name, opened, known), links, chosen, shown, _keys(None)
        return _layout(page, opened, query(search)), links, chosen, shown, _keys(page)

    @app.callback(
        Output("refreshed", "data"),
        Output("changed", "data"),
        Input("refresh", "n_clicks"),
        State("shown", "data"),
        prevent_initial_call=True,
    )
    def _refresh(clicks: int, shown: dict[str, str] | None) -> tuple[Any, Any]:
        """Look again; the page is made anew only if its own recording is another one by now."""
        before = (shown or {}).get("id")
        new = {item.id for item in library.refresh()}
        stays = before not in new and any(item.id == before for item in library.items)
        return clicks, dash.no_update if stays else clicks

    @app.callback(Output("run", "data"), Input("refreshed", "data"), Input("shown", "data"))
    def _list(_clicks: int | None, _shown: Any) -> Any:
        return _choices(library)

    @app.callback(
        Output("notice", "children"),
        Output("problems", "children"),
        Output("problems-open", "children"),
        Input("refreshed", "data"),
        Input("watch", "n_intervals"),
        Input("shown", "data"),
    )
    def _watch(_clicks: int | None, _ticks: int | None, _shown: Any) -> tuple[Any, Any, Any]:
        """Tell what there is by now; nothing else changes before the user asks for it."""
        unseen = library.unseen()
        notice = f"{unseen} new run{'s' * (unseen != 1)}" if unseen else ""
        problems = library.problems
        many = f"{len(problems)} not readable" if problems else ""
        return notice, html.Ul([html.Li(plain(problem, _LONGEST)) for problem in problems]), many


def _register_in_browser(app: dash.Dash) -> None:
    """Add what happens without the server: `assets/shell.js`."""
    add: Any = app.clientside_callback
    function = ClientsideFunction
    clicks = ("n_clicks",)
    add(
        function("shell", "scheme"),
        Output("theme", "forceColorScheme"),
        Input("scheme", *clicks),
    )
    add(function("shell", "choose"), Input("run", "value"), State("shown", "data"))
    add(function("shell", "title"), Input("shown", "data"))
    add(
        function("shell", "copyLink"),
        Input("copy-link", *clicks),
        State("shown", "data"),
        prevent_initial_call=True,
    )
    for modal, button in (("keys", "help"), ("problems", "problems-open")):
        add(
            function("shell", "toggle"),
            Output(modal, "opened"),
            Input(button, *clicks),
            State(modal, "opened"),
            prevent_initial_call=True,
        )


def _chosen(library: Library, path: str | None) -> tuple[str | None, str]:
    """Return the recording and the page that a URL's path names; the first recording for `/`.

    Raises:
        UnreadableError: it names neither.
    """
    if found := _PATH.match(path or "/"):
        return found[1], found[2] or ""
    if (path or "/") != "/":
        raise UnreadableError("There is no such page here.")
    first = next((i for i in library.items if not library.is_failed(i.id)), None)
    first = first or next(iter(library.items), None)
    return (first.id if first else None), ""


def _has(library: Library, opened: Opened, page: Page) -> bool:
    item = opened.item
    there: dict[str, object] = {"any": True, "trace": item.trace, "memory": item.memory}
    there["traces"] = item.trace and sum(one.trace is not None for one in library.items) > 1
    return bool(there[page.needs])


def _link(chosen: str, name: str, page: Page, *, active: bool) -> Any:
    return dmc.NavLink(label=page.title, href=f"/{chosen}/{name}", active=active)


def _keys(page: Page | None) -> list[Any]:
    """Return the rows of the help: the page's keys, then those of every page."""
    own = [("On this page", page.keys)] if page and page.keys else []
    rows = []
    for title, keys in (*own, ("Everywhere", _KEYS)):
        rows.append(html.Tr(html.Td(title, colSpan=2, className="key-title")))
        rows += [html.Tr([html.Td(html.Kbd(key)), html.Td(does)]) for key, does in keys]
    return [html.Tbody(rows)]


def _layout(page: Page, opened: Opened, asked: dict[str, str]) -> Any:
    try:
        return page.layout(opened, asked)
    except Exception as error:  # noqa: BLE001 # one bad page or file never takes the others down
        return _problem(error)


def _no_page(name: str, opened: Opened, known: Mapping[str, Page]) -> Any:
    """Return what stands where the URL names a page that there is not, or not of this recording."""
    recording = plain(opened.item.title)
    if page := pages().get(name):
        why = f"{recording} has no page {page.title}: {_LACKS[page.needs]}"
    else:
        why = f"There is no page {plain(name)}. {recording} has these:"
    links = [(page.title, f"/{opened.item.id}/{one}") for one, page in known.items()]
    return _astray(why, links)


def _astray(why: str, links: Sequence[tuple[str, str]] = (("From the start", "/"),)) -> Any:
    """Return what stands where an address leads nowhere: why, and where one may go."""
    ways = [html.Li(dcc.Link(text, href=href)) for text, href in links]
    return dmc.Alert(
        [html.P(plain(why, _LONGEST)), html.Ul(ways)], title="Not here", color="yellow"
    )


def _problem(error: Exception) -> Any:
    """Return what stands in place of a page or a part that cannot be shown, and why."""
    if isinstance(error, TracelensError):
        return dmc.Alert(plain(str(error), _LONGEST), title="Not to be shown", color="yellow")
    traceback.print_exception(error)
    said = f"{type(error).__name__}: {error}"
    return dmc.Alert(plain(said, _LONGEST), title="This went wrong in tracelens", color="red")


def _failed(error: Exception) -> None:
    """Tell of an error in any callback; what it was to change stays as it is."""
    if not isinstance(error, TracelensError):
        traceback.print_exception(error)
    dash.set_props("notice", {"children": plain(f"Not shown: {error}")})


def _nothing(library: Library) -> Any:
    why = [html.Li(plain(problem, _LONGEST)) for problem in library.problems]
    return dmc.Alert(
        [html.P("No recording was found in what was named at the start."), html.Ul(why)],
        title="Nothing to explore",
        color="yellow",
    )
