"""Ops below the GPU's ceilings: what bounds each, how near it came, and what time that costs."""

from __future__ import annotations

import traceback
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import dash_mantine_components as dmc
import polars as pl
from dash import ClientsideFunction, Input, Output, State, dcc, html

from tracelens import units
from tracelens.analyses.roofline import against, costs_of
from tracelens.errors import NothingToShowError, TracelensError
from tracelens.links.gpu_ceilings import ceilings_of, said_of_ceilings
from tracelens.tables import Column, build
from tracelens.tables.roofline import TABLE
from tracelens_dashboards import palette, parts
from tracelens_dashboards.figures import roofline as figures
from tracelens_dashboards.names import plain
from tracelens_dashboards.pages import Page

if TYPE_CHECKING:
    from collections.abc import Mapping

    import dash

    from tracelens.hardware import Ceilings
    from tracelens.links.linked import Linked
    from tracelens_dashboards.library import Library, Opened

_POINTS: Final = 400
_ROWS: Final = 100
_HEIGHT: Final = 520
_BOUNDS: Final = {"compute": "#2f7fc1", "memory": "#d97706", "latency": "#8b6fd0"}
_COLOURS: Final = {"phase": "phase", "bound": "what bounds it"}
_PHASE: Final = Column("phase", "phase", "text")
_SAYS: Final = (
    "Each op and shape as a point: operations per second by operations per byte, as large as its "
    "GPU time, below the ceilings of memory and arithmetic"
)
_NOTE: Final = (
    "The nearer to a line, the less is to be gained. Left of the ridge memory bounds, right of it "
    "arithmetic. Areas are GPU times; a click leads to the kernels of an op."
)


def _layout(opened: Opened, asked: dict[str, str]) -> Any:
    """Return the frame; what stands in it comes by a request of its own."""
    chosen = asked.get("colour", "")
    ask = {"recording": opened.item.id, "colour": chosen if chosen in _COLOURS else "phase"}
    return html.Div(
        [
            html.H1(plain(opened.item.title)),
            dcc.Store(id="roofline-of", data=ask["recording"]),
            dcc.Store(id="roofline-went"),
            html.Div(
                [
                    html.Span("Coloured by"),
                    dmc.SegmentedControl(
                        id="roofline-colour",
                        data=[{"value": value, "label": text} for value, text in _COLOURS.items()],
                        value=ask["colour"],
                        size="xs",
                    ),
                ],
                className="choices",
            ),
            html.Div(parts.waiting(), id="roofline-shown"),
        ]
    )


def _register(app: dash.Dash, library: Library) -> None:
    @app.callback(
        Output("roofline-shown", "children"),
        Input("roofline-of", "data"),
        Input("roofline-colour", "value"),
    )
    def _show(recording: str, colour: str) -> Any:
        return _shown(library, recording, colour if colour in _COLOURS else "phase")

    in_browser: Any = app.clientside_callback
    in_browser(
        ClientsideFunction("roofline", "choose"),
        Input("roofline-colour", "value"),
        State("roofline-of", "data"),
    )
    in_browser(
        ClientsideFunction("roofline", "go"),
        Output("roofline-went", "data"),
        Input("roofline-figure", "clickData"),
        prevent_initial_call=True,
    )


def _shown(library: Library, recording: str, colour: str) -> Any:
    """Return all of the page, or why there is nothing to show."""
    try:
        opened = library.open(recording)
        rows = by_phase(opened)
        return [
            _facts(opened.linked),
            parts.cards(*_cards(opened, rows, colour)),
        ]
    except NothingToShowError as error:
        return parts.nothing(f"There is no roofline of this recording: {error}.".replace("..", "."))
    except TracelensError as error:
        return parts.problem(str(error))
    except Exception as error:  # noqa: BLE001 # the other pages still tell what they know
        traceback.print_exception(error)
        return parts.problem(f"This failed: {type(error).__name__}: {error}")


def by_phase(opened: Opened) -> pl.DataFrame:
    """Return the rows of the analysis `roofline`, each with its phase; most time lost first.

    Raises:
        NothingToShowError: the recording tells the cost of no work.
    """
    return opened.once("roofline by phase", lambda: _by_phase(opened.linked))


