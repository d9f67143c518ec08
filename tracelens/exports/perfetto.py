"""A timeline for ui.perfetto.dev: ranges, calls, GPU streams, launch arrows, phases and memory.

The file is JSON in Chrome's trace event format. Perfetto drops a slice that overlaps another one
on its track without nesting in it, so whatever overlaps gets a track of its own; and it drops
negative times, so these are shifted, and `otherData` says by how much.
"""

from __future__ import annotations

import gzip
import json
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Final

import polars as pl

from tracelens import __version__
from tracelens.errors import NothingToShowError
from tracelens.exports import Exporter, Progress, no_progress
from tracelens.exports.cuts import calls
from tracelens.links.allocations import replay
from tracelens.links.linked import NO_PHASE
from tracelens.trace.intervals import at, innermost
from tracelens.trace.nesting import nested
from tracelens.trace.schema import API, GPU_OPS, OPS, RANGES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from tracelens.links.linked import Linked

    Key = tuple[str, tuple[object, ...]]
    Keys = tuple[str, ...]
    Numbers = tuple[int, int]

_ROWS: Final = 50_000
_COMPRESSION: Final = 4  # half the time of the default level, for a tenth more bytes
_FIRST_MADE_UP: Final = 10_000_000  # above every process id of Linux
_LAST_REAL: Final = 2**31 - 1
_EXACT: Final = 2.0**53
_COLOURS: Final = {
    "forward": "thread_state_running",
    "backward": "thread_state_iowait",
    "optimizer": "rail_response",
}
"""Colours of chrome://tracing; Perfetto colours by name and ignores them."""

_THREAD: Final = ("pid", "tid", "frames")
"""A thread's Python frames have a track of their own: they close later than what they call."""
_STREAM: Final = ("pid", "device", "context", "stream")
_SAMPLES: Final = {
    "time_ns": pl.Int64,
    "pid": pl.Int32,
    "device": pl.Int32,
    "name": pl.String,
    "value": pl.Float64,
}
_DETAILS: Final = (
    "correlation", "bytes", "graph_id", "graph_node", "grid_x", "grid_y", "grid_z",
    "block_x", "block_y", "block_z", "registers", "shared_bytes",
)  # fmt: skip


def write(linked: Linked, path: Path, /, *, progress: Progress = no_progress) -> None:
    """Write the timeline, packed if the file's name ends in .gz.

    Raises:
        NothingToShowError: there is nothing to draw.
    """
    tracks = _Tracks()
    cpu = _on_threads(linked, tracks)
    steps = _steps(linked, tracks)
    gpu = _on_streams(linked, tracks)
    phases = _phases(gpu, tracks)
    counters = _counters(linked, tracks)
    if not cpu.height and not gpu.height and not counters.height:
        raise NothingToShowError(
            f"{linked.trace.source.path.name} holds no GPU work, API calls, ranges or memory "
            "events to draw."
        )
    clock = _clock((cpu, steps, gpu, counters))
    parts = (
        _Part(phases, _phase_text(clock)),
        _Part(steps, _step_text(clock)),
        _Part(cpu, _cpu_text(clock, cpu), _names(linked, cpu)),
        _Part(gpu, _gpu_text(clock, linked.rules.phases()), _details(linked, cpu)),
        _Part(counters, _counter_text(clock, counters)),
    )
    done, total = 0, sum(part.frame.height for part in parts)
    with _opened(path) as file:
        file.write('{"traceEvents":[\n' + ",\n".join(tracks.described(linked)))
        for part in parts:
            for piece in part.frame.iter_slices(_ROWS):
                file.write(",\n" + ",\n".join(part.complete(piece).select(part.text).to_series()))
                done += piece.height
                progress("writing events", done, total)
        file.write(f'\n],"otherData":{_about(linked, clock)}}}\n')


def _as_it_is(piece: pl.DataFrame) -> pl.DataFrame:
    return piece


@dataclass(frozen=True)
class _Part:
    """Rows to write, the text of each, and what a piece of them is completed by before.

    Columns are added piece by piece, as all of them at once would take gigabytes.
    """

    frame: pl.DataFrame
    text: pl.Expr
    complete: Callable[[pl.DataFrame], pl.DataFrame] = _as_it_is


@contextmanager
def _opened(path: Path) -> Iterator[IO[str]]:
    if path.suffix == ".gz":
        with gzip.open(
            path, "wt", compresslevel=_COMPRESSION, encoding="utf-8", newline=""
        ) as file:
            yield file
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            yield file


