"""Show how near work comes to the GPU's ceilings, what bounds it, and where time is lost."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from tracelens import registry
from tracelens.cli import _files, _options, _output, _reading
from tracelens.errors import NothingToShowError, UnreadableError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tracelens.capture.folder import Manifest
    from tracelens.links.linked import Cut
    from tracelens.render import Renderer
    from tracelens.tables import Report

_EPILOG = """
\b
Examples:
  tracelens roofline trace.json.gz
  tracelens roofline trace.json.gz --phase backward --table roofline --top 0
  tracelens roofline runs/gpt2-xl-20261120-101500
  tracelens roofline ncu.csv
  tracelens roofline trace.json.gz --ceilings ceilings.json --format markdown
  tracelens roofline trace.json.gz --figure roofline.svg
"""

_TOP_OF_TEXT: Final = 10
_TOP: Final = 20


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
    help=(
        "Show this table: roofline_totals, roofline_phases, roofline (by op and shape), "
        "roofline_formulas, roofline_parts (again for more; `all` for every one)."
    ),
)
@_options.PHASE
@_options.WITHIN
@_options.STEP
@_options.DEVICE
@_options.RANK
@_options.PHASE_RULES
@click.option(
    "--ceilings",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Hold work against these ceilings, which tracelens bench ceilings measured.",
)
@_options.TOP
@_options.FORMAT
@_options.OUTPUT
@click.option(
    "--figure",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Draw the roofline with a point for each op and shape into a .html, .svg or .png.",
)
@_options.FORCE
@_options.NO_CACHE
def roofline(  # noqa: PLR0917 (click passes them by keyword)
    paths: tuple[Path, ...],
    tables: tuple[str, ...],
    phases: tuple[str, ...],
    within: str | None,
    step: int | None,
    device: int | None,
    rank: int | None,
    phase_rules: tuple[str, ...],
    ceilings: Path | None,
    top: int | None,
    renderer: str,
    output: Path | None,
    figure: Path | None,
    force: bool,
    no_cache: bool,
) -> None:
    """Show how near work comes to the GPU's ceilings, and where time is lost against them.

    PATH is a torch.profiler trace (JSON) with record_shapes=True, whose ops tell what they compute
    and move; a table of Nsight Compute (ncu --set roofline), whose counters tell it by kernel; or
    the Run folder of a workload, whose formulas tell it for any recorder.
    """
    from tracelens.links.linked import Cut

    chosen: Renderer = registry.load("renderer", renderer)
    names = _names(tables, renderer)
    cut = Cut(phases, device, within, step, "launch", _options.rules("--phases", phase_rules))
    _output.check_figure(figure)
    for file in (output, figure):
        _files.check_free(file, paths, force=force)
    with held_against(ceilings):
        reports = _reports(paths, names, cut, rank, cache=not no_cache)
        if figure is not None:
            _draw(reports, figure)
        shown = [_only(one, names if tables else _of_its_kind(one, names)) for one in reports]
        short = renderer == "text" and not tables
        top = top if top is not None else (_TOP_OF_TEXT if short else _TOP)
        text = chosen.render(shown, _output.options(top, output))
    _output.put(text, output)
    _output.say_what_is_missing(shown, names, renderer)


def _names(asked: Sequence[str], renderer: str) -> tuple[str, ...]:
    from tracelens.tables.roofline_report import TABLES

    if not asked and renderer == "csv":
        return ("roofline",)
    if "all" in asked or not asked:
        return TABLES
    plain = tuple(dict.fromkeys(name.replace("-", "_") for name in asked))
    if unknown := [name for name in plain if name not in TABLES]:
        raise UsageError(registry.unknown("table", unknown[0], dict.fromkeys(TABLES)))
    return plain


@contextmanager
def held_against(file: Path | None) -> Iterator[None]:
    """Let this file tell the ceilings, here and in the processes that read recordings."""
    from tracelens.hardware import limits, measured

    if file is None:
        yield
        return
    measured.load(file)
    before = os.environ.get(limits.FILE)
    os.environ[limits.FILE] = str(file.absolute())
    try:
        yield
    finally:
        if before is None:
            del os.environ[limits.FILE]
        else:
            os.environ[limits.FILE] = before


def _reports(
    paths: Sequence[Path], names: Sequence[str], cut: Cut, rank: int | None, *, cache: bool
) -> list[Report]:
    """Return the reports of everything that was named, with formulas where there are some."""
    from tracelens.analyses.roofline_formulas import parts_of
    from tracelens.capture import summary
    from tracelens.tables.roofline_report import MEASURED, OF_SHAPES, shown

    found = []
    for path in paths:
        manifest = _manifest(path)
        parts = parts_of(manifest.cost) if manifest else None
        step_ns = summary.step_ns(manifest) if manifest else None
        file = _with_shapes(path, manifest) if manifest and rank is None else path
        asked = tuple(dict.fromkeys((*OF_SHAPES, *MEASURED)))
        counters = _counters(path, manifest) if manifest and file != path else None
        read = (
            [_with_counters(file, counters, asked, cut, cache=cache)]
            if counters
            else _reading.reports([file], asked, cut, rank=rank, cache=cache)
        )
        found += [shown(report, (*names, "roofline"), parts, step_ns) for report in read]
    return found


def _manifest(path: Path) -> Manifest | None:
    """Return what a Run folder says of itself; None of whatever is none."""
    from tracelens.capture import folder
    from tracelens.run import MANIFEST

    try:
        return folder.load(path) if (path / MANIFEST).is_file() else None
    except UsageError:
        return None  # a run.json by hand, which lists recordings alone


def _with_shapes(path: Path, manifest: Manifest) -> Path:
    """Return the only recording with shapes of a Run folder, if there is one, else the folder."""
    files = [path / file.path for file in manifest.recordings if file.recorder == "torch"]
    return files[0] if len(files) == 1 and files[0].is_file() else path


def _counters(path: Path, manifest: Manifest) -> Path | None:
    """Return what Nsight Compute measured of the same program, if it lies in the Run folder."""
    from tracelens.capture.recorders.ncu import TABLE

    named = [path / name for one in manifest.passes for name in one.files if name in _tables(TABLE)]
    return next((file for file in named if file.is_file()), None)


def _tables(name: str) -> tuple[str, str]:
    return name, f"{name}.gz"


def _with_counters(
    file: Path, counters: Path, names: Sequence[str], cut: Cut, *, cache: bool
) -> Report:
    """Return the report on a recording whose kernels were measured apart as well."""
    from tracelens.links.joined import joined
    from tracelens.links.linked import link
    from tracelens.readers.open import open_trace
    from tracelens.tables import build
    from tracelens.trace.model import Caveat

    trace = open_trace(file, cache=cache)
    try:
        trace = joined(trace, open_trace(counters, cache=cache)).trace
    except UnreadableError as error:
        trace = trace.with_caveats(Caveat("missing", str(error)))
    return build.report(link(trace, cut), names)


def _only(report: Report, names: Sequence[str]) -> Report:
    from tracelens.tables import of_run

    return of_run.only(report, names)


def _of_its_kind(report: Report, names: Sequence[str]) -> list[str]:
    """Return the names without formulas, where the recording is none of a workload's Run folder."""
    from tracelens.tables.roofline_report import OF_FORMULAS

    made = {table.name for table in report.tables}
    return [name for name in names if name in made or name not in OF_FORMULAS]


def _draw(reports: Sequence[Report], figure: Path) -> None:
    """Write the figure of the only recording."""
    from tracelens.figures.roofline import draw

    if len(reports) > 1:
        raise UsageError(
            f"--figure draws one recording, and there are {len(reports)}. Name one of them."
        )
    (report,) = reports
    table = next((table for table in report.tables if table.name == "roofline"), None)
    if table is None:
        raise NothingToShowError(f"There is nothing to draw: {report.left_out['roofline']}.")
    title = Path(str(report.source["path"])).name
    _files.write_bytes(figure, draw(table, report, title, figure.suffix.removeprefix(".")))


COMMAND = roofline
