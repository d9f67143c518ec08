"""tracelens tells where a GPU's time and memory go, phase by phase."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tracelens.marks import phase, span, step

if TYPE_CHECKING:
    from tracelens.marks.layers import instrument
    from tracelens.notebook import open  # noqa: A004 (called as tracelens.open, like gzip.open)

__version__ = "0.1.0"
__all__ = ["instrument", "open", "phase", "span", "step"]


def __getattr__(name: str) -> Any:
    """Load what programs seldom need when they ask for it."""
    if name == "instrument":
        from tracelens.marks.layers import instrument

        return instrument
    if name == "open":
        from tracelens.notebook import open as opened

        return opened
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return names for completion, those that are loaded on request among them."""
    return sorted({*globals(), *__all__})
