"""Serving the explorer on this machine: a free port, the browser, and an end by Ctrl-C."""

from __future__ import annotations

import secrets
import socket
import threading
import webbrowser
from typing import TYPE_CHECKING, Any, Final

from tracelens.errors import UsageError
from tracelens_dashboards import app, security
from tracelens_dashboards.library import Library

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

FIRST_PORT: Final = 8050
_PORTS: Final = 50


def serve(
    paths: Sequence[Path],
    *,
    host: str,
    port: int | None,
    browser: bool,
    say: Callable[[str], None],
) -> None:
    """Serve what the paths hold until Ctrl-C.

    Args:
        paths: recordings and folders of them; nothing else can be asked for.
        host: the address to listen at; beside the loopback's it needs a token, which is printed.
        port: None: the first free one from 8050 on.
        browser: open one.
        say: takes lines for the user.

    Raises:
        UsageError: the port is taken, or the address is none of this machine.
    """
    library = Library(paths)
    is_local = host in security.LOOPBACK
    token = None if is_local else secrets.token_urlsafe(24)
    server, chosen = _listening(host, port, library, token)
    shown = f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{chosen}/"
    if token:
        say(
            f"Anyone who can reach {host} and knows this address can read what these recordings "
            "hold; it is not encrypted."
        )
        address += f"?token={token}"
    say(f"Explorer: {address}   (Ctrl-C ends it)")
    for problem in library.problems:
        say(problem)
    if browser:
        threading.Timer(0.3, webbrowser.open, [address]).start()
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        say("")
    finally:
        server.server_close()


def wsgi(
    library: Library, hosts: tuple[str, ...] = security.LOOPBACK, token: str | None = None
) -> Any:
    """Return the explorer as a protected WSGI application."""
    made = app.create(library)
    security.protect(made, hosts, token)
    return made.server


def _listening(host: str, port: int | None, library: Library, token: str | None) -> tuple[Any, int]:
    from werkzeug.serving import make_server

    hosts = security.LOOPBACK if host in security.LOOPBACK else (*security.LOOPBACK, host, *_own())
    application = wsgi(library, hosts, token)
    ports = [port] if port is not None else range(FIRST_PORT, FIRST_PORT + _PORTS)
    for candidate in ports:
        try:
            listening = socket.create_server(
                (host, candidate), family=_family(host), reuse_port=False
            )
        except OSError as error:
            reason = error.strerror or error
            continue
        with listening:
            found = listening.getsockname()[1]
            made = make_server(host, found, application, threaded=True, fd=listening.fileno())
        return made, found
    raise UsageError(f"Cannot listen at {host}:{port or FIRST_PORT}: {reason}. Choose --port.")


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _own() -> tuple[str, ...]:
    """Return the names by which others may know this machine."""
    return (socket.gethostname(), socket.getfqdn())
