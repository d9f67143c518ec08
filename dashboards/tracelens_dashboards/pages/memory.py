"""Memory over time, what was live at any moment, lifetimes of blocks, and segments."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import dash_mantine_components as dmc
from dash import ClientsideFunction, Input, Output, State, dcc, html
from dash.exceptions import PreventUpdate

from tracelens import units
from tracelens.analyses.memory.devices import devices
from tracelens.errors import NothingToShowError, TracelensError
from tracelens_dashboards import parts
from tracelens_dashboards.figures import memory as figures
from tracelens_dashboards.memory import view as views
from tracelens_dashboards.memory.course import colour_of, course, recording, said
from tracelens_dashboards.memory.held import held, tiles
from tracelens_dashboards.memory.lifetimes import block, blocks, lifetimes
from tracelens_dashboards.memory.reply import reply
from tracelens_dashboards.memory.segments import WHY_NOT, segments
from tracelens_dashboards.names import plain
from tracelens_dashboards.pages import Page

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import dash

    from tracelens.tables import Column, Filled
    from tracelens_dashboards.library import Library, Opened
    from tracelens_dashboards.memory.course import Recording
    from tracelens_dashboards.memory.lifetimes import Blocks
    from tracelens_dashboards.memory.view import View

_ASPECT: Final = 3.6
_MOST_ROWS: Final = 100
_ROWS: Final = 20
_READABLE: Final = (0.035, 0.06)
"""A tile of this part of the picture's width and height has room for its name."""

_KINDS: Final = {
    "totals": (
        "torch.profiler recorded allocations and the allocator's totals: call stacks are those of "
        "PyTorch's ops, and segments are not known. A snapshot knows both."
    ),
    "deltas": (
        "Nsight Systems records CUDA's own allocations: what PyTorch's allocator, NCCL and cuDNN "
        "take from the device. Tensors, call stacks and segments are not known; a snapshot "
        "(torch.cuda.memory._dump_snapshot) knows them."
    ),
    "sums": (
        "PyTorch's profiler wrote sums by category and nothing else: no blocks, stacks or segments."
    ),
}
_TABLES: Final = ("phases", "largest", "leaks", "churn", "outside")
_TITLES: Final = {"peak": "Peak", "oom": "Out of memory", "end": "End", "start": "Before the start"}
_KEYS: Final = (
    ("wheel, w s", "zoom in and out of memory over time"),
    ("drag, a d", "move along it"),
    ("f", "fit all of it"),
    ("click", "look at what was live at that moment"),
    ("← →", "one event earlier or later; with Shift a hundred"),
    ("p", "the peak"),
)


def _layout(opened: Opened, asked: dict[str, str]) -> Any:
    known = recording(opened)
    seen = views.view(asked, known)
    return html.Div(
        [
            html.H1(f"Memory of {plain(opened.item.title)}"),
            *_notes(known),
            _devices(opened.item.id, known, seen),
            _facts(known, seen),
            parts.cards(
                _findings(known),
                _over_time(known, seen),
                parts.card("What was live", _held_part(known, seen), wide=True),
                _lifetimes(known, seen),
                *_space(known, seen),
                *_more(known, seen),
            ),
            html.Div(id="memory-tip", className="memory-tip"),
            dcc.Store(id="memory-moment", data=None),
        ],
        id="memory-page",
        **_data(
            recording=opened.item.id,
            device=seen.device,
            axis=known.history(seen.device).axis,
            events=known.history(seen.device).events,
        ),
    )


def _notes(known: Recording) -> list[Any]:
    from tracelens.tables.memory_report import headline, trust

    lines = [headline(known.memory), *trust(known.memory)]
    if known.memory.kind in _KINDS:
        lines.append(_KINDS[known.memory.kind])
    return [html.P(plain(line, 1_000), className="note") for line in lines]


def _devices(name: str, known: Recording, seen: View) -> Any:
    """Return a choice of device, where there is one; each is a page of its own."""
    if len(known.devices) < 2:
        return None
    links = [
        html.A(
            f"Device {device}",
            href=parts.place(name, "memory", device=device),
            className="memory-device" + (" active" if device == seen.device else ""),
        )
        for device in known.devices
    ]
    return html.Nav(links, className="memory-devices", **_says("Device", "navigation"))


