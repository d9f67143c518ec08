"""The colours of the toolkit (`tracelens.colours`) as pages use them, in Python and in the browser.

In the browser it is `tracelens.palette()`, and `tracelens.colour(kind, name)`.
"""

from __future__ import annotations

from tracelens.colours import (
    FAMILY,
    GROUPS,
    NONE,
    PHASES,
    SPARE,
    category,
    family,
    of_name,
    of_place,
    phase,
)

__all__ = [
    "GROUPS",
    "NONE",
    "PHASES",
    "category",
    "family",
    "for_browser",
    "of_name",
    "of_place",
    "phase",
]


def for_browser() -> dict[str, object]:
    """Return all of it as JSON may hold it."""
    return {
        "none": NONE,
        "phases": PHASES,
        "groups": GROUPS,
        "families": FAMILY,
        "spare": list(SPARE),
    }
