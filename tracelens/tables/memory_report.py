"""The report of `tracelens memory`: what stands above its tables, and how far to trust them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens import units
from tracelens.analyses.memory.composition import composition
from tracelens.analyses.memory.devices import devices
from tracelens.analyses.memory.live import live
from tracelens.analyses.memory.phases import phases
from tracelens.analyses.memory.timeline import timeline
from tracelens.links.moments import named
from tracelens.tables import Course
from tracelens.tables.build import Topic
from tracelens.tables.standout import looked_at_memory

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tracelens.links.memory import Memory
    from tracelens.tables import Table

ORDER: Final = (
    "devices", "phases", "live", "categories", "largest", "ooms", "fragmentation", "leaks",
    "churn", "outside", "timeline", "composition", "findings",
)  # fmt: skip
_PARTS: Final = 80
DEFAULT: Final = ("live", "largest")
_HOW: Final = {
    "annotations": "by annotations",
    "recording": "by another recording's ranges",
    "stacks": "by call stacks",
    "inferred": "inferred",
    "none": "none",
}
_KINDS: Final = {
    "totals": "totals are torch.profiler's: blocks as rounded up; active is allocated",
    "deltas": "sizes are those of CUDA's own allocations (segments, NCCL, cuDNN), not of tensors",
    "sums": "sums by category as PyTorch's profiler told them: no blocks, stacks or devices",
}


def defaults(memory: Memory) -> tuple[str, ...]:
    """Return what is shown when no table was named."""
    failed = (memory.events["action"] == "oom").any()
    return (*(("ooms",) if failed else ()), *DEFAULT)


def _ahead(memory: Memory) -> None:
    """Look for what stands out beside the rest: together they take half of the time."""
    ahead = ThreadPoolExecutor(1)
    ahead.submit(looked_at_memory, memory)
    ahead.shutdown(wait=False)


def headline(memory: Memory) -> str:
    """Return one line: file, recorder, devices, events, peak and what was reserved."""
    source = memory.trace.source
    told = devices(memory)
    parts = [source.path.name, f"{source.producer or 'torch'} {_what(memory)}"]
    parts += [_device(memory)]
    parts.append(f"{units.count(memory.events.height)} events")
    top = told.sort("peak_active_bytes", descending=True).row(0, named=True)
    where = _where(top)
    if memory.events.height:
        on = f" on device {top['device']}" if told.height > 1 else ""
        parts.append(f"peak {units.size(top['peak_active_bytes'])}{on}{where}")
    else:
        parts.append(f"active {units.size(top['end_active_bytes'])}")
    if top["peak_reserved_bytes"] is not None and memory.kind != "deltas":
        parts.append(f"reserved {units.size(top['peak_reserved_bytes'])}")
    return " · ".join(parts)


def _what(memory: Memory) -> str:
    return {"snapshot": "memory snapshot", "sums": "memory timeline"}.get(memory.kind, "memory")


def _device(memory: Memory) -> str:
    ordinals = memory.devices["device"].to_list()
    return f"device {ordinals[0]}" if len(ordinals) == 1 else f"{len(ordinals)} devices"


def _where(row: Mapping[str, object]) -> str:
    step = "" if row["peak_step"] is None else f" of step {row['peak_step']}"
    if row["peak_phase"] is None:
        return f" in{step.removeprefix(' of')}" if step else ""
    return f" in {row['peak_phase']}{step}"


def trust(memory: Memory) -> tuple[str, ...]:
    """Return lines on what was there before, on phases and on what no stack is known of."""
    lines = [_beginning(memory)] if memory.kind == "snapshot" else [_KINDS[memory.kind]]
    lines += [" · ".join(text for text in (_phases(memory), *_stacks(memory)) if text)]
    return tuple(line for line in lines if line)


def _beginning(memory: Memory) -> str:
    if memory.events.is_empty():
        return "no history was recorded: what follows is the state when the snapshot was taken"
    told = devices(memory)
    before = int(told["baseline_active_bytes"].sum())
    known = f"{units.size(before)} held before the first event (exact)"
    cut = {*told["truncated"]}
    if True in cut:
        begins = "the oldest events are lost (full ring)"
    elif cut == {False}:
        begins = "the recording is whole from the first allocation on"
    else:
        begins = "unknown if events were lost"
    one_free = memory.devices["one_free"].any()
    frees = ["only one step of each free was recorded: active and allocated are one"] * one_free
    return " · ".join([known if before else begins, *([begins] if before else []), *frees])


def _phases(memory: Memory) -> str:
    counts = memory.coverage()
    total = counts["events"]
    if not total or memory.kind == "sums":
        return ""
    if memory.phase_source == "none":
        return "no phases: no annotation, range or call stack names one"
    parts = [
        f"{units.share(counts[how] / total)} {label}" for how, label in _HOW.items() if counts[how]
    ]
    name = f" ({memory.other.source.path.name})" if memory.other else ""
    return f"phases: {', '.join(parts)}{name}"


def _stacks(memory: Memory) -> list[str]:
    blank, total = 0, 0
    for moment in named(memory, "peak"):
        blocks = memory.live_at(moment.device, moment.index)
        blank += int(blocks.filter(pl.col("stack_id").is_null())["size_bytes"].sum())
        total += moment.active_bytes
    if not blank or total <= 0 or memory.kind == "sums":
        return []
    return [f"no call stack for {units.share(blank / total)} of the peak"]


def hints(memory: Memory, names: Sequence[str]) -> tuple[str, ...]:
    """Return options that show more of this very recording."""
    possible = {
        "--table fragmentation": memory.kind == "snapshot",
        "--table churn": memory.lives.height > 0 and memory.events.height > 0,
        "--group phase": memory.ask.group != "phase",
        "--table all": True,
        "--figure memory.html": memory.events.height > 1,
    }
    return tuple(hint for hint, fits in possible.items() if fits and hint.split()[-1] not in names)


def why_empty(memory: Memory, name: str) -> str:
    """Return why a table has no rows."""
    if name == "ooms":
        return "there was no out-of-memory error"
    if name == "findings":
        return "no rule found anything worth a change"
    if name == "leaks":
        return "no block outlives the step after its own"
    if name in ("largest", "churn", "phases") and not memory.events.height:
        return "no history was recorded"
    return {"churn": "no allocation is short-lived"}.get(name, "nothing was allocated")


def shown_as(memory: Memory, table: Table) -> Table:
    """Return the table as it is shown: with the moment in its title."""
    if table.analysis not in ("live", "categories"):
        return table
    found = live(memory)
    if found.is_empty():
        return table
    moment = moment_in_words(str(found["at"][0]))
    single = found["device"].n_unique() == 1
    total = f": {units.size(int(found['bytes'].sum()))}" if single else " of each device"
    note = "Categories are the profiler's own." if memory.kind == "sums" else table.note
    return replace(table, title=f"Live at {moment}{total}", note=note)


def moment_in_words(label: str) -> str:
    """Return which moment a label of `links.moments` means, for a sentence."""
    if label.startswith("step"):
        return f"the peak of {label}"
    known = {"peak": "the peak", "end": "the end", "oom": "the out-of-memory error"}
    return known.get(label, label)


def courses(memory: Memory) -> tuple[Course, ...]:
    """Return how memory ran on each device, that of the highest peak first."""
    history = timeline(memory)
    found = []
    for row in devices(memory).sort("peak_active_bytes", descending=True).iter_rows(named=True):
        rows = history.filter(pl.col("device") == row["device"], pl.col("index").is_not_null())
        if rows.height < 2:
            continue
        timed = is_spread(memory.of(row["device"])["time_ns"])
        x = pl.col("time_ns") - pl.col("time_ns").min() if timed else pl.col("index")
        frame = rows.select(
            "index", "active_bytes", "reserved_bytes", "phase", "step", "action", x=x
        )
        at_peak = frame.filter(pl.col("index") == (row["peak_index"] or 0))
        found.append(
            Course(
                title=_course_title(memory, row["device"]),
                unit="ns" if timed else "count",
                frame=frame.drop("index", "action"),
                peak_x=int(at_peak["x"][0]) if at_peak.height else 0,
                peak_bytes=row["peak_active_bytes"],
                errors_x=tuple(frame.filter(pl.col("action") == "oom")["x"]),
                note=_peaks(memory, row["device"]),
                groups=partial(_groups, memory, row["device"], frame["index"]),
                by_phase=memory.ask.group == "phase",
            )
        )
    return tuple(found)


def _groups(memory: Memory, device: int, moments: pl.Series) -> pl.DataFrame:
    """Return place, group and bytes of what was active on a device, at the moments of a course."""
    held = composition(memory).filter(pl.col("device") == device)
    places = moments.to_frame().with_row_index("place")
    return held.join(places, on="index", maintain_order="left").select("place", "group", "bytes")


def is_spread(times: pl.Series) -> bool:
    """Tell whether events are spread over the time, so that time is a good axis.

    Where most of the time nothing happens, the order of events is a better one.
    """
    if times.null_count() or not times.is_sorted() or times[0] == times[-1]:
        return False
    parts = ((times - times[0]) * _PARTS) // (times[-1] - times[0] + 1)
    return int(parts.n_unique()) > _PARTS // 2


def _peaks(memory: Memory, device: int) -> str:
    """Return the peak of each phase, whichever the step."""
    named = phases(memory).filter(pl.col("device") == device, pl.col("phase").is_not_null())
    tops = named.group_by("phase", maintain_order=True).agg(pl.col("peak_active_bytes").max())
    if tops.is_empty():
        return ""
    sizes = units.column("bytes", tops["peak_active_bytes"])
    return "Peaks: " + " · ".join(f"{p} {s}" for p, s in zip(tops["phase"], sizes, strict=True))


def _course_title(memory: Memory, device: int) -> str:
    what = {"deltas": "Memory taken from CUDA █", "totals": "Memory allocated █"}.get(
        memory.kind, "Memory active █"
    )
    if memory.kind in ("snapshot", "totals"):
        what += " reserved ╌"
    return what if memory.devices.height == 1 else f"{what} on device {device}"


MEMORY: Final[Topic[Memory]] = Topic(
    tables="memory_table",
    analyses="memory_analysis",
    order=ORDER,
    headline=headline,
    trust=trust,
    look=lambda memory, _costly: looked_at_memory(memory),
    hints=hints,
    why_empty=why_empty,
    shown_as=shown_as,
    prepare=_ahead,
    courses=courses,
)
"""Where memory went: the tables of `tracelens memory`."""
