"""Which rows the timeline has: CPU threads, then streams of each device, then memory."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import polars as pl

from tracelens.classify import FAMILIES
from tracelens.errors import TracelensError
from tracelens.links.memory import Ask, remember
from tracelens.links.phases import phase_at
from tracelens.trace.nesting import nested
from tracelens.trace.schema import NAMED_BY_USERS
from tracelens_dashboards.names import plain
from tracelens_dashboards.timeline.pyramid import (
    NO_NAME,
    NONE,
    Lane,
    Spans,
    in_order,
    lanes,
    split,
    union,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from tracelens.links.linked import Linked
    from tracelens.links.memory import Memory
    from tracelens.trace.model import Trace
    from tracelens_dashboards.library import Opened

    Floats = NDArray[np.float64]

Kind = Literal["stream", "ranges", "python", "ops", "api", "memory"]
STREAM: Final = ("device", "pid", "context", "stream")
_NAMELESS: Final = "(unnamed)"
_LANES: Final[tuple[tuple[Kind, str, list[str]], ...]] = (
    ("ranges", "ranges", list(NAMED_BY_USERS)),
    ("python", "Python", ["python"]),
    ("ops", "PyTorch ops", ["op"]),
)
"""The rows of a thread's ranges: kind, what they show, and the kinds of ranges in them."""


@dataclass(frozen=True)
class Curve:
    """What the allocator of one device held, from each time on; NaN where it is not known."""

    time: NDArray[np.int64]
    allocated: Floats
    reserved: Floats


@dataclass(frozen=True)
class Row:
    """One row: intervals in lanes, or a curve.

    Attributes:
        id: what URLs call it, the same for the same recording.
        kind: what it shows.
        group: rows of one process or one device stand together under this heading.
        label: its own name.
        table: the table of the trace whose rows its items are; empty for a curve.
        key: of a stream its device, pid, context and stream; of a thread its pid and tid.
        lanes: the intervals; nested ones lie in the lane of their depth.
        curve: of memory.
    """

    id: str
    kind: Kind
    group: str
    label: str
    table: str = ""
    key: tuple[int | None, ...] = ()
    lanes: tuple[Lane, ...] = ()
    curve: Curve | None = None

    @property
    def count(self) -> int:
        """How many intervals there are."""
        return sum(map(len, self.lanes))

    @cached_property
    def cover(self) -> Lane:
        """When anything ran in it."""
        (*_, last) = self.lanes
        return last if len(self.lanes) == 1 and not last.tangled else union(self.lanes)

    def holds(self, item: int) -> bool:
        """Tell whether an item of the row's table is in this row."""
        return any(lane.place(item) is not None for lane in self.lanes)


@dataclass(frozen=True)
class Timeline:
    """All rows of a recording, with what their codes and numbers mean."""

    rows: tuple[Row, ...]
    names: Names
    phases: tuple[str, ...]
    families: tuple[str, ...]
    steps: pl.DataFrame
    by_id: Mapping[str, Row] = field(init=False)

    def __post_init__(self) -> None:
        """Number the rows."""
        object.__setattr__(self, "by_id", {row.id: row for row in self.rows})

    @cached_property
    def span(self) -> tuple[int, int]:
        """First start and last end of anything but memory, in ns; (0, 0) where nothing is."""
        return _span(self.rows)

    def where(self, table: str, item: int) -> Row | None:
        """Return the row that holds an item of a table."""
        rows = (row for row in self.rows if row.table == table and row.holds(item))
        return next(rows, None)

    def of_thread(self, pid: int, tid: int) -> Iterator[Row]:
        """Give the rows of one thread."""
        return (row for row in self.rows if row.key == (pid, tid))


class Names:
    """The names of a trace, by name_id."""

    def __init__(self, linked: Linked) -> None:
        found = linked.trace.get("names")
        known = pl.DataFrame(schema={"name_id": pl.Int32, "name": pl.String})
        frame = known if found is None else found.select(known.columns).collect()
        ordered = frame.drop_nulls().sort("name_id")
        self.frame = ordered.unique("name_id", keep="first", maintain_order=True)
        kernels = linked.names.filter(pl.col("kind") == "kernel")
        self._short = dict(kernels.select("name_id", "short_name").iter_rows())

    def full(self, name_id: int) -> str:
        """Return a name as it was recorded, fit to be shown."""
        ids = self.frame["name_id"]
        place = int(ids.search_sorted(name_id))
        known = place < len(ids) and ids[place] == name_id
        return plain(self.frame["name"][place], 2_000) if known else _NAMELESS

    def short(self, name_id: int) -> str:
        """Return a name as tables show it: kernels without the templates' arguments."""
        short = self._short.get(name_id)
        return self.full(name_id) if short is None else plain(short)


