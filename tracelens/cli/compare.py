"""Compare runs: which is slower per step, by how much more than noise, and what explains it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from tracelens import registry
from tracelens.cli import _bench_compare, _files, _options, _output, _progress
from tracelens.errors import NothingToShowError, TracelensError, UnreadableError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tracelens.analyses.compare.gate import Judged
    from tracelens.analyses.compare.side import Side
    from tracelens.executors import Failed
    from tracelens.render import Options, Renderer
    from tracelens.run import Place
    from tracelens.tables import Report
    from tracelens.tables.compare.reading import Read

_EPILOG = """
\b
Examples:
  tracelens compare before.sqlite after.sqlite
  tracelens compare before/ after/ --by phase --by op
  tracelens compare main=a1/ new=b1/ new=b2/ main=a2/
  tracelens compare before.sqlite after.sqlite --gate 'total>5%' --gate 'kernel:nvjet>2ms'
  tracelens compare before.sqlite after.sqlite --format markdown -o comment.md
  tracelens compare runs/bench-before.json runs/bench-after.json --gate 'total>3%'
"""
_REGRESSION: Final = 1
_FEW_BYTES: Final = 16 << 20
_TOP_OF_TEXT: Final = 10
_TOP: Final = 20


@click.command(epilog=_EPILOG)
@click.argument("paths", nargs=-1, required=True, metavar="[NAME=]PATH [NAME=]PATH...")
@click.option(
    "--by",
    multiple=True,
    metavar="phase|family|kernel|range|op|step",
    help=(
        "What to take the runs apart by (again for more, or `all`). Unless set, kernel; without "
        "GPU work phase and op."
    ),
)
@click.option(
    "--table",
    "-t",
    "tables",
    multiple=True,
    metavar="NAME",
    help="Show this table alone, by its name in JSON (again for more).",
)
@click.option(
    "--gate",
    "gates",
    multiple=True,
    metavar="WHAT>LIMIT",
    help=(
        "Exit with status 1 if B exceeds A by more than this, and more than noise: 'total>5%', "
        "'phase:backward>2ms', 'kernel:NAME>10%', 'memory>64MiB' (again for more)."
    ),
)
@click.option(
    "--rank",
    type=click.IntRange(min=0),
    metavar="N",
    help="Only this rank, of folders that hold the recordings of several.",
)
@_options.PHASE_RULES
@_options.TOP
@_options.FORMAT
@_options.OUTPUT
@click.option(
    "--figure",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Draw what explains the difference into a .html, .svg or .png.",
)
@_options.FORCE
@_options.NO_CACHE
def compare(  # noqa: PLR0917 (click passes them by keyword)
    paths: tuple[str, ...],
    by: tuple[str, ...],
    tables: tuple[str, ...],
    gates: tuple[str, ...],
    rank: int | None,
    phase_rules: tuple[str, ...],
    top: int | None,
    renderer: str,
    output: Path | None,
    figure: Path | None,
    force: bool,
    no_cache: bool,
) -> int:
    """Compare runs, step by step: the first is the baseline A, each other one B.

    PATH is a recording of any format, or a folder with those of one run. Paths of one NAME are
    recordings of the same, and count as one run. Exit status 1 tells that a --gate was exceeded.
    Results of `tracelens bench KERNEL` are compared with their like, cell by cell.
    """
    from tracelens.analyses.compare import gate
    from tracelens.bench import compared
    from tracelens.tables import compare as tables_of
    from tracelens.tables.compare.shown import TABLES

    chosen: Renderer = registry.load("renderer", renderer)
    named = [_named(path) for path in paths]
    asked = _by(by, renderer)
    wanted = [gate.parsed(text) for text in gates]
    kernels = _bench_compare.are_results([path for _, path in named])
    known = compared.TABLES if kernels else (*TABLES,)
    if unknown := [name for name in tables if name not in known]:
        raise UsageError(registry.unknown("table", unknown[0], dict.fromkeys(known)))
    if len(dict.fromkeys(name or str(path) for name, path in named)) < 2 and len(named) < 2:
        raise UsageError("Name two runs at least: the baseline, and what to compare with it.")
    _output.check_figure(figure)
    for file in (output, figure):
        _files.check_free(file, [path for _, path in named], force=force)
    if kernels:
        _bench_compare.check_options(
            {"--by": by, "--rank": rank is not None, "--phases": phase_rules, "--figure": figure}
        )
        report, status = _bench_compare.compared(named, wanted)
        shown = _only(report, tables or (known[1:] if renderer == "csv" else ()))
        _output.put(_text(chosen, shown, renderer, _output.options(top or 0, output)), output)
        return status
    runs = _sides(named, _options.rules("--phases", phase_rules), rank, cache=not no_cache)
    parts = tables_of.BY if tables else asked or tables_of.suits(runs)
    report = tables_of.report(runs, parts, wanted)
    outcomes = tables_of.judged(runs, wanted)
    if figure is not None:
        _draw(runs, figure)
    shown = _only(report, _one_table(tables, asked, renderer))
    top = top if top is not None else (_TOP_OF_TEXT if renderer == "text" else _TOP)
    _output.put(_text(chosen, shown, renderer, _output.options(top, output)), output)
    _output.say_what_is_missing([report], known, "")
    return _status(outcomes)


def _named(text: str) -> tuple[str, Path]:
    """Return the name that a run was given, empty without one, and its path."""
    name, sign, path = text.partition("=")
    if not sign or not name or Path(text).exists() or "/" in name:
        return "", Path(text)
    return name, Path(path)


def _by(asked: Sequence[str], renderer: str) -> tuple[str, ...]:
    from tracelens.tables import compare as tables_of

    if "all" in asked or (not asked and renderer == "json"):
        return tables_of.BY
    if unknown := [name for name in asked if name not in tables_of.BY]:
        raise UsageError(registry.unknown("--by", unknown[0], dict.fromkeys(tables_of.BY)))
    return tuple(dict.fromkeys(asked))


def _one_table(tables: Sequence[str], by: Sequence[str], renderer: str) -> Sequence[str]:
    """Return the tables to show alone; CSV holds one."""
    if tables or renderer != "csv":
        return tables
    return [f"compare_{name}" for name in by] or ["compare"]


def _only(report: Report, names: Sequence[str]) -> Report:
    if not names:
        return report
    kept = tuple(table for table in report.tables if table.name in names)
    left_out = {name: why for name, why in report.left_out.items() if name in names}
    return replace(report, tables=kept, left_out=left_out)


def _text(chosen: Renderer, report: Report, renderer: str, options: Options) -> str:
    if renderer == "markdown" and len(report.tables) > 1:
        from tracelens.render._comment import render

        return render(report, options)
    return chosen.render([report], options)


def _status(outcomes: Sequence[Judged]) -> int:
    """Return the exit status: of a regression, and of a gate that nobody can judge, not 0."""
    if any(one.outcome == "regression" for one in outcomes):
        return _REGRESSION
    if unknown := [one for one in outcomes if one.outcome == "not judged"]:
        raise NothingToShowError(
            f"--gate {unknown[0].gate.text!r} could not be judged: {unknown[0].why}."
        )
    return 0


def _sides(
    named: Sequence[tuple[str, Path]], phases: Mapping[str, str], rank: int | None, *, cache: bool
) -> list[Side]:
    """Return the sides in the order in which they were named first."""
    from tracelens import executors
    from tracelens.tables.compare.reading import Task, read, sides

    places = [_place(path, rank) for _, path in named]
    files = list(dict.fromkeys(r.path for place in places for r in place.recordings))
    tasks = [Task(file, phases, cache) for file in files]
    with _progress.shown("Reading") as progress:
        if sum(map(_bytes, files)) < _FEW_BYTES:
            # Starting a process takes longer than reading a small recording.
            answers = [executors.guarded(read, task) for task in tasks]
        else:
            answers = executors.each(
                read,
                tasks,
                done=lambda done, total: progress(f"{total} recordings", done, total),
            )
    reads = {file: _read(file, answer) for file, answer in zip(files, answers, strict=True)}
    return sides([(name, place) for (name, _), place in zip(named, places, strict=True)], reads)


def _bytes(path: Path) -> int:
    """Return the size of a file; folders and what cannot be looked at count as large."""
    try:
        return path.stat().st_size if path.is_file() else _FEW_BYTES
    except OSError:
        return _FEW_BYTES


def _place(path: Path, rank: int | None) -> Place:
    from tracelens import run
    from tracelens.tables.compare.reading import timed_steps

    try:
        found = run.found([path])
    except UnreadableError:
        if not timed_steps(path):
            raise
        return run.Place(path, ())
    if len(found) > 1:
        names = ", ".join(str(place.path) for place in found[:3])
        raise UsageError(f"{path} holds {len(found)} runs ({names}, ...): name one of them.")
    return found[0] if rank is None else run.only(found[0], rank)


def _read(path: Path, answer: Read | Failed) -> Read:
    """Return what a recording was reduced to; raise where it could not be."""
    from tracelens.executors import Failed

    if not isinstance(answer, Failed):
        return answer
    if isinstance(answer.error, TracelensError):
        raise answer.error
    raise RuntimeError(f"{path.name} could not be read: {answer.text}")


def _draw(sides: Sequence[Side], figure: Path) -> None:
    from tracelens.figures.compare import draw

    if len(sides) > 2:
        raise UsageError(f"--figure draws two runs, and there are {len(sides)}.")
    baseline, other = sides
    _files.write_bytes(figure, draw(baseline, other, figure.suffix.removeprefix(".")))


COMMAND = compare
