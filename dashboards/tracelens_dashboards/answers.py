"""Routes that a page's script asks: `/api/<page>/<recording>/<what>`, read-only, JSON or CSV."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any, Final

from tracelens.errors import NothingToShowError, TracelensError
from tracelens_dashboards.names import plain

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import dash

    from tracelens_dashboards.library import Library, Opened

    Asked = Mapping[str, str]
    Route = Callable[[Opened, Asked], Any]

_LONGEST: Final = 2_000
_PACKED_FROM_BYTES: Final = 1_000


def add(app: dash.Dash, library: Library, page: str, routes: Mapping[str, Route]) -> None:
    """Add routes to the explorer's server.

    A route gets the recording and what the query says, and returns what JSON can hold, or a
    response of its own. Where the recording has nothing of it, the answer is
    ``{"nothing": why}``; where it cannot be given, ``{"error": why}`` with the status 400, or 404
    of an unknown recording.
    """
    from flask import request

    server: Any = app.server

    def answer(name: str, what: str) -> Any:
        try:
            opened = library.open(name)
        except TracelensError as error:
            return _json({"error": _line(error)}, 404)
        if what not in routes:
            return _json({"error": f"There is no {plain(what, 40)} here."}, 404)
        try:
            made = routes[what](opened, request.args)
        except NothingToShowError as error:
            made = {"nothing": _line(error)}
        except TracelensError as error:
            return _json({"error": _line(error)}, 400)
        return _packed(_json(made, 200), request) if isinstance(made, dict) else made

    server.add_url_rule(f"/api/{page}/<name>/<what>", f"api_{page}", answer, methods=["GET"])


def _line(error: TracelensError) -> str:
    return plain(" ".join(str(error).split()), _LONGEST)


def _json(made: Any, status: int) -> Any:
    from flask import Response

    body = json.dumps(made, separators=(",", ":"), ensure_ascii=False).encode(errors="replace")
    answer = Response(body, status, content_type="application/json")
    answer.headers["Cache-Control"] = "no-store"
    answer.headers["Vary"] = "Accept-Encoding"
    return answer


def _packed(answer: Any, request: Any) -> Any:
    body = answer.get_data()
    if len(body) > _PACKED_FROM_BYTES and "gzip" in request.accept_encodings:
        answer.set_data(gzip.compress(body, 1, mtime=0))
        answer.headers["Content-Encoding"] = "gzip"
    return answer