def _about(linked: Linked, clock: _Clock) -> str:
    source = linked.trace.source
    return _json(
        {
            "recording": _clean(source.path.name),
            "recorder": _clean(source.producer or source.format),
            "written_by": f"tracelens {__version__}",
            "shifted_by_ns": str(clock.shift_ns),
            "phase_source": linked.phase_source,
        }
    )


# Where things are drawn: processes, threads, and lanes for what overlaps.


@dataclass
class _Tracks:
    """Gives every track a process and a thread number of its own, as viewers tell them by these.

    Real ids are kept where they can be used and are not taken; the keys say what a track is.
    """

    processes: dict[Key, int] = field(default_factory=dict)
    threads: dict[Key, Numbers] = field(default_factory=dict)
    _taken: set[int] = field(default_factory=set)
    _next: int = _FIRST_MADE_UP

    def process(self, kind: str, *of: object, real: object = None) -> int:
        """Return the number of a process."""
        key = (kind, of)
        if key not in self.processes:
            self.processes[key] = self._number(real)
        return self.processes[key]

    def thread(self, process: int, kind: str, *of: object, real: object = None) -> Numbers:
        """Return the numbers of process and track; a main thread bears its process's."""
        key = (kind, of)
        if key not in self.threads:
            main = real == process and (process, process) not in self.threads.values()
            self.threads[key] = (process, process if main else self._number(real))
        return self.threads[key]

    def _number(self, real: object) -> int:
        if isinstance(real, int) and 0 < real <= _LAST_REAL and real not in self._taken:
            self._taken.add(real)
            return real
        while self._next in self._taken:
            self._next += 1
        self._taken.add(self._next)
        return self._next

    def described(self, linked: Linked) -> list[str]:
        """Return the events that name processes and threads, in the order of their making."""
        label = _Labels(linked, several=len({of[0] for _, of in self.processes}) > 1)
        lines = []
        for order, ((kind, of), pid) in enumerate(self.processes.items()):
            lines.append(_metadata("process_name", pid, None, label.process(kind, *of)))
            lines.append(_metadata("process_sort_index", pid, None, order))
        for order, ((kind, of), (pid, tid)) in enumerate(self.threads.items()):
            lines.append(_metadata("thread_name", pid, tid, label.track(kind, *of)))
            lines.append(_metadata("thread_sort_index", pid, tid, order))
        return lines


class _Labels:
    """What processes and tracks are called; ``several`` processes are told apart on GPUs, too."""

    def __init__(self, linked: Linked, *, several: bool) -> None:
        threads, devices = linked.trace.get("threads"), linked.trace.get("devices")
        named = [] if threads is None else threads.collect().iter_rows()
        gpus = (
            [] if devices is None else devices.select("pid", "device", "name").collect().iter_rows()
        )
        self._threads = {(pid, tid): name for pid, tid, name in named if name}
        self._gpus = {(pid, device): name for pid, device, name in gpus if name}
        self._several = several

    def process(self, kind: str, pid: object, device: object = None) -> str:
        program = f"{self._threads.get((pid, pid)) or 'process'} {_known(pid)}"
        if kind == "host":
            return program
        name = self._gpus.get((pid, device)) or self._gpus.get((None, device)) or ""
        gpu = f"GPU {_known(device)} {name}".strip()
        return f"{gpu}, used by {program}" if self._several else gpu

    def track(self, kind: str, *key: object) -> str:
        if kind == "phases":
            return "phase that launched the work"
        if kind == "thread":
            pid, tid, frames, lane = key
            name = self._threads.get((pid, tid)) or f"thread {_known(tid)}"
            name = f"{name}, Python frames" if frames else name
        elif kind == "stream":
            _, _, context, stream, lane = key
            name = f"stream {_known(stream)}, context {_known(context)}"
        else:
            name, lane = "steps", key[-1]
        return f"{name}, overlapping ({lane})" if lane else name


def _known(number: object) -> str:
    return "unknown" if number is None else str(number)


def _metadata(name: str, pid: int, tid: int | None, value: str | int) -> str:
    args = {"name": _clean(value)} if isinstance(value, str) else {"sort_index": value}
    thread = {} if tid is None else {"tid": tid}
    return _json({"ph": "M", "pid": pid, **thread, "name": name, "args": args})


