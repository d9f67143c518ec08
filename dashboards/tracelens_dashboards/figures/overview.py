"""Figures of the overview: what each phase does, and how long steps take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import plotly.graph_objects as go
import polars as pl

from tracelens import units
from tracelens.links.linked import NO_PHASE
from tracelens_dashboards import palette
from tracelens_dashboards.names import for_plotly

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

_LENGTH: Final = palette.GROUPS["matmul"]
_BUSY: Final = palette.GROUPS["optimizer"]
_FEW: Final = 12
_LEGEND: Final = {"orientation": "h", "traceorder": "normal", "x": 0, "y": -0.16, "yanchor": "top"}


def families(table: pl.DataFrame) -> Any:
    """Return one bar per phase: the time of its kernels and graphs, divided by family.

    Args:
        table: what the analysis `families` returns.
    """
    time = pl.col("kernel_time_ns") + pl.col("graph_time_ns")
    return _stacked(
        table.select(pl.col("phase").fill_null(NO_PHASE), part="family", time_ns=time),
        palette.family,
    )


def cpu_phases(table: pl.DataFrame) -> Any:
    """Return one bar per phase: the CPU time inside of PyTorch's ops, divided by matmul or not.

    Args:
        table: what the analysis `cpu_phases` returns.
    """
    phase, took = pl.col("phase").fill_null(NO_PHASE), pl.col("self_cpu_ns")
    product = pl.col("matmul")
    parts = [
        table.select(phase, part=pl.lit("matmul"), time_ns=took * product),
        table.select(phase, part=pl.lit("other ops"), time_ns=took * (1 - product)),
    ]
    colours = {"matmul": palette.GROUPS["matmul"], "other ops": palette.NONE}
    return _stacked(pl.concat(parts), colours.__getitem__)


def steps(table: pl.DataFrame) -> Any:
    """Return per step how long it took on the CPU, and how long the GPU was busy with it.

    Args:
        table: what the analysis `steps` returns, of one process.
    """
    factor, unit = _scale(table["duration_ns"])
    figure = go.Figure()
    series = (("duration", "duration_ns", _LENGTH), ("GPU busy", "busy_ns", _BUSY))
    for name, column, colour in series:
        figure.add_bar(
            x=table["step"].to_list(),
            y=[ns / factor for ns in table[column]],
            name=name,
            marker={"color": colour, "line": {"width": 0}},
            customdata=units.column("ns", table[column]),
            hovertemplate="step %{x}, %{fullData.name}: %{customdata}<extra></extra>",
        )
    figure.update_layout(
        barmode="group",
        bargap=0.3,
        legend=_LEGEND,
        xaxis={"title": "step", "tickformat": "d"},
        yaxis={"ticksuffix": f" {unit}", "rangemode": "tozero"},
    )
    if table.height <= _FEW:
        numbers = table["step"].to_list()
        figure.update_xaxes(tickvals=numbers, ticktext=[f"step {n}" for n in numbers], title="")
    return figure


def _stacked(rows: pl.DataFrame, colour: Callable[[str], str]) -> Any:
    """Return horizontal bars of phase, part and time_ns; the largest part comes first."""
    phases = list(dict.fromkeys(rows["phase"]))
    sums = rows.group_by("phase").agg(pl.col("time_ns").sum())
    factor, unit = _scale(sums["time_ns"])
    order = rows.group_by("part").agg(pl.col("time_ns").sum()).sort("time_ns", "part")
    whole = dict(sums.iter_rows())
    figure = go.Figure()
    for part in reversed(order["part"].to_list()):
        mine = rows.filter(pl.col("part") == part)
        figure.add_bar(
            y=[for_plotly(phase) for phase in mine["phase"]],
            x=[ns / factor for ns in mine["time_ns"]],
            name=for_plotly(part),
            orientation="h",
            marker={"color": colour(part), "line": {"width": 0}},
            customdata=[
                f"{units.time(round(ns))}, {units.share(ns / whole[phase] if whole[phase] else 0)}"
                for phase, ns in mine.select("phase", "time_ns").iter_rows()
            ],
            hovertemplate="%{y}, %{fullData.name}: %{customdata} of the phase<extra></extra>",
        )
    figure.update_layout(
        barmode="stack",
        bargap=0.35,
        legend=_LEGEND,
        xaxis={"ticksuffix": f" {unit}", "rangemode": "tozero"},
        yaxis={"categoryorder": "array", "categoryarray": [for_plotly(p) for p in phases[::-1]]},
    )
    return figure


def _scale(times: Iterable[float | None]) -> tuple[int, str]:
    """Return the unit in which the longest of some times is read best, and its nanoseconds."""
    longest = max((ns for ns in times if ns is not None), default=0)
    ladder: Sequence[tuple[int, str]] = units.LADDERS["ns"]
    factor, unit = next((s for s in reversed(ladder) if s[0] <= longest), ladder[0])
    return factor, unit.strip()
