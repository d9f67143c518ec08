"""Two recordings beside one another: which is slower, by how much more than noise, and why."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, Any, Final

import dash_mantine_components as dmc
from dash import ClientsideFunction, Input, Output, State, dcc, html

from tracelens.errors import NothingToShowError, TracelensError
from tracelens.tables import compare
from tracelens.tables.compare.shown import TABLES
from tracelens_dashboards import palette, parts, sides
from tracelens_dashboards.figures import compare as figures
from tracelens_dashboards.names import plain
from tracelens_dashboards.pages import Page

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import dash

    from tracelens.analyses.compare.side import Side
    from tracelens.tables import Column, Filled, Report
    from tracelens_dashboards.library import Item, Library, Opened

_ROWS: Final = 40
_LONGEST: Final = 1_000
_MARGINS_PX, _BAR_PX = 90, 30
_VERDICTS: Final = {"slower": figures.MORE, "faster": figures.LESS}
_EXPLAINED: Final = "compare_explained"
_SAYS: Final = "Bars from the step time of A to that of B; those between add up to the difference"


def _layout(opened: Opened, asked: dict[str, str]) -> Any:
    """Return the frame; the choices come with the library, the report by a request of its own."""
    recording = opened.item.id
    return html.Div(
        [
            html.H1(plain(opened.item.title)),
            dcc.Store(id="compare-of", data=[recording, asked.get("baseline", "")]),
            html.Div(
                [
                    _select("compare-baseline", "compared with A, the baseline"),
                    html.Button("Swap A and B", id="compare-swap", className="quiet-button"),
                ],
                className="choices",
            ),
            html.Div(parts.waiting(), id="compare-shown"),
        ]
    )


def _select(name: str, label: str) -> Any:
    of: Any = {"aria-label": label}
    return html.Label([label, dmc.Select(id=name, searchable=True, allowDeselect=False, **of)])


def _register(app: dash.Dash, library: Library) -> None:
    @app.callback(
        Output("compare-baseline", "data"),
        Output("compare-baseline", "value"),
        Input("compare-of", "data"),
        Input("refreshed", "data"),
        State("compare-baseline", "value"),
    )
    def _choices(of: Sequence[str], _refreshed: int | None, before: str | None) -> tuple[Any, str]:
        recording, asked = of
        others = [item for item in library.items if item.trace and item.id != recording]
        data = [{"value": item.id, "label": plain(item.title)} for item in others]
        return data, baseline(library.items, recording, before or asked)

    @app.callback(
        Output("compare-shown", "children"),
        Input("compare-baseline", "value"),
        State("compare-of", "data"),
        prevent_initial_call=True,
    )
    def _show(chosen: str, of: Sequence[str]) -> Any:
        return _shown(library, chosen, of[0])

    in_browser: Any = app.clientside_callback
    in_browser(
        ClientsideFunction("compare", "choose"),
        Input("compare-baseline", "value"),
        State("compare-of", "data"),
    )
    in_browser(
        ClientsideFunction("compare", "swap"),
        Input("compare-swap", "n_clicks"),
        State("compare-baseline", "value"),
        State("compare-of", "data"),
        prevent_initial_call=True,
    )


def baseline(items: Sequence[Item], recording: str, asked: str) -> str:
    """Return the recording to compare with: the one asked for, else the nearest one before."""
    there = [item.id for item in items if item.trace or item.id == recording]
    if asked in there and asked != recording:
        return asked
    place = there.index(recording) if recording in there else 0
    others = [*reversed(there[:place]), *there[place + 1 :]]
    return others[0] if others else ""


def _shown(library: Library, of_a: str, of_b: str) -> Any:
    """Return the report on two recordings, or why there is none."""
    try:
        a, b = (sides.side(library, name) for name in (of_a, of_b))
        return list(_parts(a, b, of_a, of_b))
    except NothingToShowError as error:
        return parts.nothing(str(error))
    except TracelensError as error:
        return parts.problem(str(error))
    except Exception as error:  # noqa: BLE001 # the other pages still tell what they know
        traceback.print_exception(error)
        return parts.problem(f"This failed: {type(error).__name__}: {error}")


def _parts(a: Side, b: Side, of_a: str, of_b: str) -> Iterator[Any]:
    """Give the verdict, what explains it, and the tables."""
    report = compare.report([a, b])
    yield html.P(plain(report.headline, _LONGEST), className="verdict")
    yield html.P([_line(line) for line in report.trust], className="note")
    if report.warnings:
        said = [html.Li(plain(text, _LONGEST)) for text in report.warnings]
        yield html.Ul(said, className="caveats")
    tables = {table.name: table for table in report.tables}
    yield parts.cards(*_cards(a, b, tables, report, (of_a, of_b)))
    if report.left_out:
        reasons = [f"{_title(name)}: {why}" for name, why in report.left_out.items()]
        said = [html.Li(plain(text, _LONGEST)) for text in reasons]
        yield html.Div([html.P("Not compared:"), html.Ul(said)], className="note")


def _line(text: str) -> Any:
    return html.Span([plain(text, _LONGEST), html.Br()])


def _title(name: str) -> str:
    known = TABLES.get(name)
    return known.title if known else name


def _cards(
    a: Side, b: Side, tables: Mapping[str, Filled], report: Report, of: tuple[str, str]
) -> Iterator[Any]:
    explained = tables.get(_EXPLAINED)
    if explained is not None and explained.frame.height:
        table = _table(explained, of)
        figure = figures.explained(a, b)
        height = _MARGINS_PX + _BAR_PX * len(figure.data[0].y)
        picture = parts.picture(figure, table, name="compare-figure", says=_SAYS, height=height)
        found = html.Ul([html.Li(plain(text, _LONGEST)) for text in report.findings])
        yield parts.card(explained.table.title, picture, found, wide=True)
    for name, table in tables.items():
        if name != _EXPLAINED and table.frame.height:
            yield parts.card(table.table.title, _table(table, of), wide=True)


def _table(filled: Filled, of: tuple[str, str]) -> Any:
    def decorate(row: Mapping[str, Any], column: Column) -> parts.Cell | None:
        if column.name == "verdict":
            return parts.Cell(colour=_VERDICTS.get(row["verdict"], palette.NONE))
        if column.name == "phase" and row["phase"]:
            return parts.Cell(_place(filled.name, row, of), palette.phase(row["phase"]))
        href = _place(filled.name, row, of) if column.unit == "name" else None
        return parts.Cell(href) if href else None

    shown = filled.frame.head(_ROWS)
    return parts.long_table(
        filled.table.columns,
        shown.to_dicts(),
        more=filled.frame.height - shown.height,
        note=filled.table.note,
        decorate=decorate,
    )


def _place(table: str, row: Mapping[str, Any], of: tuple[str, str]) -> str | None:
    """Return where a row's work is seen by itself: in B, or in A where it is there alone."""
    recording = of[0] if row.get("verdict") == "only in A" else of[1]
    if table in {"compare_phase", "compare_family"}:
        return parts.place(recording, "kernels", phase=row["phase"], family=row.get("family"))
    if table == "compare_kernel":
        return parts.place(recording, "kernels", filter=_last(row["kernel"]))
    if table in {"compare_range", "compare_op"}:
        return parts.place(recording, "tree", q=row["name"])
    return None


def _last(kernel: str) -> str:
    """Return one name of those in B that a row of kernels (was → is) is about."""
    return kernel.rpartition(" → ")[2].partition(" + ")[0]


PAGE = Page(title="Compare", order=60, layout=_layout, needs="traces", register=_register)
