"""Figures as files: a complete page, or an image that a browser draws."""

from __future__ import annotations

from typing import Any, Final

from tracelens.errors import UsageError

INSTALL: Final = "pip install 'tracelens-gpu[images]'"
_WIDTH: Final = 1200
_HEIGHT: Final = 600
_AXES: Final = {"showgrid": True, "gridcolor": "#e5e8eb", "zeroline": False}
LOOK: Final[dict[str, Any]] = {
    "template": "plotly_white",
    "font": {"family": "system-ui, sans-serif", "size": 14},
    "xaxis": _AXES,
    "yaxis": {"rangemode": "tozero", **_AXES},
    "margin": {"l": 70, "r": 30, "t": 80, "b": 60},
}
"""The layout that all figures share."""


def empty() -> Any:
    """Return a figure of plotly with nothing in it; raises UsageError without plotly."""
    try:
        import plotly.graph_objects as go
    except ImportError as error:
        raise UsageError(f"Figures need plotly: {INSTALL}.") from error
    return go.Figure()


def as_file(figure: Any, form: str, height: int = _HEIGHT) -> bytes:
    """Return a figure as a file: `html` (complete, with all it needs), `svg` or `png`.

    Raises:
        UsageError: kaleido or the browser that it draws with is not installed.
    """
    if form == "html":
        page: str = figure.to_html(include_plotlyjs=True, full_html=True)
        return page.encode()
    try:
        import kaleido as _  # noqa: F401
    except ImportError as error:
        raise UsageError(f"A .{form} needs kaleido: {INSTALL}. A .html does not.") from error
    try:
        image: bytes = figure.to_image(format=form, width=_WIDTH, height=height)
    except Exception as error:
        if "chrome" in str(error).lower() or "browser" in str(error).lower():
            raise UsageError(
                f"A .{form} is drawn by a browser, and kaleido finds none: install Chrome or "
                "Chromium (plotly_get_chrome does), or write a .html."
            ) from error
        raise
    return image
