"""The explorer served to a test, and a real browser that looks at it.

Tests ask for `explorer` (which serves recordings) and `page` (which fails if anything complains)::

    def test_the_overview_opens(explorer: Explorer, page: Page) -> None:
        page.goto(explorer([path]))
        page.wait_for_selector("h1")
"""

from __future__ import annotations

import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests import browsers
from tests.dashboards.waits import PATIENCE_MS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    Explorer = Callable[[Sequence[Path]], str]

_VIEWPORT: Final[Any] = {"width": 1280, "height": 900}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--slowed`, which proves that tests wait: `pytest tests/dashboards --slowed 6`."""
    parser.addoption(
        "--slowed", type=float, default=1, help="make the browser so many times slower"
    )


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
    pytest.importorskip("playwright.sync_api", reason="no playwright to drive chromium with")
    if browsers.installed() is None:
        pytest.skip("chromium is not on PATH")
    with browsers.launched() as started:
        yield started


@pytest.fixture
def tab(browser: Any, request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """Give a function that opens a page of a user of its own, who has seen nothing before.

    What it is given are options of playwright's `new_context`.
    """
    slowed = request.config.getoption("--slowed", 1)
    with ExitStack() as ends:

        def opened(**options: Any) -> Any:
            context = browser.new_context(**{"viewport": _VIEWPORT, **options})
            ends.callback(context.close)
            context.set_default_timeout(PATIENCE_MS)
            page = context.new_page()
            if slowed > 1:
                rate = {"rate": slowed}
                context.new_cdp_session(page).send("Emulation.setCPUThrottlingRate", rate)
            return page

        yield opened


@pytest.fixture
def page(tab: Callable[..., Any]) -> Iterator[Any]:
    """Give a fresh page; the test fails if its console or a request reports an error.

    Texts that come in what a test provokes on purpose it adds to `page.provoked`, beforehand.
    """
    opened = tab(permissions=["clipboard-read", "clipboard-write"])
    opened.provoked = []
    opened.complaints = watched(opened)
    yield opened
    opened.context.close()

    unforeseen = [
        said for said in opened.complaints if not any(text in said for text in opened.provoked)
    ]
    assert unforeseen == []


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
