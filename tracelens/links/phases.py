"""Which phase of training each GPU op belongs to: the phase that launched it.

PyTorch launches backward from a worker thread that holds none of the ranges the user pushed, so
an op is looked up on its own thread first, then on any thread of its process, and never in
another process. What cannot be told is said, not guessed: see `links.how`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens.errors import UsageError
from tracelens.links import inference
from tracelens.links.how import how
from tracelens.trace.intervals import at, innermost
from tracelens.trace.schema import NAMED_BY_USERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from tracelens.trace.model import Trace

_EDGE = r"(?<![a-z]){}(?:[ _]?(?:pass|step))?(?![a-z])"
DEFAULT_PHASES: Final[Mapping[str, str]] = {
    "forward": _EDGE.format("(?:forward|fwd)"),
    "backward": _EDGE.format("(?:backward|bwd)"),
    "optimizer": _EDGE.format("(?:optimi[sz]er|optim|opt[ _.]?step|zero_grad)"),
    "prefill": r"^prefill[\s_#:=-]*\d*$",
    "decode": r"^decode[\s_#:=-]*\d*$",
}
"""Phase -> what the range names say. `loss` and `data` are no phases unless asked for by name."""

_AMBIGUOUS: Final = -2
_CODE: Final = pl.Int8
_AUTOMATIC: Final = re.compile(r"^Optimizer\.(?:step|zero_grad)#")
_NUMBERING: Final = " 0123456789#:._-"
_MAYBE_PHASE: Final = r"(?i)forward|fwd|backward|bwd|opti|opt.?step|zero_grad|^prefill|^decode"


@dataclass(frozen=True)
class Rules:
    """What range names mean: phase -> pattern, tried in order; ``asked`` came from the user."""

    patterns: Mapping[str, re.Pattern[str]]
    asked: frozenset[str] = frozenset()

    def phases(self) -> tuple[str, ...]:
        """Return the phases in the order of training, the user's own ones last."""
        return (*DEFAULT_PHASES, *(p for p in self.patterns if p not in DEFAULT_PHASES))

    def phase(self, name: str) -> str | None:
        """Return the phase that a range's name means.

        The user's rules come first. A name that fits several of the others
        (``forward-backward``) encloses phases and is none.
        """
        fits = [phase for phase, pattern in self.patterns.items() if pattern.search(name)]
        if fits and fits[0] in self.asked:
            return fits[0]
        return fits[0] if len(fits) == 1 else None


@dataclass(frozen=True)
class PhaseRange:
    """One range that names a phase; ``code`` is the phase's place in `Rules.phases`.

    ``plain`` ranges are named by the phase and nothing else (``forward``, ``Backward pass 3``);
    ``automatic`` ones are PyTorch's own, which says nothing of what the user would have named.
    """

    pid: int
    tid: int
    start_ns: int
    end_ns: int
    code: int
    plain: bool
    automatic: bool


def rules(user_phases: Mapping[str, str] | None = None) -> Rules:
    """Return the default rules with the user's, which are case-sensitive and come first.

    Raises:
        UsageError: a regular expression does not compile.
    """
    patterns = {}
    for phase, rule in (user_phases or {}).items():
        try:
            patterns[phase] = re.compile(rule)
        except re.error as error:
            raise UsageError(
                f"--phases {phase}={rule}: this is no regular expression ({error})."
            ) from error
    asked = frozenset(patterns)
    for phase, rule in DEFAULT_PHASES.items():
        patterns.setdefault(phase, re.compile(rule, re.IGNORECASE))
    return Rules(patterns, asked)


