"""A timeline for ui.perfetto.dev: threads with ranges and calls, GPU streams, launch arrows, phases.

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
from tracelens.links.linked import NO_PHASE
from tracelens.trace.nesting import nested

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tracelens.links.linked import Linked

_ROWS: Final = 50_000
_FIRST_MADE_UP: Final = 10_000_000  # above every process id of Linux
_LAST_REAL: Final = 2**31 - 1
_COMPRESSION: Final = 4  # half the time of the default level, a tenth more bytes
_COLOURS: Final = {
    "forward": "thread_state_running",
    "backward": "thread_state_iowait",
    "optimizer": "rail_response",
}
"""Colours of chrome://tracing; Perfetto has its own and ignores them."""
_TRACK: Final = {"pid": pl.Int64, "tid": pl.Int64}
_SHAPE: Final = ("grid_x", "grid_y", "grid_z", "block_x", "block_y", "block_z")
_THREAD: Final = ("pid", "tid")
_STREAM: Final = ("pid", "device", "context", "stream")
_CALL: Final = ("pid", "launch_tid", "launch_ns", "launch_end_ns", "launch_name_id")


def write(linked: Linked, path: Path, /, *, progress: Progress = no_progress) -> None:
    """Write the timeline, packed if the name ends in .gz.

    Raises:
        NothingToShowError: there is nothing to draw.
    """
    tracks = _Tracks()
    cpu = _on_threads(linked, tracks)
    gpu = _on_streams(linked, tracks)
    if not cpu.height and not gpu.height:
        raise NothingToShowError(
            f"{linked.trace.source.path.name} holds no GPU work, API calls or ranges to draw."
        )
    phases, steps = _phases(gpu, tracks), _steps(linked, tracks)
    clock = _Clock(_origin(cpu, gpu, steps))
    names = _quoted(linked)
    parts = [
        (_spans_text(phases, clock, "phase"), phases),
        (_spans_text(steps, clock, "step"), steps),
        (_cpu_text(clock), _named(cpu, names)),
        (_gpu_text(clock), _drawn(linked, gpu, cpu, names)),
    ]
    done, total = 0, sum(frame.height for _, frame in parts)
    with _opened(path) as file:
        file.write('{"traceEvents":[\n')
        file.write(",\n".join(tracks.described(linked)))
        for text, frame in parts:
            for piece in frame.iter_slices(_ROWS):
                file.write(",\n" + ",\n".join(piece.select(text).to_series()))
                done += piece.height
                progress("writing events", done, total)
        file.write(f'\n],"otherData":{json.dumps(_about(linked, clock))}}}\n')


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


def _about(linked: Linked, clock: _Clock) -> dict[str, str]:
    source = linked.trace.source
    return {
        "recording": source.path.name,
        "recorder": source.producer or source.format,
        "written by": f"tracelens {__version__}",
        "clock shift in ns": str(clock.shift),
        "phases": linked.phase_source,
    }


# Tracks


@dataclass
class _Tracks:
    """Gives every track a process and a thread number of its own, as viewers tell them by these.

    Real ids are kept where they are usable and not taken; the keys say what each track is.
    """

    processes: dict[tuple[object, ...], int] = field(default_factory=dict)
    threads: dict[tuple[object, ...], tuple[int, int]] = field(default_factory=dict)
    _taken: set[int] = field(default_factory=set)
    _next: int = _FIRST_MADE_UP

    def process(self, *key: object, real: object = None) -> int:
        """Return the number of a process."""
        if key not in self.processes:
            self.processes[key] = self._number(real)
        return self.processes[key]

    def thread(self, process: int, *key: object, real: object = None) -> tuple[int, int]:
        """Return process and thread number of a track; a main thread shares its process's."""
        if key not in self.threads:
            tid = process if real == process else self._number(real)
            self.threads[key] = (process, tid)
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
        label = _Labels(linked, len({key[1] for key in self.processes}) > 1)
        lines = []
        for order, (key, pid) in enumerate(self.processes.items()):
            lines.append(_metadata("process_name", pid, None, {"name": label.process(*key)}))
            lines.append(_metadata("process_sort_index", pid, None, {"sort_index": order}))
        for order, (key, (pid, tid)) in enumerate(self.threads.items()):
            lines.append(_metadata("thread_name", pid, tid, {"name": label.thread(*key)}))
            lines.append(_metadata("thread_sort_index", pid, tid, {"sort_index": order}))
        return lines


