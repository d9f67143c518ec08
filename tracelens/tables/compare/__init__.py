"""The report on two or more runs side by side: the verdict, what explains it, and tables.

`report` takes sides that `analyses.compare.prepare` made ready; the first one is the baseline.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from tracelens.analyses.compare import explain, gate, measures, memory, noise, rows
from tracelens.analyses.compare.align import Match
from tracelens.errors import NothingToShowError, UsageError
from tracelens.tables import Column, Filled, Report, build
from tracelens.tables.compare import words
from tracelens.tables.compare.shown import TABLES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tracelens.analyses.compare.gate import Gate, Judged
    from tracelens.analyses.compare.side import Side

BY: Final = ("phase", "family", "kernel", "range", "op", "step")
"""What runs can be taken apart by; each is the table `compare_NAME`."""

_DEFAULT: Final = ("kernel",)
_ON_CPU: Final = ("phase", "op")
_TOTALS: Final = {
    "total": "step",
    "recorded": "step as recorded",
    "busy": "GPU busy",
    "idle": "GPU idle",
    "kernels": "kernel time",
}
_RUN: Final = Column("run", "B is", "text")


def report(runs: Sequence[Side], by: Sequence[str] = BY, gates: Sequence[Gate] = ()) -> Report:
    """Return the report on runs, each beside the first.

    Tables: `compare` (step time and what it divides into), `compare_explained` (what the difference
    of step times is made of), `compare_NAME` of each `by`, `compare_memory` and
    `compare_memory_held` where both have memory, and `compare_gates`. With more than two runs the
    first column `run` names the one that is B in a row.

    Args:
        runs: the baseline, and at least one other.
        by: some of `BY`.
        gates: what must not be exceeded.

    Raises:
        UsageError: there are fewer than two runs, or no such `by`.
    """
    if len(runs) < 2:
        raise UsageError("There is one run: name the baseline, and one or more to compare with it.")
    if unknown := [name for name in by if name not in BY]:
        raise UsageError(f"--by {unknown[0]}: one of {', '.join(BY)}.")
    baseline, *others = _by_turn(runs)
    pairs = [_pair(baseline, other, by, gates) for other in others]
    if len(pairs) == 1:
        return pairs[0]
    labels = pl.Series([other.label for other in others])
    tables = [
        build.side_by_side(_RUN, labels, same, "all runs")
        for name in TABLES
        if (same := [t for one in pairs for t in one.tables if t.name == name])
        and len(same) == len(pairs)
    ]
    left_out: dict[str, str] = {}
    for one in pairs:
        left_out |= one.left_out
    return replace(
        pairs[0],
        headline=" · ".join(one.headline for one in pairs),
        trust=tuple(dict.fromkeys(line for one in pairs for line in one.trust)),
        source=_source(runs),
        devices=_devices(runs),
        tables=tuple(tables),
        findings=tuple(
            f"{other.label}: {text}"
            for other, one in zip(others, pairs, strict=True)
            for text in one.findings
        ),
        left_out=left_out,
        warnings=tuple(dict.fromkeys(text for one in pairs for text in one.warnings)),
    )


def suits(runs: Sequence[Side]) -> tuple[str, ...]:
    """Return what runs are taken apart by where nobody says: ops where no run has GPU work."""
    return _DEFAULT if any(run.has_gpu_work for run in runs) else _ON_CPU


def judged(runs: Sequence[Side], gates: Sequence[Gate]) -> list[Judged]:
    """Return what comes of the gates, for every run beside the first."""
    baseline, *others = _by_turn(runs)
    return [one for other in others for one in gate.judged(gates, baseline, other)]


def _by_turn(runs: Sequence[Side]) -> Sequence[Side]:
    """Return the runs with turns as samples, where each was recorded often enough for that."""
    if min(run.turns for run in runs) < noise.LEAST:
        return runs
    return [replace(run, by_turn=True) for run in runs]


def _pair(a: Side, b: Side, by: Sequence[str], gates: Sequence[Gate]) -> Report:
    if not (a.has_time and b.has_time):
        of = _of_times if measures.is_timed(a, b) else _of_memory
        return of(a, b, gates)
    explained = explain.explained(a, b)
    kernels = _kernels(a, b)
    made = _made(a, b, by)
    made |= {
        "compare_explained": lambda: _with_what(explained),
        **({"compare_kernel": lambda: kernels} if "kernel" in by else {}),
    }
    if gates:
        made["compare_gates"] = lambda: _gates(gate.judged(gates, a, b))
    tables, left_out = _filled({name: made[name] for name in TABLES if name in made})
    if not (a.is_stepped and b.is_stepped):
        tables = tuple(map(_unstepped, tables))
    if not (a.has_gpu_work and b.has_gpu_work):
        tables = tuple(map(_without_gpu, tables))
    total = float(explain.whole(b) - explain.whole(a))
    said = words.explanation(explained, total)
    return Report(
        headline=words.verdict(a, b),
        trust=(words.side("A", a), words.side("B", b), *_method(a, b)),
        source=_source((a, b)),
        devices=_devices((a, b)),
        phase_source="",
        coverage={},
        tables=tables,
        findings=(*([said] if said else []), *words.findings(a, b, kernels.to_dicts())),
        hints=_hints(by),
        left_out=left_out,
        warnings=tuple(words.caveats(a, b)),
    )


def _of_times(a: Side, b: Side, gates: Sequence[Gate]) -> Report:
    """Return the report on runs one of which is known by its unprofiled steps alone."""
    made: dict[str, Callable[[], pl.DataFrame]] = {"compare": lambda: _totals(a, b)}
    if gates:
        made["compare_gates"] = lambda: _gates(gate.judged(gates, a, b))
    tables, left_out = _filled(made)
    missing = " and ".join(side.label for side in (a, b) if not side.has_time)
    return Report(
        headline=words.verdict(a, b),
        trust=(words.side("A", a), words.side("B", b), *_method(a, b)),
        source=_source((a, b)),
        devices=(),
        phase_source="",
        coverage={},
        tables=tables,
        left_out={
            **left_out,
            "compare_explained": f"no profiler recorded {missing}: times of steps are all there is",
        },
        warnings=tuple(words.caveats(a, b)),
    )


def _of_memory(a: Side, b: Side, gates: Sequence[Gate]) -> Report:
    """Return the report on runs one of which is known by its memory alone."""
    made: dict[str, Callable[[], pl.DataFrame]] = {
        "compare_memory": lambda: memory.peaks(a, b),
        "compare_memory_held": lambda: memory.held(a, b),
    }
    if gates:
        made = {"compare_gates": lambda: _gates(gate.judged(gates, a, b)), **made}
    tables, left_out = _filled(made)
    return Report(
        headline=words.memory_verdict(a, b),
        trust=(words.memory_side("A", a), words.memory_side("B", b)),
        source=_source((a, b)),
        devices=(),
        phase_source="",
        coverage={},
        tables=tables,
        left_out=left_out,
        warnings=tuple(text for text in [memory.why_unlike(a, b)] if text),
    )


def _filled(
    made: Mapping[str, Callable[[], pl.DataFrame]],
) -> tuple[tuple[Filled, ...], dict[str, str]]:
    """Return the tables that can be made, and why the others cannot."""
    tables: list[Filled] = []
    left_out: dict[str, str] = {}
    for name, make in made.items():
        try:
            frame = make()
        except NothingToShowError as error:
            left_out[name] = str(error)
            continue
        if frame.is_empty():
            left_out[name] = _why_empty(name)
        tables.append(build.filled(name, TABLES[name], frame))
    return tuple(tables), left_out


def _without_gpu(filled: Filled) -> Filled:
    """Return a table whose note tells nothing of GPUs."""
    note = filled.table.note if filled.name != "compare" else ""
    note = note.replace("a step on one GPU", "a step")
    return replace(filled, table=replace(filled.table, note=note))


def _unstepped(filled: Filled) -> Filled:
    """Return a table that speaks of recordings instead of steps."""
    table = filled.table
    note = table.note.replace("those of a step", "those of the recording")
    note = note.replace("inside the steps", "in the recording").replace("recorded steps", "time")
    title = {"compare": "In all"}.get(filled.name, table.title)
    return replace(filled, table=replace(table, title=title, note=note))


def _made(a: Side, b: Side, by: Sequence[str]) -> dict[str, Callable[[], pl.DataFrame]]:
    """Return what makes each table, of those that need nothing else."""
    of: dict[str, Callable[[], pl.DataFrame]] = {
        "phase": lambda: _with_intervals(rows.of_phases(a, b)),
        "family": lambda: _with_intervals(rows.of_families(a, b)),
        "range": lambda: _with_intervals(rows.of_ranges(a, b)),
        "op": lambda: _with_intervals(rows.of_ops(a, b)),
        "step": lambda: rows.of_steps(a, b),
    }
    return {
        "compare": lambda: _totals(a, b),
        **{f"compare_{name}": of[name] for name in by if name in of},
        "compare_memory": lambda: memory.peaks(a, b),
        "compare_memory_held": lambda: memory.held(a, b),
    }


def _totals(a: Side, b: Side) -> pl.DataFrame:
    frame = measures.totals(a, b)
    return _with_intervals(frame.with_columns(pl.col("what").replace(_TOTALS)))


def _with_what(explained: pl.DataFrame) -> pl.DataFrame:
    said = [(words.part(row), words.mostly(row)) for row in explained.iter_rows(named=True)]
    return explained.with_columns(
        what=pl.Series([what for what, _ in said], dtype=pl.String),
        mostly=pl.Series([most for _, most in said], dtype=pl.String),
    )


def _kernels(a: Side, b: Side) -> pl.DataFrame:
    """Return the rows of kernels with their short names."""
    frame = rows.of_kernels(a, b)
    short = {
        name: short
        for side in (a, b)
        for name, short in side.work.select("name", "short_name").unique().iter_rows()
    }
    said = [
        words.kernel(Match(family, tuple(was), tuple(now), how), short)
        for family, was, now, how in frame.select("family", "was", "now", "matched").iter_rows()
    ]
    return _with_intervals(frame.with_columns(kernel=pl.Series(said, dtype=pl.String)))


def _with_intervals(frame: pl.DataFrame) -> pl.DataFrame:
    """Return rows with their interval in words."""
    said = [
        words.interval(noise.Difference(0.0, low, high, "no difference"), of)
        for low, high, of in frame.select("low_ns", "high_ns", "a_ns").iter_rows()
    ]
    return frame.with_columns(interval=pl.Series(said, dtype=pl.String))


def _gates(found: Sequence[Judged]) -> pl.DataFrame:
    made: list[dict[str, Any]] = [
        {
            "gate": one.gate.text,
            "outcome": one.outcome,
            "said": one.why or words.gate(one),
            "a": one.a,
            "b": one.b,
            "unit": "bytes" if one.gate.is_memory else "ns",
        }
        for one in found
    ]
    schema = {"gate": pl.String, "outcome": pl.String, "said": pl.String}
    return pl.DataFrame(
        made, schema={**schema, "a": pl.Float64, "b": pl.Float64, "unit": pl.String}
    )


def _method(a: Side, b: Side) -> Sequence[str]:
    """Return a line on where the intervals come from."""
    pair = measures.of(a, b, "total") or ([], [])
    if min(map(len, pair)) < noise.LEAST:
        return ()
    how = "the bootstrap" if min(map(len, pair)) >= noise.ENOUGH else "Welch's t"
    if a.by_turn:
        return (f"99 % intervals by {how} over {a.turns} and {b.turns} recordings",)
    more = "they do not know how one start of the program differs from the next"
    return (f"99 % intervals by {how} over steps: {more}",)


def _source(runs: Sequence[Side]) -> dict[str, object]:
    return {
        "path": " ".join(side.path for side in runs),
        "format": "comparison",
        "producer": None,
        "schema_version": None,
        "runs": [
            {
                "label": side.label,
                "path": side.path,
                "format": side.format,
                "producer": side.producer,
                "gpus": dict(side.gpus),
                "gpu_count": side.lanes,
                "steps": side.steps.height if side.is_stepped else None,
                "steps_counted": len(side.counted) if side.is_stepped else None,
                "steps_timed": len(side.timed_ns),
            }
            for side in runs
        ],
    }


def _devices(runs: Sequence[Side]) -> tuple[dict[str, object], ...]:
    return tuple(
        {"run": side.label, "name": name, "count": count}
        for side in runs
        for name, count in side.gpus.items()
    )


def _hints(by: Sequence[str]) -> tuple[str, ...]:
    more = tuple(f"--by {name}" for name in ("phase", "family", "op", "step") if name not in by)
    return (*more, "--format markdown", "--gate 'total>5%'")


def _why_empty(name: str) -> str:
    return {
        "compare_op": "PyTorch's ops were recorded of neither run",
        "compare_range": "neither run has named ranges inside its steps",
        "compare_explained": "nothing is known of what the steps did",
        "compare_memory_held": "nothing was live at the peaks",
    }.get(name, "neither run recorded GPU work")
