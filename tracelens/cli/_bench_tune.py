"""`tracelens bench KERNEL --tune`: what is to be tuned, where it is kept, and what came of it."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens import kernel as kernels
from tracelens import tuned
from tracelens.cli import _bench
from tracelens.errors import CaptureError, UsageError
from tracelens.tables import Column, Report, Table, build

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tracelens.bench.plan import Asked
    from tracelens.bench.tune import Task, Tuner
    from tracelens.cli._bench import Given, Printed
    from tracelens.kernel import Kernel
    from tracelens.tuned import Entry

_FAILED: Final = 4
_INTERRUPTED: Final = 130
_TABLE: Final = Table(
    "tuned",
    "Tuned configurations",
    (
        Column("kernel", "kernel", "text"),
        Column("operation", "operation", "text"),
        Column("key", "of", "text"),
        Column("state", "", "text"),
        Column("default_ns", "default", "ns"),
        Column("median_ns", "tuned", "ns"),
        Column("change", "change", "change"),
        Column("config", "configuration", "text"),
        Column("tried", "tried", "count"),
        Column("default_config", "default", "text", shown=False),
        Column("ratio", "ratio", "count", shown=False),
        Column("ratio_low", "ratio, low", "count", shown=False),
        Column("ratio_high", "ratio, high", "count", shown=False),
        Column("why", "why", "text", shown=False),
    ),
    "Medians of the GPU's time with cold L2. A default is kept where no other configuration is "
    "faster by more than noise.",
)


@dataclass(frozen=True)
class _Done:
    """What came of a task."""

    task: Task
    state: str
    entry: Entry | None = None
    why: str = ""


def tune(given: Given, printed: Printed) -> int:
    """Tune kernels, keep what was found, and print it; return the exit status."""
    from tracelens.bench import plan, probe, sweep
    from tracelens.bench.tune import Journal, Tuner, tasks

    _check(given)
    sweep.check_torch()
    found = plan.loaded(given.kernels)
    asked = plan.cells(_with_operations(given, found))
    here = probe.circumstances(given.device)
    file = given.output or tuned.place(here.gpu)
    _bench.make(file.absolute().parent)
    journal = Journal.opened(file.with_name(f"{file.name}.tuning"))
    limit = given.limit or sweep.SILENCE_S
    tuner = Tuner(_bench.like(given), journal, _bench.say, limit, _bench.jobs(given))
    work = [
        (task, kernel)
        for name, kernel in found.items()
        for task in tasks(name, kernel, asked, here, tuned.source_of(name))
    ]
    done: list[_Done] = []
    interrupted = False
    try:
        for task, kernel in work:
            done.append(_tuned(task, kernel, tuner, file, force=given.force))
    except KeyboardInterrupt:
        interrupted = True
    printed.put(_report(done, here.gpu, file), ("tuned",))
    if interrupted:
        _bench.say(f"Stopped; the same command goes on. What was tuned so far is in {file}")
        return _INTERRUPTED
    return _FAILED if any(one.entry is None for one in done) else 0


def _check(given: Given) -> None:
    if given.resume or given.retry:
        raise UsageError("--tune goes on by itself where it was stopped: leave --resume out.")
    for option, value in (
        ("--baseline", given.baselines),
        ("--quantity", given.quantities),
        ("--l2", given.l2),
        ("--default-config", given.default_config),
    ):
        if value:
            raise UsageError(f"--tune measures ours alone, by kernel_time: leave {option} out.")
    if given.device == "cpu":
        raise UsageError("--tune needs a GPU: leave --device cpu out.")


def _with_operations(given: Given, found: dict[str, Kernel]) -> Asked:
    """Return what was asked for; unless operations were named, all that can be tuned."""
    asked = _bench.asked(given)
    names = tuple(dict.fromkeys(name for kernel in found.values() for name in kernel.tuning))
    wanted = asked.operations or names
    if "all" not in wanted and not set(wanted) & set(names):
        raise UsageError(
            f"Of {', '.join(found)} there is nothing to tune"
            + (f" but {', '.join(names)}." if names else ".")
        )
    return replace(asked, operations=wanted)


def _tuned(task: Task, kernel: Kernel, tuner: Tuner, file: Path, *, force: bool) -> _Done:
    """Tune one task, unless the file has a configuration that holds still."""
    old = _old(task, file)
    why = tuned.stale(old, task.here, task.source) if old else ""
    if old and not why and not force:
        return _Done(task, "tuned before", old)
    if why:
        _bench.say(f"{task.told} was {why}: tuned anew.")
    try:
        entry = tuner.tune(task, kernel.tuning[task.operation])
    except CaptureError as error:
        _bench.say(f"      {error}")
        return _Done(task, "failed", why=str(error))
    tuned.save(entry, file)
    tuner.journal.forget(task)
    return _Done(task, "default kept" if entry.config == entry.default else "tuned", entry)


def _old(task: Task, file: Path) -> Entry | None:
    if not os.path.lexists(file):
        return None
    of = (task.kernel, task.operation, task.key)
    return next((one for one in tuned.load(file).entries if one.of == of), None)


def _report(done: Sequence[_Done], gpu: str, file: Path) -> Report:
    rows = [_row(one) for one in done]
    text = {column.name: pl.String for column in _TABLE.columns if column.unit == "text"}
    schema = {column.name: text.get(column.name, pl.Float64) for column in _TABLE.columns}
    frame = pl.DataFrame(rows, schema=schema, orient="row").cast({"tried": pl.Int64})
    faster = sum(one.state == "tuned" for one in done)
    return Report(
        headline=f"{gpu} · {len(done)} looked for · {faster} faster than the default",
        trust=(f"Kept in {file}",),
        source={"path": str(file), "format": "tuned", "producer": "tracelens"},
        devices=({"device": 0, "name": gpu},),
        phase_source="none",
        coverage={},
        tables=(build.filled("tuned", _TABLE, frame),),
        warnings=tuple(one.why for one in done if one.why),
    )


def _row(one: _Done) -> dict[str, object]:
    entry, task = one.entry, one.task
    told: dict[str, object] = {
        "kernel": task.kernel.replace("_", "-"),
        "operation": task.operation,
        "key": task.key,
        "state": one.state,
        "why": one.why or None,
    }
    if entry is None:
        return {column.name: told.get(column.name) for column in _TABLE.columns}
    is_default = entry.config == entry.default
    told |= {
        "default_ns": entry.default_median_s * 1e9,
        "median_ns": entry.median_s * 1e9,
        "change": 0.0 if is_default or entry.ratio is None else entry.ratio - 1,
        "config": kernels.spell(entry.config),
        "tried": entry.tried,
        "default_config": kernels.spell(entry.default),
        "ratio": entry.ratio,
        "ratio_low": entry.low,
        "ratio_high": entry.high,
    }
    return {column.name: told.get(column.name) for column in _TABLE.columns}