def _by_phase(linked: Linked) -> pl.DataFrame:
    work = costs_of(linked)
    phases = work["phase"].unique(maintain_order=True)
    made = [
        against(linked, work.filter(pl.col("phase").eq_missing(phase))).with_columns(
            phase=pl.lit(phase, pl.String)
        )
        for phase in phases
    ]
    known = pl.col("source").is_not_null()
    order = [known, "lost_ns", "time_ns", "name", "shapes", "phase"]
    return pl.concat(made).sort(
        order, descending=[True, True, True, False, False, False], nulls_last=True
    )


def _facts(linked: Linked) -> Any:
    """Return how much of the GPU's ceilings all work reaches, and each phase."""
    [whole] = build.fill(linked, "roofline_totals").frame.to_dicts()
    known = f"{units.share(whole['known_share'])} of GPU time has a known cost"
    facts = [parts.fact("MFU in all", units.share(whole["mfu"]), known)]
    facts.append(parts.fact("MBU in all", units.share(whole["mbu"]), _bound(whole)))
    for row in build.fill(linked, "roofline_phases").frame.iter_rows(named=True):
        both = f"{units.share(row['mfu'])} · {units.share(row['mbu'])}"
        name = row["phase"] or units.NOTHING
        facts.append(parts.fact(f"MFU · MBU of {name}", both, _bound(row)))
    return parts.facts(*facts)


def _bound(row: Mapping[str, Any]) -> str:
    said = [f"mostly {row['bound']}-bound"] if row["bound"] else []
    return ", ".join([*said, *([f"{units.time(row['lost_ns'])} lost"] if row["lost_ns"] else [])])


def _cards(opened: Opened, rows: pl.DataFrame, colour: str) -> list[Any]:
    linked = opened.linked
    on = ceilings_of(linked)
    beside = _table(opened, rows)
    points = figures.drawable(rows).sort("time_ns", descending=True).head(_POINTS)
    if points.is_empty():
        why = "Of no op both the operations and the bytes are known, so that none has a place."
        return [parts.card("Below the ceilings", parts.nothing(why), beside, wide=True)]
    drawn = parts.picture(
        _figure(opened, points, on, colour),
        beside,
        name="roofline-figure",
        says=_SAYS,
        height=_HEIGHT,
    )
    without = rows.height - figures.drawable(rows).height
    more = f" {units.count(without)} rows without such a place are in the table." if without else ""
    phases = build.fill(linked, "roofline_phases")
    return [
        parts.card(
            "Below the ceilings",
            drawn,
            note=f"{_NOTE}{more} {said_of_ceilings(linked)}",
            wide=True,
        ),
        parts.card("Where time is lost", _table(opened, rows, top=15), wide=True),
        parts.card("Phases", parts.table(phases), wide=True),
    ]


def _figure(opened: Opened, points: pl.DataFrame, on: Ceilings | None, colour: str) -> Any:
    places = [
        _kernels_of(opened, row["name"], row["phase"]) for row in points.iter_rows(named=True)
    ]
    shown = points.sort("time_ns", descending=True)
    tint = palette.phase if colour == "phase" else _of_bound
    return figures.roofline(shown, on, by=colour, colour=tint, places=places)


def _of_bound(bound: str) -> str:
    return _BOUNDS.get(bound, palette.NONE)


def _kernels_of(opened: Opened, name: str, phase: str | None) -> str:
    return parts.place(opened.item.id, "kernels", filter=name, phase=phase)


def _table(opened: Opened, rows: pl.DataFrame, top: int = _ROWS) -> Any:
    """Return the rows as `tracelens roofline` shows them, each with its phase."""
    shown = rows.head(top)
    columns = [c for c in (_PHASE, *TABLE.columns) if not _is_idle(c, shown)]

    def decorate(row: Mapping[str, Any], column: Column) -> parts.Cell | None:
        if column.name == "phase" and row["phase"]:
            return parts.Cell(colour=palette.phase(row["phase"]))
        if column.name == "bound" and row["bound"]:
            return parts.Cell(colour=_of_bound(row["bound"]))
        if column.name != "name":
            return None
        return parts.Cell(_kernels_of(opened, row["name"], row["phase"]))

    return parts.long_table(
        [replace(column, optional=False) for column in columns],
        shown.to_dicts(),
        more=max(0, rows.height - top),
        note=TABLE.note,
        decorate=decorate,
    )


def _is_idle(column: Column, rows: pl.DataFrame) -> bool:
    """Tell whether an optional column has nothing to say."""
    return column.optional and not any(rows[column.name].to_list())


PAGE = Page(title="Roofline", order=55, layout=_layout, needs="trace", register=_register)
