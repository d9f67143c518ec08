"""All kernels: by name, and every single call, with how long it took and what launched it."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import dash_ag_grid as dag
import polars as pl
from dash import ClientsideFunction, Input, Output, State, dcc, html

from tracelens import units
from tracelens.errors import NothingToShowError, UsageError
from tracelens.render import Options
from tracelens.render.markdown import RENDERER
from tracelens.tables import Column, build
from tracelens_dashboards import answers, palette, parts
from tracelens_dashboards.figures import kernels as figures
from tracelens_dashboards.kernel_calls import LAUNCHERS, Calls, call_page, calls, calls_csv
from tracelens_dashboards.kernel_rows import (
    Ask,
    asked,
    cut,
    name_order,
    name_page,
    names,
    names_csv,
)
from tracelens_dashboards.links import in_timeline
from tracelens_dashboards.names import plain
from tracelens_dashboards.pages import Page

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import dash

    from tracelens_dashboards.library import Library, Opened

    Query = Mapping[str, str]

_KEYS: Final = (("/", "search by name"), ("Esc", "all kernels again"))
_TOP: Final = 12
_NO_CALL: Final = "This recording holds no such kernel call."


def _grid(name: str, columns: list[dict[str, Any]], height: int) -> Any:
    """Return a grid without rows: the script gives it a source of them."""
    return dag.AgGrid(
        id=name,
        columnDefs=columns,
        rowModelType="infinite",
        getRowId="params.data.id",
        defaultColDef={
            "resizable": True,
            "sortable": True,
            "suppressMovable": True,
            "sortingOrder": ["desc", "asc"],
        },
        dashGridOptions={
            "cacheBlockSize": 100,
            "maxBlocksInCache": 20,
            # Dash's own source, which comes first, never answers: it must not use a limit up.
            "maxConcurrentDatasourceRequests": -1,
            "blockLoadDebounceMillis": 60,
            "rowHeight": 28,
            "headerHeight": 32,
            "rowSelection": {"mode": "singleRow", "checkboxes": False},
            "animateRows": False,
            "suppressMultiSort": True,
            "suppressCellFocus": False,
            "tooltipShowDelay": 400,
            "enableCellTextSelection": True,
        },
        style={"height": f"{height}px"},
        className="kernel-grid",
    )


def _column(field: str, heading: str, width: int, **more: Any) -> dict[str, Any]:
    return {"field": field, "headerName": heading, "width": width, **more}


def _number(field: str, heading: str, width: int = 92, **more: Any) -> dict[str, Any]:
    return _column(field, heading, width, type="rightAligned", cellClass="number", **more)


_FILTER: Final = {
    "filter": "agNumberColumnFilter",
    "filterParams": {"debounceMs": 400, "maxNumConditions": 2},
}
_TEXT: Final = {
    "filter": "agTextColumnFilter",
    "filterParams": {"filterOptions": ["contains"], "maxNumConditions": 1, "debounceMs": 400},
}
_KERNEL: Final = {
    "tooltipField": "name",
    "cellClass": "kernel-name",
    "cellRenderer": "TracelensName",
}

_NAMES: Final = [
    _column("short_name", "kernel", 290, flex=1, minWidth=240, **_KERNEL),
    _column("family", "family", 125, cellRenderer="TracelensFamily"),
    _number("calls", "calls", 78),
    _number("total_ns", "total", 98),
    _number("share", "share", 74),
    _number("mean_ns", "mean"),
    _number("median_ns", "median"),
    _number("min_ns", "min"),
    _number("max_ns", "max"),
    _column("split", "by phase", 100, sortable=False, cellRenderer="TracelensSplit"),
]
_CALLS: Final = [
    _column("id", "", 44, sortable=False, resizable=False, cellRenderer="TracelensGo"),
    _number("took_ns", "took, µs", 125, **_FILTER),
    _number("start_ns", "start, ms", 135, **_FILTER),
    _column("short_name", "kernel", 260, flex=1, minWidth=180, **_KERNEL),
    _column("family", "family", 130, cellRenderer="TracelensFamily"),
    _column("phase", "phase", 110, cellRenderer="TracelensPhase"),
    _number("step", "step", 84, **_FILTER),
    _number("device", "GPU", 84, **_FILTER),
    _number("stream", "stream", 98, **_FILTER),
    _column("op", "launched by op", 190, cellClass="kernel-name", **_TEXT),
    _column("range", "in range", 150, cellClass="kernel-name", **_TEXT),
    _column("module", "of module", 140, cellClass="kernel-name", **_TEXT),
    _number("grid", "grid", 130, sortable=False),
    _number("block", "block", 110, sortable=False),
    _number("registers", "registers", 90, sortable=False),
    _number("shared_bytes", "shared memory", 120, sortable=False),
]


def _layout(opened: Opened, _asked: dict[str, str]) -> Any:
    """Return the grids; `assets/kernels.js` fills them, and reads the rest from the URL."""
    linked = opened.linked
    of_kernels = linked.ops.filter(pl.col("kind") == "kernel")
    if of_kernels.is_empty():
        why = build.GPU_WORK.why_empty(linked, "kernels")
        raise NothingToShowError(f"There are no kernels: {why}.")
    known = linked.names.filter(pl.col("kind") == "kernel")
    phases = of_kernels["phase"].unique().cast(pl.String).fill_null(units.NOTHING)
    said: Any = {
        "data-recording": opened.item.id,
        "data-families": ",".join(sorted(set(known["family"]))),
        "data-phases": ",".join(sorted(phases, key=_in_order)),
    }
    csv = f"/api/kernels/{opened.item.id}"
    return html.Div(
        [
            parts.heading("Kernels", "Pick a name to see its calls, and who launches them."),
            html.Div(id="kernels", key=opened.item.id, **said),
            _grid("kernel-names", _NAMES, 340),
            _copying("names", f"{csv}/names.csv"),
            dcc.Store(id="kernels-page", data=opened.item.id),
            dcc.Store(id="kernels-started"),
            dcc.Store(id="kernels-went"),
            dcc.Store(id="kernel-chosen"),
            html.Div(id="kernel-detail"),
            html.Div(
                [html.H2("Calls", id="kernel-calls-title"), html.Span(id="kernel-calls-said")],
                className="kernel-line",
            ),
            _grid("kernel-calls", _CALLS, 420),
            _copying("calls", f"{csv}/calls.csv"),
        ],
        className="kernels-page",
    )


def _copying(grid: str, href: str) -> Any:
    """Return the buttons below a grid; the script adds to the links what is filtered."""
    buttons = [
        html.Button(f"Copy as {title}", className="kernel-copy", **_data(grid=grid, form=form))
        for form, title in (("csv", "CSV"), ("md", "Markdown"))
        if grid == "names"
    ]
    saved = html.A("Save as CSV", href=href, download=f"{grid}.csv", id=f"kernel-{grid}-csv")
    shapes = html.Button("Read grid, block and registers", id="kernel-shapes", hidden=True)
    return html.Div(
        [*buttons, saved, *([shapes] if grid == "calls" else [])], className="copy-buttons"
    )


def _data(**values: str) -> dict[str, Any]:
    return {f"data-{name}": value for name, value in values.items()}


def _in_order(phase: str) -> tuple[int, str]:
    usual = list(palette.PHASES)
    return (usual.index(phase) if phase in usual else len(usual), phase)


def _detail(opened: Opened, query: Query) -> Any:
    """Return what is known of the chosen kernel: its calls as pictures, and who launches it."""
    ask = asked(opened, query, "sort")
    if ask.kernel is None:
        return []
    table = names(opened, ask.phases).frame.filter(pl.col("name_id") == ask.kernel)
    if table.is_empty():
        return parts.nothing(_NO_CALL)
    row = table.row(0, named=True)
    known = calls(opened)
    mine = known.rows(known.order(Ask(kernel=ask.kernel, phases=ask.phases)))
    mine = mine.with_columns(pl.col("phase").cast(pl.String).fill_null(units.NOTHING))
    return parts.card(
        row["short_name"],
        html.P(plain(row["name"], 2_000), className="kernel-full"),
        _facts(opened, row, mine),
        parts.cards(*_pictures(mine, known)),
        html.Div(list(_launchers(mine)), className="kernel-launchers"),
        wide=True,
    )


def _facts(opened: Opened, row: Mapping[str, Any], mine: pl.DataFrame) -> Any:
    by_length = mine.sort("took_ns", "op_id", descending=[True, False])
    longest = by_length.row(0, named=True)
    median = by_length.row(by_length.height // 2, named=True)
    return parts.facts(
        parts.fact("Calls", units.count(row["calls"]), row["family"]),
        parts.fact("Total", units.time(row["total_ns"]), f"{units.share(row['share'])} of kernels"),
        _call_fact(opened, "Longest call", longest, "Go to the longest call"),
        _call_fact(opened, "Median", {**median, "took_ns": row["median_ns"]}, "Go to a usual call"),
    )


def _call_fact(opened: Opened, label: str, call: Mapping[str, Any], says: str) -> Any:
    where = in_timeline(opened, "gpu_ops", call["op_id"], call["start_ns"], call["end_ns"])
    fact = parts.fact(label, units.time(call["took_ns"]))
    fact.children.append(dcc.Link(says, href=where, className="fact-note"))
    return fact


def _pictures(mine: pl.DataFrame, known: Calls) -> Iterator[Any]:
    bins = figures.binned(mine)
    columns, rows = figures.table_of_bins(bins)
    yield parts.card(
        "How long they took",
        parts.picture(
            figures.histogram(bins),
            parts.table_of(columns, rows),
            name="kernel-histogram",
            says="Histogram of the durations of the chosen kernel's calls, by phase",
            height=280,
        ),
    )
    drawn = figures.thinned(mine)
    few = (
        f"{units.count(drawn.height)} of {units.count(mine.height)} calls are drawn: the longest "
        "and the shortest of each of 250 spans of time, of each phase. "
    )
    note = (few if drawn.height < mine.height else "") + "Click a call to see it in the timeline."
    yield parts.card(
        "When, and how long",
        parts.graph(
            figures.scatter(drawn, known.first_ns),
            name="kernel-scatter",
            says="Start and duration of the chosen kernel's calls; the grid of calls lists them",
            height=280,
        ),
        note=note,
    )


def _launchers(mine: pl.DataFrame) -> Iterator[Any]:
    titles = {"op": "Launched by op", "range": "In range", "module": "Of module"}
    for name in LAUNCHERS:
        if mine[name].null_count() == mine.height:
            continue
        held = (
            mine.group_by(name)
            .agg(calls=pl.len(), total_ns=pl.col("took_ns").sum())
            .with_columns(share=pl.col("total_ns") / pl.col("total_ns").sum())
            .sort("total_ns", "calls", name, descending=[True, True, False])
        )
        columns = (
            Column(name, name, "name"),
            Column("calls", "calls", "count"),
            Column("total_ns", "total", "ns"),
            Column("share", "share", "share"),
        )
        rows = held.head(_TOP).to_dicts()
        yield parts.card(titles[name], parts.table_of(columns, rows, more=held.height - len(rows)))


def _names(opened: Opened, query: Query) -> Any:
    return name_page(opened, asked(opened, query, "sort"))


def _calls(opened: Opened, query: Query) -> Any:
    return call_page(opened, asked(opened, query, "order"), shapes=query.get("shapes") == "1")


def _place(opened: Opened, query: Query) -> Any:
    """Return where in the timeline a call is."""
    said = query.get("call", "")
    call = int(said) if re.fullmatch(r"[0-9]{1,10}", said) else -1
    if not 0 <= call < opened.linked.ops.height:
        raise UsageError(_NO_CALL)
    op = opened.linked.ops.row(call, named=True)
    return {"href": in_timeline(opened, "gpu_ops", call, op["start_ns"], op["end_ns"])}


def _names_csv(opened: Opened, query: Query) -> Any:
    return _file(names_csv(opened, asked(opened, query, "sort")), "text/csv")


def _calls_csv(opened: Opened, query: Query) -> Any:
    return _file(calls_csv(opened, asked(opened, query, "order")), "text/csv")


def _names_markdown(opened: Opened, query: Query) -> Any:
    """Return the table of a summary, without the rows that are filtered out."""
    ask = asked(opened, query, "sort")
    filled = build.fill(cut(opened, ask.phases), "kernels")
    frame = filled.frame[name_order(opened, ask)]
    report = build.report(opened.linked, ())
    alone = replace(report, tables=(replace(filled, frame=frame),))
    return _file(iter([RENDERER.render([alone], Options(top=None))]), "text/markdown")


def _file(parts_of_it: Iterator[str], kind: str) -> Any:
    from flask import Response

    return Response(parts_of_it, content_type=f"{kind}; charset=utf-8")


def _register(app: dash.Dash, library: Library) -> None:
    routes = {
        "names": _names,
        "calls": _calls,
        "place": _place,
        "names.csv": _names_csv,
        "names.md": _names_markdown,
        "calls.csv": _calls_csv,
    }
    answers.add(app, library, "kernels", routes)
    add: Any = app.clientside_callback
    add(
        ClientsideFunction("kernels", "start"),
        Output("kernels-started", "data"),
        Input("kernels-page", "data"),
    )
    add(
        ClientsideFunction("kernels", "point"),
        Output("kernels-went", "data"),
        Input("kernel-scatter", "clickData"),
        State("kernels-page", "data"),
        prevent_initial_call=True,
    )

    @app.callback(
        Output("kernel-detail", "children"),
        Input("kernel-chosen", "data"),
        prevent_initial_call=True,
    )
    def _chosen(chosen: dict[str, str] | None) -> Any:
        """Show the chosen kernel; the script says of which recording, and which phases."""
        if not chosen:
            return []
        return _detail(library.open(str(chosen.get("recording"))), chosen)


PAGE = Page(
    title="Kernels",
    order=2,
    layout=_layout,
    needs="trace",
    register=_register,
    keys=_KEYS,
)
