"""Show where GPU memory went: its peak, what was live, the largest allocations, what stands out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from tracelens import registry
from tracelens.cli import _files, _options, _output, _progress
from tracelens.errors import NothingToShowError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tracelens.links.memory import Memory
    from tracelens.render import Renderer
    from tracelens.trace.model import Trace

_EPILOG = """
\b
Examples:
  tracelens memory snapshot.pickle
  tracelens memory snapshot.pickle --at end --group file
  tracelens memory snapshot.pickle --table largest --top 0
  tracelens memory snapshot.pickle --category 'KV cache=cache\\.py' --table categories
  tracelens memory snapshot.pickle --format json | jq .tables.phases
  tracelens memory snapshot.pickle --figure peak.html
"""

_TOP_OF_TEXT: Final = 5
_TOP: Final = 20


@click.command(epilog=_EPILOG)
@click.argument("path", metavar="PATH", type=click.Path(path_type=Path))
@click.option(
    "--table",
    "-t",
    "tables",
    multiple=True,
    metavar="NAME",
    type=_options.Names("memory_table", "all"),
    help="Show this table (again for more; `all` for every one).",
)
@click.option(
    "--at",
    default="peak",
    show_default=True,
    metavar="peak|oom|end|STEP",
    help=(
        "When to look at what is live: a step's number is the peak of that step, and 'event N' "
        "is right after that event."
    ),
)
@click.option(
    "--group",
    default="stack",
    show_default=True,
    metavar="stack|phase|file",
    help="What to put together of what is live.",
)
@click.option("--device", type=int, metavar="N", help="Only memory of this CUDA device.")
@click.option(
    "--category",
    "categories",
    multiple=True,
    metavar="NAME=REGEX",
    help="Blocks whose call stack matches are of this category; comes before the built-in rules.",
)
@_options.PHASE_RULES
@_options.TOP
@_options.FORMAT
@_options.OUTPUT
@click.option(
    "--figure",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Draw memory over time by category (--group phase: by phase) into a .html, .svg or .png.",
)
@_options.FORCE
@_options.NO_CACHE
def memory(  # noqa: PLR0917 (click passes them by keyword)
    path: Path,
    tables: tuple[str, ...],
    at: str,
    group: str,
    device: int | None,
    categories: tuple[str, ...],
    phase_rules: tuple[str, ...],
    top: int | None,
    renderer: str,
    output: Path | None,
    figure: Path | None,
    force: bool,
    no_cache: bool,
) -> None:
    """Show where the GPU memory of a recording went.

    PATH is a memory snapshot of PyTorch (torch.cuda.memory._dump_snapshot), a torch.profiler
    trace with profile_memory=True, an Nsight Systems export with --cuda-memory-usage=true, or a
    folder that holds one of these, with another recording of the same run beside it or not.
    """
    chosen: Renderer = registry.load("renderer", renderer)
    _check(tables)
    for file in (output, figure):
        _files.check_free(file, [path], force=force)
    _output.check_figure(figure)
    rules = {
        "categories": _options.rules("--category", categories, "KV cache=cache"),
        "phase_rules": _options.rules("--phases", phase_rules),
    }
    recordings = _recordings(path, cache=not no_cache)
    from tracelens.links.memory import Ask, remember
    from tracelens.tables import build
    from tracelens.tables.memory_report import MEMORY, defaults

    names = _tables(tables, renderer)
    ask = Ask(device=device, at=at, group=group, **rules)
    found = [remember(trace, ask, beside) for trace, beside in recordings]
    reports = [build.report_on(one, names or defaults(one), MEMORY) for one in found]
    if tables and not {"all", "timeline"} & set(tables):
        reports = [replace(report, courses=()) for report in reports]
    if figure is not None:
        _draw(found, figure)
    top = top if top is not None else (_TOP_OF_TEXT if renderer == "text" and not tables else _TOP)
    _output.put(chosen.render(reports, _output.options(top, output)), output)
    _output.say_what_is_missing(
        reports, names or [t.name for r in reports for t in r.tables], renderer
    )


def _check(asked: Sequence[str]) -> None:
    """Raise UsageError if there is no such table, before anything is read."""
    known = registry.entries("memory_table")
    for name in asked:
        if name != "all" and name.replace("-", "_") not in known:
            from tracelens.tables import build

            build.resolve(name, "memory_table")


def _tables(asked: Sequence[str], renderer: str) -> tuple[str, ...]:
    from tracelens.tables import build
    from tracelens.tables.memory_report import MEMORY

    if "all" in asked or (not asked and renderer == "json"):
        return build.all_tables(MEMORY)
    return tuple(dict.fromkeys(build.resolve(name, MEMORY.tables) for name in asked))


def _opened(path: Path, *, cache: bool) -> Trace:
    from tracelens.readers.open import open_trace

    with _progress.shown(f"Reading {path.name}") as progress:

        def told(what: str, done: int, total: int) -> None:
            # Now a process reads the snapshot: what comes after is imported meanwhile.
            import tracelens.links.memory
            import tracelens.tables.memory_report  # noqa: F401

            progress(what, done, total)

        return open_trace(path, cache=cache, progress=told)


def _recordings(path: Path, *, cache: bool) -> list[tuple[Trace, Trace | None]]:
    """Open the recordings to show, each with another of the same run, whose ranges may help.

    A folder's snapshots are shown, or else whatever else holds memory events. What else is there
    of the same name up to its first point, or alone beside a snapshot alone, is of the same run.

    Raises:
        NothingToShowError: no recording of the folder holds memory.
    """
    if _files.is_single(path):
        return [(_opened(path, cache=cache), None)]
    traces = {file: _opened(file, cache=cache) for file in _files.recordings([path])}
    snapshots = [file for file, trace in traces.items() if "blocks" in trace]
    rest = [file for file in traces if file not in snapshots]
    if len(snapshots) == len(rest) == 1:
        return [(traces[snapshots[0]], traces[rest[0]])]
    if snapshots:
        beside = {_stem(file): traces[file] for file in reversed(rest)}
        return [(traces[file], beside.get(_stem(file))) for file in snapshots]
    with_memory = [trace for trace in traces.values() if "memory" in trace]
    if not with_memory:
        raise NothingToShowError(
            f"No recording in {path} holds memory. Take a snapshot with "
            "torch.cuda.memory._record_memory_history() and _dump_snapshot(FILE)."
        )
    return [(trace, None) for trace in with_memory]


def _stem(path: Path) -> str:
    return path.name.partition(".")[0]


def _draw(found: Sequence[Memory], figure: Path) -> None:
    """Write the figure of the only recording."""
    if len(found) > 1:
        raise UsageError(
            f"--figure draws one recording, and there are {len(found)}. Name one of them."
        )
    from tracelens.figures.memory import draw

    _files.write_bytes(figure, draw(found[0], figure.suffix.removeprefix(".")))


COMMAND = memory