def _facts(known: Recording, seen: View) -> Any:
    history = known.history(seen.device)
    told = {row["device"]: row for row in devices(known.memory).iter_rows(named=True)}[seen.device]
    failed = (
        [parts.fact("Out of memory", f"{units.count(told['oom_events'])} ×")]
        if told["oom_events"]
        else []
    )
    shown = [
        parts.fact(
            "Most active", units.size(told["peak_active_bytes"]), said(history, history.peak)
        ),
        *failed,
        parts.fact("Reserved at most", units.size(told["peak_reserved_bytes"]), "by the allocator"),
        parts.fact("Before the first event", units.size(told["baseline_active_bytes"])),
        parts.fact("At the end", units.size(told["end_active_bytes"])),
        parts.fact("Events", units.count(history.events)),
    ]
    return parts.facts(*shown)


def _findings(known: Recording) -> Any:
    from tracelens.tables.standout import looked_at_memory
    from tracelens_dashboards import standing_out

    found = looked_at_memory(known.memory).findings
    if not found:
        return None
    said = [html.Li(plain(standing_out.said(one), 1_000)) for one in found]
    return parts.card("What stands out", html.Ul(said, className="memory-points"), wide=True)


def _over_time(known: Recording, seen: View) -> Any:
    history = known.history(seen.device)
    axes = views.AXES if history.times is not None else {"event": "Event"}
    by = {"category": "Category"} if known.memory.kind == "sums" else views.BY
    picture = html.Div(
        [
            html.Canvas(id="memory-course", tabIndex=0, **_says("Memory over time")),
            html.Div(id="memory-legend", className="memory-legend"),
        ],
        className="memory-drawn",
    )
    return parts.card(
        "Memory over time",
        html.Div(
            [
                _choice("x", "Along", axes, seen.axis),
                _choice("by", "Stacked by", by, seen.by),
                html.Button("Fit", id="memory-fit", className="memory-button"),
                html.Span(id="memory-range", className="note"),
            ],
            className="memory-controls",
        ),
        parts.picture(
            picture,
            _tables_of_course(known, seen),
            name="memory-course",
            says="What was active over time, stacked, and what was reserved",
        ),
        note=(
            "Areas add up to what was active. Each pixel shows the highest moment in it, so that "
            "no peak is lost; the dashed line is what the allocator held of the device. Wheel "
            "zooms, dragging moves, a click looks at what was live then."
        ),
        wide=True,
    )


def _choice(name: str, label: str, known: Mapping[str, str], value: str) -> Any:
    return html.Label(
        [
            label,
            dmc.SegmentedControl(
                id=f"memory-{name}",
                data=[{"value": key, "label": text} for key, text in known.items()],
                value=value,
                size="xs",
            ),
        ],
        className="memory-choice",
    )


def _tables_of_course(known: Recording, seen: View) -> Any:
    shown = [_filled(known, seen, name) for name in ("timeline", "composition")]
    return html.Div([_titled(table, top=_MOST_ROWS) for table in shown if table is not None])


def _held_part(known: Recording, seen: View) -> Any:
    history = known.history(seen.device)
    moments = [at for at in views.MOMENTS if at != "oom" or history.errors.size]
    buttons = [
        html.Button(_TITLES[at], className="memory-button", **_data(at=at)) for at in moments
    ]
    sums = known.memory.kind == "sums"
    groups = {"category": "Category"} if sums else views.GROUPS
    group = "category" if sums else seen.group
    return html.Div(
        [
            html.Div(
                [
                    _choice("group", "By", groups, group),
                    *buttons,
                    html.Button("◀", className="memory-button", **_step(-1, "One event earlier")),
                    html.Button("▶", className="memory-button", **_step(1, "One event later")),
                ],
                className="memory-controls",
            ),
            html.Div(_held(known, seen), id="memory-held"),
        ]
    )


def _held(known: Recording, seen: View) -> Any:
    """Return what was live at the moment: tiles, and the table with a row for each tile."""
    history = known.history(seen.device)
    found = held(known, seen)
    group = "category" if found.filled.name == "categories" else seen.group
    when = said(history, found.position)
    name = {"peak": "At the peak", "oom": "At the last out-of-memory error", "end": "At the end"}
    title = name.get(seen.at)
    title = (
        f"{title} ({when})" if title else f"After {when}" if found.position else when.capitalize()
    )
    placed = [_tile(tile) for tile in tiles(found.filled.frame, group, _ASPECT)]
    return html.Div(
        [
            html.H3(f"{title}: {units.size(found.active_bytes)} active"),
            html.Div(placed, className="memory-tiles") if placed else None,
            html.Div(_stacked(found.filled, seen), id="memory-table"),
        ],
        **_data(index=found.position - 1, moment=seen.at),
    )


