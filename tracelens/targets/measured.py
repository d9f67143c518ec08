"""What was measured: runs that were captured, recordings, and rows of benchmark results."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from functools import cached_property
from statistics import median
from typing import TYPE_CHECKING, Any, Final

import msgspec

from tracelens import hardware, run
from tracelens.errors import NothingToShowError, UnreadableError
from tracelens.readers.open import open_trace
from tracelens.targets.file import Needs
from tracelens.targets.quantities import METRICS, Quantity, measured
from tracelens.workload import Work  # noqa: TC001 (msgspec reads the annotations)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    import polars as pl

    from tracelens.targets.file import Target
    from tracelens.targets.quantities import Dimension

_TIMER: Final = "timer"
_TIMES: Final = ("step_time", "latency")
_OF_RECORDING: Final = "GPU time of the recording"
_LARGEST_BYTES: Final = 256 << 20
_LARGEST: Final = 1e30
_HEAD_BYTES: Final = 1 << 16
_ROWS: Final = re.compile(rb'\A\s*[\[{].*"(?:metric|rows)"\s*:', re.DOTALL)
_EVENTS: Final = re.compile(rb'"(?:traceEvents|ph)"\s*:')


@dataclass(frozen=True)
class Reading:
    """One measured value, in the base unit of its dimension.

    Attributes:
        value: the median, where there are several samples.
        dimension: what kind of quantity it is.
        low: where the 95 % confidence interval begins; None: not known.
        high: where it ends.
        n: how many samples.
        how: where the number is from, in a few words.
    """

    value: float
    dimension: Dimension
    low: float | None = None
    high: float | None = None
    n: int | None = None
    how: str = ""


@dataclass(frozen=True)
class Measured:
    """A configuration that was measured.

    Attributes:
        name: what it is called: the run's folder, the recording, the row's name.
        gpu: what CUDA calls the GPU; None: not known.
        config: its options by name, `workload` among them.
        readings: metric -> what was measured.
        needs: what a step takes by formula.
        recording: what can be asked for what no reading holds.
    """

    name: str
    gpu: str | None
    config: Mapping[str, Any] = field(default_factory=dict)
    readings: Mapping[str, Reading] = field(default_factory=dict)
    needs: Needs | None = None
    recording: Recording | None = None

    def read(self, target: Target) -> Reading | None:
        """Return what was measured of a target's metric; None: nothing."""
        if target.metric in self.readings:
            return self.readings[target.metric]
        return self.recording.read(target) if self.recording else None


class Recording:
    """A recording, which is read when it is first asked; what is kept of it is small."""

    def __init__(self, trace: Path | None, snapshot: Path | None, *, cache: bool) -> None:
        self._trace = trace
        self._snapshot = snapshot
        self._cache = cache

    @property
    def gpu(self) -> str | None:
        """The name of the GPU that did the work, where it is of one kind."""
        return self._work.gpu if self._work else None

    def read(self, target: Target) -> Reading | None:
        """Return what the recording says of a metric; None: nothing."""
        if target.metric == "peak_memory":
            return self._peak
        ask = _OF_WORK.get(target.metric)
        return ask(self._work, target) if ask and self._work else None

    @cached_property
    def _work(self) -> _Work | None:
        return None if self._trace is None else _work(self._trace, cache=self._cache)

    @cached_property
    def _peak(self) -> Reading | None:
        source = self._snapshot or self._trace
        return None if source is None else _peak(source, cache=self._cache)


@dataclass(frozen=True)
class _Work:
    """The GPU work of a recording, reduced: the frames of the analyses of these names."""

    gpu: str | None
    families: pl.DataFrame
    steps: pl.DataFrame
    totals: Mapping[str, int]


def _work(path: Path, *, cache: bool) -> _Work:
    from tracelens.analyses.families import families
    from tracelens.analyses.steps import steps
    from tracelens.analyses.totals import totals
    from tracelens.links.linked import link
    from tracelens.tables.trust import gpus

    linked = link(open_trace(path, cache=cache))
    names = gpus(linked) if linked.ops.height else {}
    return _Work(
        next(iter(names)) if len(names) == 1 else None,
        families(linked),
        steps(linked) if linked.steps.height else linked.steps,
        totals(linked).row(0, named=True),
    )


