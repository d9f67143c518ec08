"""The explorer served to a test, and a real browser that looks at it.

Tests ask for `explorer` (which serves recordings) and `page` (which fails if anything complains)::

    def test_the_overview_opens(explorer: Explorer, page: Page) -> None:
        page.goto(explorer([path]))
        page.wait_for_selector("h1")
"""

from __future__ import annotations

import os
import shutil
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    Explorer = Callable[[Sequence[Path]], str]

_ARGUMENTS: Final = (
    "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
)  # fmt: skip
_BROWSERS: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_PATIENCE_MS: Final = 20_000


@pytest.fixture
def explorer() -> Iterator[Explorer]:
    """Give a function that serves recordings and returns the address, without a last slash."""
    from tracelens_dashboards.library import Library
    from tracelens_dashboards.serve import wsgi
    from werkzeug.serving import make_server

    with ExitStack() as ends:

        def serve(paths: Sequence[Path]) -> str:
            server = make_server("127.0.0.1", 0, wsgi(Library(list(paths))), threaded=True)
            thread = threading.Thread(target=server.serve_forever, daemon=True)
            thread.start()
            ends.callback(server.server_close)
            ends.callback(thread.join)
            ends.callback(server.shutdown)
            return f"http://127.0.0.1:{server.server_port}"

        yield serve


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Give a running browser, one for all tests."""
    api = pytest.importorskip("playwright.sync_api", reason="no playwright to drive chromium with")
    path = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if path is None:
        pytest.skip("chromium is not on PATH")
    as_root = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with api.sync_playwright() as driver:
        started = driver.chromium.launch(
            executable_path=path, headless=True, args=[*_ARGUMENTS, *as_root]
        )
        yield started
        started.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """Give a fresh page; the test fails if its console or a request reports an error.

    What a test provokes on purpose it takes out of `page.complaints`.
    """
    context = browser.new_context(
        viewport={"width": 1280, "height": 900}, permissions=["clipboard-read", "clipboard-write"]
    )
    context.set_default_timeout(_PATIENCE_MS)
    opened = context.new_page()
    complaints = opened.complaints = watched(opened)
    yield opened
    context.close()

    assert complaints == []


def watched(page: Any) -> list[str]:
    """Return the list into which all errors of a page go from now on."""
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
    page.on("console", lambda said: said.type == "error" and complaints.append(said.text))
    page.on("requestfailed", lambda asked: _is_lost(asked) and complaints.append(asked.url))
    page.on(
        "response", lambda got: got.status >= 400 and complaints.append(f"{got.status} {got.url}")
    )
    return complaints


def _is_lost(request: Any) -> bool:
    """Tell whether a request failed of itself: one that the page gave up is none."""
    return "ERR_ABORTED" not in (request.failure or "")
