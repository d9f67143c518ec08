"""Looking for the fastest configuration of a kernel: coarse, then fine, then against the default.

What was measured is written down candidate by candidate, so that a search that was killed goes on
where it stood and ends as it would have.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Final

import msgspec

from tracelens import kernel as kernels
from tracelens import tuned
from tracelens.bench import sweep
from tracelens.errors import CaptureError
from tracelens.tuned import Circumstances, Entry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from tracelens.bench.cell import Cell
    from tracelens.bench.sweep import Found
    from tracelens.kernel import Config, Kernel, Tuning

ROUNDS: Final = 4
"""How often neighbours of the best are tried, at most."""

_TOGETHER: Final = 8
"""Candidates that one process measures in turns, each beside the default."""

_COARSE_PRECISION: Final = 0.01
_COARSE_BUDGET_S: Final = 0.4


@dataclass(frozen=True)
class Task:
    """What a configuration is looked for.

    Attributes:
        kernel: as in `Entry`, and so are the next two.
        operation: of the kernel.
        key: what shapes and formats share it.
        shape: the one of them that is measured.
        dtype: and its format.
        here: what the configuration will hold for.
        source: `tuned.source_of` the kernel.
    """

    kernel: str
    operation: str
    key: str
    shape: dict[str, int]
    dtype: str
    here: Circumstances
    source: str

    @property
    def told(self) -> str:
        """The task in a few words."""
        return f"{self.kernel} {self.operation} {self.key}"


@dataclass(frozen=True)
class Tried:
    """A configuration that was measured.

    Attributes:
        config: it.
        ratio: its time over the default's, measured in turns; None: it failed.
        why: why it failed.
    """

    config: dict[str, int]
    ratio: float | None = None
    why: str = ""


@dataclass(frozen=True)
class Contest:
    """The best of a search and the default, in turns, until the difference is known well.

    Attributes:
        median_s: of the best.
        default_median_s: of the default.
        ratio: of the one to the other.
        low: where the 95 % interval of the ratio begins.
        high: where it ends.
        is_faster: whether the best is, by more than the interval and more than noise.
    """

    median_s: float
    default_median_s: float
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    is_faster: bool = False


@dataclass(frozen=True)
class Outcome:
    """What a search ended with.

    Attributes:
        config: the best, or the default where none is surely faster.
        contest: by what it was decided; None: no candidate was faster in the search, so that the
            default was not contested.
        tried: all that was measured besides the default, in order.
    """

    config: dict[str, int]
    contest: Contest | None = None
    tried: tuple[Tried, ...] = ()


def search(
    tuning: Tuning,
    shape: Mapping[str, int],
    dtype: str,
    measure: Callable[[Sequence[Config]], Sequence[Tried]],
    contest: Callable[[Config], Contest],
) -> Outcome:
    """Return the configuration to take: the default, unless another is faster beyond noise.

    The coarse candidates are measured, then neighbours of the best of them until these are no
    better. The best of many noisy measurements looks better than it is, so that it is held against
    the default once more, by itself. The same measurements give the same answer.

    Args:
        tuning: what there is to try.
        shape: for which.
        dtype: and in which format.
        measure: measures candidates; returns one answer for each, in order.
        contest: measures one against the default.
    """
    default = dict(tuning.default(shape, dtype))
    tried: dict[tuple[tuple[str, int], ...], Tried] = {}
    best, ratio = default, 1.0
    wanted: Iterable[Config] = tuning.coarse(shape, dtype)
    for number in range(1 + ROUNDS):
        new = _new(wanted, default, tried)
        for one in measure(new) if new else ():
            tried[_key(one.config)] = one
        found = [one for one in tried.values() if one.ratio is not None and one.ratio < ratio]
        if number and not found:
            break
        if found:
            first = min(found, key=lambda one: one.ratio or 0.0)
            best, ratio = first.config, first.ratio or ratio
        wanted = tuning.fine(best, shape, dtype)
    if best == default:
        return Outcome(default, None, tuple(tried.values()))
    decided = contest(best)
    return Outcome(best if decided.is_faster else default, decided, tuple(tried.values()))


def tasks(
    name: str, kernel: Kernel, plan: Iterable[Cell], here: Circumstances, source: str
) -> list[Task]:
    """Return what is to be tuned of a kernel: one task for each key, in the first of its shapes.

    Args:
        name: of the kernel.
        kernel: it.
        plan: cells, of which the shapes, formats and operations count.
        here: what the configurations will hold for.
        source: `tuned.source_of` the kernel.
    """
    found: dict[tuple[str, str], Task] = {}
    for cell in plan:
        if cell.kernel == name and (tuning := kernel.tuning.get(cell.operation)):
            key = tuning.key(cell.shape, cell.dtype)
            task = Task(name, cell.operation, key, cell.shape, cell.dtype, here, source)
            found.setdefault((cell.operation, key), task)
    return list(found.values())


@dataclass
class Journal:
    """What a search has measured so far, in a file of JSON lines."""

    file: Path
    lines: list[_Line] = field(default_factory=list)

    @classmethod
    def opened(cls, file: Path) -> Journal:
        """Return what a file holds; a line that was cut short, or that makes no sense, is none."""
        try:
            texts = file.read_bytes().splitlines()
        except OSError:
            return cls(file)
        return cls(file, [line for text in texts if (line := _line(text))])

    def known(self, task: Task) -> dict[tuple[tuple[str, int], ...], Tried]:
        """Return what was measured of a task."""
        return {_key(one.tried.config): one.tried for one in self.lines if one.task == task}

    def add(self, task: Task, tried: Sequence[Tried]) -> None:
        """Write down what was measured.

        Raises:
            CaptureError: it cannot be written.
        """
        lines = [_Line(task, one) for one in tried]
        self.lines += lines
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with self.file.open("ab") as stream:
                stream.write(b"".join(msgspec.json.encode(one) + b"\n" for one in lines))
        except OSError as error:
            why = error.strerror or error
            raise CaptureError(f"{self.file} cannot be written: {why}.") from error

    def forget(self, task: Task) -> None:
        """Drop what was measured of a task that is done."""
        self.lines = [one for one in self.lines if one.task != task]
        with contextlib.suppress(OSError):
            if not self.lines:
                self.file.unlink(missing_ok=True)
                return
            beside = self.file.with_name(f"{self.file.name}.{os.getpid()}")
            beside.write_bytes(b"".join(msgspec.json.encode(one) + b"\n" for one in self.lines))
            beside.replace(self.file)


@dataclass(frozen=True)
class Tuner:
    """Tunes kernels on this machine.

    Attributes:
        like: device, seed and precision of every cell.
        journal: what is measured is written there.
        say: told how far it has come.
        silence_s: see `sweep.run`.
        jobs: processes that compile ahead, at a time.
    """

    like: Cell
    journal: Journal
    say: Callable[[str], None]
    silence_s: float = sweep.SILENCE_S
    jobs: int = 1

    def tune(self, task: Task, tuning: Tuning) -> Entry:
        """Return the configuration for a task, as it is to be written down.

        Raises:
            CaptureError: the default itself fails.
        """
        self.say(task.told)
        outcome = search(
            tuning,
            task.shape,
            task.dtype,
            lambda configs: self._measured(task, configs),
            lambda config: self._contest(task, config),
        )
        contest = outcome.contest or self._contest(task, None)
        default = dict(tuning.default(task.shape, task.dtype))
        is_default = outcome.config == default
        seconds = contest.default_median_s if is_default else contest.median_s
        return Entry(
            kernel=task.kernel,
            operation=task.operation,
            key=task.key,
            config=dict(outcome.config),
            default=default,
            median_s=seconds,
            default_median_s=contest.default_median_s,
            ratio=contest.ratio,
            low=contest.low,
            high=contest.high,
            gpu=task.here.gpu,
            capability=task.here.capability,
            triton=task.here.triton,
            source=task.source,
            torch=sweep.circumstances()["versions"].get("torch", ""),
            shape=task.shape,
            dtype=task.dtype,
            tried=len(outcome.tried),
            made=datetime.now().astimezone().isoformat(timespec="seconds"),
        )

    def _measured(self, task: Task, configs: Sequence[Config]) -> list[Tried]:
        """Return what is known of configurations, measuring what was not measured before."""
        known = self.journal.known(task)
        missing = [config for config in configs if _key(config) not in known]
        parts = [missing[at : at + _TOGETHER] for at in range(0, len(missing), _TOGETHER)]
        if self.jobs > 1 and len(missing) > 1:
            self._compile(task, missing)
        done = len(configs) - len(missing)
        for part in parts:
            tried = self._together(task, part)
            self.journal.add(task, tried)
            known |= {_key(one.config): one for one in tried}
            done += len(part)
            best = min((one.ratio for one in known.values() if one.ratio), default=None)
            said = f", the best takes {best:.3f} of the default's time" if best else ""
            self.say(f"      {done}/{len(configs)}{said}")
        return [known[_key(config)] for config in configs]

    def _together(self, task: Task, configs: Sequence[Config]) -> list[Tried]:
        cell = self._cell(task, configs)
        found = sweep.measured(
            replace(
                cell,
                precision=max(cell.precision, _COARSE_PRECISION),
                budget_s=min(cell.budget_s, _COARSE_BUDGET_S),
                floor=False,
            ),
            self.silence_s,
        )
        self._check(task, found)
        rows = {row.implementation: row for row in found.rows}
        whys = {one.implementation: f"{one.stage}: {one.message}" for one in found.failures}
        tried = []
        for config in configs:
            row = rows.get(kernels.spell(config))
            why = whys.get(kernels.spell(config), whys.get("", "it was not measured"))
            ratio = row.pair.ratio if row and row.pair else None
            tried.append(Tried(dict(config), ratio, "" if ratio else why[:300]))
        return tried

    def _contest(self, task: Task, config: Config | None) -> Contest:
        """Return how a configuration compares with the default; None: the default alone."""
        cell = self._cell(task, [] if config is None else [config])
        found = sweep.measured(cell, self.silence_s)
        self._check(task, found)
        rows = {row.implementation: row for row in found.rows}
        default = rows[kernels.OURS].median_s
        row = None if config is None else rows.get(kernels.spell(config))
        if row is None or row.pair is None:
            return Contest(default, default)
        pair = row.pair
        faster = pair.verdict == "faster"
        return Contest(row.median_s, default, pair.ratio, pair.low, pair.high, is_faster=faster)

    def _compile(self, task: Task, configs: Sequence[Config]) -> None:
        """Fill Triton's cache by several processes at a time, which time nothing."""
        self.say(f"      compiling {len(configs)} candidates")
        parts = [configs[start :: self.jobs] for start in range(self.jobs)]
        cells = [replace(self._cell(task, part), quantities=()) for part in parts if part]
        sweep.at_once(cells, lambda _cell, _found: None, self.silence_s, self.jobs)

    def _cell(self, task: Task, configs: Sequence[Config]) -> Cell:
        return replace(
            self.like,
            kernel=task.kernel,
            operation=task.operation,
            shape=task.shape,
            dtype=task.dtype,
            implementations=(kernels.OURS,),
            candidates={kernels.spell(config): dict(config) for config in configs},
            config="default",
            quantities=("kernel_time",),
            l2=("cold",),
        )

    @staticmethod
    def _check(task: Task, found: Found) -> None:
        """Raise CaptureError if the default was not measured: nothing is known without it."""
        if any(row.implementation == kernels.OURS for row in found.rows):
            return
        whys = [one for one in found.failures if one.implementation in ("", kernels.OURS)]
        why = f"{whys[0].stage}: {whys[0].message}" if whys else "it was not measured"
        raise CaptureError(f"{task.told}: the default configuration fails: {why}")


@dataclass(frozen=True)
class _Line:
    """One line of a journal."""

    task: Task
    tried: Tried


def _line(text: bytes) -> _Line | None:
    try:
        return msgspec.json.decode(text, type=_Line)
    except (msgspec.MsgspecError, RecursionError):
        return None


def _key(config: Config) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(config.items()))


def _new(
    configs: Iterable[Config],
    default: Config,
    tried: Mapping[tuple[tuple[str, int], ...], Tried],
) -> list[Config]:
    """Return the configurations that were not tried, each once, in order.

    Raises:
        CaptureError: one has other names than the default, or a size that makes no sense.
    """
    found = {_key(config): dict(config) for config in configs}
    for config in found.values():
        if not tuned.is_valid(config, default):
            told = kernels.spell(config)
            raise CaptureError(f"Tuning offers {told}, which is not like {kernels.spell(default)}.")
    return [one for key, one in found.items() if key not in tried and key != _key(default)]