class Labels:
    """One small number for each name_id; readers number names from below zero, too."""

    def __init__(self, ids: pl.Series, labels: Any, other: int) -> None:
        known = ids.drop_nulls()
        self._low = int(known.min() or 0)  # type: ignore[arg-type]
        self._labels = np.full(int(known.max() or 0) - self._low + 2, other, np.uint8)  # type: ignore[arg-type]
        self._labels[known.to_numpy() - self._low] = labels

    def __getitem__(self, name_ids: NDArray[np.int32]) -> NDArray[np.uint8]:
        """Return the label of each name_id, that of others where it is not known."""
        place = (name_ids - np.int32(self._low)).view(np.uint32)
        found: NDArray[np.uint8] = self._labels[np.minimum(place, len(self._labels) - 1)]
        return found


def timeline(opened: Opened) -> Timeline:
    """Return the rows of a recording, put together when first asked.

    Raises:
        NothingToShowError: it holds no trace.
    """
    return opened.once("timeline", lambda: _timeline(opened))


def _timeline(opened: Opened) -> Timeline:
    linked = opened.linked
    cpu = [*_threads(linked), *_calls(linked)]
    threads = _in_groups(linked.trace, cpu)
    rows = [*threads, *_streams(linked)]
    rows += [row for row in _memory(opened) if _within(row, _span(rows))]
    numbered = [_with_id(row, number) for number, row in enumerate(rows)]
    return Timeline(tuple(numbered), Names(linked), linked.rules.phases(), FAMILIES, linked.steps)


def _span(rows: Sequence[Row]) -> tuple[int, int]:
    spans = [lane.spans for row in rows for lane in row.lanes[:1]]
    distinct = {id(s): s for s in spans if len(s.start)}.values()
    return (
        min((int(s.start.min()) for s in distinct), default=0),
        max((int(s.end.max()) for s in distinct), default=0),
    )


def _with_id(row: Row, number: int) -> Row:
    return replace(row, id=f"{row.kind[0]}{number}")


def _streams(linked: Linked) -> Iterator[Row]:
    ops = linked.ops
    if ops.is_empty():
        return
    spans = Spans(
        _numbers(ops["start_ns"]),
        _numbers(ops["end_ns"]),
        _numbers(ops["name_id"].fill_null(NO_NAME)),
        _codes(ops["phase"]),
        _families(linked),
    )
    keys = linked.with_columns_of_ops("context", "stream").select(STREAM).with_row_index("item")
    groups = keys.group_by(STREAM).agg("item").sort(STREAM, nulls_last=True).collect()
    several = groups["pid"].n_unique() > 1
    contexts = groups.group_by("device", "pid").agg(pl.col("context").n_unique())
    busy = contexts["context"].max()
    for place, key in enumerate(groups.select(STREAM).iter_rows()):
        device, pid, context, stream = key
        gpu = "GPU ?" if device is None else f"GPU {device}"
        yield Row(
            id="",
            kind="stream",
            group=f"{gpu} (pid {pid})" if several else gpu,
            label=f"stream {stream}" + (f" (context {context})" if busy != 1 else ""),
            table="gpu_ops",
            key=key,
            lanes=lanes(spans, _numbers(groups["item"][place])),
        )


def _threads(linked: Linked) -> Iterator[Row]:
    """Give the rows of ranges: those that people name, Python's calls and PyTorch's ops."""
    table = linked.trace.get("ranges")
    if table is None:
        return
    columns = ("start_ns", "end_ns", "pid", "tid", "name_id", "kind")
    ranges = table.select(columns).collect()
    spans = _spans(linked, ranges)
    for kind, label, kinds in _LANES:
        some = ranges.with_row_index("item").filter(pl.col("kind").is_in(kinds))
        yield from _nested(some, spans, kind, label, "ranges")


def _calls(linked: Linked) -> Iterator[Row]:
    table = linked.trace.get("api")
    if table is None:
        return
    api = table.select("start_ns", "end_ns", "pid", "tid", "name_id").collect()
    yield from _nested(api.with_row_index("item"), _spans(linked, api), "api", "CUDA calls", "api")


def _spans(linked: Linked, frame: pl.DataFrame) -> Spans:
    moments = frame.select("pid", "tid", time_ns="start_ns")
    return Spans(
        _numbers(frame["start_ns"]),
        _numbers(frame["end_ns"]),
        _numbers(frame["name_id"].fill_null(NO_NAME)),
        _codes(phase_at(linked.trace, moments, linked.rules)),
    )


def _nested(frame: pl.DataFrame, spans: Spans, kind: Kind, label: str, table: str) -> Iterator[Row]:
    """Give a row per thread, with a lane for each depth."""
    threads = frame.lazy().group_by("pid", "tid").agg("item").sort("pid", "tid").collect()
    for place, (pid, tid) in enumerate(threads.select("pid", "tid").iter_rows()):
        items = in_order(spans, _numbers(threads["item"][place]))
        start, end = spans.start[items], spans.end[items]
        if (start[1:] >= end[:-1]).all():
            found: tuple[Lane, ...] = (Lane(spans, items),)
        else:
            placed = nested(
                pl.DataFrame({"item": items, "start_ns": start, "end_ns": end}).with_columns(
                    pid=pl.lit(0), tid=pl.lit(0)
                )
            )
            level = _stacked(_numbers(placed["depth"]), _numbers(placed["lane"]))
            found = split(spans, _numbers(placed["item"]), level)
        key = tuple(-1 if number is None else number for number in (pid, tid))
        yield Row("", kind, "", label, table, key, found)