def _tile(tile: Any) -> Any:
    text = f"{tile.label}\n{units.size(tile.size_bytes)}"
    roomy = tile.width > _READABLE[0] and tile.height > _READABLE[1]
    where = {"left": tile.left, "top": tile.top, "width": tile.width, "height": tile.height}
    style = {side: f"{100 * part:.3f}%" for side, part in where.items()}
    return html.Div(
        html.Div(
            [html.Span(tile.label), html.Span(units.size(tile.size_bytes))] if roomy else [],
            className="memory-tile-fill",
            style={"backgroundColor": tile.colour},
        ),
        className="memory-tile",
        style=style,
        title=text,
        tabIndex=0,
        **({} if tile.row is None else _data(row=tile.row)),
    )


def _stacked(table: Filled, seen: View) -> Any:
    """Return the table in which a line unfolds to its call stack."""
    by = "phase" if seen.group == "phase" else "category"

    def decorate(row: Mapping[str, Any], column: Column) -> parts.Cell | None:
        if column.name == by:
            return parts.Cell(colour=colour_of(row[by], by))
        return _with_stack(row, column)

    return parts.table(table, top=_MOST_ROWS, decorate=decorate)


def _with_stack(row: Mapping[str, Any], column: Column) -> parts.Cell | None:
    stack = row.get("stack")
    if column.name != "site" or not stack:
        return None
    return parts.Cell(folded="\n".join(plain(frame) for frame in stack))


def _lifetimes(known: Recording, seen: View) -> Any:
    if known.lives.is_empty():
        return parts.card(
            "Lifetimes of blocks", parts.nothing("No blocks were recorded."), wide=True
        )
    largest = _filled(known, seen, "largest")
    beside = parts.nothing("No allocation was recorded.")
    if largest is not None:
        beside = _titled(largest, top=_ROWS, decorate=_with_stack)
    drawn = html.Div(
        [
            html.Canvas(id="memory-lifetimes", **_says("Blocks from allocation to end")),
            html.P(id="memory-lifetimes-said", className="note"),
            html.Div(id="memory-block", className="memory-block"),
        ],
        className="memory-drawn",
    )
    return parts.card(
        "Lifetimes of blocks",
        html.Div(
            [_choice("lives", "Blocks", views.LIVES, seen.lives)], className="memory-controls"
        ),
        parts.picture(drawn, beside, name="memory-lifetimes", says="Lifetimes of blocks"),
        note=(
            "The same part of time as above. Each area is one block from its allocation until it "
            "is free again; the smallest are put together by category, in stripes on top. A click "
            "on a block shows its stack. By address, gaps that none of the blocks uses are left "
            "out."
        ),
        wide=True,
    )


def _space(known: Recording, seen: View) -> list[Any]:
    fragments = _filled(known, seen, "fragmentation")
    if known.memory.kind != "snapshot" or fragments is None:
        return [parts.card("Segments and fragmentation", parts.nothing(WHY_NOT), wide=True)]
    drawn = html.Div(
        [
            html.Canvas(id="memory-segments", **_says("Map of segments")),
            html.P(id="memory-segments-said", className="note"),
            html.Div(id="memory-segment-block", className="memory-block"),
        ],
        className="memory-drawn",
    )
    note = (
        "What the allocator held at the moment chosen above, by address: each frame is a segment, "
        "filled where a block was live. What is empty is free for PyTorch, but not for others."
    )
    bars = figures.fragmentation(fragments)
    return [
        parts.card("Segments", drawn, note=note, wide=True),
        parts.card("Fragmentation", bars, parts.table(fragments), wide=True),
    ]


