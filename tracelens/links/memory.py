"""A memory recording made ready for questions: replayed, with phase, step and call stack."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, TypeVar

import polars as pl

from tracelens.errors import NothingToShowError, UsageError
from tracelens.links.allocations import replay
from tracelens.links.answers import once
from tracelens.links.call_stacks import call_stacks
from tracelens.links.category_sums import FORMAT
from tracelens.links.gpus import by_gpu
from tracelens.links.memory_phases import HOW, placed
from tracelens.links.op_stacks import with_op_stacks
from tracelens.links.phases import phase_ranges, rules

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tracelens.links.answers import Answers
    from tracelens.links.phases import Rules
    from tracelens.trace.model import Trace

GROUPS: Final = ("stack", "phase", "file")
_T = TypeVar("_T")
_OVERFLOWED: Final = "trace_alloc_overflowed"
_RECORD: Final = {
    "nsys": "nsys profile --cuda-memory-usage=true records them",
    "kineto": "torch.profiler.profile(profile_memory=True) records them",
    "torch": (
        "call torch.cuda.memory._record_memory_history() before the work, and "
        "torch.cuda.memory._dump_snapshot(FILE) after it"
    ),
}


@dataclass(frozen=True)
class Ask:
    """What to look at; ``at`` is peak, oom, end or the number of a step."""

    device: int | None = None
    at: str = "peak"
    group: str = "stack"
    categories: Mapping[str, str] = field(default_factory=dict)
    phase_rules: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Memory:
    """The allocator events of a trace, replayed and attributed.

    ``events`` and ``lives`` are those of `links.allocations.Replay`. Events have `phase`, `step`
    and `how` (`links.memory_phases`). Lives have the phase and step of their allocation and of
    their end (`phase`, `step`, `end_phase`, `end_step`), and the rows of `events` that these are
    (`begun_row`, `ended_row`: of the request to free, where that was recorded). ``devices`` is
    the replay's, with `truncated`. ``stacks`` are `call_stacks`.
    """

    trace: Trace
    kind: str
    events: pl.DataFrame
    lives: pl.DataFrame
    devices: pl.DataFrame
    stacks: pl.DataFrame
    steps: pl.DataFrame
    steps_by: str
    rules: Rules
    ask: Ask
    other: Trace | None = None
    """Another recording of the same run, by whose clock phases were looked up."""
    answers: Answers = field(init=False, default_factory=dict, compare=False)

    def once(self, name: str, make: Callable[[Memory], _T]) -> _T:
        """Return ``make`` of this recording, computed at most once, whichever thread asks first."""
        return once(self.answers, name, lambda: make(self))

    @property
    def phase_source(self) -> str:
        """What tells the phases: `ranges`, `inferred` (from call stacks) or `none`."""
        ways = {*self.events["how"].unique()}
        if ways & {"annotations", "recording"}:
            return "ranges"
        return "inferred" if ways & {"stacks", "inferred"} else "none"

    def coverage(self) -> dict[str, int]:
        """Return how many events came by their phase in which way, and their total."""
        counts = dict(self.events.group_by("how").len().iter_rows())
        return {"events": self.events.height, **{how: counts.get(how, 0) for how in HOW}}

    def of(self, device: int) -> pl.DataFrame:
        """Return the events of one device, in order: row N is the event of index N."""
        first, end = (
            int(self.events["device"].search_sorted(device, side)) for side in ("left", "right")
        )
        return self.events.slice(first, end - first)

    def live_at(self, device: int, index: int | None) -> pl.DataFrame:
        """Return the lives of a device that held memory after an event; None: before the first."""
        moment = -1 if index is None else index
        begun, ended = pl.col("alloc_index"), pl.col("completed_index")
        return self.lives.filter(
            pl.col("device") == device,
            begun.is_null() | (begun <= moment),
            ended.is_null() | (ended > moment),
        )


def remember(trace: Trace, ask: Ask | None = None, other: Trace | None = None) -> Memory:
    """Replay and attribute the memory events of a trace.

    Args:
        trace: a memory snapshot, or a recording with memory events.
        ask: what to look at.
        other: another recording of the same run, for its ranges.

    Raises:
        NothingToShowError: there is nothing of memory in it.
        UsageError: there is no such device, or no such way to group.
    """
    ask = ask or Ask()
    if ask.group not in GROUPS:
        raise UsageError(f"--group {ask.group}: one of {', '.join(GROUPS)}.")
    if not {"memory", "blocks"} & trace.tables.keys() and trace.source.format != FORMAT:
        raise NothingToShowError(_how_to_record(trace))
    trace = with_op_stacks(by_gpu(trace))
    history = replay(trace)
    if history.devices.is_empty():
        raise NothingToShowError(_how_to_record(trace))
    stacks = call_stacks(trace)
    known = rules(ask.phase_rules)
    found = placed(history.events, trace, known, stacks, other)
    events = history.events.hstack(found.events)
    memory = Memory(
        trace,
        history.kind,
        events,
        _with_phases(history.lives, events),
        _with_truncated(history.devices, events, trace, known),
        stacks,
        found.steps,
        found.steps_by,
        known,
        ask,
        other if "recording" in set(events["how"].unique()) else None,
    )
    return memory if ask.device is None else _only(memory, ask.device)


def _how_to_record(trace: Trace) -> str:
    family = trace.source.format.partition("-")[0]
    how = _RECORD.get(family, _RECORD["torch"])
    return f"{trace.source.path.name} holds no memory events: {how}."


def _only(memory: Memory, device: int) -> Memory:
    known = memory.devices["device"].to_list()
    if device not in known:
        listed = ", ".join(map(str, known))
        raise UsageError(f"There is no memory of device {device}. Devices with memory: {listed}.")
    mine = pl.col("device") == device
    first = memory.events["device"].search_sorted(device)
    rows = pl.col("begun_row", "ended_row") - pl.lit(first, pl.UInt32)
    return replace(
        memory,
        events=memory.events.filter(mine),
        lives=memory.lives.filter(mine).with_columns(rows),
        devices=memory.devices.filter(mine),
    )


def _with_phases(lives: pl.DataFrame, events: pl.DataFrame) -> pl.DataFrame:
    """Return the lives with the phase and step in which they began and ended."""
    firsts = events.select("device").with_row_index("first").unique("device", keep="first")
    offset = lives.select("device").join(firsts, on="device", how="left", maintain_order="left")
    ends = pl.coalesce("requested_index", "completed_index")
    rows = lives.select(
        begun=(pl.col("alloc_index") + offset["first"]).cast(pl.UInt32),
        ended=(ends + offset["first"]).cast(pl.UInt32),
    )
    return lives.with_columns(
        begun_row=rows["begun"],
        ended_row=rows["ended"],
        phase=events["phase"].gather(rows["begun"]),
        step=events["step"].gather(rows["begun"]),
        end_phase=events["phase"].gather(rows["ended"]),
        end_step=events["step"].gather(rows["ended"]),
    )


def _with_truncated(
    devices: pl.DataFrame, events: pl.DataFrame, trace: Trace, known: Rules
) -> pl.DataFrame:
    """Say of each device whether its history was cut off at its beginning; null: not known.

    Where the recording does not say so itself, a forward or backward that ended before the first
    event shows that events of it are lost, and a history that begins with nothing held is whole.
    """
    told = _overflowed(trace)
    firsts = dict(events.group_by("device").agg(pl.col("time_ns").first()).iter_rows())
    allocating = {known.phases().index(phase) for phase in ("forward", "backward")}
    found = phase_ranges(trace, known)
    ended = sorted(r.end_ns for r in found if r.plain and r.code in allocating)
    rows: list[bool | None] = []
    for row in devices.iter_rows(named=True):
        first = firsts.get(row["device"])
        held = row["baseline_active_bytes"] or row["baseline_reserved_bytes"]
        if trace.source.format != "torch-snapshot" or not row["events"]:
            rows.append(None)
        elif row["device"] in told:
            rows.append(told[row["device"]])
        elif not held and not row["unmatched_frees"]:
            rows.append(False)
        else:
            lost = first is not None and ended and ended[0] < first
            rows.append(True if lost else None)
    return devices.with_columns(truncated=pl.Series(rows, dtype=pl.Boolean))


def _overflowed(trace: Trace) -> dict[int, bool]:
    """Return what the recording itself says of each device's ring: whether it overflowed."""
    try:
        said = json.loads(trace.source.facts.get(_OVERFLOWED, "null"))
    except ValueError:
        return {}
    if isinstance(said, list):
        said = dict(enumerate(said))
    if not isinstance(said, dict):
        return {}
    return {int(d): bool(v) for d, v in said.items() if str(d).isdigit()}