def _on_threads(linked: Linked, tracks: _Tracks) -> pl.DataFrame:
    """Return ranges and API calls with their tracks; a call nests in the range that made it."""
    # Columns that a recording lacks are null; places are found anew, for ranges and calls at once.
    columns = {**RANGES.schema(everything=True), **API.schema(everything=True)}
    parts = [pl.DataFrame(schema={**columns, "launch_row": pl.UInt32, "cat": pl.String})]
    if "ranges" in linked.trace:
        parts.append(linked.ranges().with_columns(cat=pl.lit("range")).collect())
    if (api := calls(linked)) is not None:
        parts.append(api.with_columns(cat=pl.lit("api")))
    both = pl.concat(parts, how="diagonal_relaxed").drop("depth", "lane", "parent")
    both = both.rename({"range_id": "range_row"}).with_columns(
        frames=(pl.col("kind") == "python").fill_null(value=False)
    )
    nests = [nested(both.filter(pl.col("frames") == frames)) for frames in (False, True)]
    both = pl.concat(nests).drop("range_id", "depth", "parent")
    placed = {
        key: tracks.thread(
            tracks.process("host", key[0], real=key[0]),
            "thread",
            *key,
            real=None if any(key[2:]) else key[1],
        )
        for key in _keys(both, _THREAD)
    }
    return _placed(both, _THREAD, placed)


def _on_streams(linked: Linked, tracks: _Tracks) -> pl.DataFrame:
    """Return the GPU work in order of start, with its tracks."""
    work = linked.with_columns_of_ops("context", "stream").sort("start_ns", "end_ns", "op_id")
    ops = _in_lanes(work.collect(), _STREAM)
    placed = {
        key: tracks.thread(tracks.process("gpu", *key[:2]), "stream", *key)
        for key in _keys(ops, _STREAM)
    }
    return _placed(ops, _STREAM, placed)


def _steps(linked: Linked, tracks: _Tracks) -> pl.DataFrame:
    """Return the steps with their tracks, one for each process."""
    steps = _in_lanes(linked.steps.sort("start_ns", "pid", "step"), ("pid",))
    placed = {
        key: tracks.thread(tracks.process("host", key[0], real=key[0]), "steps", *key)
        for key in _keys(steps, ("pid",))
    }
    return _placed(steps, ("pid",), placed)


def _phases(gpu: pl.DataFrame, tracks: _Tracks) -> pl.DataFrame:
    """Return one row per stretch of a GPU's work of one phase, with its track.

    A stretch is cut where the next one begins, so it may end before its last kernel does.
    """
    on = ["pid", "device"]
    stretches = (
        gpu.with_columns(run=pl.col("phase").rle_id().over(on))
        .group_by(*on, "run", "phase", maintain_order=True)
        .agg(pl.col("start_ns").min(), pl.col("end_ns").max(), ops=pl.len())
        .with_columns(end_ns=pl.min_horizontal("end_ns", pl.col("start_ns").shift(-1).over(on)))
        .filter(pl.col("phase").is_not_null())
        .with_columns(lane=pl.lit(0, pl.Int32))
    )
    placed = {
        key: tracks.thread(tracks.process("gpu", *key[:2]), "phases", *key)
        for key in _keys(stretches, ("pid", "device"))
    }
    return _placed(stretches, ("pid", "device"), placed)


def _counters(linked: Linked, tracks: _Tracks) -> pl.DataFrame:
    """Return samples of memory and of metrics with the number of their GPU's process."""
    frames = [pl.DataFrame(schema=_SAMPLES)]
    memory = linked.trace.get("memory")
    if memory is not None and not memory.limit(1).collect().is_empty():
        frames.append(_memory(linked))
    if (metrics := linked.trace.get("counters")) is not None:
        frames.append(metrics.with_columns(pid=pl.lit(None, pl.Int32)).select(*_SAMPLES).collect())
    samples = pl.concat(frames).rename({"time_ns": "start_ns"})
    samples = samples.filter(pl.col("start_ns").is_not_null(), pl.col("value").is_finite())
    if linked.spans is not None:
        spans = ((start, end, 1) for _, start, end in linked.spans)
        samples = samples.filter(at(*innermost(spans), samples["start_ns"]).is_not_null())
    if not linked.whole:
        samples = samples.filter(pl.col("device").is_in(linked.ops["device"].unique().implode()))
    users = [of for kind, of in tracks.processes if kind == "gpu"]
    placed = []
    for pid, device in samples.select("pid", "device").unique(maintain_order=True).iter_rows():
        of_device = [of for of in users if of[1] == device]
        # Metrics name no process; what one process uses alone, they stand with.
        of = of_device[0] if pid is None and len(of_device) == 1 else (pid, device)
        placed.append((pid, device, tracks.process("gpu", *of)))
    schema = {"pid": pl.Int32, "device": pl.Int32, "track_pid": pl.Int64}
    where = pl.DataFrame(placed, schema=schema, orient="row")
    return samples.join(where, on=["pid", "device"], nulls_equal=True, maintain_order="left")


