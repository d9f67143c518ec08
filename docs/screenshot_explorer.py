"""Take the pictures of the explorer in docs/explorer.md, of our sample, in chromium.

usage: python -m docs.screenshot_explorer
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tracelens_dashboards.library import Library
from tracelens_dashboards.serve import wsgi
from werkzeug.serving import WSGIRequestHandler, make_server

from tests.browsers import launched

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).parents[1]
SAMPLES: Final = ROOT / "samples"
WIDTH: Final = 1280
PICTURES: Final = {
    "overview": (
        "gpt2-xl",
        "overview",
        ("#overview-stack .ytick", "#overview-steps .ytick"),
        960,
    ),
    "timeline": (
        "gpt2-xl",
        "timeline?from=180000000&to=366000000&sel=275000000-361000000",
        ("#timeline[aria-busy=false] .tl-statistics",),
        830,
    ),
    "roofline": (
        "gpt2-small",
        "roofline",
        ("#roofline-figure .scatterlayer .point",),
        1010,
    ),
}
"""Name -> how the recording's begins, the page with its state, what is there once it is drawn, and
the height in pixels."""


class Quiet(WSGIRequestHandler):
    """Print no line for each request."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Print nothing."""


def main() -> None:
    """Write the pictures."""
    library = Library([SAMPLES])
    with _served(library) as base, launched() as browser:
        for name, (recording, place, drawn, height) in PICTURES.items():
            [chosen] = (one.id for one in library.items if one.title.startswith(recording))
            page = browser.new_page(viewport={"width": WIDTH, "height": height})
            page.goto(f"{base}/{chosen}/{place}")
            for selector in drawn:
                page.wait_for_selector(selector)
            page.wait_for_function(
                "() => !document.querySelector('[data-dash-is-loading=true], .waiting')"
            )
            page.screenshot(path=ROOT / "docs" / f"explorer-{name}.png")


@contextmanager
def _served(library: Library) -> Iterator[str]:
    server = make_server("127.0.0.1", 0, wsgi(library), threaded=True, request_handler=Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


if __name__ == "__main__":
    main()
