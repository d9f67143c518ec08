"""The table that `ncu --csv` prints: messages, names of columns, units, a row per launch.

`--page raw` gives a column per metric; `--metrics` without a page a row per metric.
"""

from __future__ import annotations

import csv
import itertools
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens.errors import UnreadableError
from tracelens.readers.ncu.numbers import Numbers

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

HOW: Final = "ncu --import REPORT.ncu-rep --page raw --csv --print-units base > ncu.csv"
"""How a table is made of a report."""

LAUNCH: Final = (
    "ID", "Process ID", "Process Name", "Host Name", "Kernel Name", "Context", "Stream",
    "Block Size", "Grid Size", "Device", "CC",
)  # fmt: skip
"""Columns that tell which launch it was."""
_NEEDED: Final = ("ID", "Process ID", "Kernel Name")
_LONG: Final = ("Metric Name", "Metric Unit", "Metric Value")
_SECTION: Final = "Section Name"
_METRIC: Final = re.compile(r"\w+__\w|\w+_tempMetric")
_HEAD: Final = re.compile(r'"?ID"?,"?Process ID"?,')
_AT_ONCE: Final = 512
_LISTED: Final = 4


@dataclass
class Sheet:
    """What a table or a report holds.

    Attributes:
        launches: a row per launch, in order: `LAUNCH`, as text, null where not recorded.
        counters: launch (row of `launches`), name, value and unit of every metric.
        words: the values of metrics that are no numbers, by name; `(several)` where they differ.
        said: what was set aside, and what else a reader of the numbers must know: kind and text.
        version: of ncu, where known.
    """

    launches: pl.DataFrame
    counters: pl.DataFrame
    words: dict[str, str] = field(default_factory=dict)
    said: list[tuple[str, str]] = field(default_factory=list)
    version: str | None = None


def read(path: Path) -> Sheet:
    """Return what a table holds.

    Raises:
        UnreadableError: it is no table of ncu's, holds no launches, or is another page.
    """
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        return _Reading(path.name).of(file)


