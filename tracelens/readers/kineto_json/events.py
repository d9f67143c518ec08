"""The events that matter, as one frame for each kind: times in ns, ids that fit, facts as columns.

Events are decoded some ten thousand at a time, so that no more of them are held as objects.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from tracelens.readers.kineto_json import arguments
from tracelens.readers.kineto_json.clock import ABSOLUTE_NS, nanoseconds
from tracelens.readers.kineto_json.decode import decoded
from tracelens.trace.model import Caveat

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tracelens.readers.kineto_json.decode import Document

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
"""Category -> what an event that lasts is; the capital ones are of before 2022. Neither an event's
stream nor its name tells whether it is GPU work."""

_NO_WORK: Final = frozenset(
    (
        "", "Trace", "Python", "ac2g", "async", "async_cpu_to_gpu", "async_gpu", "collective_comm",
        "cpu_instant_event", "cuda_event", "cuda_profiler_range", "cuda_sync",
        "external_correlation", "fwdbwd", "gpu_user_annotation", "hardware_counters", "overhead",
    )
)  # fmt: skip
_OTHERS: Final[Mapping[tuple[str, str], str]] = {
    ("fwdbwd", "s"): "flow_from",
    ("fwdbwd", "f"): "flow_to",
    ("Trace", "X"): "window",
    ("cpu_instant_event", "i"): "memory",
    ("", "i"): "memory",
    ("", "M"): "naming",
}
_PYTORCHS_OWN: Final = ("ProfilerStep#", "Optimizer.")
_MEMORY: Final = "[memory]"
_LASTING: Final = ("kernel", "copy", "memset", "api", "op", "annotation", "python")
_DECODED_AT_ONCE: Final = 4_096
_SPANS_WITHOUT_WINDOW: Final = 10
_NS_PER_S: Final = 10**9
_INT32: Final = 2**31
_FIRST_TEXT: Final = 2**62
_INTEGER: Final = re.compile(r"^-?\d{1,18}$")
_NS_PER_DAY: Final = 86_400 * 10**9


class Numbers:
    """Process and thread numbers as they come; what is no 32-bit number is numbered at the end."""

    def __init__(self) -> None:
        self._texts: dict[str, int] = {}

    def of(self, values: Sequence[int | str]) -> pl.Series:
        """Return the values as numbers, some of them for the time being."""
        try:
            return pl.Series(values, dtype=pl.Int64)
        except (TypeError, OverflowError):
            return pl.Series([self._one(value) for value in values], dtype=pl.Int64)

    def final(self, columns: Iterable[pl.Series]) -> dict[int, int]:
        """Return what to replace in the columns, the same whatever the order of events."""
        texts = {number: text for text, number in self._texts.items()}
        odd: dict[int, str] = {}
        for column in columns:
            wide = column.filter(~column.is_between(-_INT32 // 2, _INT32 - 1)).unique()
            odd |= {number: texts.get(number, str(number)) for number in wide}
        ordered = sorted(odd, key=odd.__getitem__)
        return {number: place - _INT32 for place, number in enumerate(ordered)}

    def _one(self, value: int | str) -> int:
        number = int(value) if isinstance(value, int) or _INTEGER.match(value) else None
        if number is not None and abs(number) < _FIRST_TEXT:
            return number
        return self._texts.setdefault(str(value), _FIRST_TEXT + len(self._texts))


class Events:
    """The events of a trace by kind.

    ``said`` tells what was set aside; ``origin_ns`` is what was subtracted from the file's times;
    ``names`` are the texts of the name_ids, in order.
    """

    def __init__(self, document: Document, *, everything: bool = False) -> None:
        self.said = [Caveat("damaged", text) for text in document.said]
        self._everything = everything
        self._numbers = Numbers()
        self._ids: dict[str, int] = {}
        self._parts: dict[str, list[pl.DataFrame]] = {}
        self._strange: Counter[str] = Counter()
        self.count = 0
        mended, lost = 0, 0
        texts = document.events or ()
        for first in range(0, len(texts), _DECODED_AT_ONCE):
            found = decoded(texts[first : first + _DECODED_AT_ONCE])
            mended, lost = mended + found.mended, lost + found.lost
            self.count += len(found.events)
            self._take(found.events)
        if mended:
            text = f"{mended:,} events are no JSON as they stand and were mended."
            self.said.append(Caveat("damaged", text))
        if lost:
            self.set_aside(lost, "events", "they are not what an event is")
        if self._strange:
            most = self._strange.most_common(4)
            which = ", ".join(f"{name} ({count:,})" for name, count in most)
            text = f"Events of categories that are not known here are left out: {which}."
            self.said.append(Caveat("note", text))
        base = document.around.get("base_ns")
        self._base_ns = base if isinstance(base, int) else 0
        self._frames = {kind: pl.concat(parts) for kind, parts in self._parts.items()}
        self._parts.clear()
        self._number()
        self._only_possible()
        self.origin_ns = self._rebased()
        self.names = self._named()

    @property
    def epoch_ns(self) -> int | None:
        """The Unix time of the first event, if the file tells."""
        start = self._base_ns + self.origin_ns
        return start if start >= ABSOLUTE_NS else None

    @property
    def has_work(self) -> bool:
        """Whether there are events that the profiler writes of work on CPU or GPU."""
        return any(kind in self._frames for kind in _LASTING)

    def of(self, kind: str) -> pl.DataFrame:
        """Return the events of a kind: start_ns, end_ns, pid, tid, name_id, and its own facts."""
        if kind in self._frames:
            return self._frames[kind]
        empty = self._frame(kind, []).with_columns(pl.col("pid", "tid").cast(pl.Int32))
        return empty.rename({"took_ns": "end_ns"})

    def namings(self) -> pl.DataFrame:
        """Return what, pid, tid and name of events that name a process or thread."""
        texts = pl.Series(list(self._ids), dtype=pl.String)
        found = self.of("naming")
        what = texts.gather(found["name_id"])
        return found.select(what=what, pid="pid", tid="tid", said="said")

    def set_aside(self, count: int, what: str, why: str) -> None:
        """Note that some rows cannot be true."""
        self.said.append(Caveat("damaged", f"{count:,} {what} were set aside: {why}."))

    def _take(self, events: Sequence[Any]) -> None:
        alike: defaultdict[tuple[str, str], list[Any]] = defaultdict(list)
        for event in events:
            alike[event.cat, event.ph].append(event)
        by_kind: defaultdict[str, list[Any]] = defaultdict(list)
        for (category, ph), found in alike.items():
            if kind := self._kind(category, ph, len(found)):
                by_kind[kind] += found
        if "memory" in by_kind:
            by_kind["memory"] = [e for e in by_kind["memory"] if e.name == _MEMORY]
        for kind, found in by_kind.items():
            self._parts.setdefault(kind, []).append(self._frame(kind, found))

    def _kind(self, category: str, ph: str, count: int) -> str | None:
        if ph == "X" and category in KINDS:
            return KINDS[category]
        if ph == "X" and category not in _NO_WORK:
            self._strange[category] += count
        return _OTHERS.get((category, ph))

    def _frame(self, kind: str, events: list[Any]) -> pl.DataFrame:
        return pl.DataFrame(
            {
                "start_ns": nanoseconds([e.ts for e in events]),
                "took_ns": nanoseconds([e.dur for e in events]),
                "pid": self._numbers.of([e.pid for e in events]),
                "tid": self._numbers.of([e.tid for e in events]),
                "name_id": self._name_ids([e.name for e in events]),
                **arguments.columns(kind, events, everything=self._everything),
            },
            schema_overrides={"name_id": pl.Int32},
        )

    def _name_ids(self, names: Sequence[str]) -> list[int]:
        """Return the numbers of names for the time being."""
        for name in set(names).difference(self._ids):
            self._ids[name] = len(self._ids)
        return list(map(self._ids.__getitem__, names))

    def _number(self) -> None:
        """Give processes and threads numbers that fit."""
        columns = [frame[name] for frame in self._frames.values() for name in ("pid", "tid")]
        odd = self._numbers.final(columns)
        number = pl.col("pid", "tid").replace(odd) if odd else pl.col("pid", "tid")
        for kind, frame in self._frames.items():
            self._frames[kind] = frame.with_columns(number.cast(pl.Int32))

    def _only_possible(self) -> None:
        """Set aside events that cannot be, and give the others ends instead of durations."""
        longest_ns = self._longest_ns()
        took = pl.col("took_ns")
        odd = pl.col("start_ns").is_null() | took.is_null() | (took < 0)
        if self._base_ns:
            odd |= pl.col("start_ns") <= 0  # so Kineto writes times before what it counts from
        long = (took > longest_ns).fill_null(value=False)
        counts = {"odd": 0, "long": 0}
        for kind, frame in self._frames.items():
            kept = frame
            if kind in _LASTING:
                facts = frame.select(odd=odd, long=long)
                counts["odd"] += int(facts["odd"].sum())
                counts["long"] += int(facts["long"].sum())
                kept = frame.filter(~facts["odd"] & ~facts["long"])
            ends = pl.col("start_ns") + took
            self._frames[kind] = kept.with_columns(took_ns=ends).rename({"took_ns": "end_ns"})
        if counts["odd"]:
            self.set_aside(counts["odd"], "events", "no time, or a negative duration")
        if counts["long"]:
            self.set_aside(counts["long"], "events", "they last longer than the trace")

    def _longest_ns(self) -> int:
        """Return the longest duration that can be.

        It is that of the recording where the file tells (its `Trace` event), else some times the
        time between the first and the last start.
        """
        lasting = [frame for kind, frame in self._frames.items() if kind in _LASTING]
        known = [edge for f in lasting for edge in (f["start_ns"].min(), f["start_ns"].max())]
        edges = [edge for edge in known if isinstance(edge, int)]
        span = max(edges) - min(edges) if edges else 0
        window = self._frames.get("window")
        recorded = 0 if window is None else max(window["took_ns"].drop_nulls(), default=0)
        if 0 < recorded < _NS_PER_DAY:
            return max(recorded, span)
        return max(_SPANS_WITHOUT_WINDOW * span, _NS_PER_S) if span else _NS_PER_DAY

    def _rebased(self) -> int:
        """Count times from the first event that lasts, and return when that was."""
        firsts = (f["start_ns"].min() for kind, f in self._frames.items() if kind in _LASTING)
        origin_ns = min((first for first in firsts if isinstance(first, int)), default=0)
        for kind, frame in self._frames.items():
            self._frames[kind] = frame.with_columns(pl.col("start_ns", "end_ns") - origin_ns)
        lasts = (f["start_ns"].max() for kind, f in self._frames.items() if kind in _LASTING)
        last = max((last for last in lasts if isinstance(last, int)), default=0)
        if last > _NS_PER_DAY:
            text = (
                f"Some times are {last // _NS_PER_DAY:,} days apart: what spans them is not real."
            )
            self.said.append(Caveat("damaged", text))
        return origin_ns

    def _named(self) -> list[str]:
        """Number names in their order, whatever the order of events, and return them."""
        if "annotation" not in self._frames and "op" in self._frames:
            self._set_apart(self._frames["op"])
        used = pl.Series([], dtype=pl.Int32)
        for kind in _LASTING:
            used = pl.concat([used, self.of(kind)["name_id"].unique()])
        texts = list(self._ids)
        kept = sorted(used.unique(), key=texts.__getitem__)
        place = pl.Series([None] * len(texts), dtype=pl.Int32)
        place = place.scatter(kept, range(len(kept))) if kept else place
        for kind in _LASTING:
            if kind in self._frames:
                renumbered = place.gather(self._frames[kind]["name_id"])
                self._frames[kind] = self._frames[kind].with_columns(name_id=renumbered)
        return [texts[i] for i in kept]

    def _set_apart(self, ops: pl.DataFrame) -> None:
        """Make the profiler's own ranges annotations: before 2021 they were ops among others."""
        own = [i for name, i in self._ids.items() if name.startswith(_PYTORCHS_OWN)]
        is_own = pl.col("name_id").is_in(own)
        self._frames["annotation"] = ops.filter(is_own)
        self._frames["op"] = ops.filter(~is_own)
