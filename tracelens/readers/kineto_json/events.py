"""The events that matter, by what they are: times in ns, ids that fit, durations that can be."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from tracelens.readers.kineto_json.clock import ABSOLUTE_NS, nanoseconds
from tracelens.trace.model import Caveat

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tracelens.readers.kineto_json.decode import Decoded

KINDS: Final[Mapping[str, str]] = {
    "kernel": "kernel",
    "gpu_memcpy": "copy",
    "gpu_memset": "memset",
    "cuda_runtime": "api",
    "cuda_driver": "api",
    "xpu_runtime": "api",
    "xpu_driver": "api",
    "mtia_runtime": "api",
    "privateuse1_runtime": "api",
    "privateuse1_driver": "api",
    "cpu_op": "op",
    "user_annotation": "annotation",
    "python_function": "python",
    "Kernel": "kernel",
    "Memcpy": "copy",
    "Memset": "memset",
    "Runtime": "api",
    "Operator": "op",
}
"""Category -> what such an event is; the capital ones are of before 2022. Neither an event's
stream nor its name tells whether it is GPU work."""

_NO_WORK: Final = frozenset(
    (
        "", "Trace", "Python", "ac2g", "async", "async_cpu_to_gpu", "async_gpu", "collective_comm",
        "cpu_instant_event", "cuda_event", "cuda_profiler_range", "cuda_sync",
        "external_correlation", "fwdbwd", "gpu_user_annotation", "hardware_counters", "overhead",
    )
)  # fmt: skip
_PYTORCHS_OWN: Final = ("ProfilerStep#", "Optimizer.")
_SPANS_WITHOUT_WINDOW: Final = 10
_INT32: Final = 2**31
_NS_PER_DAY: Final = 86_400 * 10**9


@dataclass
class Group:
    """The events of one kind, and a frame with their rows.

    Columns: start_ns, end_ns, pid, tid, name_id.
    """

    events: list[Any]
    frame: pl.DataFrame


@dataclass
class Numbers:
    """Process and thread numbers: what is no 32-bit number gets one of its own below zero."""

    given: dict[int | str, int] = field(default_factory=dict)

    def of(self, values: Sequence[int | str]) -> pl.Series:
        """Return the values as numbers."""
        return pl.Series([self.one(value) for value in values], dtype=pl.Int32)

    def one(self, value: int | str) -> int:
        """Return a value as a number."""
        if isinstance(value, int) and -_INT32 // 2 <= value < _INT32:
            return value
        return self.given.setdefault(value, len(self.given) - _INT32)


class Events:
    """The events of a trace by kind.

    ``names`` are all their names in order, whose places are the name_ids; ``said`` tells what was
    set aside, ``origin_ns`` is what was subtracted from the times, and ``is_absolute`` whether
    they were Unix times.
    """

    def __init__(self, decoded: Decoded) -> None:
        self.said: list[Caveat] = []
        self.numbers = Numbers()
        self.by_category: dict[str, list[Any]] = {}
        for event in decoded.events or ():
            self.by_category.setdefault(event.cat, []).append(event)
        kinds = self._kinds()
        self.names = sorted({e.name for events in kinds.values() for e in events})
        self._name_ids = {name: i for i, name in enumerate(self.names)}
        base = decoded.around.get("base_ns")
        self.base_ns = base if isinstance(base, int) else 0
        groups = {kind: self._group(events) for kind, events in kinds.items()}
        self.groups = self._possible(groups)
        starts = (group.frame["start_ns"].min() for group in self.groups.values())
        self.origin_ns = min((s for s in starts if isinstance(s, int)), default=0)
        for group in self.groups.values():
            group.frame = group.frame.with_columns(
                pl.col("start_ns", "end_ns") - self.origin_ns,
            )

    @property
    def epoch_ns(self) -> int | None:
        """The Unix time of the first event, if the file tells."""
        start = self.base_ns + self.origin_ns
        return start if start >= ABSOLUTE_NS else None

    def of(self, kind: str) -> Group:
        """Return the events of a kind."""
        return self.groups.get(kind) or Group([], self._frame([]))

    def since_origin(self, times: Sequence[Any]) -> pl.Series:
        """Return times of other events on the same clock."""
        return nanoseconds(times) - self.origin_ns

    def set_aside(self, count: int, what: str, why: str) -> None:
        """Note that some rows cannot be true."""
        self.said.append(Caveat("damaged", f"{count:,} {what} were set aside: {why}."))

    def _kinds(self) -> dict[str, list[Any]]:
        kinds: dict[str, list[Any]] = {}
        strange: Counter[str] = Counter()
        for category, events in self.by_category.items():
            lasting = [event for event in events if event.ph == "X"]
            if category in KINDS:
                kinds.setdefault(KINDS[category], []).extend(lasting)
            elif category not in _NO_WORK and lasting:
                strange[category] = len(lasting)
        if "annotation" not in kinds and "op" in kinds:
            # Before 2021 the profiler's own ranges were ops among others.
            own = [e for e in kinds["op"] if e.name.startswith(_PYTORCHS_OWN)]
            if own:
                kinds["annotation"] = own
                kinds["op"] = [e for e in kinds["op"] if not e.name.startswith(_PYTORCHS_OWN)]
        if strange:
            which = ", ".join(f"{name} ({count:,})" for name, count in strange.most_common(4))
            text = f"Events of categories that are not known here are left out: {which}."
            self.said.append(Caveat("note", text))
        return kinds

    def _group(self, events: list[Any]) -> Group:
        return Group(events, self._frame(events))

    def _frame(self, events: list[Any]) -> pl.DataFrame:
        """Return start_ns, took_ns, pid, tid and name_id of events."""
        return pl.DataFrame(
            {
                "start_ns": nanoseconds([e.ts for e in events]).cast(pl.Int64),
                "end_ns": nanoseconds([e.dur for e in events]).cast(pl.Int64),
                "pid": self.numbers.of([e.pid for e in events]),
                "tid": self.numbers.of([e.tid for e in events]),
                "name_id": pl.Series([self._name_ids[e.name] for e in events], dtype=pl.Int32),
            }
        )

    def _possible(self, groups: dict[str, Group]) -> dict[str, Group]:
        """Return the groups with ends instead of durations, without events that cannot be."""
        longest_ns = self._longest_ns(groups)
        took, odd, long = pl.col("end_ns"), 0, 0
        for kind, group in groups.items():
            untold = pl.col("start_ns").is_null() | took.is_null()
            facts = group.frame.select(odd=untold | (took < 0), long=took > longest_ns)
            odd += int(facts["odd"].sum())
            long += int(facts["long"].sum())
            keep = facts.select(~(pl.col("odd") | pl.col("long").fill_null(value=False)))["odd"]
            if not keep.all():
                chosen = [e for e, kept in zip(group.events, keep, strict=True) if kept]
                group = Group(chosen, group.frame.filter(keep))  # noqa: PLW2901
            groups[kind] = Group(
                group.events, group.frame.with_columns(end_ns=pl.col("start_ns") + took)
            )
        if odd:
            self.set_aside(odd, "events", "no time, or a negative duration")
        if long:
            self.set_aside(long, "events", "they last longer than the trace")
        return groups

    def _longest_ns(self, groups: Mapping[str, Group]) -> int:
        """Return the longest duration that can be.

        It is that of the recording where the file tells (its `Trace` event), else some times the
        time between the first and the last start.
        """
        starts = [group.frame["start_ns"] for group in groups.values()]
        known = [start for series in starts for start in (series.min(), series.max())]
        edges = [edge for edge in known if isinstance(edge, int)]
        span = max(edges) - min(edges) if edges else 0
        windows = nanoseconds([e.dur for e in self.by_category.get("Trace", ())])
        recorded = max(windows.drop_nulls(), default=0)
        if 0 < recorded < _NS_PER_DAY:
            return max(recorded, span)
        return max(_SPANS_WITHOUT_WINDOW * span, _NS_PER_DAY if span == 0 else 0)
