"""The moments to look at: the peak, the end, an out-of-memory error, or the peak of one step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from tracelens.errors import NothingToShowError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracelens.links.memory import Memory


@dataclass(frozen=True)
class Moment:
    """One moment of one device: what held after the event at ``index``.

    An index of None is before the first event. ``label`` says which moment it is: peak, end, oom
    or step N.
    """

    device: int
    label: str
    index: int | None
    allocated_bytes: int
    active_bytes: int
    reserved_bytes: int | None


def asked(memory: Memory) -> list[Moment]:
    """Return the moment that was asked for of each device that has it.

    Raises:
        UsageError: it is none that is known, or there is no such step.
        NothingToShowError: no device has it.
    """
    at = memory.ask.at.strip().lower().removeprefix("step").strip()
    if at in ("peak", "end", "oom"):
        # Without a history, the state at the end is all that is known.
        found = list(named(memory, "end" if memory.events.is_empty() else at))
    elif at.isdigit():
        found = list(_steps(memory, int(at)))
    elif at.startswith("event") and at.removeprefix("event").strip().isdigit():
        found = list(_events(memory, int(at.removeprefix("event"))))
    else:
        raise UsageError(
            f"--at {memory.ask.at}: say peak, oom, end, the number of a step, or 'event N'."
        )
    if not found:
        raise NothingToShowError(
            "There was no out-of-memory error in this recording: --at peak and --at end are there."
        )
    return found


def named(memory: Memory, at: str) -> Iterator[Moment]:
    """Give the peak, the end or the last out-of-memory error of every device that has one."""
    for device in memory.devices["device"]:
        events = memory.of(device)
        if at == "oom":
            rows = (events["action"] == "oom").arg_true()
            if rows.len():
                yield moment(memory, device, "oom", rows[-1])
        elif at == "end":
            yield moment(memory, device, "end", events.height - 1 if events.height else None)
        else:
            yield peak(memory, device, events, "peak")


def peak(memory: Memory, device: int, events: pl.DataFrame, label: str) -> Moment:
    """Return when most was active during these events, the moment before the first included."""
    top = events["active_bytes"].arg_max()
    index = None if top is None else events["index"][top]
    before = None if top is None or events["index"][0] == 0 else events["index"][0] - 1
    entered = moment(memory, device, label, before)
    reached = moment(memory, device, label, index)
    return entered if top is None or entered.active_bytes > reached.active_bytes else reached


def moment(memory: Memory, device: int, label: str, index: int | None) -> Moment:
    """Return the moment after an event; None: before the first one."""
    if index is None:
        row = memory.devices.row(by_predicate=pl.col("device") == device, named=True)
        held = {c: row[f"baseline_{c}"] for c in ("allocated_bytes", "active_bytes")}
        return Moment(device, label, None, reserved_bytes=row["baseline_reserved_bytes"], **held)
    row = memory.of(device).row(index, named=True)
    return Moment(
        device, label, index, row["allocated_bytes"], row["active_bytes"], row["reserved_bytes"]
    )


def _events(memory: Memory, index: int) -> Iterator[Moment]:
    heights = {device: memory.of(device).height for device in memory.devices["device"]}
    if index >= max(heights.values()):
        raise UsageError(f"There is no event {index}: the last is {max(heights.values()) - 1}.")
    for device, height in heights.items():
        if index < height:
            yield moment(memory, device, f"event {index}", index)


def _steps(memory: Memory, step: int) -> Iterator[Moment]:
    known = memory.events["step"].drop_nulls().unique().sort()
    if step not in known:
        if known.is_empty():
            raise NothingToShowError(
                f"{memory.trace.source.path.name} marks no steps, and its phases do not repeat. "
                "Mark them with torch.profiler.record_function('step N')."
            )
        raise UsageError(f"There is no step {step}: steps are {known[0]} to {known[-1]}.")
    for device in memory.devices["device"]:
        events = memory.of(device).filter(pl.col("step") == step)
        if events.height:
            yield peak(memory, device, events, f"step {step}")