def assigned(
    trace: Trace,
    ops: pl.DataFrame,
    names: Callable[[], pl.DataFrame],
    rules: Rules,
    *,
    by_execution: bool = False,
) -> tuple[pl.DataFrame, str]:
    """Return the ops with `phase` (null: none) and `how`, and the source of phases.

    The source is `ranges`, `inferred` or `none`.

    Args:
        trace: for ranges, calls and thread names.
        ops: `gpu_ops` with launches, in order of op_id.
        names: gives the `op_names` of the ops, if they are needed.
        rules: what the ranges' names mean.
        by_execution: look at when an op ran instead of when it was launched. That is what a
            timeline shows, and it is wrong wherever the GPU runs behind; for comparison only.
    """
    found = phase_ranges(trace, rules)
    moments = ops["start_ns"] if by_execution else ops["launch_ns"]
    frame = ops.with_columns(_by_ranges(trace, ops, moments, found))
    speaking = {r.pid for r in found if not r.automatic}
    source = "ranges" if speaking else "none"
    if not speaking.issuperset(ops["pid"].unique()):
        silent = ~pl.col("pid").is_in(speaking).fill_null(value=False) & pl.col("code").is_null()
        training = {r.pid for r in found}
        guessed = inference.inferred(trace, ops, names(), rules.phases(), training)
        if not speaking and guessed["code"].null_count() < guessed.height:
            source = "inferred"
        if by_execution:
            guessed = _at_their_start(ops.hstack(guessed)).select("code", "how")
        frame = frame.with_columns(
            pl.when(silent).then(guessed[column]).otherwise(column).alias(column)
            for column in ("code", "how")
        )
    if not by_execution:
        frame = _filled(trace, frame)
    phase = pl.col("code").cast(pl.UInt8).cat.to(pl.Enum(rules.phases()))
    return frame.with_columns(phase=phase).drop("code"), source


def phase_at(trace: Trace, moments: pl.DataFrame, rules: Rules) -> pl.Series:
    """Return the phase (null: none) that ranges name for moments of the CPU, in their order.

    A moment is looked up as a launch is: on its own thread, then on any of its process.

    Args:
        trace: for its ranges.
        moments: pid, tid and time_ns.
        rules: what the ranges' names mean.
    """
    work = moments.select("pid", launch_tid="tid").with_row_index("op_id")
    found = _by_ranges(trace, work, moments["time_ns"], phase_ranges(trace, rules))
    phases = pl.Enum(rules.phases())
    return found.select(phase=pl.col("code").cast(pl.UInt8).cat.to(phases))["phase"]


def phase_ranges(trace: Trace, rules: Rules) -> list[PhaseRange]:
    """Return the ranges that name a phase; those of libraries only if there are no others."""
    ranges = trace.get("ranges")
    if ranges is None:
        return []
    names = trace["names"]
    if not rules.asked:
        names = names.filter(pl.col("name").str.contains(_MAYBE_PHASE))
    codes = {phase: code for code, phase in enumerate(rules.phases())}
    meant: dict[int, tuple[int, bool, bool]] = {}
    for name_id, name in names.collect().iter_rows():
        if phase := rules.phase(name):
            plain = rules.patterns[phase].fullmatch(name.strip(_NUMBERING)) is not None
            automatic = phase not in rules.asked and _AUTOMATIC.match(name) is not None
            meant[name_id] = (codes[phase], plain, automatic)
    named = pl.col("name_id").is_in(list(meant)) & pl.col("kind").is_in(NAMED_BY_USERS)
    frame = ranges.filter(named).collect()
    users = pl.col("domain") == ""
    frame = frame.filter(users | ~users.any().over("pid"))
    rows = frame.select("pid", "tid", "start_ns", "end_ns", "name_id").iter_rows()
    return [
        PhaseRange(pid, tid, start, end, *meant[name_id]) for pid, tid, start, end, name_id in rows
    ]


def held(ranges: Sequence[PhaseRange]) -> tuple[pl.Series, pl.Series]:
    """Return times, and from each on the code of the phase that holds: null if threads differ."""
    tids = {r.tid for r in ranges}
    timelines = {tid: _timeline(r for r in ranges if r.tid == tid) for tid in tids}
    times, codes = _any_thread(timelines)
    return times, codes.replace(_AMBIGUOUS, None)


