"""Who may ask the server, and what a browser may do with its answers."""

from __future__ import annotations

import hmac
import re
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

if TYPE_CHECKING:
    import dash

LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
COOKIE: Final = "tracelens-token"

_BRACKETED: Final = re.compile(r"\[([0-9a-f:.]+)\](|:\d+)")
_POLICY: Final = (
    "default-src 'self'; script-src 'self' {hashes}; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; object-src 'none'; "
    "base-uri 'none'; frame-ancestors 'none'; form-action 'none'"
)
_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}


def protect(app: dash.Dash, hosts: tuple[str, ...], token: str | None) -> None:
    """Let a server answer these hosts alone, with a strict policy, and with a token if it has one.

    Call it once all clientside callbacks are registered: the policy names their hashes. A browser
    shows its token once, in the URL's query, and as a cookie from then on.

    Args:
        app: the explorer.
        hosts: what the Host header may say, without port.
        token: what every request must know; None: nothing, on the loopback alone.
    """
    from flask import abort, redirect, request

    server: Any = app.server
    server.config["TRUSTED_HOSTS"] = [host for host in hosts if ":" not in host]
    server.wsgi_app = _named(server.wsgi_app, [host for host in hosts if ":" in host])
    hashes = " ".join(f"'{digest.strip(chr(39))}'" for digest in app.csp_hashes())
    policy = _POLICY.format(hashes=hashes)

    @server.before_request  # type: ignore[untyped-decorator]
    def _admitted() -> Any:
        if token is None:
            return None
        name = _cookie(request.host)
        if _knows(request.cookies.get(name, ""), token):
            return None
        if not _knows(request.args.get("token", ""), token):
            abort(403)
        answer = redirect(_without_token(request.path, request.args.to_dict()))
        answer.set_cookie(name, token, httponly=True, samesite="Strict")
        return answer

    @server.after_request  # type: ignore[untyped-decorator]
    def _guarded(response: Any) -> Any:
        response.headers["Content-Security-Policy"] = policy
        response.headers.update(_HEADERS)
        return response


def _named(application: Any, addresses: list[str]) -> Any:
    """Return the application that calls these IPv6 addresses localhost: Flask cannot trust them."""

    def named(environ: dict[str, Any], start: Any) -> Any:
        told = _BRACKETED.fullmatch(environ.get("HTTP_HOST", ""))
        if told and told[1] in addresses:
            environ["HTTP_HOST"] = f"localhost{told[2]}"
        return application(environ, start)

    return named


def _cookie(host: str) -> str:
    """Return the cookie's name: explorers on other ports of a host have cookies of their own."""
    port = re.search(r":(\d+)$", host)
    return f"{COOKIE}-{port[1]}" if port else COOKIE


def _without_token(path: str, asked: dict[str, str]) -> str:
    """Return the address that was asked for, on this very host and without its token."""
    query = urlencode({name: value for name, value in asked.items() if name != "token"})
    return f"/{path.lstrip('/')}" + (f"?{query}" if query else "")


def _knows(shown: str, token: str) -> bool:
    return hmac.compare_digest(shown.encode(), token.encode())