class _Labels:
    """What tracks are called."""

    def __init__(self, linked: Linked, several: bool) -> None:
        threads = linked.trace.get("threads")
        rows = [] if threads is None else threads.collect().iter_rows()
        self._threads = {(pid, tid): name for pid, tid, name in rows if name}
        devices = linked.trace.get("devices")
        frame = None if devices is None else devices.select("pid", "device", "name").collect()
        self._gpus = {} if frame is None else {(p, d): name for p, d, name in frame.iter_rows()}
        self._several = several

    def process(self, kind: str, pid: object, device: object = None) -> str:
        of = self._threads.get((pid, pid)) or "process"
        if kind == "host":
            return f"{of} {'?' if pid is None else pid}"
        name = self._gpus.get((pid, device)) or self._gpus.get((None, device))
        whose = f" ({of} {pid})" if self._several else ""
        return f"GPU {'?' if device is None else device}{f' {name}' if name else ''}{whose}"

    def thread(self, kind: str, *key: object) -> str:
        if kind == "thread":
            pid, tid, lane = key
            name = self._threads.get((pid, tid)) or ("main thread" if pid == tid else "thread")
            return f"{name}{_lane(lane)}"
        if kind == "stream":
            _, _, context, stream, lane = key
            of = f"context {context}, " if context is not None else ""
            return f"{of}stream {'?' if stream is None else stream}{_lane(lane)}"
        return {"phases": "phase that launched the work", "steps": "steps"}[kind]


def _lane(lane: object) -> str:
    return f" (overlapping, {lane})" if lane else ""


def _metadata(name: str, pid: int, tid: int | None, args: dict[str, object]) -> str:
    shown = {key: _clean(value) if isinstance(value, str) else value for key, value in args.items()}
    thread = {} if tid is None else {"tid": tid}
    event = {"ph": "M", "pid": pid, **thread, "name": name, "args": shown}
    return json.dumps(event, ensure_ascii=False, separators=(",", ":"))


def _placed(
    frame: pl.DataFrame, keys: tuple[str, ...], found: list[tuple[int, int]], distinct: pl.DataFrame
) -> pl.DataFrame:
    """Return the frame with the track of each row as track_pid and track_tid."""
    where = distinct.with_columns(
        track_pid=pl.Series([pid for pid, _ in found], dtype=pl.Int64),
        track_tid=pl.Series([tid for _, tid in found], dtype=pl.Int64),
    )
    return frame.join(
        where, on=[*keys, "lane"], how="left", nulls_equal=True, maintain_order="left"
    )


def _distinct(frame: pl.DataFrame, keys: tuple[str, ...]) -> pl.DataFrame:
    return frame.select(*keys, "lane").unique().sort(*keys, "lane", nulls_last=True)


# What is drawn where


def _on_threads(linked: Linked, tracks: _Tracks) -> pl.DataFrame:
    """Return ranges and API calls with their tracks; a call lies in the range that made it."""
    parts = [frame for frame in (_ranges(linked), _calls(linked)) if frame is not None]
    if not parts:
        return nested(pl.DataFrame(schema={"start_ns": pl.Int64, "end_ns": pl.Int64, **_TRACK}))
    both = nested(pl.concat(parts, how="diagonal")).drop("range_id", "depth", "parent")
    distinct = _distinct(both, _THREAD)
    found = [
        tracks.thread(
            tracks.process("host", pid, real=pid), "thread", pid, tid, lane,
            real=None if lane else tid,
        )
        for pid, tid, lane in distinct.iter_rows()
    ]  # fmt: skip
    return _placed(both, _THREAD, found, distinct)


def _ranges(linked: Linked) -> pl.DataFrame | None:
    if "ranges" not in linked.trace:
        return None
    kept = ("start_ns", "end_ns", "pid", "tid", "end_tid", "kind", "domain", "name_id", "closed")
    return linked.ranges().select(*kept, cat=pl.lit("range")).collect()


