"""Which phase and step of training each allocator event belongs to.

What is asked, in order of trust: the annotations of the recording itself (record_function), the
ranges of another recording of the same run, by the clock, and call stacks. Those that come later
speak only of phases that no earlier one names. Autograd's threads have no Python frames, so that
allocations without frames that follow a forward are `backward (inferred)`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens.links.phases import held, phase_ranges
from tracelens.links.steps import steps
from tracelens.trace.intervals import at, innermost
from tracelens.trace.schema import GPU_OPS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tracelens.links.phases import PhaseRange, Rules
    from tracelens.trace.model import Trace

INFERRED: Final = "backward (inferred)"
HOW: Final = ("annotations", "recording", "stacks", "inferred", "none")
"""Best first: by a range of the recording itself, by one of another recording, by the call stack,
by what is missing in the call stack, or in no phase."""

_CODE: Final = pl.Int8
_HOW: Final = pl.Enum(HOW)


@dataclass(frozen=True)
class Placed:
    """What is known of each event, in the order of the events: `phase`, `step` and `how`.

    ``steps`` has a row per step as `links.steps` gives them, on the clock of the events;
    ``steps_by`` is how they were found (ranges, phases, recording or stacks; empty: there are
    none).
    """

    events: pl.DataFrame
    steps: pl.DataFrame
    steps_by: str


@dataclass(frozen=True)
class _Clock:
    """Phase ranges and steps on the clock of the events."""

    ranges: Sequence[PhaseRange]
    steps: pl.DataFrame
    how: str


def placed(
    events: pl.DataFrame,
    trace: Trace,
    rules: Rules,
    stacks: pl.DataFrame,
    other: Trace | None = None,
) -> Placed:
    """Return the phase (null: none) and step (null: none) of every event.

    Args:
        events: the events of a replay, device by device.
        trace: the recording that they are of, for its ranges.
        rules: what the names of ranges mean.
        stacks: `call_stacks` of the trace.
        other: another recording of the same run, whose clock is comparable.
    """
    phases = (*rules.phases(), INFERRED)
    clocks = [_own(trace, rules), *([] if other is None else [_elsewhere(other, trace, rules)])]
    first = events["time_ns"].min()
    frame = events.select(
        "device",
        "pid",
        "action",
        "stack_id",
        "time_ns",
        lane=pl.coalesce("tid", "device"),
        code=pl.lit(None, _CODE),
        how=pl.lit("none", _HOW),
    )
    named: set[int] = set()
    step = pl.Series("step", [None], dtype=pl.Int32).new_from_index(0, events.height)
    marks, steps_by = steps(trace, GPU_OPS.empty(), "none", rules), ""
    for clock in clocks if first is not None else ():
        found = _by_ranges(frame, clock.ranges, fits=not named)
        frame = frame.with_columns(
            code=pl.coalesce("code", found),
            how=pl.when(pl.col("code").is_null() & found.is_not_null())
            .then(pl.lit(clock.how, _HOW))
            .otherwise("how"),
        )
        if found.null_count() < found.len() or clock.how == "annotations":
            named |= {r.code for r in clock.ranges}
        if clock.steps.height and not steps_by:
            numbers = _by_steps(events, clock.steps)
            if numbers.null_count() < numbers.len():
                step, marks = numbers, clock.steps
                steps_by = clock.how if clock.how == "recording" else marks["source"][0]
    frame = _by_stacks(frame, stacks, named, phases, [clock.ranges for clock in clocks])
    if not steps_by:
        step = _cycles(frame, phases)
        steps_by = "stacks" if step.null_count() < step.len() else ""
    label = pl.col("code").cast(pl.UInt8).cat.to(pl.Enum(phases)).alias("phase")
    return Placed(frame.select(label, step, "how"), marks, steps_by)


def _own(trace: Trace, rules: Rules) -> _Clock:
    ranges = phase_ranges(trace, rules)
    found = steps(trace, GPU_OPS.empty(), "ranges" if ranges else "none", rules)
    return _Clock(ranges, found, "annotations")


def _elsewhere(other: Trace, trace: Trace, rules: Rules) -> _Clock:
    """Return the ranges of another recording on this one's clock; none if clocks do not compare."""
    theirs, ours = (_epoch(t) for t in (other, trace))
    clock = _own(other, rules)
    if theirs is None or ours is None or len({r.pid for r in clock.ranges}) > 1:
        return _Clock((), clock.steps.clear(), "recording")
    by = theirs - ours
    moved = [replace(r, start_ns=r.start_ns + by, end_ns=r.end_ns + by) for r in clock.ranges]
    found = clock.steps.with_columns(pl.col("start_ns", "end_ns") + by)
    return _Clock(moved, found, "recording")


def _epoch(trace: Trace) -> int | None:
    text = trace.source.facts.get("epoch_ns", "")
    return int(text) if text.removeprefix("-").isdigit() else None


def _by_ranges(frame: pl.DataFrame, ranges: Sequence[PhaseRange], *, fits: bool) -> pl.Series:
    """Return the code of the phase that holds at each event: on its own lane, or else on any.

    A lane is the thread of an event, or of a snapshot its device. Lanes of another recording have
    other numbers: there any lane counts.
    """
    if not ranges:
        return pl.repeat(None, frame.height, dtype=_CODE, eager=True).alias("code")
    code = at(*held(ranges), frame["time_ns"]).rename("code")
    lanes = {r.tid for r in ranges}
    if not fits or len(lanes) == 1:
        return code
    for lane in lanes & set(frame["lane"].unique().to_list()):
        own = at(*held([r for r in ranges if r.tid == lane]), frame["time_ns"])
        here = frame["lane"] == lane
        code = frame.select(
            code=pl.when(here & own.is_not_null()).then(own).otherwise(code)
        ).to_series()
    return code