def _memory(linked: Linked) -> pl.DataFrame:
    """Return what each device had allocated and reserved, whenever that changed."""
    history = replay(linked.trace)
    # Of allocations alone it is not known what an allocator held beyond them.
    curves = ("allocated",) if history.kind == "deltas" else ("allocated", "reserved")
    parts = []
    for curve in curves:
        value = pl.col(f"{curve}_bytes").cast(pl.Float64).alias("value")
        events = history.events.select(
            "time_ns", "pid", "device", value, name=pl.lit(f"{curve} bytes")
        )
        changed = pl.col("value").ne_missing(pl.col("value").shift()).over("device")
        parts.append(events.drop_nulls("time_ns").filter(changed).select(*_SAMPLES))
    return pl.concat(parts)


def _keys(frame: pl.DataFrame, keys: Keys) -> Iterator[tuple[int, ...]]:
    return frame.select(*keys, "lane").unique().sort(*keys, "lane", nulls_last=True).iter_rows()


def _placed(
    frame: pl.DataFrame, keys: Keys, placed: dict[tuple[int, ...], Numbers]
) -> pl.DataFrame:
    """Return the frame with the numbers of each row's track."""
    on = [*keys, "lane"]
    schema = {key: frame.schema[key] for key in on}
    where = pl.DataFrame(
        [(*key, *numbers) for key, numbers in placed.items()],
        schema={**schema, "track_pid": pl.Int64, "track_tid": pl.Int64},
        orient="row",
    )
    return frame.join(where, on=on, how="left", nulls_equal=True, maintain_order="left")


def _in_lanes(ordered: pl.DataFrame, keys: Keys) -> pl.DataFrame:
    """Return the rows with a `lane` on which none overlap; nearly every track needs only one."""
    reached = pl.col("end_ns").cum_max().shift().over(keys)
    overlaps = (pl.col("start_ns") < reached).fill_null(value=False)
    crowded = ordered.select(overlaps.any().over(keys)).to_series()
    lanes = pl.Series([0], dtype=pl.Int32).new_from_index(0, ordered.height)
    if crowded.any():
        rows = ordered.select(pl.struct(keys), "start_ns", "end_ns").filter(crowded)
        lanes = lanes.scatter(crowded.arg_true(), pl.Series(_first_free(rows), dtype=pl.Int32))
    return ordered.with_columns(lane=lanes)


def _first_free(rows: pl.DataFrame) -> list[int]:
    """Return for each interval the first lane of its track that is free when it starts."""
    ends: dict[tuple[object, ...], list[int]] = {}
    found = []
    for key, start, end in rows.iter_rows():
        lanes = ends.setdefault(tuple(key.values()), [])
        lane = next((number for number, last in enumerate(lanes) if last <= start), len(lanes))
        lanes[lane : lane + 1] = [end]
        found.append(lane)
    return found


# What is said of things.


def _names(linked: Linked, cpu: pl.DataFrame) -> Callable[[pl.DataFrame], pl.DataFrame]:
    """Return what adds to ranges and calls `text`, their name as JSON, and what PyTorch says."""
    names = linked.trace["names"].join(cpu.lazy(), on="name_id", how="semi").collect()
    quoted = names.select("name_id", text=_quoted(names["name"]))
    ops = linked.trace.get("ops")
    ops = OPS.empty().lazy() if ops is None else ops
    said = ops.select("sequence", "dims", range_row="range_id").collect()
    dims = said.select(pl.col("dims").drop_nulls().unique()).to_series()
    shapes = pl.DataFrame({"dims": dims, "shapes": _quoted(dims)})

    def complete(piece: pl.DataFrame) -> pl.DataFrame:
        return (
            piece.join(quoted, on="name_id", how="left", maintain_order="left")
            .join(said, on="range_row", how="left", maintain_order="left")
            .join(shapes, on="dims", how="left", maintain_order="left")
        )

    return complete


