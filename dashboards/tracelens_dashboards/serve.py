"""Serving the explorer on this machine: a free port, the browser, and an end by Ctrl-C."""

from __future__ import annotations

import secrets
import signal
import socket
import threading
import webbrowser
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from tracelens.errors import UsageError
from tracelens_dashboards import app, security
from tracelens_dashboards.library import Library
from tracelens_dashboards.pages.overview import ahead

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

FIRST_PORT: Final = 8050
_PORTS: Final = 50
_STARTED_S: Final = 0.3
_ALL: Final = ("0.0.0.0", "::")  # noqa: S104 # to know them, not to listen there


def serve(
    paths: Sequence[Path],
    *,
    host: str,
    port: int | None,
    browser: bool,
    say: Callable[[str], None],
) -> None:
    """Serve what the paths hold until Ctrl-C or SIGTERM.

    Args:
        paths: recordings and folders of them; nothing else can be asked for.
        host: the address to listen at; beside the loopback's it needs a token, which is printed.
        port: None: the first free one from 8050 on.
        browser: open one.
        say: takes lines for the user.

    Raises:
        UsageError: the port is taken, or the address is none of this machine.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    library = Library(paths)
    token = None if host in security.LOOPBACK else secrets.token_urlsafe(24)
    server, chosen = _listening(host, port, library, token)
    address = f"http://{_shown(host)}:{chosen}/"
    if token:
        say(
            f"Warning: anyone who can reach {host} and knows this address can read what these "
            "recordings hold. It is not encrypted."
        )
        address += f"?token={token}"
    try:
        say(f"Explorer: {address}   (Ctrl-C ends it)")
        for problem in library.problems:
            say(problem)
        threading.Thread(target=_ahead, args=(library,), daemon=True).start()
        if browser:
            threading.Timer(_STARTED_S, webbrowser.open, [address]).start()
        server.serve_forever()
    except KeyboardInterrupt:
        say("")
    finally:
        server.server_close()


def _ahead(library: Library) -> None:
    """Read what the browser is going to ask for first, while it starts."""
    with suppress(Exception):  # whoever asks for it is told
        ahead(library.open(library.items[0].id))


def wsgi(
    library: Library, hosts: tuple[str, ...] = security.LOOPBACK, token: str | None = None
) -> Any:
    """Return the explorer as a protected WSGI application."""
    made = app.create(library)
    security.protect(made, hosts, token)
    return made.server


def _listening(host: str, port: int | None, library: Library, token: str | None) -> tuple[Any, int]:
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        """Print no line for each request."""

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            pass

    is_local = host in security.LOOPBACK
    hosts = security.LOOPBACK if is_local else (*security.LOOPBACK, host, *_own())
    application = wsgi(library, hosts, token)
    ports = [port] if port is not None else range(FIRST_PORT, FIRST_PORT + _PORTS)
    reason: object = "no port is free"
    for candidate in ports:
        try:
            listening = socket.create_server((host, candidate), family=_family(host))
        except OSError as error:
            reason = error.strerror or error
            continue
        with listening:
            found = listening.getsockname()[1]
            made = make_server(
                host,
                found,
                application,
                threaded=True,
                request_handler=Quiet,
                fd=listening.fileno(),
            )
        return made, found
    raise UsageError(f"Cannot listen at {host}:{port or FIRST_PORT}: {reason}. Choose --port.")


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _shown(host: str) -> str:
    """Return the address as a browser takes it; of `all addresses` the one others may use."""
    if host in _ALL:
        host = next(iter(_addresses()), socket.gethostname())
    return f"[{host}]" if ":" in host else host


def _own() -> tuple[str, ...]:
    """Return the names and addresses by which others may know this machine."""
    return (socket.gethostname(), socket.getfqdn(), *_addresses())


def _addresses() -> list[str]:
    """Return this machine's addresses; nothing is sent to find them out."""
    found = []
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.connect(("192.0.2.1", 9))  # an address of no machine: for documentation
        found.append(asking.getsockname()[0])
    with suppress(OSError):
        found += [str(told[4][0]) for told in socket.getaddrinfo(socket.gethostname(), None)]
    return list(dict.fromkeys(found))
