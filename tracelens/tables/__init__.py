"""What a report shows of an analysis: one file = one table with its columns, units and note."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from tracelens.findings import Looked

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import polars as pl

Unit = Literal[
    "text", "name", "count", "ns", "bytes", "bytes_per_s", "flops", "flops_per_s", "share", "flag",
    "change", "more_ns", "more_bytes", "flops_per_byte",
]  # fmt: skip
"""How a value is shown. `name` is a kernel or range name (may be long); `share` is 0..1; `change`,
`more_ns` and `more_bytes` are differences, as a share or in the unit."""


@dataclass(frozen=True)
class Column:
    """One column of a table.

    ``name`` is the key in JSON and CSV and is stable; ``heading`` is for people. Columns that
    are not ``shown`` stand in JSON and CSV alone, and so do ``optional`` ones that hold nothing
    but zeros and nulls. Columns of one ``scale`` are read across, and shown in one unit.
    """

    name: str
    heading: str
    unit: Unit
    shown: bool = True
    optional: bool = False
    scale: str = ""


DURATIONS = (
    Column("mean_ns", "mean", "ns"),
    Column("median_ns", "median", "ns"),
    Column("min_ns", "min", "ns"),
    Column("max_ns", "max", "ns"),
    Column("std_ns", "std", "ns"),
)
"""How long the single things of a row took."""


@dataclass(frozen=True)
class Table:
    """How one analysis is shown.

    ``stands_for`` names the reports of NVIDIA's tools that answer the same question; they are
    accepted in place of the table's own name. ``note_of`` says what else is to be noted, of what
    was asked.
    """

    analysis: str
    title: str
    columns: tuple[Column, ...]
    note: str
    stands_for: tuple[str, ...] = ()
    note_of: Callable[[Any], str] | None = None


@dataclass(frozen=True)
class Filled:
    """A table with its rows: `frame` has the columns that `table` declares, in that order."""

    name: str
    table: Table
    frame: pl.DataFrame


@dataclass(frozen=True)
class Course:
    """How the memory of one device ran, to be drawn.

    ``frame`` has a row per moment, in order: x (in ``unit``), active_bytes, reserved_bytes (null
    if not known), phase and step. ``peak_x`` and ``peak_bytes`` are the peak, ``errors_x``
    out-of-memory errors; ``note`` stands below. ``groups`` gives place (a row of
    `frame`), group and bytes of what was active, for formats that can draw areas: groups are
    categories, or phases where `by_phase`.
    """

    title: str
    unit: Literal["ns", "count"]
    frame: pl.DataFrame
    peak_x: int
    peak_bytes: int
    errors_x: tuple[int, ...] = ()
    note: str = ""
    groups: Callable[[], pl.DataFrame] | None = None
    by_phase: bool = False


@dataclass(frozen=True)
class Report:
    """Everything a renderer needs of one trace (or several, combined).

    ``headline`` is one line on what was captured; ``trust`` lines say how far to believe it;
    ``findings`` are sentences on what stands out, of ``found``: everything that the rules found,
    and what they could not look for; ``hints`` name the next commands to type.
    ``source``, ``devices`` and ``coverage`` are the objects of the JSON contract; ``courses``
    are drawn where a format can.
    """

    headline: str
    trust: tuple[str, ...]
    source: Mapping[str, object]
    devices: tuple[Mapping[str, object], ...]
    phase_source: str
    coverage: Mapping[str, int]
    tables: tuple[Filled, ...]
    findings: tuple[str, ...] = ()
    hints: tuple[str, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    courses: tuple[Course, ...] = ()
    found: Looked = field(default_factory=Looked)
