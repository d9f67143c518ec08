"""Memory over time as a figure: what was live by category or by phase, and where the peak is."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from tracelens import colours, units
from tracelens.analyses.memory.composition import by_life, composition
from tracelens.analyses.memory.devices import devices
from tracelens.analyses.memory.timeline import timeline
from tracelens.errors import NothingToShowError
from tracelens.figures.files import LOOK, as_file, empty

if TYPE_CHECKING:
    from tracelens.links.memory import Memory

_GIB: Final = 1 << 30
_MOST_PHASES: Final = 24
_GREY: Final = "#b0b7bd"


def draw(memory: Memory, form: str) -> bytes:
    """Return the figure as a file: `html` (complete, with all it needs), `svg` or `png`.

    Raises:
        UsageError: plotly, kaleido or the browser that kaleido draws with is not installed.
        NothingToShowError: nothing was live.
    """
    return as_file(_figure(memory), form)


def _figure(memory: Memory) -> Any:
    figure = empty()
    top = devices(memory).sort("peak_active_bytes", descending=True).row(0, named=True)
    device = top["device"]
    history = timeline(memory).filter(pl.col("device") == device)
    course = composition(memory).filter(pl.col("device") == device)
    if course.is_empty():
        raise NothingToShowError("Nothing was live, so that there is nothing to draw.")
    moments, axis = _moments(history)
    unmatched = "no phase" if memory.ask.group == "phase" else "no rule fits"
    colour_of = colours.phase if memory.ask.group == "phase" else colours.category
    for group in by_life(course):
        held = course.filter(pl.col("group").eq_missing(pl.lit(group, pl.String)))
        sizes = moments.join(
            held.select("index", "bytes"), on="index", how="left", nulls_equal=True
        )
        figure.add_scatter(
            x=sizes["x"].to_list(),
            y=(sizes["bytes"].fill_null(0) / _GIB).to_list(),
            name=escape(group or unmatched),
            mode="lines",
            line={"width": 0, "shape": "hv", "color": colour_of(group)},
            stackgroup="live",
        )
    _add_totals(figure, history, moments)
    _add_phases(figure, history, moments)
    _add_peak(figure, moments, top)
    figure.update_layout(
        **LOOK,
        title=escape(f"{memory.trace.source.path.name}: memory of device {device}"),
        hovermode="x unified",
        legend={"orientation": "h", "y": -0.18, "traceorder": "normal"},
    )
    figure.update_xaxes(title=axis)
    figure.update_yaxes(title="live memory (GiB)", hoverformat=".3f")
    return figure


def _moments(history: pl.DataFrame) -> tuple[pl.DataFrame, str]:
    """Return index and x of the moments: milliseconds where times are known, or the index."""
    times = history["time_ns"].drop_nulls()
    known = history.filter(pl.col("index").is_not_null())
    if times.len() == known.height and times.len() and times.is_sorted():
        at = (pl.col("time_ns") - times[0]) / 1e6
        return history.select("index", x=at.fill_null(0.0)), "time since the first event (ms)"
    return history.select("index", x=pl.col("index").fill_null(0)), "event"


def _add_totals(figure: Any, history: pl.DataFrame, moments: pl.DataFrame) -> None:
    """Draw the edge of what was active, as areas show no spike narrower than a pixel."""
    for name, column, style in (
        ("active", "active_bytes", {"width": 1, "color": "#1c2126"}),
        ("reserved", "reserved_bytes", {"width": 1.5, "color": "#444c54", "dash": "dot"}),
    ):
        if history[column].null_count() < history.height:
            figure.add_scatter(
                x=moments["x"].to_list(),
                y=(history[column] / _GIB).to_list(),
                name=name,
                mode="lines",
                line={**style, "shape": "hv"},
            )


def _add_phases(figure: Any, history: pl.DataFrame, moments: pl.DataFrame) -> None:
    """Mark where each phase begins, unless there are too many to read."""
    begins = history.select("phase", x=moments["x"]).filter(
        pl.col("phase").is_not_null() & pl.col("phase").ne_missing(pl.col("phase").shift())
    )
    for phase, x in begins.iter_rows() if begins.height <= _MOST_PHASES else ():
        figure.add_vline(
            x=x,
            line={"width": 1, "dash": "dot", "color": _GREY},
            annotation={"text": escape(phase), "textangle": 0, "font": {"size": 12}},
            annotation_position="top right",
        )


def _add_peak(figure: Any, moments: pl.DataFrame, top: dict[str, Any]) -> None:
    at = moments.filter(pl.col("index").eq_missing(pl.lit(top["peak_index"], pl.Int64)))
    where = "" if top["peak_phase"] is None else f" in {escape(top['peak_phase'])}"
    if at.height:
        figure.add_annotation(
            x=at["x"][0],
            y=top["peak_active_bytes"] / _GIB,
            text=f"peak {units.size(top['peak_active_bytes'])}{where}",
            showarrow=True,
            arrowhead=2,
            ay=-40,
        )