def _peak(path: Path, *, cache: bool) -> Reading | None:
    from tracelens.analyses.memory.devices import devices
    from tracelens.links.memory import remember

    try:
        told = devices(remember(open_trace(path, cache=cache)))
    except NothingToShowError:
        return None
    peak = max(told["peak_active_bytes"].to_list())
    return Reading(peak, "bytes", how=f"events of {path.name}")


def found(paths: Iterable[Path], *, cache: bool = True) -> list[Measured]:
    """Return what was measured: Run folders, recordings, and JSON files of rows.

    Raises:
        UnreadableError: a path holds none of these.
    """
    measurements: list[Measured] = []
    for path in paths:
        if _are_rows(path):
            measurements += rows(path)
            continue
        timed = _only_timed(path)
        try:
            places = run.found([path])
        except UnreadableError:
            if not timed:
                raise
            places = []
        measurements += [one for place in places for one in _of_place(place, cache=cache)]
        measurements += timed
    return measurements


def _only_timed(path: Path) -> list[Measured]:
    """Return the Run folders, up to a level below, that hold times of steps and no recording."""
    try:
        folders = [path, *sorted(child for child in path.iterdir() if child.is_dir())]
    except OSError:
        return []  # a file, or what opening it will tell
    told = [(folder, _manifest(folder / run.MANIFEST)) for folder in folders]
    return [
        _of_run(folder, said, Recording(None, None, cache=False))
        for folder, said in told
        if said is not None and not said.recordings and any(one.steps_ns for one in said.passes)
    ]


def _are_rows(path: Path) -> bool:
    """Tell whether a file holds rows of results: it may be a trace, which is JSON, too."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError:
        return False  # a folder, or what opening it will tell
    return bool(_ROWS.search(head)) and not _EVENTS.search(head)


def _of_place(place: run.Place, *, cache: bool) -> list[Measured]:
    known = {one.path: run.peek(one.path) for one in place.recordings}
    whole, _ = run.as_run(place, known)
    manifest = _manifest(place.path / run.MANIFEST) if place.declared else None
    if whole is not None:
        first = whole.ranks[0]
        pairs: list[tuple[Path, Path | None, Path | None]] = [
            (whole.path, first.trace, first.snapshot)
        ]
    else:
        pairs = [
            (path, None if one.is_snapshot else path, path if one.is_snapshot else None)
            for path, one in known.items()
        ]
    recordings = [(at, Recording(trace, snapshot, cache=cache)) for at, trace, snapshot in pairs]
    if manifest is not None:
        return [_of_run(place.path, manifest, recordings[0][1])]
    return [Measured(at.absolute().name, one.gpu, recording=one) for at, one in recordings]


class _Pass(msgspec.Struct):
    recorder: str
    state: str = ""
    steps_ns: list[int] = []
    peak_bytes: int | None = None


class _Gpu(msgspec.Struct):
    name: str


class _Machine(msgspec.Struct):
    gpus: list[_Gpu] = []


class _Cost(msgspec.Struct):
    items: int = 0
    unit: str = ""
    memory_bytes: int = 0
    phases: dict[str, list[Work]] = {}


class _Manifest(msgspec.Struct):
    """What is needed of run.json, which `capture` writes."""

    name: str
    workload: str | None
    options: dict[str, Any]
    device: str = "cuda"
    cost: _Cost = msgspec.field(default_factory=_Cost)
    machine: _Machine = msgspec.field(default_factory=_Machine)
    passes: list[_Pass] = []
    recordings: list[Any] = []


class _Wall(msgspec.Struct):
    median_low_ns: float
    median_high_ns: float


class _Timer(msgspec.Struct):
    wall: _Wall


def _manifest(file: Path) -> _Manifest | None:
    """Return what run.json says; None if it is not of a capture."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=_Manifest)
    except (OSError, msgspec.MsgspecError):
        return None