def _more(known: Recording, seen: View) -> list[Any]:
    """Return the other tables of `tracelens memory`, and why some are not there."""
    names = ("ooms", *_TABLES) if known.history(seen.device).errors.size else _TABLES
    shown, missing = [], []
    for name in names:
        try:
            table = _table(known, seen, name)
        except NothingToShowError as error:
            missing.append(f"{name}: {error}")
            continue
        if table.frame.is_empty():
            missing.append(f"{name}: {_why_empty(known, name)}")
        else:
            card = parts.table(table, top=_ROWS, decorate=_with_stack)
            shown.append(parts.card(table.table.title, card, wide=True))
    if missing:
        points = html.Ul([html.Li(plain(text, 1_000)) for text in missing])
        shown.append(parts.card("Not shown", points, wide=True))
    return shown


def _why_empty(known: Recording, name: str) -> str:
    from tracelens.tables.memory_report import why_empty

    return why_empty(known.memory, name)


def _filled(known: Recording, seen: View, name: str) -> Filled | None:
    try:
        found = _table(known, seen, name)
    except NothingToShowError:
        return None
    return None if found.frame.is_empty() else found


def _table(known: Recording, seen: View, name: str) -> Filled:
    """Return a table of the toolkit, of the device that is shown."""
    import polars as pl

    from tracelens.tables.build import fill_on, filled
    from tracelens.tables.memory_report import MEMORY

    made = fill_on(known.memory, name, MEMORY)
    if len(known.devices) < 2:
        return made
    return filled(name, made.table, made.frame.filter(pl.col("device") == seen.device))


def _titled(table: Filled, **more: Any) -> Any:
    return html.Div([html.H3(table.table.title), parts.table(table, **more)])


def _says(text: str, role: str = "img") -> Any:
    return {"role": role, "aria-label": text}


def _step(by: int, says: str) -> Any:
    return {**_data(step=by), "aria-label": says, "title": says}


def _data(**values: object) -> Any:
    """Return attributes of an element that the browser's script reads."""
    return {f"data-{name}": str(value) for name, value in values.items()}


def _blocks(opened: Opened, device: int) -> Blocks:
    return opened.once(f"memory blocks {device}", lambda: blocks(recording(opened), device))


def _register(app: dash.Dash, library: Library) -> None:
    @app.callback(
        Output("memory-held", "children"),
        Input("memory-moment", "data"),
        State("memory-page", "data-recording"),
        prevent_initial_call=True,
    )
    def _moment(asked: dict[str, str] | None, name: str) -> Any:
        if asked is None:
            raise PreventUpdate
        known = recording(library.open(name))
        return _held(known, views.view(asked, known))

    add: Any = app.clientside_callback
    add(
        ClientsideFunction("memory", "choose"),
        *(Input(f"memory-{name}", "value") for name in ("x", "by", "group")),
        prevent_initial_call=True,
    )
    add(
        ClientsideFunction("memory", "chooseLives"),
        Input("memory-lives", "value"),
        prevent_initial_call=True,
    )
    _add_routes(app, library)


def _add_routes(app: dash.Dash, library: Library) -> None:
    from flask import Response, request

    server: Any = app.server

    def answered(name: str, make: Callable[[Opened, Recording, View], dict[str, Any]]) -> Any:
        try:
            opened = library.open(name)
            known = recording(opened)
            return reply(make(opened, known, views.view(request.args, known)))
        except TracelensError as error:
            said = json.dumps({"error": plain(str(error), 1_000)})
            return Response(said, status=404, mimetype="application/json")

    @server.get("/api/memory/<name>/course")  # type: ignore[untyped-decorator]
    def _course(name: str) -> Any:
        return answered(name, lambda _, known, seen: course(known, seen))

    @server.get("/api/memory/<name>/lifetimes")  # type: ignore[untyped-decorator]
    def _lifetimes(name: str) -> Any:
        return answered(
            name, lambda opened, known, seen: lifetimes(known, _blocks(opened, seen.device), seen)
        )

    @server.get("/api/memory/<name>/block/<int:row>")  # type: ignore[untyped-decorator]
    def _block(name: str, row: int) -> Any:
        return answered(
            name,
            lambda opened, known, seen: block(
                known, _blocks(opened, seen.device), seen.device, row
            ),
        )

    @server.get("/api/memory/<name>/segments")  # type: ignore[untyped-decorator]
    def _segments(name: str) -> Any:
        return answered(
            name, lambda opened, known, seen: segments(known, _blocks(opened, seen.device), seen)
        )


PAGE = Page(
    title="Memory", order=50, layout=_layout, needs="memory", register=_register, keys=_KEYS
)
"""Where memory went."""
