"""`tracelens bench KERNEL`: from what was typed to cells, and from results to what is printed."""

from __future__ import annotations

import os
import re
import shlex
import sys
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from tracelens import __version__, registry
from tracelens.cli import _files, _output
from tracelens.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tracelens.bench.cell import Cell
    from tracelens.bench.plan import Asked
    from tracelens.bench.results import Results
    from tracelens.tables import Report

_FAILED: Final = 4
_INTERRUPTED: Final = 130
_LONGEST: Final = 80
_MOST_JOBS: Final = 8


@dataclass(frozen=True, kw_only=True)
class Given:
    """What was typed about kernels; see the options of `tracelens bench`."""

    kernels: tuple[str, ...]
    shapes: tuple[str, ...]
    dtypes: tuple[str, ...]
    operations: tuple[str, ...]
    baselines: tuple[str, ...]
    quantities: tuple[str, ...]
    l2: tuple[str, ...]
    precision: float | None
    budget: float | None
    limit: float | None
    seed: int
    default_config: bool
    tune: bool
    check: bool
    jobs: int | None
    resume: Path | None
    retry: Path | None
    device: str
    quick: bool
    output: Path | None
    force: bool


@dataclass(frozen=True)
class Printed:
    """How tables are printed."""

    renderer: str
    tables: tuple[str, ...]
    top: int | None

    def put(self, report: Report, known: Sequence[str]) -> None:
        """Print a report, or the tables of it that were named."""
        if unknown := [name for name in self.tables if name not in known]:
            raise UsageError(registry.unknown("table", unknown[0], dict.fromkeys(known)))
        wanted = self.tables or (known[:1] if self.renderer == "csv" else known)
        kept = tuple(table for table in report.tables if table.name in wanted)
        chosen: Any = registry.load("renderer", self.renderer)
        shown = replace(report, tables=kept)
        if kept or self.renderer != "csv":
            _output.put(chosen.render([shown], _output.options(self.top, None)), None)


def words(values: Sequence[str]) -> tuple[str, ...]:
    """Return the names of an option that was given several times, or several at a time."""
    parts = (part.strip() for value in values for part in value.split(","))
    return tuple(part for part in parts if part)


def shapes(values: Sequence[str]) -> tuple[str, ...]:
    """Return the shapes of an option; blanks and semicolons lie between several."""
    return tuple(part for value in values for part in re.split(r"[\s;]+", value) if part)


def measure(given: Given, printed: Printed) -> int:
    """Measure kernels and print what was found; return the exit status."""
    from tracelens.bench import results_shown, sweep
    from tracelens.bench.results import save

    _check(given)
    sweep.check_torch()
    found, file = _begun(given)
    make(file.absolute().parent)
    save(found, file)  # tried before anything is measured
    say(f"Results: {file}" if found.waiting else f"{file} lacks nothing: nothing is measured.")
    interrupted = False
    try:
        for more in sweep.run(found, say, given.limit or sweep.SILENCE_S):
            found = more
            save(found, file)
    except KeyboardInterrupt:
        interrupted = True
    printed.put(results_shown.report(found, file), results_shown.TABLES)
    if interrupted:
        say(f"Stopped. To go on: tracelens bench --resume {shlex.quote(str(file))}")
        return _INTERRUPTED
    return _FAILED if any(not one.is_cannot for one in found.failed) else 0


def check(given: Given, printed: Printed) -> int:
    """Build and check kernels, and print what came of each; return the exit status."""
    from tracelens.bench import results, results_shown, sweep

    if given.resume or given.retry or given.quantities:
        raise UsageError("--check times nothing: leave --resume, --retry-failed, --quantity out.")
    sweep.check_torch()
    _files.check_free(given.output, (), force=given.force)
    found = sweep.check(_planned(given), say, given.limit or sweep.SILENCE_S, jobs(given))
    if given.output is not None:
        results.save(found, given.output)
    tables = results_shown.TABLES[1:]
    printed.put(results_shown.report(found, given.output), tables)
    return _FAILED if any(not one.is_cannot for one in found.failed) else 0