class _Reading:
    """Reads one table; messages name the file."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._odd = 0
        self._others = 0
        self._errors: list[str] = []

    def of(self, lines: Iterable[str]) -> Sheet:
        head, rest = self._head(lines)
        columns = next(csv.reader([head]), [])
        self._check(columns)
        numbers = Numbers()
        rows = self._rows(columns, rest)
        try:
            made = (
                self._long(columns, rows, numbers)
                if set(_LONG) <= set(columns)
                else self._wide(columns, rows, numbers)
            )
        except csv.Error as error:
            raise UnreadableError(
                f"{self._name} cannot be read as a table ({error}). Make it again: {HOW}"
            ) from error
        if made.launches.is_empty():
            raise UnreadableError(
                f"{self._name} is a table of ncu without any launch: it ends after its head, or "
                f"no kernel was measured. Make it again: {HOW}"
            )
        made.said += [*self._caveats(), *numbers.caveats()]
        return made

    def _head(self, lines: Iterable[str]) -> tuple[str, Iterator[str]]:
        found = iter(lines)
        for line in found:
            if _HEAD.match(line):
                return line, found
            self._heard(line)
        errors = f" ncu said: {self._errors[0]}" if self._errors else ""
        raise UnreadableError(
            f"{self._name} has messages of ncu, but no table of what it measured.{errors} "
            f"Make one: {HOW}"
        )

    def _heard(self, line: str) -> bool:
        """Keep an error that ncu tells among the rows; tell whether it is a message at all."""
        if line.startswith("==ERROR=="):
            text = line.removeprefix("==ERROR==").strip()
            self._errors.append("".join(c for c in text if c.isprintable())[:200])
        return line.startswith("==")

    def _check(self, columns: Sequence[str]) -> None:
        if lacks := [name for name in _NEEDED if name not in columns]:
            raise UnreadableError(
                f"{self._name} looks like a table of ncu, but has no column {lacks[0]}. "
                f"Make it again: {HOW}"
            )
        if len(set(columns)) < len(columns):
            double = next(name for name in columns if columns.count(name) > 1)
            raise UnreadableError(
                f"{self._name} has two columns {double[:80]!r}. Make it again: {HOW}"
            )
        if _SECTION in columns and not set(_LONG) <= set(columns):
            raise UnreadableError(
                f"{self._name} is another page of ncu's than the one with the metrics. "
                f"Make that: {HOW}"
            )

    def _rows(self, columns: Sequence[str], lines: Iterator[str]) -> Iterator[list[str]]:
        """Give the rows of launches, and that of the units before them, whose ID is empty."""
        spoken = (line for line in lines if not self._heard(line))
        units: list[str] | None = None
        reads = True
        for row in csv.reader(spoken):
            # Tables of several processes follow one another, each with its head and units.
            if row[:1] == ["ID"]:
                reads = row == list(columns)
                self._others += not reads
            elif len(row) == len(columns) and not row[0].strip() and reads:
                reads = units in (None, row)
                self._others += not reads
                if units is None:
                    units = row
                    yield row
            elif len(row) == len(columns) and row[0].strip().isdigit() and reads:
                units = units or []
                yield row
            else:
                self._odd += reads and bool("".join(row).strip())

    def _wide(self, columns: Sequence[str], rows: Iterator[list[str]], numbers: Numbers) -> Sheet:
        first = next(rows, [])
        is_units = bool(first) and not first[0].strip()
        units = dict(zip(columns, first, strict=True)) if is_units else {}
        if first and not is_units:
            rows = itertools.chain([first], rows)
        metrics = [name for name in columns if name not in LAUNCH and _METRIC.match(name)]
        ignored = [name for name in columns if name not in LAUNCH and name not in set(metrics)]
        launches, counters = [], []
        count = 0
        while some := list(itertools.islice(rows, _AT_ONCE)):
            frame = pl.DataFrame(some, schema=dict.fromkeys(columns, pl.String), orient="row")
            launches.append(frame.select(_launch(columns)))
            found = (
                frame.select(metrics)
                .with_row_index("launch", count)
                .unpivot(index="launch", variable_name="name", value_name="text")
                .with_columns(unit=pl.col("name").replace_strict(units, default=""))
            )
            counters.append(numbers.of(found))
            count += frame.height
        said = _units_unknown(units)
        if ignored:
            said.append(("note", f"Columns that are no metrics are left out: {_listed(ignored)}."))
        return Sheet(_joined(launches), _joined(counters), numbers.words(), said)

    def _long(self, columns: Sequence[str], rows: Iterator[list[str]], numbers: Numbers) -> Sheet:
        """Read a table with a row per metric: rows of one launch follow one another."""
        kept = [row for row in rows if row[0].strip()]
        frame = pl.DataFrame(kept, schema=dict.fromkeys(columns, pl.String), orient="row")
        named = frame.filter(pl.col("Metric Name") != "").with_columns(
            launch=pl.struct("ID", "Process ID").rle_id().cast(pl.UInt32)
        )
        launches = named.unique("launch", keep="first", maintain_order=True)
        found = named.select(
            "launch", name="Metric Name", text="Metric Value", unit="Metric Unit"
        ).unique(["launch", "name"], keep="first", maintain_order=True)
        is_metric = found["name"].str.contains(r"^\w+__\w")
        said = []
        if not found.is_empty() and not is_metric.any():
            raise UnreadableError(
                f"{self._name} has the headings of ncu's details page, not the names of metrics. "
                f"Make the page that has them: {HOW}"
            )
        if not is_metric.all():
            named_so = found.filter(~is_metric)["name"].unique(maintain_order=True).to_list()
            said.append(("note", f"Headings that name no metric: {_listed(named_so)}."))
        counters = numbers.of(found)
        return Sheet(launches.select(_launch(columns)), counters, numbers.words(), said)

    def _caveats(self) -> Iterator[tuple[str, str]]:
        if self._odd:
            yield "damaged", f"{self._odd:,} lines of the table are no rows, and were set aside."
        if self._others:
            yield (
                "damaged",
                (
                    f"{self._others:,} more tables, of other columns or units, follow and "
                    "are not read: make one of each report."
                ),
            )
        for text in self._errors[:1]:
            yield "lost", f"ncu said of this measurement: {text}"


def _launch(columns: Sequence[str]) -> list[pl.Expr]:
    return [
        pl.col(name) if name in columns else pl.lit(None, pl.String).alias(name) for name in LAUNCH
    ]


def _joined(parts: Sequence[pl.DataFrame]) -> pl.DataFrame:
    return pl.concat(parts) if parts else pl.DataFrame()


def _units_unknown(units: dict[str, str]) -> list[tuple[str, str]]:
    if units:
        return []
    return [("missing", "The table has no row of units: values are taken to be in base units.")]


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(name[:80] for name in names[:_LISTED])
    more = len(names) - _LISTED
    return f"{shown} and {more} more" if more > 0 else shown
