"""What the rules found: what the table `findings` shows."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens import units
from tracelens.tables import Column, Table

if TYPE_CHECKING:
    from polars._typing import PolarsDataType

    from tracelens.findings import Evidence, Looked

NAME: Final = "findings"
_SCHEMA: Final[dict[str, PolarsDataType]] = {
    "rule": pl.String,
    "says": pl.String,
    "cost_ns": pl.Int64,
    "gain_ns": pl.Int64,
    "cost_bytes": pl.Int64,
    "gain_bytes": pl.Int64,
    "change": pl.String,
    "assumption": pl.String,
    "subject": pl.String,
    "evidence": pl.String,
}


def frame(looked: Looked) -> pl.DataFrame:
    """Return one row per finding, the costliest first; `evidence` as text, with its tables."""
    rows = [
        {
            **{name: getattr(found, name) for name in _SCHEMA if name != "evidence"},
            "evidence": "; ".join(map(in_words, found.evidence)),
        }
        for found in looked.findings
    ]
    return pl.DataFrame(rows, schema=_SCHEMA)


def with_reasons(table: Table, looked: Looked) -> Table:
    """Return the table with a note on what the rules could not look for."""
    reasons: dict[str, list[str]] = {}
    for rule, why in looked.could_not.items():
        reasons.setdefault(why, []).append(rule)
    if not reasons:
        return table
    said = "; ".join(f"{', '.join(rules)}: {why}" for why, rules in reasons.items())
    return replace(table, note=f"{table.note} Could not look for {said}.")


def in_words(evidence: Evidence) -> str:
    """Return a number, what it is, and the table that has it."""
    value = units.column(evidence.unit, [evidence.value])[0]
    return f"{value} {evidence.says} ({evidence.table})"


TABLE = Table(
    analysis=NAME,
    title="What stands out",
    columns=(
        Column("rule", "rule", "text"),
        Column("cost_ns", "cost", "ns", optional=True),
        Column("gain_ns", "gain ≤", "ns", optional=True),
        Column("says", "what", "text"),
        Column("change", "change", "text"),
        Column("cost_bytes", "memory", "bytes", optional=True),
        Column("gain_bytes", "spared ≤", "bytes", optional=True),
        Column("assumption", "gain if", "text", shown=False),
        Column("subject", "of", "name", shown=False),
        Column("evidence", "evidence", "text", shown=False),
    ),
    note=(
        "Cost is what the finding is about, gain what the change could save at most: if what the "
        "column assumption says were so. Two findings may be about the same time."
    ),
)
