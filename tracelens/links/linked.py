"""A Linked trace: every GPU op with its launch, phase and name, cut to what was asked for."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, TypeVar

import polars as pl

from tracelens import registry
from tracelens.errors import NothingToShowError, UsageError
from tracelens.links.answers import once
from tracelens.links.gpus import by_gpu
from tracelens.links.how import HOW
from tracelens.links.launches import LAUNCH_COLUMNS, launches
from tracelens.links.names import op_names
from tracelens.links.phases import assigned, rules
from tracelens.links.steps import steps
from tracelens.trace.intervals import window
from tracelens.trace.schema import GPU_OPS
from tracelens.trace.store import remembered

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from tracelens.links.answers import Answers
    from tracelens.links.phases import Rules
    from tracelens.trace.model import Trace

_OP_COLUMNS: Final = ("op_id", "start_ns", "end_ns", "kind", "device", "pid", "name_id")
NO_PHASE: Final = "(none)"
_T = TypeVar("_T")


@dataclass(frozen=True)
class Cut:
    """What part of a trace to look at; empty means all of it.

    ``within`` is a range's name, with ``#N`` its instance N (from 0, in order of start, in each
    process); ``attribution`` is `launch` or `execution`; ``phase_rules`` adds or replaces what
    range names mean.
    """

    phases: tuple[str, ...] = ()
    device: int | None = None
    within: str | None = None
    step: int | None = None
    attribution: str = "launch"
    phase_rules: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Linked:
    """A trace with its GPU work attributed.

    ``ops`` has those columns of `gpu_ops` that every question needs, the launch
    (`links.launches`), `phase` and `how` (`links.phases`); ``names`` one row per name_id and kind
    with short_name and family; ``steps`` the steps (`links.steps`); ``spans`` the
    (pid, start, end) that the trace was cut to, None for all of it.
    """

    trace: Trace
    ops: pl.DataFrame
    names: pl.DataFrame
    steps: pl.DataFrame
    rules: Rules
    phase_source: str
    spans: tuple[tuple[int, int, int], ...] | None = None
    cut: Cut = field(default_factory=Cut)
    """What was asked for."""
    by_execution: bool = False
    """Whether phases were given by when ops ran instead of by when they were launched."""
    whole: bool = True
    """Whether `ops` are all of the trace's."""
    answers: Answers = field(init=False, default_factory=dict, compare=False)
    """What analyses have found out of these very ops, or are finding out, by analysis."""

    def once(self, name: str, make: Callable[[Linked], _T]) -> _T:
        """Return ``make`` of this trace, computed at most once, whichever thread asks first."""
        return once(self.answers, name, lambda: make(self))

    def with_columns_of_ops(self, *columns: str) -> pl.LazyFrame:
        """Return ``ops`` with further columns of `gpu_ops`."""
        table = self.trace.get("gpu_ops")
        more = (GPU_OPS.empty().lazy() if table is None else table).select(columns)
        if self.whole:
            return pl.concat([self.ops.lazy(), more], how="horizontal")
        more = more.with_row_index("op_id")
        return self.ops.lazy().join(more, on="op_id", how="left", maintain_order="left")

    def calls(self) -> pl.LazyFrame:
        """Return the API calls that began inside the cut; raises NothingToShowError."""
        return self._inside(self.trace["api"])

    def ranges(self) -> pl.LazyFrame:
        """Return the ranges that began inside the cut; raises NothingToShowError."""
        return self._inside(self.trace["ranges"])

    def coverage(self) -> dict[str, int]:
        """Return how many ops came by their phase in which way, and their total."""
        counts = dict(self.ops.group_by("how").len().iter_rows())
        return {"gpu_ops": self.ops.height, **{how: counts.get(how, 0) for how in HOW}}

    def _inside(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        if self.spans is None:
            return frame
        return window(frame.collect(), "start_ns", self.spans).lazy()


def link(trace: Trace, cut: Cut | None = None) -> Linked:
    """Attribute the GPU work of a trace, and cut it to what was asked for.

    Raises:
        UsageError: an unknown phase, device, range or step was asked for.
        NothingToShowError: the trace has no GPU work table and no ranges or API calls either.
    """
    cut = cut or Cut()
    trace = by_gpu(trace)
    known = rules(cut.phase_rules)
    table = trace.get("gpu_ops")
    ops = GPU_OPS.empty().lazy() if table is None else table
    work = ops.select(_OP_COLUMNS).collect()
    linked_to = remembered(
        trace,
        "launches",
        lambda: launches(ops, trace.get("api"), trace.get("launched_by"), trace.get("ranges")),
        lambda kept: kept.schema == LAUNCH_COLUMNS and kept.height == work.height,
    )
    work = work.hstack(linked_to)
    by_execution = cut.attribution == "execution"
    with ThreadPoolExecutor(1) as pool:
        # Names are classified in Python while polars looks phases up.
        named = pool.submit(op_names, trace, work)
        work, source = assigned(trace, work, named.result, known, by_execution=by_execution)
    names = named.result()
    linked = Linked(
        trace,
        work,
        names,
        steps(trace, work, source, known),
        known,
        source,
        cut=cut,
        by_execution=by_execution,
    )
    return _cut(linked, cut)


def _cut(linked: Linked, cut: Cut) -> Linked:
    if cut.within is not None:
        linked = _spanned(linked, _range_spans(linked.trace, cut.within))
    if cut.step is not None:
        linked = _spanned(linked, _step_spans(linked, cut.step))
    if cut.device is not None:
        devices = sorted(linked.ops["device"].drop_nulls().unique())
        if cut.device not in devices:
            known = ", ".join(map(str, devices)) or "none"
            raise UsageError(f"No work ran on device {cut.device}. Devices with work: {known}.")
        linked = replace(linked, ops=linked.ops.filter(pl.col("device") == cut.device), whole=False)
    if cut.phases:
        linked = replace(linked, ops=linked.ops.filter(_in_phases(linked, cut.phases)), whole=False)
    return linked


def _spanned(linked: Linked, spans: Iterable[tuple[int, int, int]]) -> Linked:
    """Keep what was launched inside the spans, by any thread of the process."""
    spans = tuple(spans)
    kept = linked.steps.join(
        window(linked.steps, "start_ns", spans), on=["pid", "step"], how="semi"
    )
    ops = window(linked.ops, "launch_ns", spans)
    return replace(linked, ops=ops, steps=kept, spans=spans, whole=False)


def _range_spans(trace: Trace, within: str) -> list[tuple[int, int, int]]:
    ranges, names = trace["ranges"], trace["names"].collect()
    ids = dict(names.select("name", "name_id").iter_rows())
    name, instance = within, None
    numbered = re.fullmatch(r"(.*)#(\d+)", within, re.DOTALL)
    if name not in ids and numbered:
        name, instance = numbered[1], int(numbered[2])
    chosen = ranges.filter(pl.col("name_id") == ids.get(name, -1)).collect()
    if name not in ids or chosen.is_empty():
        used = ranges.join(names.lazy(), on="name_id").select(pl.col("name").unique()).collect()
        raise UsageError(registry.unknown("range", name, dict.fromkeys(used["name"].head(10_000))))
    if instance is not None:
        number = pl.int_range(pl.len()).over("pid")
        counted = chosen.sort("start_ns", "range_id").with_columns(number=number)
        chosen = counted.filter(pl.col("number") == instance)
        if chosen.is_empty():
            last = counted["number"].cast(pl.Int64).max()
            raise UsageError(f"{name!r} has instances #0 to #{last!r}; there is no #{instance}.")
    return list(chosen.select("pid", "start_ns", "end_ns").iter_rows())


def _step_spans(linked: Linked, step: int) -> list[tuple[int, int, int]]:
    if linked.steps.is_empty():
        raise NothingToShowError(
            f"{linked.trace.source.path.name} marks no steps. Mark them with a range around each "
            "step, named 'step N', or use --within RANGE."
        )
    chosen = linked.steps.filter(pl.col("step") == step)
    if chosen.is_empty():
        last = linked.steps["step"].max()
        raise UsageError(f"There is no step {step}: steps are 0 to {last!r}.")
    return list(chosen.select("pid", "start_ns", "end_ns").iter_rows())


def _in_phases(linked: Linked, phases: Sequence[str]) -> pl.Expr:
    for phase in phases:
        if phase not in (*linked.rules.phases(), NO_PHASE):
            known = dict.fromkeys((*linked.rules.phases(), NO_PHASE))
            raise UsageError(registry.unknown("phase", phase, known))
    named = [phase for phase in phases if phase != NO_PHASE]
    fits = pl.col("phase").cast(pl.String).is_in(named).fill_null(value=False)
    return fits | pl.col("phase").is_null() if NO_PHASE in phases else fits
