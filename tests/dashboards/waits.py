"""Waiting in a browser for what a test asserts: what a page shows comes when it is ready.

Nothing of a page is read and compared at once, be it a text, a pixel or the address: on a machine
that does something else meanwhile it is not there yet. `soon` reads it until it is as wanted.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE_MS: Final = 90_000
"""How long a test waits at most: many times what a quiet machine takes."""

_PAUSE_MS: Final = 50
_QUIET: Final = """() => !document.querySelector(
  "#page[data-dash-is-loading=true], #page [data-dash-is-loading=true], #page .waiting")"""

# Tells whether a button has shown a text since now: it soon shows its own again.
_WATCH: Final = """(button, text) => ({ said: new Promise((done) => {
  const look = () => button.textContent.includes(text) && done(true);
  const all = { childList: true, subtree: true, characterData: true };
  new MutationObserver(look).observe(button, all);
})})"""

_T = TypeVar("_T")


def soon(page: Any, read: Callable[[], _T], wanted: Any) -> _T:
    """Wait until what is read is what is wanted, and return it.

    Args:
        page: the page in the browser, which goes on meanwhile.
        read: reads it.
        wanted: what it is to be equal to, or a function that tells whether it fits.
    """
    ends = time.monotonic() + PATIENCE_MS / 1_000
    while True:
        seen = read()
        if wanted(seen) if callable(wanted) else seen == wanted:
            return seen
        assert time.monotonic() < ends, f"waited in vain for {wanted!r}; it is {seen!r}"
        page.wait_for_timeout(_PAUSE_MS)


def quiet(page: Any) -> None:
    """Wait until no part of the page is still being made."""
    page.wait_for_function(_QUIET)


def state(page: Any) -> dict[str, str]:
    """Return what the address says now; assert it by `says`, or after it."""
    said = parse_qs(urlsplit(page.url).query, keep_blank_values=True)
    return {name: values[-1] for name, values in said.items()}


def says(page: Any, **expected: str | None) -> dict[str, str]:
    """Wait until the address says what is expected (None: nothing of it); return all of it."""

    def fits(said: dict[str, str]) -> bool:
        return all(said.get(name) == value for name, value in expected.items())

    return soon(page, lambda: state(page), fits)


def count(page: Any, selector: str, wanted: Any) -> None:
    """Wait until there are as many elements as wanted."""
    soon(page, page.locator(selector).count, wanted)


def reads(page: Any, selector: str, wanted: Any) -> str:
    """Wait until the first element's text is as wanted, or holds it; return the text."""
    fits = wanted if callable(wanted) else lambda text: wanted in text
    return soon(page, page.locator(selector).first.inner_text, fits)


def copied(page: Any, button: Any) -> str:
    """Click what copies, wait until something has been copied, and return it."""
    page.evaluate("navigator.clipboard.writeText('')")
    button.click()
    return soon(page, lambda: page.evaluate("navigator.clipboard.readText()"), lambda text: text)


def answers(page: Any, button: Any, text: str) -> None:
    """Click a button and wait until it has shown a text, for however short a time."""
    watch = button.evaluate_handle(_WATCH, text)
    button.click()
    assert page.evaluate("(watch) => watch.said", watch)


def leave_dialog(page: Any) -> None:
    """Close the dialog by its key, once it listens: it then has the focus."""
    page.wait_for_function("() => document.activeElement?.closest('[role=dialog]')")
    page.keyboard.press("Escape")
    page.wait_for_selector("[role=dialog]", state="detached")
