"""Opening each page of the explorer in a browser, and waiting until it has drawn itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from tracelens_dashboards.library import Library

from tests.dashboards.waits import quiet

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SHOWN: Final = {
    "overview": ".card h2:text-is('What was captured')",
    "timeline": "#timeline[aria-busy=false] .tl-canvas",
    "kernels": "#kernel-calls .ag-row[row-id]",
    "tree": "#tree canvas[data-drawn]",
    "memory": "#memory-page[data-course-drawn]",
    "roofline": "#roofline-shown > :not(.waiting):not([role=alert])",
    "compare": "#compare-shown > :not(.waiting):not([role=alert])",
}
"""Page -> what is there once it shows something."""

_WHY_NOT: Final = "#page [role=alert]:not([hidden])"


def addresses(base: str, paths: Sequence[Path]) -> list[str]:
    """Return where each page of each recording below the paths is, in order."""
    items = Library(list(paths)).items
    traces = sum(item.trace is not None for item in items)
    return [
        f"{base}/{item.id}/{name}"
        for item in items
        for name in SHOWN
        if not (name == "memory" and item.memory is None)
        if not (name not in {"overview", "memory"} and item.trace is None)
        if not (name == "compare" and traces < 2)
    ]


def visit(page: Any, address: str) -> str:
    """Open an address and wait until all of it is shown, or why not; return the page's name."""
    page.goto(address)
    name = address.partition("?")[0].rpartition("/")[2]
    page.wait_for_selector(f"{SHOWN[name]}, {_WHY_NOT}")
    quiet(page)
    return name


def is_shown(page: Any, name: str) -> bool:
    """Tell whether a page shows something, and not only why it cannot."""
    return page.query_selector(SHOWN[name]) is not None