def _details(linked: Linked, cpu: pl.DataFrame) -> Callable[[pl.DataFrame], pl.DataFrame]:
    """Return what adds to GPU work its names as JSON, the recording's details, and its call."""
    names = linked.names.select(
        "name_id",
        "kind",
        text=_quoted(linked.names["short_name"]),
        full=_quoted(linked.names["name"]),
        family=_quoted(linked.names["family"]),
    )
    table = linked.trace.get("gpu_ops")
    recorded = GPU_OPS.empty(everything=True).lazy() if table is None else table
    have = recorded.collect_schema()
    # Row number op_id of the table is the op itself.
    details = recorded.select(c for c in _DETAILS if c in have).collect()
    missing = {name: pl.lit(None, pl.Int64) for name in _DETAILS if name not in have}
    calls = cpu.filter(pl.col("launch_row").is_not_null()).select(
        "launch_row", call_pid="track_pid", call_tid="track_tid"
    )

    def complete(piece: pl.DataFrame) -> pl.DataFrame:
        first, last = piece["launch_row"].min(), piece["launch_row"].max()
        near = calls.filter(pl.col("launch_row").is_between(first, last))
        return (
            piece.hstack(details[piece["op_id"]])
            .with_columns(**missing)
            .join(names, on=["name_id", "kind"], how="left", maintain_order="left")
            .join(near, on="launch_row", how="left", maintain_order="left")
        )

    return complete


def _quoted(texts: pl.Series) -> pl.Series:
    return pl.Series(texts.name, [_json(_clean(text or "(unnamed)")) for text in texts], pl.String)


def _clean(text: str) -> str:
    """Return a text without control characters, which Perfetto's parser takes for an error."""
    return "".join(c if c.isprintable() or ord(c) >= 0xA0 else " " for c in text)


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


# The text of events, made by polars for many rows at once.