def _by_ranges(
    trace: Trace, ops: pl.DataFrame, moments: pl.Series, found: Sequence[PhaseRange]
) -> pl.DataFrame:
    """Return the phase's `code` of each op (null: none) and `how`, process by process."""
    by_pid: dict[int, list[PhaseRange]] = {}
    for phase_range in found:
        by_pid.setdefault(phase_range.pid, []).append(phase_range)
    work = ops.select("pid", "launch_tid", "op_id").with_columns(moment=moments)
    if len(by_pid) == 1 and (work["pid"] == next(iter(by_pid))).all(ignore_nulls=False):
        ((pid, ranges),) = by_pid.items()
        return _linked_only(_in_process(trace, work, pid, ranges))
    elsewhere = ~pl.col("pid").is_in(list(by_pid)).fill_null(value=False)
    parts = [
        work.filter(elsewhere).select("op_id", "moment", code=pl.lit(None, _CODE), how=how("none"))
    ]
    for pid, ranges in by_pid.items():
        parts.append(_in_process(trace, work.filter(pl.col("pid") == pid), pid, ranges))
    return _linked_only(pl.concat(parts).sort("op_id"))


def _linked_only(found: pl.DataFrame) -> pl.DataFrame:
    """Return code and how, where ops whose launch is not known are unlinked."""
    return found.select(
        "code",
        how=pl.when(pl.col("moment").is_null()).then(how("unlinked")).otherwise("how"),
    )


def _in_process(
    trace: Trace, work: pl.DataFrame, pid: int, ranges: Sequence[PhaseRange]
) -> pl.DataFrame:
    """Return op_id, moment, code and how for the ops of one process."""
    threads = sorted({r.tid for r in ranges})
    timelines = {tid: _timeline(r for r in ranges if r.tid == tid) for tid in threads}
    together = timelines[threads[0]] if len(threads) == 1 else _any_thread(timelines)
    shared = at(*together, work["moment"])
    frame = work.with_columns(shared=shared, own=pl.lit(None, _CODE))
    for tid in threads:
        own = shared if len(threads) == 1 else at(*timelines[tid], work["moment"])
        frame = frame.with_columns(
            own=pl.when(pl.col("launch_tid") == tid).then(own).otherwise("own")
        )
    unsure = pl.col("own").is_null() & (pl.col("shared") == _AMBIGUOUS)
    frame = frame.select(
        "op_id",
        "moment",
        "launch_tid",
        code=pl.when(~unsure.fill_null(value=False)).then(pl.coalesce("own", "shared")),
        how=pl.when(pl.col("own").is_not_null())
        .then(how("own_thread"))
        .when(unsure)
        .then(how("ambiguous"))
        .when(pl.col("shared").is_not_null())
        .then(how("same_process"))
        .otherwise(how("none")),
    )
    if (frame["how"] == "ambiguous").any() and "api" in trace:
        frame = _decided(trace, frame, pid, timelines)
    return frame.select("op_id", "moment", "code", "how")


def _timeline(ranges: Iterable[PhaseRange]) -> tuple[pl.Series, pl.Series]:
    times, codes = innermost((r.start_ns, r.end_ns, r.code) for r in ranges)
    return times, codes.cast(_CODE)


def _any_thread(
    timelines: Mapping[int, tuple[pl.Series, pl.Series]],
) -> tuple[pl.Series, pl.Series]:
    """Return which phase holds on any thread: `_AMBIGUOUS` where threads differ."""
    events = sorted(
        (time, tid, label)
        for tid, (times, labels) in timelines.items()
        for time, label in zip(times, labels, strict=True)
    )
    now: dict[int, int] = {}
    times: list[int] = []
    codes: list[int | None] = []
    for time, tid, label in events:
        if label is None:
            now.pop(tid, None)
        else:
            now[tid] = label
        held = set(now.values())
        code = (held.pop() if len(held) == 1 else _AMBIGUOUS) if held else None
        if times and times[-1] == time:
            codes[-1] = code
        else:
            times.append(time)
            codes.append(code)
    return pl.Series(times, dtype=pl.Int64), pl.Series(codes, dtype=_CODE)


