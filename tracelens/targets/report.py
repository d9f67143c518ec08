"""The report on targets: what was measured beside what was asked for, letters, and arithmetic."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from tracelens import hardware, units
from tracelens.tables import Column, Filled, Report, Table, build
from tracelens.targets.grade import FAILED, grade
from tracelens.targets.quantities import shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tracelens.targets.file import Targets
    from tracelens.targets.grade import Graded, Group, Judged, Verdict
    from tracelens.targets.measured import Measured

TARGETS: Final = Table(
    analysis="targets",
    title="Targets",
    columns=(
        Column("target", "target", "name"),
        Column("measured", "measured", "text"),
        Column("needed", "needed", "text"),
        Column("of_reference", "of ref.", "share", optional=True),
        Column("verdict", "verdict", "text"),
        Column("letter", "grade", "text", optional=True),
        Column("on", "GPU", "text"),
        Column("run", "run", "text", optional=True),
        Column("gpu", "GPU", "text", shown=False),
        Column("metric", "metric", "text", shown=False),
        Column("group", "group", "text", shown=False),
        Column("value", "value", "count", shown=False),
        Column("unit", "unit", "text", shown=False),
        Column("low", "low", "count", shown=False),
        Column("high", "high", "count", shown=False),
        Column("samples", "samples", "count", shown=False),
        Column("needed_value", "needed value", "count", shown=False),
        Column("reference_value", "reference", "count", shown=False),
        Column("limit_value", "limit", "count", shown=False),
        Column("sure", "sure", "flag", shown=False),
        Column("required", "required", "flag", shown=False),
        Column("how", "measured by", "text", shown=False),
        Column("why", "why", "text", shown=False),
        Column("note", "note", "text", shown=False),
    ),
    note=(
        "of ref.: performance as a share of the reference's, so that more is better. "
        "±: half of the 95 % confidence interval of the median. An impossible target fails nobody."
    ),
)
GRADES: Final = Table(
    analysis="grades",
    title="Grades",
    columns=(
        Column("group", "group", "text"),
        Column("letter", "grade", "text"),
        Column("share", "lowest", "share"),
        Column("measured", "measured", "count"),
        Column("targets", "of targets", "count"),
        Column("why", "why not", "text", optional=True),
    ),
    note="A group has the grade of its lowest share of the reference, and the whole that of its "
    "lowest group.",
)
_MOST_SAID: Final = 12
"""Reasons that are said in sentences; many runs would fill screens."""
_TYPES: Final[dict[str, Any]] = {
    "of_reference": pl.Float64,
    "value": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "samples": pl.Int64,
    "needed_value": pl.Float64,
    "reference_value": pl.Float64,
    "limit_value": pl.Float64,
    "sure": pl.Boolean,
    "required": pl.Boolean,
    "share": pl.Float64,
    "measured": pl.Int64,
    "targets": pl.Int64,
}
_NOT_MET: Final[dict[Verdict, str]] = {
    "warn": "missed by little",
    "fail": "failed",
    "measured": "without a threshold",
    "not measured": "not measured",
    "impossible target": "impossible",
    "impossible measurement": "measured as what cannot be",
}
_BASE: Final = {
    "time": "ns",
    "rate": "1/s",
    "flops_per_s": "FLOP/s",
    "bytes_per_s": "B/s",
    "bytes": "B",
    "share": "part of 1",
    "ratio": "times",
    "number": "",
}


def report(targets: Targets, runs: Sequence[Measured]) -> Report:
    """Return the report on what was measured, by targets."""
    return of_graded(targets, runs, grade(targets, runs))


def of_graded(targets: Targets, runs: Sequence[Measured], graded: Graded) -> Report:
    """Return the report on targets that have been judged."""
    shown = _with_run_first(TARGETS) if _has_several(graded) else TARGETS
    tables = [_filled("targets", shown, [_row(one) for one in graded.judged])]
    if graded.groups:
        tables.append(_filled("grades", GRADES, [_graded(group) for group in graded.groups]))
    return Report(
        headline=_headline(targets, graded),
        trust=tuple(_trust(targets, graded)),
        source={
            "path": str(targets.path),
            "format": "targets",
            "producer": None,
            "schema_version": None,
            "runs": [one.name for one in runs],
            "grade": graded.letter,
        },
        devices=(),
        phase_source="none",
        coverage={},
        tables=tuple(tables),
        findings=tuple(_findings(targets, graded)),
    )


def passes_gate(graded: Graded) -> bool:
    """Tell whether nothing failed, and all that is required was measured."""
    return not any(
        one.verdict in FAILED or (one.target.required and one.verdict == "not measured")
        for one in graded.judged
    )


def _has_several(graded: Graded) -> bool:
    return len({one.run for one in graded.judged if one.run}) > 1


def _with_run_first(table: Table) -> Table:
    """Return the table with its run beside the target, where a narrow screen shows it."""
    run = next(c for c in table.columns if c.name == "run")
    target, *rest = (c for c in table.columns if c is not run)
    return replace(table, columns=(target, run, *rest))


def _filled(name: str, table: Table, rows: list[dict[str, Any]]) -> Filled:
    measured = {} if name == "grades" else {"measured": pl.String}
    schema = {c.name: {**_TYPES, **measured}.get(c.name, pl.String) for c in table.columns}
    return build.filled(name, table, pl.DataFrame(rows, schema=schema, orient="row"))


def _row(one: Judged) -> dict[str, Any]:
    target, reading = one.target, one.reading
    rule = target.passes or target.excellent
    return {
        "target": target.name,
        "measured": _measured(one),
        "needed": str(rule) if rule else units.ABSENT,
        "of_reference": one.of_reference,
        "verdict": one.verdict,
        "letter": one.letter,
        "on": _on(one),
        "run": one.run,
        "gpu": one.gpu,
        "metric": target.metric,
        "group": target.group,
        "value": reading.value if reading else None,
        "unit": _BASE[one.dimension],
        "low": reading.low if reading else None,
        "high": reading.high if reading else None,
        "samples": reading.n if reading else None,
        "needed_value": rule.limit.value if rule else None,
        "reference_value": one.reference,
        "limit_value": one.limit,
        "sure": one.sure,
        "required": target.required,
        "how": reading.how if reading else None,
        "why": one.why or None,
        "note": target.note or None,
    }


def _measured(one: Judged) -> str:
    """Return the value with half of its confidence interval."""
    reading = one.reading
    if reading is None:
        return units.ABSENT
    text = shown(reading.value, reading.dimension)
    if reading.low is None or reading.high is None or reading.value <= 0:
        return text
    return f"{text} ± {units.share((reading.high - reading.low) / 2 / reading.value)}"


def _on(one: Judged) -> str:
    """Return the GPU as people call it."""
    known = hardware.device(one.gpu) if one.gpu else None
    return known.name if known else one.gpu or "any"


def _graded(group: Group) -> dict[str, Any]:
    return {
        "group": group.name,
        "letter": group.letter,
        "share": group.share,
        "measured": group.measured,
        "targets": group.targets,
        "why": group.why or None,
    }


def _headline(targets: Targets, graded: Graded) -> str:
    counts = Counter(one.verdict for one in graded.judged)
    met = counts["excellent"] + counts["pass"]
    parts = [targets.title]
    if targets.ladder:
        parts.append(f"grade {graded.letter}" if graded.letter else "no grade")
    parts.append(f"{met} of {len(graded.judged)} met")
    parts += [f"{counts[one]} {words}" for one, words in _NOT_MET.items() if counts[one]]
    return " · ".join(parts)


def _trust(targets: Targets, graded: Graded) -> Iterator[str]:
    if targets.note:
        yield targets.note
    unsure = [one for one in graded.judged if one.sure is False]
    if unsure:
        names = ", ".join(dict.fromkeys(one.target.name for one in unsure))
        yield f"within the noise of what is needed, so that it may turn out otherwise: {names}"
    slowed = sorted({one.reading.how for one in graded.judged if one.reading and _slows(one)})
    if slowed:
        yield f"times are of {', '.join(slowed)}, which slows them: --with timer measures without"
    if graded.aside:
        names = ", ".join(sorted({one.gpu for one in graded.aside if one.gpu}))
        count = len(graded.aside)
        yield f"{count} targets are for GPUs that nothing was measured on, and not shown: {names}"
    measured = [one for one in graded.judged if one.reading]
    if unknown := sum(one.limit is None for one in measured):
        yield f"no physical limit is known of {unknown} of {len(measured)} measurements"


def _slows(one: Judged) -> bool:
    return one.reading is not None and one.reading.how.startswith("steps under")


def _findings(targets: Targets, graded: Graded) -> Iterator[str]:
    said = [one for one in graded.judged if one.why]
    several = _has_several(graded)
    for one in said[:_MOST_SAID]:
        run = f" by {one.run}" if several and one.run else ""
        where = f" on {one.gpu}" if one.gpu else ""
        yield f"{one.target.name}{run}{where}: {one.verdict}: {one.why}."
    if len(said) > _MOST_SAID:
        yield f"{len(said) - _MOST_SAID} more have a reason: column `why` of --format csv has each."
    if targets.ladder and graded.letter is None:
        yield f"There is no grade: {graded.why}."