def _calls(linked: Linked) -> pl.DataFrame | None:
    if "api" not in linked.trace:
        return None
    kept = ("start_ns", "end_ns", "pid", "tid", "name_id", "correlation", "status")
    return linked.calls().select(*kept, cat=pl.lit("api")).collect()


def _on_streams(linked: Linked, tracks: _Tracks) -> pl.DataFrame:
    """Return the GPU work in order of start, with its tracks."""
    ops = linked.ops.sort("start_ns", "end_ns", "op_id")
    ops = _in_lanes(ops, _STREAM)
    distinct = _distinct(ops, _STREAM)
    found = [
        tracks.thread(
            tracks.process("gpu", pid, device), "stream", pid, device, context, stream, lane
        )
        for pid, device, context, stream, lane in distinct.iter_rows()
    ]
    return _placed(ops, _STREAM, found, distinct)


def _in_lanes(ordered: pl.DataFrame, keys: tuple[str, ...]) -> pl.DataFrame:
    """Return the rows with a `lane` such that none overlap on one; nearly all tracks need one."""
    reached = pl.col("end_ns").cum_max().shift().over(keys)
    overlaps = (pl.col("start_ns") < reached).fill_null(value=False)
    crowded = ordered.select(overlaps.any().over(keys)).to_series()
    lanes = pl.Series([0], dtype=pl.Int32).new_from_index(0, ordered.height)
    if crowded.any():
        rows = ordered.select(pl.struct(keys), "start_ns", "end_ns").filter(crowded)
        index = crowded.arg_true()
        lanes = lanes.scatter(index, pl.Series(_first_free(rows), dtype=pl.Int32))
    return ordered.with_columns(lane=lanes)


def _first_free(rows: pl.DataFrame) -> list[int]:
    """Return for each interval the first lane of its track that has ended when it starts."""
    ends: dict[tuple[object, ...], list[int]] = {}
    found = []
    for key, start, end in rows.iter_rows():
        lanes = ends.setdefault(tuple(key.values()), [])
        lane = next((n for n, last in enumerate(lanes) if last <= start), len(lanes))
        lanes[lane : lane + 1] = [end]
        found.append(lane)
    return found


def _phases(gpu: pl.DataFrame, tracks: _Tracks) -> pl.DataFrame:
    """Return one slice per stretch of work of one phase on a GPU, in order of start.

    Stretches are cut where the next one begins, so they may be shorter than their last kernel.
    """
    on = ["pid", "device"]
    run = pl.col("phase").rle_id().over(on)
    stretches = (
        gpu.with_columns(run=run)
        .group_by(*on, "run", "phase", maintain_order=True)
        .agg(pl.col("start_ns").min(), pl.col("end_ns").max(), ops=pl.len())
        .with_columns(end_ns=pl.min_horizontal("end_ns", pl.col("start_ns").shift(-1).over(on)))
        .filter(pl.col("phase").is_not_null())
    )
    text = stretches["phase"].cast(pl.String)
    args = (
        pl.format('{"GPU operations":{}}', "ops")
        if False
        else pl.concat_str(pl.lit('{"GPU operations":'), "ops", pl.lit("}"))
    )
    placed = [
        tracks.thread(tracks.process("gpu", pid, device), "phases", pid, device)
        for pid, device in stretches.select(on).iter_rows()
    ]
    return _slices(stretches.with_columns(text=text, args=args, colour=_colour("phase")), placed)


def _steps(linked: Linked, tracks: _Tracks) -> pl.DataFrame:
    """Return one slice per step, on a track of its process."""
    steps = linked.steps.sort("start_ns", "pid", "step")
    text = pl.format("step {}", "step")
    args = pl.concat_str(pl.lit('{"from":"'), "source", pl.lit('"}'))
    placed = [
        tracks.thread(tracks.process("host", pid, real=pid), "steps", pid) for pid in steps["pid"]
    ]
    frame = steps.with_columns(text=text, args=args, colour=pl.lit(None, pl.String))
    # Steps follow one another; where a recording says otherwise, they end where the next begins.
    following = pl.col("start_ns").shift(-1).over("pid")
    return _slices(frame.with_columns(end_ns=pl.min_horizontal("end_ns", following)), placed)
