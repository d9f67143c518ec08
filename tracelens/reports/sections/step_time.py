"""Step time: without a profiler, with its spread, and what each recorder costs."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens import units
from tracelens.analyses.roofline_formulas import Measured, by_phase, parts_of
from tracelens.capture import noise, summary
from tracelens.errors import NothingToShowError
from tracelens.reports import Grid, Paragraph, Section
from tracelens.reports.drawing import of_bars, of_table
from tracelens.reports.sections._step import profiled_ns, timed_ns
from tracelens.reports.sections._told import number
from tracelens.tables import Column, Filled, Table
from tracelens.tables.bars import Bar, Part
from tracelens.tables.roofline_report import ceilings_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracelens.capture.folder import Manifest
    from tracelens.reports import Block
    from tracelens.reports.subject import Run, Subject

_COLOURS: Final = {"without a profiler": "#2f7fc1", "recorded": "#b8791b"}
_WHOLE: Final = 1_000  # a rate from which on decimals tell nothing
_SPEED_UP: Final = "Medians; × is how many times as fast a step is as that of the first run."
TIMES: Final = Table(
    analysis="step_time",
    title="Step time without a profiler",
    columns=(
        Column("run", "run", "text", optional=True),
        Column("steps", "steps", "count"),
        Column("median_ns", "median", "ns"),
        Column("median_low_ns", "95 % from", "ns"),
        Column("median_high_ns", "to", "ns"),
        Column("mean_ns", "mean", "ns"),
        Column("std_ns", "std", "ns"),
        Column("min_ns", "min", "ns"),
        Column("max_ns", "max", "ns"),
    ),
    note=(
        "Wall-clock time of each step, the GPU's work included. The interval is the median's, with "
        "95 % confidence, by the bootstrap over steps."
    ),
)


def _make(subject: Subject) -> list[Block]:
    return [*_together(subject), *subject.each(lambda run: _of_run(subject, run))]


def _of_run(subject: Subject, run: Run) -> Iterator[Block]:
    timed, steps = timed_ns(run), run.table("steps")
    if not timed and steps is None:
        raise NothingToShowError(run.why_no("steps"))
    if timed and len(subject.runs) == 1:
        yield Grid("step_time", table([run]))
    if timed:
        yield Paragraph(f"{_sentence(noise.sentence(noise.of(timed)))}")
    else:
        yield Paragraph(
            "The step was not timed without a profiler: recorded steps are slower.", "note"
        )
    yield from (Paragraph(said) for said in _of_manifest(run))
    if steps is not None:
        if (figure := of_table(subject.slug(run, "steps_drawn"), steps)) is not None:
            yield figure
        yield Grid(subject.slug(run, "steps"), steps)


def _of_manifest(run: Run) -> Iterator[str]:
    """Give what recorders cost, and how near the step comes to its bound by formula."""
    told = run.manifest
    if told is None:
        return
    if costs := summary.overheads(told):
        yield f"What recording costs: {'; '.join(map(_cost, costs))}."
    took = summary.step_ns(told)
    if took and (bound := _bound(run, told)) is not None:
        least_ns, by = bound
        yield (
            f"By formula a step takes at least {units.time(least_ns)} on {by}: this one reaches "
            f"{units.share(least_ns / took)} of that."
        )
    items = number(told.cost.get("items"))
    if items and took:
        unit, rate = told.cost.get("unit", "items"), items / took * 1e9
        said = units.rate(rate) if unit == "bytes" else f"{_round(rate)} {unit}/s"
        ranks = run.work.source.get("world_size") if run.work else None
        yield f"That is {said}{' on each rank' if ranks else ''}."


def _bound(run: Run, told: Manifest) -> tuple[float, str] | None:
    """Return the least time of a step by formula in ns, and by whose ceilings."""
    parts, on = parts_of(told.cost), ceilings_of(run.work) if run.work else None
    if parts and on is not None:
        step = by_phase(parts, Measured({}, None), on).row(-1, named=True)
        if step["bound_ns"] is not None:
            return step["bound_ns"], f"{on.device.name if on.device else on.name} ({on.origin})"
    seconds = summary.bound_seconds(told)
    return None if seconds is None else (seconds * 1e9, f"{told.cost['bound_of']} (data sheet)")


def _round(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= _WHOLE else f"{rate:.4g}"


def _cost(one: summary.Overhead) -> str:
    if one.is_noise:
        return f"{one.recorder} cannot be told from the noise"
    change = "longer" if one.share > 0 else "shorter"
    return f"{one.recorder} makes a step {units.share(abs(one.share))} {change}"


def _together(subject: Subject) -> Iterator[Block]:
    """Give the runs side by side: a table, and bars with their speed-up over the first."""
    if len(subject.runs) < 2:
        return
    timed = [run for run in subject.runs if timed_ns(run)]
    if len(timed) > 1:
        yield Grid("step_time", table(timed))
    bars = list(_bars(subject))
    figure = of_bars("step_time_drawn", "Step time and speed-up", bars, _SPEED_UP)
    if figure is not None and len(bars) > 1:
        yield figure


def _bars(subject: Subject) -> Iterator[Bar]:
    everywhere = all(timed_ns(run) for run in subject.runs)
    what = "without a profiler" if everywhere else "recorded"
    first = 0.0
    for run in subject.runs:
        times = timed_ns(run) if everywhere else profiled_ns(run)
        if not times:
            continue
        took = median(times)
        first = first or took
        said = units.time(took) + (f", {first / took:.2f}×" if first != took and took else "")
        yield Bar(run.label, [Part(what, _COLOURS[what], took, units.time(took))], said)


def table(runs: list[Run]) -> Filled:
    """Return the statistics of the steps that were timed, a row for each run."""
    rows = []
    for run in runs:
        found = noise.of(timed_ns(run))
        numbers = {c.name: getattr(found, c.name) for c in TIMES.columns[2:]}
        rows.append({"run": run.label if len(runs) > 1 else "", "steps": found.n, **numbers})
    frame = pl.DataFrame(rows).cast({c.name: pl.Float64 for c in TIMES.columns[2:]})
    from tracelens.tables.build import filled

    return filled("step_time", TIMES, frame)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


SECTION = Section("Step time", _make)
