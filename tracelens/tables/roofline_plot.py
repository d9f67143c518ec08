"""The roofline as points and lines: what is drawn of the table `roofline`, in any format."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens import units
from tracelens.hardware import MATMUL, VECTOR

if TYPE_CHECKING:
    from tracelens.hardware import Ceilings
    from tracelens.tables import Filled

COLOURS: Final = {
    "compute": "#2f7fc1",
    "memory": "#d97706",
    "latency": "#8a9099",
    "": "#8b6fd0",
}
"""What bounds a point -> its colour; the last is of what has no known bound."""

MOST_POINTS: Final = 400
_ROOM: Final = 2.0
"""A factor of space around what is drawn."""


@dataclass(frozen=True)
class Point:
    """One op and shape: FLOP per byte, FLOP/s, its share of the GPU time, and what is said of it.

    ``bound`` is a key of `COLOURS`.
    """

    intensity: float
    flops_per_s: float
    share: float
    bound: str
    name: str
    said: str


@dataclass(frozen=True)
class Roof:
    """One ceiling of operations, from where the memory's bandwidth reaches it."""

    name: str
    flops_per_s: float
    ridge: float
    said: str


@dataclass(frozen=True)
class Plot:
    """What is drawn; both axes are logarithmic.

    ``frame`` has the points as a frame: name, shapes, dtype, intensity, flops_per_s, time_ns,
    share, bound and verdict. ``left_out`` says what of the table cannot be drawn, and ``x`` and
    ``y`` are the ends of the axes.
    """

    frame: pl.DataFrame
    points: tuple[Point, ...]
    roofs: tuple[Roof, ...]
    bandwidth_bytes_per_s: float | None
    title: str
    note: str
    x: tuple[float, float]
    y: tuple[float, float]


def plot(filled: Filled, on: Ceilings | None, title: str) -> Plot | None:
    """Return the table `roofline` as points and lines; None if no point can be drawn.

    Args:
        filled: the table.
        on: the ceilings of the GPU; None: points without lines.
        title: what stands above.
    """
    drawable = (pl.col("intensity") > 0) & (pl.col("flops_per_s") > 0)
    frame = (
        filled.frame.filter(drawable)
        .sort("time_ns", "name", "dims", descending=[True, False, False])
        .head(MOST_POINTS)
        .select(
            "name", "shapes", "dtype", "format", "intensity", "flops_per_s", "time_ns", "share",
            "bound", "verdict",
        )
    )  # fmt: skip
    if frame.is_empty():
        return None
    roofs = _roofs(frame, on)
    bandwidth = on.bandwidth_bytes_per_s if on else None
    xs = [*frame["intensity"], *(roof.ridge for roof in roofs)]
    ys = [*frame["flops_per_s"], *(roof.flops_per_s for roof in roofs)]
    return Plot(
        frame,
        tuple(_point(row) for row in frame.iter_rows(named=True)),
        roofs,
        bandwidth,
        title,
        _note(filled, frame, on),
        (min(xs) / _ROOM, max(xs) * _ROOM),
        (min(ys) / _ROOM, max(ys) * _ROOM),
    )


def decades(ends: tuple[float, float]) -> list[float]:
    """Return the powers of ten between the ends of an axis."""
    first, last = math.ceil(math.log10(ends[0])), math.floor(math.log10(ends[1]))
    return [10.0**power for power in range(first, last + 1)]


def _point(row: dict[str, object]) -> Point:
    bound = str(row["bound"] or "")
    verdict = f", {row['verdict']}" if row["verdict"] else ""
    shapes = f" ({row['shapes']})" if row["shapes"] else ""
    return Point(
        intensity=_float(row["intensity"]),
        flops_per_s=_float(row["flops_per_s"]),
        share=_float(row["share"]),
        bound=bound,
        name=str(row["name"]),
        said=(
            f"{row['name']}{shapes}: {rate_said(_float(row['flops_per_s']))}, "
            f"{units.column('flops_per_byte', [row['intensity']])[0]} FLOP/byte, "
            f"{units.column('ns', [row['time_ns']])[0]}"
            f"{f', {bound}' if bound else ''}{verdict}"
        ),
    )


def _float(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _roofs(frame: pl.DataFrame, on: Ceilings | None) -> tuple[Roof, ...]:
    """Return the ceilings of the number formats that are used, and that of everything else."""
    if on is None or not on.bandwidth_bytes_per_s:
        return ()
    formats = frame["format"].drop_nulls().unique().sort()
    names = [f"{MATMUL}{name}" for name in formats]
    if frame["format"].null_count():
        names.append(VECTOR)
    rates = {name: rate for name in names if (rate := on.rate(name))}
    return tuple(
        Roof(_called(name), rate, rate / on.bandwidth_bytes_per_s, rate_said(rate))
        for name, rate in sorted(rates.items(), key=lambda item: -item[1])
    )


def _called(name: str) -> str:
    if name == VECTOR:
        return "fp32 vector"
    return f"{name.removeprefix(MATMUL)} matmul"


def rate_said(flops_per_s: float) -> str:
    """Return FLOP/s as text: ``989.4 TFLOP/s``, ``10 GFLOP/s``."""
    number, _, unit = units.column("flops_per_s", [flops_per_s])[0].partition(" ")
    return f"{number.rstrip('0').rstrip('.') if '.' in number else number} {unit}"


def _note(filled: Filled, frame: pl.DataFrame, on: Ceilings | None) -> str:
    share = 1 - float(frame["share"].sum())
    without = f"{units.share(max(share, 0.0))} of the time has no point"
    said = [
        "A point is an op and shape, its area the GPU time.",
        f"{without}: work without FLOP (copies), and what is not known.",
    ]
    if on is not None:
        name = on.device.name if on.device else on.name
        said.append(f"Ceilings: {name}, {on.origin}.")
    hidden = filled.frame.filter(pl.col("verdict") == "impossible").height
    if hidden:
        said.append(f"{hidden} impossible and not drawn.")
    return " ".join(said)