def _of_run(folder: Path, said: _Manifest, recording: Recording) -> Measured:
    parts = tuple(part for phase in said.cost.phases.values() for part in phase)
    by = f"by the formulas of {said.name}"
    needs = Needs(parts, said.cost.items, said.cost.memory_bytes, by) if parts else None
    gpu = said.machine.gpus[0].name if said.machine.gpus and said.device == "cuda" else None
    readings: dict[str, Reading] = {}
    if step := _step(folder, said.passes):
        readings |= dict.fromkeys(_TIMES, step) | _rates(step, said.cost, needs, gpu)
    peaks = [one.peak_bytes for one in said.passes if one.peak_bytes is not None]
    if peaks:
        readings["peak_memory"] = Reading(max(peaks), "bytes", how="torch's allocator")
    config = {**said.options, "workload": said.workload} if said.workload else {}
    return Measured(folder.absolute().name, gpu, config, readings, needs, recording)


def _step(folder: Path, passes: Sequence[_Pass]) -> Reading | None:
    """Return the time of a step: without a profiler if it was timed so."""
    timed = sorted((p for p in passes if p.steps_ns), key=lambda p: p.recorder != _TIMER)
    if not timed:
        return None
    steps = timed[0].steps_ns
    low = high = None
    how = f"steps under {timed[0].recorder}"
    if timed[0].recorder == _TIMER:
        how = "steps without a profiler"
        try:
            wall = msgspec.json.decode((folder / "timer.json").read_bytes(), type=_Timer).wall
            low, high = wall.median_low_ns, wall.median_high_ns
        except (OSError, msgspec.MsgspecError):
            pass  # of several ranks there are several files, and none of the slowest
    return Reading(median(steps), "time", low, high, len(steps), how)


def _rates(step: Reading, cost: _Cost, needs: Needs | None, gpu: str | None) -> dict[str, Reading]:
    """Return what follows from the time of a step and the formulas."""
    rates: dict[str, Reading] = {}
    if needs is None or step.value <= 0:
        return rates
    if cost.items:
        rates["items_per_s"] = _per_s(cost.items, step, "rate")
    if cost.items and cost.unit == "tokens":
        rates["tokens_per_s"] = rates["items_per_s"]
    flops = sum(part.flops for part in needs.parts if part.matmul)
    moved = sum(part.bytes for part in needs.parts)
    if flops:
        rates["flops_per_s"] = _per_s(flops, step, "flops_per_s")
    if moved:
        rates["bytes_per_s"] = _per_s(moved, step, "bytes_per_s")
    device = hardware.device(gpu) if gpu else None
    if device and flops and (ideal := _ideal_s(needs, device)):
        rates["mfu"] = _per_s(ideal, step, "share")
    if device and moved:
        rates["mbu"] = _per_s(moved / device.bandwidth_bytes_per_s, step, "share")
    return rates


def _ideal_s(needs: Needs, device: hardware.Device) -> float | None:
    """Return how long the matrix products take at the data sheet's rates of their formats."""
    seconds = 0.0
    for part in needs.parts:
        if part.matmul and part.flops:
            rate = device.matmul_flops_per_s.get(part.dtype)
            if not rate:
                return None
            seconds += part.flops / rate
    return seconds


def _per_s(amount: float, step: Reading, dimension: Dimension) -> Reading:
    """Return an amount of each step per second; the interval turns round."""
    low = amount / step.high * 1e9 if step.high else None
    high = amount / step.low * 1e9 if step.low else None
    value = amount / step.value * 1e9
    return Reading(value, dimension, low, high, step.n, f"formulas and {step.how}")


def _share(work: _Work, target: Target) -> Reading | None:
    """Return what a phase or kind of work takes of the time of kernels and graphs."""
    mine = whole = 0
    for row in work.families.iter_rows(named=True):
        time = row["kernel_time_ns"] + row["graph_time_ns"]
        whole += time
        if target.phase in (None, row["phase"]) and target.family in (None, row["family"]):
            mine += time
    return Reading(mine / whole, "share", how=_OF_RECORDING) if whole else None