def jobs(given: Given) -> int:
    """Return how many processes may compile at a time."""
    return given.jobs or max(1, min(_MOST_JOBS, (os.cpu_count() or 1) // 2))


def show(file: Path, words: Sequence[str], printed: Printed) -> int:
    """Print what a file of results says of these kernels, or of all."""
    from tracelens.bench import results, results_shown

    found = results.load(file)
    known = {cell.kernel: None for cell in found.cells}
    names = [word.replace("-", "_") for word in words] or [*known]
    if unknown := [name for name in names if name not in known]:
        held = ", ".join(sorted(name.replace("_", "-") for name in known))
        raise UsageError(f"{file} has nothing of {unknown[0].replace('_', '-')}, but of {held}.")
    printed.put(results_shown.report(found.only(names), file), results_shown.TABLES)
    return 0


def listed(names: Sequence[str]) -> Iterator[str]:
    """Give the lines that say what there is to measure; of kernels that are named, in detail."""
    if names:
        from tracelens.bench import plan

        for name, kernel in plan.loaded(names).items():
            yield from _detailed(name, kernel)
        return
    entries = registry.entries("kernel")
    width = max(map(len, ("ceilings", *entries)))
    yield f"{'ceilings':<{width}}  What this machine can reach at most."
    for name, entry in sorted(entries.items()):
        yield f"{name.replace('_', '-'):<{width}}  {entry.summary}"
    if entries:
        yield ""
        yield "`tracelens bench KERNEL --list` says what there is of one; `bench all` measures all."


def like(given: Given) -> Cell:
    """Return a cell with all that does not depend on the kernel."""
    from tracelens.bench.cell import Cell

    made = Cell(
        kernel="",
        shape={},
        dtype="",
        config="default" if given.default_config else "tuned",
        device=given.device,
        seed=given.seed,
    )
    if given.quick:
        made = replace(made, precision=0.02, budget_s=0.5, warmup_s=0.1)
    if given.precision is not None:
        made = replace(made, precision=given.precision / 100)
    return made if given.budget is None else replace(made, budget_s=given.budget)


def asked(given: Given) -> Asked:
    """Return what was asked for."""
    from tracelens.bench.plan import Asked

    return Asked(
        kernels=given.kernels,
        shapes=given.shapes,
        dtypes=given.dtypes,
        operations=given.operations,
        baselines=given.baselines,
        quantities=given.quantities,
        l2=given.l2,
        like=like(given),
    )


def _check(given: Given) -> None:
    """Raise UsageError where what was typed does not go together."""
    file = given.resume or given.retry
    if file is None:
        return
    more = [given.kernels, given.shapes, given.dtypes, given.operations, given.baselines]
    if any(more) or given.output or (given.resume and given.retry):
        option = "--resume" if given.resume else "--retry-failed"
        raise UsageError(f"{option} FILE knows what to measure, and where: name nothing else.")


def _begun(given: Given) -> tuple[Results, Path]:
    """Return what is to be measured, and the file for it."""
    from tracelens.bench import results

    if given.resume:
        return results.load(given.resume), given.resume
    if given.retry:
        return results.load(given.retry).without_failed(), given.retry
    _files.check_free(given.output, (), force=given.force)
    begun = _planned(given)
    return begun, given.output or _new_file(begun)


def _planned(given: Given) -> Results:
    """Return what was asked for, with nothing measured yet."""
    from tracelens.bench import plan, results, sweep

    return results.Results(
        cells=plan.cells(asked(given)),
        made=datetime.now().astimezone().isoformat(timespec="seconds"),
        command=("tracelens", *sys.argv[1:]),
        environment=sweep.circumstances(),
        tracelens=__version__,
    )


def _new_file(begun: Results) -> Path:
    now = datetime.fromisoformat(begun.made)
    names = "-".join(dict.fromkeys(cell.kernel.replace("_", "-") for cell in begun.cells))
    plain = re.sub(r"[^A-Za-z0-9._+-]+", "-", names)[:_LONGEST]
    return Path("runs") / f"bench-{plain}-{now:%Y%m%d-%H%M%S}.json"


def make(folder: Path) -> None:
    """Make a folder.

    Raises:
        UsageError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"{folder} cannot be made: {error.strerror or error}. Choose a file with -o."
        ) from error


def _detailed(name: str, kernel: Any) -> Iterator[str]:
    from tracelens import kernel as kernels

    entry = registry.entries("kernel")[name]
    yield f"{name.replace('_', '-')}: {entry.summary}"
    yield f"  shape       {'x'.join(kernel.axes)}"
    yield f"  formats     {', '.join(kernel.dtypes)}"
    for operation, about in kernel.operations.items():
        others = [one for one in about.implementations if one != kernels.OURS]
        tuned = ", can be tuned" if operation in kernel.tuning else ""
        yield f"  {operation:<11} beside {', '.join(others) or 'nothing'}{tuned}"
    yield "  measured unless --shapes names others:"
    for shape in kernel.shapes:
        yield f"    {kernels.spell(kernels.complete(kernel, shape))}"


def say(line: str) -> None:
    """Tell how far it has come."""
    click.echo("".join(c if c.isprintable() or c == "\n" else " " for c in line), err=True)