def _decided(
    trace: Trace,
    frame: pl.DataFrame,
    pid: int,
    timelines: Mapping[int, tuple[pl.Series, pl.Series]],
) -> pl.DataFrame:
    """Return the frame with ambiguous ops decided where just one candidate thread is blocked.

    A thread that waits for a worker makes no API call between the worker's neighbouring
    launches. Ops that stay ambiguous have no phase.
    """
    frame = frame.sort("launch_tid", "moment", "op_id").with_columns(
        before=pl.col("moment").shift().over("launch_tid"),
        after=pl.col("moment").shift(-1).over("launch_tid"),
    )
    open_case = pl.col("how") == "ambiguous"
    cases, rest = frame.filter(open_case), frame.filter(~open_case)
    calls = trace["api"].filter(pl.col("pid") == pid).select("tid", "start_ns").collect()
    votes = []
    for tid, timeline in timelines.items():
        starts = calls.filter(pl.col("tid") == tid)["start_ns"].sort()
        first = starts.search_sorted(cases["before"].fill_null(cases["moment"]), side="left")
        last = starts.search_sorted(cases["after"].fill_null(cases["moment"]), side="right")
        label = at(*timeline, cases["moment"])
        votes.append(label.to_frame("v").select(pl.when(first == last).then("v")).to_series())
    ballot = cases.select("op_id").with_columns(votes=pl.concat_list(votes).list.drop_nulls())
    single = pl.col("votes").list.unique().list.len() == 1
    decided = cases.with_columns(ballot["votes"]).with_columns(
        code=pl.when(single).then(pl.col("votes").list.first()).otherwise(None),
        how=pl.when(single).then(how("same_process")).otherwise("how"),
    )
    return pl.concat([rest, decided.drop("votes")]).sort("op_id")


def _at_their_start(frame: pl.DataFrame) -> pl.DataFrame:
    """Return the ops with the phase that their process was launching when they began to run."""
    code = pl.col("code")
    for (pid,), ops in frame.filter(code.is_not_null()).group_by("pid"):
        launched = ops.sort("launch_ns").select("launch_ns", "code")
        ran = at(launched["launch_ns"], launched["code"], frame["start_ns"])
        mine = (pl.col("pid") == pid) & code.is_not_null()
        frame = frame.with_columns(code=pl.when(mine).then(ran).otherwise("code"))
    return frame


def _filled(trace: Trace, frame: pl.DataFrame) -> pl.DataFrame:
    """Give ops without a recorded launch the phase of both neighbours of their stream.

    A stream runs its work in order of launch, so an op between two of one phase was launched
    in that phase, too.
    """
    missing = pl.col("how") == "unlinked"
    if not frame.select(missing.any()).item():
        return frame
    stream = ["pid", "device", "context", "stream"]
    # -1 stands for a linked op without a phase, so that it can be seen as a neighbour.
    seen = pl.when(~missing).then(pl.col("code").fill_null(-1))
    places = trace["gpu_ops"].select("context", "stream").collect()
    near = (
        frame.hstack(places)
        .sort("start_ns", "op_id")
        .with_columns(
            before=seen.forward_fill().over(stream), after=seen.backward_fill().over(stream)
        )
        .sort("op_id")
    )
    agreed = missing & (pl.col("before") == pl.col("after")) & (pl.col("before") >= 0)
    return near.with_columns(
        code=pl.when(agreed).then("before").otherwise("code"),
        how=pl.when(agreed).then(how("inferred")).otherwise("how"),
    ).drop("before", "after", "context", "stream")
