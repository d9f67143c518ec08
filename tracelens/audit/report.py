"""The report of an audit: how many rows hold, and each verdict with its arithmetic."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens.audit import gpus
from tracelens.audit.verdicts import Verdict
from tracelens.tables import Column, Filled, Report, Table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tracelens.audit.judge import Judged
    from tracelens.audit.sheets import Audited, Row
    from tracelens.audit.verdicts import Checked

BAD: Final = (Verdict.IMPOSSIBLE, Verdict.INCONSISTENT)
"""The verdicts of claims that do not hold."""

_NEARLY: Final = 0.9
_MANY: Final = 10
_FEW: Final = 5
_NOTE: Final = (
    "A number is consistent if something that it can stand for, rounded or cut off after its last "
    "digit, follows from the others. The margin is how far the claim is above what follows."
)
_TABLES: Final = Table(
    "audit",
    "Tables",
    (
        Column("table", "table", "count"),
        Column("line", "line", "count", shown=False),
        Column("title", "under the heading", "text"),
        Column("rows", "rows", "count"),
        Column("consistent", "consistent", "count"),
        Column("inconsistent", "inconsistent", "count"),
        Column("impossible", "impossible", "count"),
        Column("unchecked", "unchecked", "count"),
    ),
    "Table 0 is the text between the tables, and the claims of the mapping.",
)
_ROWS: Final = Table(
    "audit",
    "Rows",
    (
        Column("table", "table", "count"),
        Column("row", "row", "count"),
        Column("line", "line", "count"),
        Column("label", "row", "text"),
        Column("verdict", "verdict", "text"),
        Column("checks", "checks", "count"),
    ),
    "A row is what the worst of its numbers is.",
)
_CHECKS: Final = Table(
    "audit",
    "Checks",
    (
        Column("table", "table", "count"),
        Column("row", "row", "count"),
        Column("line", "line", "count"),
        Column("label", "what", "text"),
        Column("check", "check", "text"),
        Column("claim", "claim", "text"),
        Column("arithmetic", "arithmetic", "text"),
        Column("verdict", "verdict", "text"),
        Column("claimed", "claimed", "count", shown=False),
        Column("computed", "computed", "count", shown=False),
        Column("unit", "unit", "text", shown=False),
        Column("margin", "margin", "share"),
    ),
    _NOTE,
)
_SCHEMAS: Final = {
    "count": pl.Int64, "text": pl.String, "name": pl.String, "share": pl.Float64,
}  # fmt: skip
_FLOATS: Final = ("claimed", "computed")


@dataclass(frozen=True)
class Wanted:
    """What is to be shown: everything, or what does not hold; as sentences or a table.

    ``narrow`` is for pages on which a sentence in a cell leaves no room for much beside it.
    """

    everything: bool = False
    sentences: bool = True
    narrow: bool = False
    top: int | None = None


def report(
    audited: Audited, judged: Judged, wanted: Wanted, warnings: Sequence[str] = ()
) -> Report:
    """Return the report of an audit, complete or with what does not hold."""
    table = _narrowed(_CHECKS) if wanted.narrow else _CHECKS
    checks = _filled("checks", table, list(_check_rows(judged, wanted)))
    rows = _filled("rows", _ROWS, list(_row_rows(judged)))
    tables = _filled("tables", _TABLES, list(_table_rows(audited, judged)))
    shown = [tables]
    if wanted.everything:
        shown.append(rows)
    if not wanted.sentences:
        shown.append(checks)
    return Report(
        headline=f"{PurePath(audited.path).name} · {counted(judged)}",
        trust=tuple(_trust(audited)),
        source={
            "path": audited.path,
            "format": audited.form,
            "producer": None,
            "schema_version": None,
        },
        devices=(),
        phase_source="none",
        coverage={verdict.name.lower(): n for verdict, n in judged.counts().items()},
        tables=tuple(shown),
        findings=tuple(_sentences(judged, wanted)) if wanted.sentences else (),
        hints=("--all", "--map MAPPING.toml", "--format markdown") if not wanted.everything else (),
        warnings=tuple(warnings),
    )


def counted(judged: Judged) -> str:
    """Return one line: how many rows and statements there are, and how many of them hold."""
    counts = judged.counts()
    rows = sum(row.table > 0 for row, _ in judged.rows)
    statements = len(judged.rows) - rows
    what = f"{rows:,} {'row' if rows == 1 else 'rows'}"
    if statements:
        what += f" and {statements:,} {'statement' if statements == 1 else 'statements'}"
    return (
        f"{what}: {counts[Verdict.CONSISTENT]:,} consistent, "
        f"{counts[Verdict.INCONSISTENT]:,} inconsistent, "
        f"{counts[Verdict.IMPOSSIBLE]:,} physically impossible, "
        f"{counts[Verdict.UNCHECKED]:,} cannot be checked"
    )


def checks_alone(report: Report) -> Report:
    """Return a report with the table of all checks alone, for formats that hold one table."""
    return replace(report, tables=tuple(t for t in report.tables if t.name == "checks"))


def fails(judged: Judged) -> bool:
    """Tell whether anything does not hold."""
    return any(verdict in BAD for _, verdict in judged.rows)


def place(row: Row) -> str:
    """Return where a row stands, as `table 3, row 2, line 45`."""
    parts = [f"table {row.table}, row {row.number}"] if row.table else []
    if row.line:
        parts.append(f"line {row.line}")
    return ", ".join(parts) or "mapping"


def _trust(audited: Audited) -> Iterator[str]:
    names = sorted({gpus.say(v.gpus) for _, row in audited.rows() for v in row.values if v.gpus})
    if names:
        yield f"Peaks are by data sheet, of {', '.join(names)}; dense unless sparsity is named."
    else:
        yield "No GPU is named, so that nothing is held against a peak. --gpu NAME names one."


def _sentences(judged: Judged, wanted: Wanted) -> Iterator[str]:
    told = [
        (name, checked)
        for name, checked in judged.checks
        if wanted.everything or checked.verdict in BAD
    ]
    told.sort(key=lambda one: (list(Verdict).index(one[1].verdict), one[1].row.table == 0))
    for _, checked in told[: wanted.top]:
        yield f"{str(checked.verdict).capitalize()}: {_sentence(checked)}"
    if wanted.top and len(told) > wanted.top:
        yield f"… and {len(told) - wanted.top:,} more; --top 0 shows all"
    if near := _near(judged):
        yield near


def _sentence(checked: Checked) -> str:
    row = checked.row
    if not row.table:
        return f"{place(row)}: {checked.claim} — {checked.arithmetic}{_margin(checked)}"
    label = f" ({row.label})" if row.label else ""
    return f"{place(row)}{label}: {checked.arithmetic}{_margin(checked)}"


def _margin(checked: Checked) -> str:
    margin = checked.margin
    if margin is None or checked.verdict not in BAD:
        return ""
    if abs(margin) >= _MANY:
        return f" ({margin + 1:,.3g} times)"
    said = f"{margin:+.1%}"
    return f" ({said})" if said.strip("+-0.%") else ""


def _near(judged: Judged) -> str:
    """Return a sentence on times that are possible, but in which nobody does the work."""
    near = [checked for name, checked in judged.checks if name == "peak" and _is_near(checked)]
    if not near:
        return ""
    shares = ((one, (one.claimed or 0) / (one.computed or 1)) for one in near[:_FEW])
    places = "; ".join(f"{place(one.row)}, {one.claim}: {share:.0%}" for one, share in shares)
    more = f" and {len(near) - _FEW} more" if len(near) > _FEW else ""
    return f"Possible, but above 90 % of a peak, which programs hardly reach: {places}{more}."


def _is_near(checked: Checked) -> bool:
    if checked.verdict != Verdict.CONSISTENT or not checked.claimed or not checked.computed:
        return False
    return bool(checked.row.settings) and checked.claimed > _NEARLY * checked.computed


def _check_rows(judged: Judged, wanted: Wanted) -> Iterator[dict[str, object]]:
    for name, checked in judged.checks:
        if wanted.everything or checked.verdict in BAD:
            yield {
                "table": checked.row.table,
                "row": checked.row.number,
                "line": checked.row.line,
                "label": checked.row.label,
                "check": name,
                "claim": checked.claim,
                "arithmetic": checked.arithmetic,
                "verdict": str(checked.verdict),
                "claimed": checked.claimed,
                "computed": checked.computed,
                "unit": checked.unit,
                "margin": checked.margin,
            }


def _row_rows(judged: Judged) -> Iterator[dict[str, object]]:
    checks: dict[tuple[int, int, int], int] = {}
    for _, checked in judged.checks:
        at = (checked.row.table, checked.row.number, checked.row.line)
        checks[at] = checks.get(at, 0) + 1
    for row, verdict in judged.rows:
        yield {
            "table": row.table,
            "row": row.number,
            "line": row.line,
            "label": row.label,
            "verdict": str(verdict),
            "checks": checks.get((row.table, row.number, row.line), 0),
        }


def _table_rows(audited: Audited, judged: Judged) -> Iterator[dict[str, object]]:
    titles = {
        sheet.number: (sheet.grid.line, sheet.grid.title[-1:] or ("",)) for sheet in audited.sheets
    }
    titles.setdefault(0, (0, ("(text)",)))
    found: dict[int, list[Verdict]] = {}
    for row, verdict in judged.rows:
        found.setdefault(row.table, []).append(verdict)
    for table, verdicts in found.items():
        line, (title,) = titles[table]
        yield {
            "table": table,
            "line": line,
            "title": title,
            "rows": len(verdicts),
            "consistent": verdicts.count(Verdict.CONSISTENT),
            "inconsistent": verdicts.count(Verdict.INCONSISTENT),
            "impossible": verdicts.count(Verdict.IMPOSSIBLE),
            "unchecked": verdicts.count(Verdict.UNCHECKED),
        }


def _narrowed(table: Table) -> Table:
    kept = {"table", "row", "arithmetic", "verdict"}
    columns = (replace(c, shown=c.shown and c.name in kept) for c in table.columns)
    return replace(
        table,
        columns=tuple(replace(c, unit="name") if c.name == "arithmetic" else c for c in columns),
    )


def _filled(name: str, table: Table, rows: Sequence[dict[str, object]]) -> Filled:
    schema = {
        column.name: pl.Float64 if column.name in _FLOATS else _SCHEMAS[column.unit]
        for column in table.columns
    }
    return Filled(name, table, pl.DataFrame(rows, schema=schema, orient="row"))
