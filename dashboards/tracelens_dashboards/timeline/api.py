"""The timeline's routes: `/api/timeline/<id>/…`, read-only, all they need in the query."""

from __future__ import annotations

import gzip
import json
import math
from typing import TYPE_CHECKING, Any, Final

from tracelens.errors import TracelensError, UsageError
from tracelens_dashboards.names import plain
from tracelens_dashboards.timeline.details import details
from tracelens_dashboards.timeline.find import marked, matching, neighbour, reference, search
from tracelens_dashboards.timeline.rows import timeline
from tracelens_dashboards.timeline.selection import statistics
from tracelens_dashboards.timeline.view import view

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import dash

    from tracelens_dashboards.library import Library, Opened
    from tracelens_dashboards.timeline.rows import Row, Timeline

    Query = Mapping[str, str]

MOST_PX: Final = 16_384
_MOST_NAMES: Final = 2_000
_PACKED_FROM_BYTES: Final = 1_000
_LARGEST_NS: Final = 1 << 62


class _MissingError(TracelensError):
    """What was asked for is not there."""


def register(app: dash.Dash, library: Library) -> None:
    """Add the routes to the explorer's server."""
    from flask import Response, request

    server: Any = app.server

    @server.get("/api/timeline/<name>/<what>")  # type: ignore[untyped-decorator]
    def _timeline(name: str, what: str) -> Any:
        try:
            body, kind = _answer(library, name, what, request.args)
            status = 200
        except _MissingError as error:
            body, kind, status = _error(error), _JSON, 404
        except TracelensError as error:
            body, kind, status = _error(error), _JSON, 400
        answer = Response(body, status, content_type=kind)
        answer.headers["Vary"] = "Accept-Encoding"
        answer.headers["Cache-Control"] = "no-store"
        if len(body) > _PACKED_FROM_BYTES and request.accept_encodings.quality("gzip"):
            answer.set_data(gzip.compress(body, 1, mtime=0))
            answer.headers["Content-Encoding"] = "gzip"
        return answer


_JSON: Final = "application/json"


def _error(error: TracelensError) -> bytes:
    line = plain(" ".join(str(error).split()), 500)
    return json.dumps({"error": line}).encode()


def _answer(library: Library, name: str, what: str, query: Query) -> tuple[bytes, str]:
    route = _ROUTES.get(what)
    if route is None:
        raise _MissingError(f"There is no {plain(what, 40)} here.")
    try:
        opened = library.open(name)
        known = timeline(opened)
    except TracelensError as error:
        raise _MissingError(str(error)) from error
    answer = route(opened, known, query)
    if isinstance(answer, bytes):
        return answer, "application/octet-stream"
    return json.dumps(answer, separators=(",", ":")).encode(), _JSON


def _rows(_opened: Opened, known: Timeline, _query: Query) -> Any:
    start, end = known.span
    return {
        "start_ns": start,
        "end_ns": end,
        "rows": [
            {
                "id": row.id,
                "kind": "ranges" if row.kind == "python" else row.kind,
                "group": row.group,
                "label": row.label,
                "lanes": max(len(row.lanes), 1),
                "count": row.count,
            }
            for row in known.rows
        ],
        "phases": [{"name": plain(name)} for name in known.phases],
        "families": [{"name": name} for name in known.families],
        "steps": [
            {**step, "name": None if step["name"] is None else plain(step["name"])}
            for step in known.steps.select("step", "name", "pid", "start_ns", "end_ns").to_dicts()
        ],
    }


def _view(_opened: Opened, known: Timeline, query: Query) -> bytes:
    return view(_chosen(known, query), *_window(query), _px(query))


def _item(opened: Opened, known: Timeline, query: Query) -> Any:
    row = _row(known, query.get("row", ""))
    return details(opened, row, _held(row, query))


