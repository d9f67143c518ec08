"""Names out of a trace, made fit to be shown: they may hold markup, and what a terminal obeys."""

from __future__ import annotations

import html
import unicodedata
from typing import Final

_LONGEST: Final = 300
_TURNING: Final = {"Cc", "Cf", "Cs", "Co", "Cn"}


def plain(name: str, longest: int = _LONGEST) -> str:
    """Return a name in which every character can be seen, and which is not too long.

    Control characters, and those that turn the direction of writing, become U+FFFD.
    For components that show text as text (html.*, AG Grid's cells, a canvas).
    """
    seen = "".join("\ufffd" if unicodedata.category(c) in _TURNING else c for c in name)
    return seen if len(seen) <= longest else f"{seen[: longest - 1]}…"


def for_plotly(name: str, longest: int = _LONGEST) -> str:
    """Return a name as plotly shows it: it takes some markup in text for its own."""
    return html.escape(plain(name, longest), quote=False)