def _ended(ranges: Sequence[PhaseRange], moments: pl.Series) -> pl.Series:
    """Return the code of the phase that ended last before each moment."""
    ordered = sorted((r.end_ns, r.code) for r in ranges)
    times = pl.Series([end for end, _ in ordered], dtype=pl.Int64)
    return at(times, pl.Series([code for _, code in ordered], dtype=_CODE), moments)


def _by_steps(events: pl.DataFrame, found: pl.DataFrame) -> pl.Series:
    """Return the step of each event; a step put together from phases lasts until the next one."""
    ordered = found.sort("start_ns")
    ends = ordered["end_ns"]
    if ordered["source"][0] != "ranges":
        last = events["time_ns"].max()
        ends = ordered["start_ns"].shift(-1).fill_null(max(last, ends[-1]) + 1)
    spans = zip(ordered["start_ns"], ends, ordered["step"], strict=True)
    return at(*innermost(spans), events["time_ns"]).cast(pl.Int32).rename("step")


def _by_stacks(
    frame: pl.DataFrame,
    stacks: pl.DataFrame,
    named: set[int],
    phases: Sequence[str],
    ranges: Sequence[Sequence[PhaseRange]],
) -> pl.DataFrame:
    """Fill in phases that no range names from what the call stacks tell."""
    speaks = {p: i for i, p in enumerate(phases) if i not in named}
    if stacks.is_empty() or not speaks.keys() & {"forward", "backward", "optimizer"}:
        return frame
    said = stacks.select(
        "stack_id",
        "python",
        said=pl.col("says").replace_strict(speaks, default=None, return_dtype=_CODE),
    )
    told = frame.select("stack_id").join(said, on="stack_id", how="left", maintain_order="left")
    frame = _known(frame.with_columns(told["python"]), told["said"], "stacks")
    backward = phases.index("backward")
    if backward not in named:
        # Where the recording begins after a forward, the clock alone knows of it.
        ended = [_ended(some, frame["time_ns"]) for some in ranges]
        frame = _known(frame, _without_frames(frame, phases, ended), "inferred")
    backwards = [backward, phases.index(INFERRED)]
    return _known(frame, _between(frame, named, backwards), "inferred")


def _known(frame: pl.DataFrame, codes: pl.Series, how: str) -> pl.DataFrame:
    """Return the frame with these codes for events that had none."""
    new = pl.col("code").is_null() & codes.is_not_null()
    return frame.with_columns(
        code=pl.coalesce("code", codes), how=pl.when(new).then(pl.lit(how, _HOW)).otherwise("how")
    )


def _without_frames(
    frame: pl.DataFrame, phases: Sequence[str], ended: Sequence[pl.Series]
) -> pl.Series:
    """Return the code of `backward (inferred)` where an allocation without frames follows forward.

    Where the recording has an optimizer, a forward must not come next: the allocation lies in it.
    """
    forward, backward, optimizer, inferred = (
        phases.index(p) for p in ("forward", "backward", "optimizer", INFERRED)
    )
    code = pl.col("code")
    before = pl.coalesce(code.forward_fill().over("device"), *ended)
    after = code.backward_fill().over("device")
    has_optimizer = (code == optimizer).any().over("device")
    fits = (
        (pl.col("action") == "alloc")
        & pl.col("stack_id").is_null()
        & before.is_in([forward, backward])
        & (after.is_null() | (after != forward) | ~has_optimizer)
    )
    return frame.select(pl.when(fits).then(pl.lit(inferred, _CODE))).to_series()


def _between(frame: pl.DataFrame, named: set[int], backwards: Sequence[int]) -> pl.Series:
    """Return the code of both neighbours for what is no allocation and lies between them.

    Phases that ranges name end where the ranges do, and a line of Python that tells of no phase
    is in none. What autograd frees last is backward, too, whatever comes next.
    """
    code = pl.col("code")
    before = code.forward_fill().over("device")
    after = code.backward_fill().over("device")
    fits = (
        (pl.col("action") != "alloc")
        & ~pl.col("python").fill_null(value=False)
        & (after.is_null() | (after == before) | before.is_in(backwards))
        & ~before.is_in(list(named))
    )
    return frame.select(pl.when(fits).then(before)).to_series()


def _cycles(frame: pl.DataFrame, phases: Sequence[str]) -> pl.Series:
    """Return steps as cycles of phases: one begins with the forward after the loop's last phase."""
    forward, backward = phases.index("forward"), phases.index("backward")
    code = pl.when(pl.col("code") == phases.index(INFERRED)).then(backward).otherwise("code")
    none = pl.repeat(None, frame.height, dtype=pl.Int32, eager=True).alias("step")
    seen = {*frame.select(code.alias("code").unique()).to_series().drop_nulls()}
    last = max(seen & {backward, phases.index("optimizer")}, default=forward)
    if forward not in seen or last == forward:
        return none
    turns = pl.when(code.is_in([forward, last])).then(code)
    earlier = turns.forward_fill().shift(fill_value=last).over("device").fill_null(last)
    begins = (code == forward) & (earlier == last)
    number = begins.cast(pl.Int32).cum_sum().over("device") - 1
    step = frame.select(step=pl.when(number >= 0).then(number)).to_series()
    return step if step.n_unique() > 2 else none