@dataclass(frozen=True)
class _Clock:
    """Writes times as microseconds with three decimals, shifted so that none is negative."""

    shift_ns: int

    def at(self, ns: pl.Expr) -> pl.Expr:
        return self.us(ns.cast(pl.Int128) + self.shift_ns if self.shift_ns else ns)

    def took(self) -> pl.Expr:
        start, end = pl.col("start_ns"), pl.col("end_ns")
        # A time before zero and a late one may be further apart than 64 bits tell.
        return self.us(end.cast(pl.Int128) - start if self.shift_ns else end - start)

    def us(self, ns: pl.Expr) -> pl.Expr:
        whole, rest = (ns // 1000).cast(pl.String), (ns % 1000).cast(pl.String).str.zfill(3)
        return pl.concat_str(whole, pl.lit("."), rest)


def _clock(frames: Sequence[pl.DataFrame]) -> _Clock:
    first = [start for frame in frames if isinstance(start := frame["start_ns"].min(), int)]
    return _Clock(max(0, -min(first, default=0)))


def _slice(
    clock: _Clock, cat: pl.Expr, name: pl.Expr, args: Sequence[pl.Expr], *more: pl.Expr
) -> pl.Expr:
    """Return a slice of `start_ns` to `end_ns` on the row's track; null args are left out."""
    return pl.concat_str(
        pl.lit('{"ph":"X","ts":'),
        clock.at(pl.col("start_ns")),
        pl.lit(',"dur":'),
        clock.took(),
        pl.format(',"pid":{},"tid":{},"cat":"{}","name":{}', "track_pid", "track_tid", cat, name),
        *more,
        pl.lit(',"args":{'),
        pl.concat_str(*args, separator=",", ignore_nulls=True),
        pl.lit("}}"),
    )


def _arg(name: str, value: pl.Expr | None = None) -> pl.Expr:
    return pl.concat_str(pl.lit(f'"{name}":'), pl.col(name) if value is None else value)


def _among(column: str, values: Sequence[str | None], default: str) -> pl.Expr:
    """Return a column of few distinct texts as JSON."""
    known = {value: _json(_clean(value)) for value in values if value}
    text = pl.col(column).cast(pl.String)
    if not known:
        return pl.lit(_json(default))
    return text.replace_strict(known, default=_json(default), return_dtype=pl.String)


def _phase_text(clock: _Clock) -> pl.Expr:
    name = pl.col("phase").cast(pl.String).map_elements(_json, return_dtype=pl.String)
    return _slice(clock, pl.lit("phase"), name, [_arg("gpu_ops", pl.col("ops"))], _colour())


def _step_text(clock: _Clock) -> pl.Expr:
    return _slice(
        clock,
        pl.lit("step"),
        pl.format('"step {}"', "step"),
        [_arg("source", pl.format('"{}"', "source"))],
    )


def _cpu_text(clock: _Clock, cpu: pl.DataFrame) -> pl.Expr:
    domain = _among("domain", cpu["domain"].unique().to_list(), "")
    args = [
        _arg("domain", pl.when(pl.col("domain") != "").then(domain)),
        _arg("kind", pl.format('"{}"', pl.col("kind").cast(pl.String))),
        _arg("dims", pl.col("shapes")),
        _arg("sequence"),
        _arg("end_tid"),
        _arg("closed", pl.when(~pl.col("closed")).then(pl.lit("false"))),
        _arg("correlation"),
        _arg("status", pl.when(pl.col("status") != 0).then("status")),
    ]
    return _slice(clock, pl.col("cat"), pl.col("text").fill_null(_json("(unnamed)")), args)


def _counter_text(clock: _Clock, counters: pl.DataFrame) -> pl.Expr:
    """Return one sample; Perfetto calls the track by name and unit, with a blank between."""
    names = {}
    for name in counters["name"].unique():
        head, _, unit = _clean(name).rpartition(" ")
        names[name] = f'{_json(head or unit)},"args":{{{_json(unit if head else "value")}:'
    value = pl.col("value")
    whole = (value.round() == value) & (value.abs() < _EXACT)
    number = pl.when(whole).then(value.cast(pl.Int64, strict=False).cast(pl.String))
    return pl.concat_str(
        pl.lit('{"ph":"C","ts":'),
        clock.at(pl.col("start_ns")),
        pl.format(',"pid":{},"tid":{},"name":', "track_pid", "track_pid"),
        pl.col("name").replace_strict(names, default="", return_dtype=pl.String),
        number.otherwise(value.cast(pl.String)),
        pl.lit("}}"),
    )


def _gpu_text(clock: _Clock, phases: Sequence[str]) -> pl.Expr:
    """Return the op's slice, with the two ends of its launch arrow if its call is known."""
    args = [
        _arg("name", pl.when(pl.col("full") != pl.col("text")).then("full")),
        _arg("family"),
        _arg("phase", _among("phase", phases, NO_PHASE)),
        _arg("how", pl.format('"{}"', pl.col("how").cast(pl.String))),
        _arg("grid", pl.format('"{} x {} x {}"', "grid_x", "grid_y", "grid_z")),
        _arg("block", pl.format('"{} x {} x {}"', "block_x", "block_y", "block_z")),
        *map(_arg, ("registers", "shared_bytes", "bytes", "graph_id", "graph_node", "correlation")),
    ]
    op = _slice(clock, pl.col("kind").cast(pl.String), pl.col("text"), args, _colour())
    return pl.concat_str(op, _arrow(clock), ignore_nulls=True)


def _arrow(clock: _Clock) -> pl.Expr:
    """Return the two ends of the arrow from call to op.

    At one time Perfetto opens slices first, the longest first, and binds arrows to the last.
    """
    same = pl.format(',"cat":"launch","name":"launch","id":{}', "op_id")
    return pl.concat_str(
        pl.lit(',\n{"ph":"s","ts":'),
        clock.at(pl.col("launch_ns")),
        pl.format(',"pid":{},"tid":{}', "call_pid", "call_tid"),
        same,
        pl.lit('},\n{"ph":"f","bp":"e","ts":'),
        clock.at(pl.col("start_ns")),
        pl.format(',"pid":{},"tid":{}', "track_pid", "track_tid"),
        same,
        pl.lit("}"),
    )


def _colour() -> pl.Expr:
    colours = {phase: f',"cname":"{name}"' for phase, name in _COLOURS.items()}
    phase = pl.col("phase").cast(pl.String)
    return phase.replace_strict(colours, default="", return_dtype=pl.String)


EXPORTER = Exporter(
    write,
    suffix=".perfetto.json.gz",
    use="Open it at https://ui.perfetto.dev (your browser reads it; nothing is uploaded).",
)
