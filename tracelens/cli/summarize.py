"""Show where the GPU time of a recording went: by phase, kind of work, kernel, range and step."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tracelens import registry
from tracelens.cli import _files, _options, _output, _reading
from tracelens.errors import NothingToShowError, UsageError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from tracelens.render import Renderer
    from tracelens.tables import Report

_EPILOG = """
\b
Examples:
  tracelens summarize run.sqlite
  tracelens summarize run.sqlite --table families --format markdown
  tracelens summarize run.sqlite --table cuda_gpu_kern_sum --phase backward --top 0
  tracelens summarize run.sqlite --within 'step 3' --format json | jq .tables.phases
  tracelens summarize before.sqlite after.sqlite --table phases --format csv -o both.csv
  tracelens summarize traces/ --table ranks --table collectives
  tracelens summarize run.sqlite --figure phases.svg
"""


_FOR_PROGRAMS = ("json", "csv")
_DRAWN = "overview"
"""The table that --figure draws."""


@click.command(epilog=_EPILOG)
@click.argument(
    "paths", nargs=-1, required=True, metavar="PATH...", type=click.Path(path_type=Path)
)
@click.option(
    "--table",
    "-t",
    "tables",
    multiple=True,
    metavar="NAME",
    type=_options.Names("table", "all"),
    help="Show this table (again for more; `all` for every one). Names of nsys reports work, too.",
)
@_options.PHASE
@_options.WITHIN
@_options.STEP
@_options.DEVICE
@_options.RANK
@_options.PHASE_RULES
@click.option(
    "--attribution",
    type=click.Choice(["launch", "execution"]),
    default="launch",
    show_default=True,
    help="Where a kernel counts: in the phase that launched it, or the one it ran in.",
)
@_options.TOP
@_options.FORMAT
@_options.OUTPUT
@click.option(
    "--figure",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Draw GPU time by phase and kind of work into a .html, .svg or .png.",
)
@_options.FORCE
@_options.NO_CACHE
@click.option(
    "--scheduler",
    metavar="ADDRESS",
    help="Let the workers of this dask cluster read, instead of processes of this machine.",
)
def summarize(  # noqa: PLR0917 (click passes them by keyword)
    paths: tuple[Path, ...],
    tables: tuple[str, ...],
    phases: tuple[str, ...],
    within: str | None,
    step: int | None,
    device: int | None,
    rank: int | None,
    phase_rules: tuple[str, ...],
    attribution: str,
    top: int | None,
    renderer: str,
    output: Path | None,
    figure: Path | None,
    force: bool,
    no_cache: bool,
    scheduler: str | None,
) -> None:
    """Show where the GPU time of one or several recordings went.

    PATH is an Nsight Systems export (SQLite, or a Parquet or Arrow folder), a report that nsys on
    this machine can export, a torch.profiler trace (JSON), or a folder that holds some of these;
    files may be packed as .gz, .zst or .zip. The ranks of one job are shown as one run.
    """
    from tracelens.links.linked import Cut
    from tracelens.tables import build

    chosen: Renderer = registry.load("renderer", renderer)
    names = _tables(tables, renderer)
    cut = Cut(phases, device, within, step, attribution, _options.rules("--phases", phase_rules))
    _output.check_figure(figure)
    for file in (output, figure):
        _files.check_free(file, paths, force=force)
    asked = names if figure is None or not names else tuple(dict.fromkeys((*names, _DRAWN)))
    reports = _reading.reports(
        paths, asked, cut, rank=rank, scheduler=scheduler, cache=not no_cache
    )
    if figure is not None:
        _draw(reports, figure)
        reports = [_without(report, set(asked) - set(names)) for report in reports]
    shown = list(reports)
    if len(reports) > 1 and renderer not in _FOR_PROGRAMS:
        shown.append(build.combined(reports))
    top = top if top is not None else (10 if renderer == "text" and not tables else 20)
    _output.put(chosen.render(shown, _output.options(top, output)), output)
    _output.say_what_is_missing(reports, names or build.MOST_TELLING, renderer)


def _draw(reports: Sequence[Report], figure: Path) -> None:
    """Write the figure of the only recording."""
    from tracelens.figures.bars import draw

    if len(reports) > 1:
        raise UsageError(
            f"--figure draws one recording, and there are {len(reports)}. Name one of them."
        )
    (report,) = reports
    table = next((table for table in report.tables if table.name == _DRAWN), None)
    if table is None:
        raise NothingToShowError(report.left_out.get(_DRAWN, "There is no GPU work to draw."))
    title = Path(str(report.source["path"])).name
    _files.write_bytes(figure, draw(table, title, figure.suffix.removeprefix(".")))


def _without(report: Report, names: Collection[str]) -> Report:
    """Return a report without tables that nobody asked for."""
    kept = tuple(table for table in report.tables if table.name not in names)
    left_out = {name: why for name, why in report.left_out.items() if name not in names}
    return replace(report, tables=kept, left_out=left_out)


def _tables(asked: Sequence[str], renderer: str) -> tuple[str, ...]:
    from tracelens.tables import build

    if "all" in asked or (not asked and renderer == "json"):
        return build.all_tables()
    if asked:
        return tuple(dict.fromkeys(build.resolve(name) for name in asked))
    return ()


COMMAND = summarize
