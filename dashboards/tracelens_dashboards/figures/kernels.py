"""Pictures of the calls of one kernel: how long they took, and when."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import plotly.graph_objects as go
import polars as pl

from tracelens import units
from tracelens.tables import Column
from tracelens_dashboards import palette
from tracelens_dashboards.names import for_plotly

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

_BINS: Final = 50
_WIDE: Final = 20
"""From so many times the shortest on, bins grow with the duration."""

_FEW: Final = 5
_SPANS: Final = 250
MOST_POINTS: Final = 2_000
"""So many calls are drawn one by one; of more, the extremes of each span of time."""

_BARE: Final = {"showlegend": True, "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom"}}


def binned(calls: pl.DataFrame) -> pl.DataFrame:
    """Return how many calls took how long: from_ns, to_ns and the calls of each phase.

    A bin holds what takes ``from_ns`` or longer, and less than ``to_ns``, the last one that, too.

    Args:
        calls: took_ns and phase (a string), one row at least.
    """
    took = calls["took_ns"].to_numpy()
    edges = _edges(int(took.min()), int(took.max()))
    columns: dict[str, NDArray[Any]] = {"from_ns": edges[:-1], "to_ns": edges[1:]}
    for phase in _phases(calls):
        mine = calls.filter(pl.col("phase") == phase)["took_ns"].to_numpy()
        columns[phase] = np.histogram(mine, edges)[0].astype(np.int64)
    return pl.DataFrame(columns)


def _edges(least: int, most: int) -> NDArray[np.int64]:
    """Return whole bounds of bins, no two alike."""
    if most <= least:
        return np.array([least, least + 1])
    if least > 0 and most > _WIDE * least:
        edges = np.geomspace(least, most, _BINS + 1)
    else:
        edges = np.linspace(least, most, min(_BINS, most - least) + 1)
    found = np.unique(edges.round().astype(np.int64))
    found[[0, -1]] = least, most
    return found


def histogram(bins: pl.DataFrame) -> go.Figure:
    """Return `binned` as stacked bars, as wide as the durations that they stand for."""
    factor, suffix = _unit(float(bins["to_ns"].max()))  # type: ignore[arg-type] # a number
    low, high = bins["from_ns"].to_numpy() / factor, bins["to_ns"].to_numpy() / factor
    figure = go.Figure(
        [
            go.Bar(
                name=for_plotly(phase),
                x=low,
                width=high - low,
                offset=0,
                y=bins[phase].to_numpy(),
                customdata=np.stack([low, high], axis=1),
                marker={"color": palette.phase(phase), "line": {"width": 0}},
                hovertemplate=(
                    "%{y} calls of %{customdata[0]:.4~g} to %{customdata[1]:.4~g}" + suffix
                ),
            )
            for phase in bins.columns[2:]
        ]
    )
    is_wide = low[0] > 0 and high[-1] > _WIDE * low[0]
    figure.update_layout(barmode="stack", **_BARE)
    figure.update_xaxes(title=_title(f"duration,{suffix}"), type="log" if is_wide else "linear")
    most = int(bins.select(pl.sum_horizontal(bins.columns[2:]).max()).item())
    figure.update_yaxes(title=_title("calls"), dtick=1 if most <= _FEW else None)
    return figure


def table_of_bins(bins: pl.DataFrame) -> tuple[tuple[Column, ...], list[dict[str, Any]]]:
    """Return columns and rows of `binned`, without empty bins."""
    phases = bins.columns[2:]
    columns = (
        Column("from_ns", "from", "ns"),
        Column("to_ns", "to", "ns"),
        *(Column(phase, phase, "count") for phase in phases),
    )
    return columns, bins.filter(pl.sum_horizontal(phases) > 0).to_dicts()


def thinned(calls: pl.DataFrame) -> pl.DataFrame:
    """Return the calls that are drawn: all, or the shortest and longest of each span of time.

    A longest and a shortest call survive in each of 250 spans, of each phase by itself.

    Args:
        calls: op_id, start_ns, took_ns and phase (a string).
    """
    if calls.height <= MOST_POINTS:
        return calls
    first = int(calls["start_ns"].min())  # type: ignore[arg-type] # a number
    span = max(int(calls["start_ns"].max()) - first, 1)  # type: ignore[arg-type]
    place = (pl.col("start_ns") - first) * _SPANS // (span + 1)
    extremes = calls.group_by("phase", place=place).agg(
        pl.col("op_id").sort_by("took_ns", "op_id").first().alias("least"),
        pl.col("op_id").sort_by("took_ns", "op_id").last().alias("most"),
    )
    kept = pl.concat([extremes["least"], extremes["most"]]).unique()
    return calls.filter(pl.col("op_id").is_in(kept.implode()))


def scatter(drawn: pl.DataFrame, first_ns: int) -> go.Figure:
    """Return when each of some calls began, in ms after ``first_ns``, and how long it took."""
    factor, suffix = _unit(float(drawn["took_ns"].max()))  # type: ignore[arg-type] # a number
    figure = go.Figure(
        [
            go.Scatter(
                name=for_plotly(phase),
                mode="markers",
                x=(mine["start_ns"].to_numpy() - first_ns) / 1e6,
                y=mine["took_ns"].to_numpy() / factor,
                customdata=mine["op_id"].to_numpy(),
                marker={"color": palette.phase(phase), "size": 6, "opacity": 0.75},
                hovertemplate="%{y:.4~g}" + suffix + " at %{x:,.3f} ms",
            )
            for phase, mine in _by_phase(drawn)
        ]
    )
    figure.update_layout(**_BARE, hovermode="closest")
    figure.update_xaxes(title=_title("start, ms after the recording began"))
    figure.update_yaxes(title=_title(f"duration,{suffix}"), rangemode="tozero")
    return figure


def _title(text: str) -> dict[str, Any]:
    return {"text": text, "font": {"size": 13}, "standoff": 8}


def _by_phase(calls: pl.DataFrame) -> Iterator[tuple[str, pl.DataFrame]]:
    for phase in _phases(calls):
        yield phase, calls.filter(pl.col("phase") == phase)


def _phases(calls: pl.DataFrame) -> list[str]:
    """Return the phases there are, in the order in which a step runs through them."""
    usual = list(palette.PHASES)
    return sorted(
        calls["phase"].unique(),
        key=lambda name: (usual.index(name) if name in usual else len(usual), name),
    )


def _unit(most: float) -> tuple[int, str]:
    """Return factor and suffix of the step of ns that suits the largest of some durations."""
    ladder = units.LADDERS["ns"]
    return next((step for step in reversed(ladder) if step[0] <= most), ladder[0])