def _next(_opened: Opened, known: Timeline, query: Query) -> Any:
    """Return the next item of a row; of everything that fits, where a search is given."""
    direction = _whole(query, "direction")
    if direction not in (1, -1):
        raise UsageError("direction is 1 or -1.")
    ns = _number(query, "ns")
    at = math.floor(ns) if direction > 0 else math.ceil(ns)
    row = _row(known, query["row"]) if query.get("row") else None
    of = (row, _held(row, query)) if row and query.get("item") else None
    wanted = _wanted(known, query) if query.get("q") else None
    rows = [row] if row and wanted is None else _chosen(known, query)
    found = neighbour(rows, at, direction, of, wanted)
    return reference(known, *found) if found else {}


def _wanted(known: Timeline, query: Query) -> Any:
    return marked(known, matching(known, query["q"], regex=query.get("regex") == "1"))


def _search(_opened: Opened, known: Timeline, query: Query) -> Any:
    ids = matching(known, query.get("q", ""), regex=query.get("regex") == "1")
    start, end = known.span
    window = _window({"from": str(start), "to": str(max(end, start + 1)), **query})
    return search(known, _chosen(known, query), ids, window, _px({"px": "1", **query}))


def _name(_opened: Opened, known: Timeline, query: Query) -> Any:
    ids = [text for text in query.get("ids", "").split(",") if text]
    if len(ids) > _MOST_NAMES:
        raise UsageError(f"Ask for {_MOST_NAMES:,} names at most.")
    return {text: known.names.short(_signed(_whole({"ids": text}, "ids"))) for text in ids}


def _signed(number: int) -> int:
    """Return the name_id of which a picture holds the 32 bits without their sign."""
    return (number + 2**31) % 2**32 - 2**31


def _stats(opened: Opened, known: Timeline, query: Query) -> Any:
    streams = [row for row in _chosen(known, query) if row.kind == "stream"]
    every = sum(row.kind == "stream" for row in known.rows)
    return statistics(opened.linked, *_window(query), streams if len(streams) < every else ())


_ROUTES: Final[dict[str, Callable[[Opened, Timeline, Query], Any]]] = {
    "rows": _rows,
    "view": _view,
    "item": _item,
    "next": _next,
    "search": _search,
    "name": _name,
    "stats": _stats,
}


def _chosen(known: Timeline, query: Query) -> Sequence[Row]:
    """Return the rows that were asked for, each once; all where none were named."""
    if "rows" not in query:
        return known.rows
    return [_row(known, name) for name in dict.fromkeys(query["rows"].split(",")) if name]


def _row(known: Timeline, name: str) -> Row:
    try:
        return known.by_id[name]
    except KeyError:
        raise _MissingError(f"There is no row {plain(name, 40)}.") from None


def _held(row: Row, query: Query) -> int:
    """Return an item that the row holds."""
    item = _whole(query, "item")
    if not row.holds(item):
        raise _MissingError(f"The row {row.id} holds no item {item}.")
    return item


def _window(query: Query) -> tuple[int, int]:
    """Return begin and end in whole ns; they are at least 1 ns apart."""
    first, last = math.floor(_number(query, "from")), math.ceil(_number(query, "to"))
    if first >= last:
        raise UsageError("from must be less than to.")
    return first, last


def _px(query: Query) -> int:
    px = _whole(query, "px")
    if not 0 < px <= MOST_PX:
        raise UsageError(f"px must be 1 to {MOST_PX:,}.")
    return px


def _whole(query: Query, name: str) -> int:
    number = _number(query, name)
    if number != int(number):
        raise UsageError(f"{name} must be a whole number.")
    return int(number)


def _number(query: Query, name: str) -> float:
    """Return a number; whole ones stay exact, however large."""
    text = query.get(name, "")
    try:
        number = int(text) if text.removeprefix("-").isdecimal() else float(text)
    except ValueError:
        raise UsageError(f"{name} must be a number.") from None
    if not abs(number) <= _LARGEST_NS:
        raise UsageError(f"{name} must be a number of at most {_LARGEST_NS}.")
    return number