def _stacked(depth: NDArray[Any], lane: NDArray[Any]) -> NDArray[np.int64]:
    """Return the row's lane of ranges that nest in lanes of their own: one below the other."""
    heights = np.zeros(int(lane.max(initial=0)) + 1, np.int64)
    np.maximum.at(heights, lane, depth + 1)
    base = np.cumsum(heights) - heights
    found: NDArray[np.int64] = base[lane] + depth
    return found


def _in_groups(trace: Trace, rows: Sequence[Row]) -> list[Row]:
    """Return the rows process by process and thread by thread, the main thread first."""
    table = trace.get("threads")
    named: dict[tuple[Any, ...], str] = {}
    if table is not None:
        found = table.select("pid", "tid", "name").drop_nulls().collect()
        named = {(pid, tid): plain(name) for pid, tid, name in found.iter_rows()}

    def begins(row: Row) -> int:
        return min(int(lane.spans.start[lane.items[0]]) for lane in row.lanes if len(lane))

    firsts: dict[tuple[Any, ...], int] = {}
    for row in rows:
        firsts[row.key] = min(firsts.get(row.key, begins(row)), begins(row))
    order = {key: (key[0], key[0] != key[1], firsts[key]) for key in firsts}
    made = []
    for row in sorted(rows, key=lambda row: order[row.key]):
        pid, tid = row.key
        process, thread = named.get((pid, pid)), named.get((pid, tid), "thread")
        group = f"{process} (pid {pid})" if process else f"process {pid}"
        made.append(replace(row, group=group, label=f"{thread} {tid}: {row.label}"))
    return made


def _memory(opened: Opened) -> Iterator[Row]:
    """Give a row per device whose memory was recorded while the trace was."""
    try:
        memory = _remembered(opened)
    except TracelensError:
        return
    by = _behind(opened.linked.trace, memory.trace)
    if by is None or memory.events.is_empty():
        return
    for device in memory.devices["device"]:
        events = memory.of(device).drop_nulls("time_ns")
        if events.is_empty():
            continue
        # Order is that of the recording; its clock may go back by a little.
        time = np.maximum.accumulate(_numbers(events["time_ns"])) + by
        values = [
            events[name].cast(pl.Float64).fill_null(float("nan")).to_numpy()
            for name in ("allocated_bytes", "reserved_bytes")
        ]
        yield Row("", "memory", f"GPU {device}", "memory", curve=Curve(time, *values))


def _remembered(opened: Opened) -> Memory:
    """Return the memory that the trace itself tells of, or else that of the snapshot beside it."""
    own = opened.linked.trace.get("memory")
    if own is None or own.select(pl.len()).collect().item() == 0:
        return opened.memory
    return opened.once("timeline memory", lambda: remember(opened.linked.trace, Ask()))


def _behind(trace: Trace, other: Trace) -> int | None:
    """Return what to add to the other recording's times; None if clocks do not compare."""
    if other.source.path == trace.source.path:
        return 0
    ours, theirs = (t.source.facts.get("epoch_ns", "") for t in (trace, other))
    if not all(text.removeprefix("-").isdigit() for text in (ours, theirs)):
        return None
    return int(theirs) - int(ours)


def _within(row: Row, span: tuple[int, int]) -> bool:
    """Tell whether anything of a row lies in a span of time; a curve may be of another time."""
    return row.curve is None or (row.curve.time[0] <= span[1] and row.curve.time[-1] >= span[0])


def _families(linked: Linked) -> NDArray[np.uint8]:
    """Return the code of each op's family, by its name and kind."""
    ops, place = linked.ops, {family: code for code, family in enumerate(FAMILIES)}
    ids = ops["name_id"].fill_null(NO_NAME).to_numpy()
    codes = np.full(len(ids), NONE, np.uint8)
    for kind in ops["kind"].unique():
        names = linked.names.filter(pl.col("kind") == kind, pl.col("name_id").is_not_null())
        labels = Labels(names["name_id"], [place.get(f, NONE) for f in names["family"]], NONE)
        mine = (ops["kind"] == kind).to_numpy()
        codes[mine] = labels[ids[mine]]
    return codes


def _codes(phases: pl.Series) -> NDArray[np.uint8]:
    return phases.to_physical().cast(pl.UInt8).fill_null(NONE).to_numpy()


def _numbers(series: pl.Series) -> Any:
    """Return a column as an array, which shares its memory where it can."""
    return series.to_numpy()
