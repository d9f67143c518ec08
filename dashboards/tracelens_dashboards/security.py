"""Who may ask the server, and what a browser may do with its answers."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import dash

LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
COOKIE: Final = "tracelens-token"

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
    server.config["TRUSTED_HOSTS"] = list(hosts)
    hashes = " ".join(f"'{digest.strip(chr(39))}'" for digest in app.csp_hashes())
    policy = _POLICY.format(hashes=hashes)

    @server.before_request  # type: ignore[untyped-decorator]
    def _admitted() -> Any:
        if token is None or _knows(request.cookies.get(COOKIE, ""), token):
            return None
        if not _knows(request.args.get("token", ""), token):
            abort(403)
        answer = redirect(request.path)
        answer.set_cookie(COOKIE, token, httponly=True, samesite="Strict")
        return answer

    @server.after_request  # type: ignore[untyped-decorator]
    def _guarded(response: Any) -> Any:
        response.headers["Content-Security-Policy"] = policy
        response.headers.update(_HEADERS)
        return response


def _knows(shown: str, token: str) -> bool:
    return hmac.compare_digest(shown.encode(), token.encode())