def _copy_share(work: _Work, _: Target) -> Reading | None:
    sums = work.totals
    every = sum(sums[f"{kind}_time_ns"] for kind in ("kernel", "copy", "memset", "graph"))
    return Reading(sums["copy_time_ns"] / every, "share", how=_OF_RECORDING) if every else None


def _busy_share(work: _Work, _: Target) -> Reading | None:
    busy, span = work.totals["busy_ns"], work.totals["span_ns"]
    return Reading(busy / span, "share", how=_OF_RECORDING) if span else None


def _kernel_time(work: _Work, _: Target) -> Reading | None:
    return _median(work.steps, "kernel_time_ns", "kernels of the recording's steps")


def _step_time(work: _Work, _: Target) -> Reading | None:
    return _median(work.steps, "duration_ns", "steps under the recorder")


def _median(steps: pl.DataFrame, column: str, how: str) -> Reading | None:
    times = steps[column].to_list() if steps.height else []
    return Reading(median(times), "time", n=len(times), how=how) if times else None


_OF_WORK: Final[Mapping[str, Callable[[_Work, Target], Reading | None]]] = {
    "share": _share,
    "copy_share": _copy_share,
    "busy_share": _busy_share,
    "kernel_time": _kernel_time,
    **dict.fromkeys(_TIMES, _step_time),
}


class _Row(msgspec.Struct, forbid_unknown_fields=True):
    """One row of results; ``low`` and ``high`` are of its 95 % confidence interval."""

    name: str
    metric: str
    value: float
    unit: str = ""
    config: dict[str, Any] = {}
    gpu: str | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    note: str = ""


class _Results(msgspec.Struct):
    rows: list[_Row]
    gpu: str | None = None


def rows(path: Path) -> list[Measured]:
    """Return what the rows of a JSON file tell, those of one configuration together.

    Raises:
        UnreadableError: it is no such file; the message says where.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_BYTES + 1)
        if len(content) > _LARGEST_BYTES:
            raise UnreadableError(f"{path} is too large for rows of results.")
        said: Any = msgspec.json.decode(content)
        results = msgspec.convert({"rows": said} if isinstance(said, list) else said, _Results)
        return _together(results)
    except OSError as error:
        raise UnreadableError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise UnreadableError(
            f"{path.name} is neither a recording nor rows of results: {error}. "
            "docs/commands/grade.md says how rows look."
        ) from error


def _together(results: _Results) -> list[Measured]:
    configs: dict[tuple[str, str | None, str], tuple[_Row, dict[str, Reading]]] = {}
    for row in results.rows:
        gpu = row.gpu or results.gpu
        key = (row.name, gpu, repr(sorted(row.config.items())))
        _, readings = configs.setdefault(key, (row, {}))
        if row.metric in readings:
            raise ValueError(f"{row.name!r} has {row.metric} twice with the same config")
        readings[row.metric] = _reading(row)
    return [
        Measured(name, gpu, row.config, readings)
        for (name, gpu, _), (row, readings) in configs.items()
    ]


def _reading(row: _Row) -> Reading:
    numbers = [x for x in (row.value, row.low, row.high) if x is not None]
    if not all(math.isfinite(x) and 0 <= x < _LARGEST for x in numbers):
        raise ValueError(
            f"{row.name!r} has a {row.metric} that is negative, too large or no number"
        )
    if not (row.low or row.value) <= row.value <= (row.high or row.value):
        raise ValueError(f"{row.name!r} has a {row.metric} outside of its own interval")
    value = _quantity(row, row.value)
    low, high = (None if x is None else _quantity(row, x).value for x in (row.low, row.high))
    return Reading(value.value, value.dimension, low, high, row.n, row.note or "rows of results")


def _quantity(row: _Row, value: float) -> Quantity:
    found = measured(value, row.unit)
    wanted = METRICS.get(row.metric)
    if wanted == "share" and found.dimension == "number":
        found = Quantity(value, "share")
    if wanted is not None and found.dimension != wanted:
        raise ValueError(f"{row.name!r} has {row.metric} in {row.unit or 'no unit'}")
    return found
