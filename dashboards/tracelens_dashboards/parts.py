"""What pages are put together from: cards, tables with copy buttons, pictures with their tables.

All text is shown as text; names out of a trace go through `names.plain` here, once more does no
harm. The copy buttons work in the browser alone (`assets/shell.js`), on what the table shows.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from dash import dcc, html
from dash.development.base_component import Component

from tracelens import units
from tracelens_dashboards.names import plain

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tracelens.tables import Column, Filled

    Row = Mapping[str, Any]

_LONGEST_NOTE: Final = 1_000
_GRID: Final = "rgba(128, 128, 128, 0.25)"
_GREY: Final = "#808890"
_CONFIG: Final[Any] = {"displaylogo": False, "responsive": True, "plotlyServerURL": ""}


@dataclass(frozen=True)
class Cell:
    """What stands in a cell in place of the plain value.

    Attributes:
        href: where a click leads, made by `place` and never out of a trace.
        colour: of the square before the text.
        folded: what unfolds below the text: a call stack.
    """

    href: str | None = None
    colour: str | None = None
    folded: str | None = None


def place(recording: str, page: str, **state: object) -> str:
    """Return the address of a page of a recording; state that is None is left out."""
    said = urlencode({name: value for name, value in state.items() if value is not None})
    return f"/{recording}/{page}" + (f"?{said}" if said else "")


def heading(text: str, note: str = "") -> Any:
    """Return the heading of a part, with a sentence below it that says what one sees."""
    below = [html.P(plain(note, _LONGEST_NOTE), className="note")] if note else []
    return html.Div([html.H2(plain(text)), *below], className="part-heading")


def card(title: str, *children: Any, note: str = "", wide: bool = False) -> Any:
    """Return a framed part of a page; a wide one takes the whole row of `cards`."""
    return html.Section(
        [heading(title, note), *children], className="card wide" if wide else "card"
    )


def cards(*children: Any) -> Any:
    """Return cards side by side, as many as there is room for."""
    return html.Div(list(children), className="cards")


def fact(label: str, value: str, note: str = "") -> Any:
    """Return one number with what it is; facts stand side by side in `facts`."""
    below = [html.Span(plain(note), className="fact-note")] if note else []
    return html.Div(
        [
            html.Span(plain(label), className="fact-label"),
            html.Span(plain(value), className="fact-value"),
            *below,
        ],
        className="fact",
    )


def facts(*children: Any) -> Any:
    """Return facts side by side."""
    return html.Div(list(children), className="facts")


def nothing(why: str) -> Any:
    """Return what stands where there is nothing to show: why, and what would help."""
    return html.P(plain(why, _LONGEST_NOTE), className="nothing")


def problem(why: str) -> Any:
    """Return what stands where something cannot be shown because it is damaged, or failed."""
    return html.P(plain(why, _LONGEST_NOTE), className="problem", role="alert")


def waiting(text: str = "Reading …") -> Any:
    """Return what stands where something is still being computed."""
    return html.P(text, className="waiting", role="status")


def only(filled: Filled, names: Sequence[str], *, hidden: Sequence[str] = ()) -> Filled:
    """Return a table of some of its columns, in this order; hidden ones are for links alone."""
    there = {column.name: column for column in filled.table.columns}
    columns = tuple(
        replace(there[name], shown=there[name].shown and name not in hidden) for name in names
    )
    return replace(filled, table=replace(filled.table, columns=columns))


def table(
    filled: Filled,
    *,
    top: int | None = None,
    decorate: Callable[[Row, Column], Cell | None] | None = None,
) -> Any:
    """Return a table of an analysis as `tracelens summarize` shows it, with copy buttons.

    Args:
        filled: the table with its rows.
        top: show so many rows, and say how many more there are.
        decorate: tells what is special about a row's cell of a column: a link, a colour.
    """
    height = filled.frame.height
    shown = filled.frame.head(top) if top else filled.frame
    return table_of(
        filled.table.columns,
        list(shown.iter_rows(named=True)),
        more=height - shown.height,
        note=filled.table.note,
        decorate=decorate,
    )


def table_of(
    columns: Sequence[Column],
    rows: Sequence[Row],
    *,
    more: int = 0,
    note: str = "",
    decorate: Callable[[Row, Column], Cell | None] | None = None,
) -> Any:
    """Return rows as a table: numbers with one unit a column, aligned; with copy buttons.

    Args:
        columns: what the table has; those that are not `shown` are left out.
        rows: column name -> value.
        more: how many rows were left out.
        note: a sentence below.
        decorate: as in `table`.
    """
    kept = [column for column in columns if column.shown]
    if not rows:
        return nothing("No rows.")
    texts = [units.column(column.unit, [row.get(column.name) for row in rows]) for column in kept]
    body = [
        html.Tr(
            [
                _cell(column, row, text[place], decorate)
                for column, text in zip(kept, texts, strict=True)
            ]
        )
        for place, row in enumerate(rows)
    ]
    head = [html.Th(c.heading, className=_kind(c), **_data("name", c.name)) for c in kept]
    return html.Div(
        [
            html.Div(
                html.Table([html.Thead(html.Tr(head)), html.Tbody(body)], className="table"),
                className="table-scroll",
            ),
            *_below(more, note),
            _copy_buttons(),
        ],
        className="tabled",
    )


def long_table(
    columns: Sequence[Column],
    rows: Sequence[Row],
    *,
    more: int = 0,
    note: str = "",
    decorate: Callable[[Row, Column], Cell | None] | None = None,
) -> Any:
    """Return what `table_of` does, put together in the browser: `assets/tables.js`.

    A thousand cells that are components each hold the browser up for seconds. Nothing unfolds.
    """
    kept = [column for column in columns if column.shown]
    if not rows:
        return nothing("No rows.")
    texts = [units.column(column.unit, [row.get(column.name) for row in rows]) for column in kept]
    cells = [
        [
            _packed(column, row, text[place], decorate)
            for column, text in zip(kept, texts, strict=True)
        ]
        for place, row in enumerate(rows)
    ]
    heads = [[column.name, column.heading, _kind(column)] for column in kept]
    return html.Div(
        [
            html.Div(
                className="table-scroll",
                **_data("rows", json.dumps({"heads": heads, "rows": cells})),
            ),
            *_below(more, note),
            _copy_buttons(),
        ],
        className="tabled",
    )


def picture(figure: Any, beside: Any, *, name: str, says: str, height: int = 320) -> Any:
    """Return a figure and, folded below it, the table of the same data.

    Args:
        figure: of plotly, or a component that draws itself (a canvas).
        beside: the table.
        name: the id of the graph.
        says: what the picture shows, for those who do not see it.
        height: in pixels.
    """
    drawn = isinstance(figure, Component)
    return html.Div(
        [
            figure if drawn else graph(figure, name=name, says=says, height=height),
            html.Details([html.Summary("The same as a table"), beside], className="beside"),
        ],
        className="picture",
    )


def graph(figure: Any, *, name: str, says: str, height: int = 320) -> Any:
    """Return a plotly figure that follows the theme (`assets/shell.css` colours its text)."""
    return html.Div(
        dcc.Graph(
            id=name, figure=themed(figure, height), config=_CONFIG, style={"height": f"{height}px"}
        ),
        role="img",
        **_labelled(says),
    )


def themed(figure: Any, height: int | None = None) -> Any:
    """Return a plotly figure on no ground of its own, with lines that fit light and dark."""
    axis = {"gridcolor": _GRID, "zerolinecolor": _GRID, "linecolor": _GRID, "automargin": True}
    figure.update_layout(
        template="none",
        height=height,
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, sans-serif", "size": 13, "color": _GREY},
        margin={"l": 8, "r": 8, "t": 8, "b": 8},
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": _GREY, "activecolor": "#2f7fc1"},
    )
    figure.update_xaxes(**axis)
    figure.update_yaxes(**axis)
    return figure


def _cell(
    column: Column, row: Row, text: str, decorate: Callable[[Row, Column], Cell | None] | None
) -> Any:
    special = (decorate(row, column) if decorate else None) or Cell()
    seen = plain(text)
    inside: list[Any] = [_square(special.colour)] if special.colour else []
    inside.append(dcc.Link(seen, href=special.href) if special.href else seen)
    if special.folded:
        lines = [plain(line) for line in special.folded.split("\n")]
        more = html.Pre("\n".join(lines), className="folded")
        inside = [html.Details([html.Summary(inside), more])]
    return html.Td(inside, className=_kind(column), **_data("value", _value(row.get(column.name))))


def _packed(
    column: Column, row: Row, text: str, decorate: Callable[[Row, Column], Cell | None] | None
) -> list[str | None]:
    """Return a cell for the browser: text, value, where it leads, colour."""
    special = (decorate(row, column) if decorate else None) or Cell()
    return [plain(text), _value(row.get(column.name)), special.href, special.colour]


def _below(more: int, note: str) -> list[Any]:
    below = [html.P(f"… and {units.count(more)} more", className="note")] if more else []
    return below + ([html.P(plain(note, _LONGEST_NOTE), className="note")] if note else [])


def _square(colour: str) -> Any:
    return html.Span(className="square", style={"backgroundColor": colour})


def _kind(column: Column) -> str:
    if column.unit in units.NUMERIC:
        return "number"
    return "name" if column.unit == "name" else "text"


def _labelled(says: str) -> Any:
    return {"aria-label": plain(says)}


def _data(name: str, value: str) -> Any:
    """Return an attribute of an element that the browser's scripts read."""
    return {f"data-{name}": value}


def _value(value: object) -> str:
    """Return what the CSV holds of a cell: the number itself, without its unit."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else plain(str(value), _LONGEST_NOTE)


def _copy_buttons() -> Any:
    """Return the buttons; `assets/shell.js` listens to all of them."""
    return html.Div(
        [
            html.Button(f"Copy as {title}", className="copy-table", **_data("format", form))
            for form, title in (("csv", "CSV"), ("markdown", "Markdown"))
        ],
        className="copy-buttons",
    )
