"""Training steps: ranges named step or iteration that repeat, or repeated phases without them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens.links.phases import phase_ranges
from tracelens.trace.schema import NAMED_BY_USERS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tracelens.links.phases import PhaseRange, Rules
    from tracelens.trace.model import Trace

_STEP: Final = re.compile(
    r"(?<![a-z])(?:profiler ?step|training_step|train_step|step|iteration|iter)[\s_:#=/-]*\d*$",
    re.IGNORECASE,
)
_OTHER_STEPS: Final = re.compile(r"opti|opt[ _.]|scheduler|scaler", re.IGNORECASE)
_SHORTEST_RUN: Final = 16
_DIGITS: Final = r"\d+"
SCHEMA: Final = {
    "step": pl.Int32,
    "name": pl.String,
    "pid": pl.Int32,
    "start_ns": pl.Int64,
    "end_ns": pl.Int64,
    "source": pl.String,
}


def steps(trace: Trace, ops: pl.DataFrame, phase_source: str, rules: Rules) -> pl.DataFrame:
    """Return the steps of each process, numbered from 0 in order of start.

    Columns: step, name (the range's; null without one), pid, start_ns, end_ns and source:

    - `ranges`: a range marks the step. Of several layers of step-like ranges, the one that
      repeats most often under one parent counts, the outermost if several do.
    - `phases`: put together from repeated phase ranges.
    - `launches`: put together from the launches of inferred phases; the first one begins with
      whatever was launched before it.
    """
    ranges = trace.get("ranges")
    found = pl.DataFrame(schema=SCHEMA) if ranges is None else _marked(trace, ranges)
    if found.is_empty() and phase_source == "ranges":
        found = _from_phases(trace, rules)
    if found.is_empty() and phase_source == "inferred":
        found = _from_launches(ops)
    return found


def _marked(trace: Trace, ranges: pl.LazyFrame) -> pl.DataFrame:
    names = trace["names"].filter(pl.col("name").str.contains(r"(?i)step|iter")).collect()
    fits = [bool(_STEP.search(n)) and not _OTHER_STEPS.search(n) for n in names["name"]]
    fitting = names.filter(pl.Series(fits, dtype=pl.Boolean)).lazy()
    marks = pl.col("kind").is_in(NAMED_BY_USERS)
    found = ranges.filter(marks).join(fitting, on="name_id").collect()
    if found.is_empty():
        return pl.DataFrame(schema=SCHEMA)
    layer = ["pid", "tid", "lane", "depth", "pattern"]
    found = found.with_columns(pattern=pl.col("name").str.replace_all(_DIGITS, "#"))
    layers = found.group_by(*layer, "parent").agg(repeats=pl.len(), first=pl.col("start_ns").min())
    best = layers.sort("repeats", "depth", "first", descending=[True, False, False]).unique(
        "pid", keep="first", maintain_order=True
    )
    chosen = found.join(best, on=layer, how="semi").sort("pid", "start_ns", "range_id")
    return chosen.select(
        step=pl.int_range(pl.len(), dtype=pl.Int32).over("pid"),
        name="name",
        pid="pid",
        start_ns="start_ns",
        end_ns="end_ns",
        source=pl.lit("ranges"),
    )


def _from_phases(trace: Trace, rules: Rules) -> pl.DataFrame:
    by_process: dict[int, list[PhaseRange]] = {}
    plain = [phase for phase in phase_ranges(trace, rules) if phase.plain]
    for phase in sorted(plain, key=lambda r: (r.start_ns, -r.end_ns)):
        by_process.setdefault(phase.pid, []).append(phase)
    rows = [
        (number, None, pid, group[0].start_ns, max(p.end_ns for p in group), "phases")
        for pid, phases in sorted(by_process.items())
        for number, group in enumerate(_cycles(phases, rules.phases().index("forward")))
    ]
    # A single cycle is no repetition, and so no step.
    repeated = {row[2] for row in rows if row[0]}
    return pl.DataFrame([r for r in rows if r[2] in repeated], schema=SCHEMA, orient="row")


def _from_launches(ops: pl.DataFrame) -> pl.DataFrame:
    """Return steps as cycles of the phases that work was launched in, run by run."""
    launched = ops.lazy().filter(pl.col("phase").is_not_null(), pl.col("kind") == "kernel")
    phase = pl.col("phase").to_physical()

    def run(pieces: pl.LazyFrame) -> pl.LazyFrame:
        changed = (phase != phase.shift()).fill_null(value=True) | (
            pl.col("pid") != pl.col("pid").shift()
        )
        return (
            pieces.sort("pid", "launch_ns")
            .with_columns(run=changed.cum_sum())
            .group_by("pid", "run", "phase")
            .agg(pl.col("launch_ns").min(), pl.col("last_ns").max(), pl.col("kernels").sum())
        )

    single = launched.select("pid", "phase", "launch_ns", last_ns="launch_ns", kernels=1)
    # A stray kernel of one phase amid another does not end it.
    runs = run(run(single).filter(pl.col("kernels") >= _SHORTEST_RUN)).sort("pid", "launch_ns")
    rows: list[tuple[object, ...]] = []
    for (pid,), of_process in runs.collect().group_by("pid", maintain_order=True):
        phases = of_process["phase"].to_physical().to_list()
        ends = [i + 1 for i, code in enumerate(phases) if code == max(phases)]
        for number, (first, last) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
            start, end = of_process["launch_ns"][first], of_process["last_ns"][last - 1] + 1
            rows.append((number, None, pid, start, end, "launches"))
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def _cycles(phases: Sequence[PhaseRange], forward: int) -> list[list[PhaseRange]]:
    """Return phases grouped into steps: a step ends with the last phase that the loop has.

    That is the optimizer where there is one (so that accumulated gradients are one step), else
    backward, else each forward is a step of its own. Where the loop begins with zero_grad, so
    does each step.
    """
    last = max(p.code for p in phases)
    starts: list[int] = []
    reached = last
    end_ns = phases[0].start_ns
    for i, phase in enumerate(phases):
        inside = phase.start_ns < end_ns
        if phase.code == forward and reached == last and not inside:
            starts.append(i)
        reached = max(reached, phase.code) if inside else phase.code
        end_ns = max(end_ns, phase.end_ns)
    if not starts:
        return [list(phases)]
    lead = starts[0] if all(p.code == last for p in phases[: starts[0]]) else 0
    firsts = [max(0, start - lead) for start in starts]
    return [list(phases[i:j]) for i, j in zip(firsts, [*firsts[1:], len(phases)], strict=True)]
