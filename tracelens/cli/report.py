"""Write a report to attach: what was measured where, what it shows, and what to change."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from tracelens.cli import _bench_compare, _files, _options
from tracelens.errors import NothingToShowError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tracelens.cli._gathering import Gatherer
    from tracelens.reports import Document
    from tracelens.reports.subject import Run, Subject

_EPILOG = """
\b
Examples:
  tracelens report run.sqlite -o report.md
  tracelens report runs/gpt2-xl-ctx256-20261120-101500 -o report.html
  tracelens report before.sqlite after.sqlite -o report.tex --attach figures
  tracelens report run.sqlite --title 'GPT-2 XL on one H200' --date 2026-11-20 -o report.html
"""
_FORMATS: Final = ("markdown", "html", "latex")
_SUFFIXES: Final = {".md": "markdown", ".html": "html", ".htm": "html", ".tex": "latex"}


@click.command(epilog=_EPILOG)
@click.argument(
    "paths", nargs=-1, required=True, metavar="PATH...", type=click.Path(path_type=Path)
)
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write to this .md, .html or .tex; without it the report is printed.",
)
@click.option(
    "--format",
    "-f",
    "form",
    type=click.Choice(_FORMATS),
    help="Instead of what the end of FILE says; markdown, if nothing does.",
)
@click.option(
    "--attach",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Write every table (CSV, Markdown, LaTeX) and figure (SVG, TikZ) into this folder.",
)
@click.option("--title", metavar="TEXT", help="Title of the report.")
@click.option(
    "--date",
    default="",
    metavar="TEXT",
    help="A line below the title. Without it the same input gives the same report.",
)
@click.option(
    "--targets",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Targets that the runs are held against.",
)
@click.option(
    "--ceilings",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Measured ceilings of the GPU, as tracelens bench ceilings writes them.",
)
@_options.PHASE_RULES
@_options.TOP
@click.option("--force", is_flag=True, help="Overwrite FILE and DIR.")
@_options.NO_CACHE
def report(  # noqa: PLR0917 (click passes them by keyword)
    paths: tuple[Path, ...],
    output: Path | None,
    form: str | None,
    attach: Path | None,
    title: str | None,
    date: str,
    targets: Path | None,
    ceilings: Path | None,
    phase_rules: tuple[str, ...],
    top: int | None,
    force: bool,
    no_cache: bool,
) -> None:
    """Write a report on one or several runs: a page to read, or the source of a paper's appendix.

    PATH is a recording of any format, a Run folder, a folder of the recordings of several ranks,
    or results of `tracelens bench`. Several of them are compared, the first being what the others
    are held against.
    """
    form = form or _format_of(output)
    folder = _figures_folder(output) if form == "markdown" else None
    _check(paths, output, folder, attach, force=force)
    from tracelens.cli._gathering import Gatherer
    from tracelens.cli.roofline import held_against
    from tracelens.links.linked import Cut
    from tracelens.reports import build
    from tracelens.reports.subject import Subject

    cut = Cut(phase_rules=_options.rules("--phases", phase_rules))
    gatherer = Gatherer(build.tables(), cut, cache=not no_cache)
    with held_against(ceilings):
        runs = gatherer.runs(paths)
        subject = Subject(tuple(runs))
        if len(runs) > 1:
            subject = _with_comparison(subject, gatherer)
        if targets is not None:
            subject = _with_grades(subject, targets, paths, cache=not no_cache)
        rows = 20 if top is None else top or None
        document = build.document(subject, title or _title(runs), date=date, top=rows)
    _write(document, form, output, folder)
    if attach is not None:
        from tracelens.reports import attach as attachments

        _files.write_folder(attach, attachments.files(document))


def _format_of(output: Path | None) -> str:
    """Return the format that the end of a name stands for.

    Raises:
        UsageError: it stands for none.
    """
    if output is None:
        return "markdown"
    if output.suffix == ".pdf":
        raise UsageError(
            f"A report is written as .md, .html or .tex: write {output.with_suffix('.tex')}, and "
            "pdflatex makes the .pdf of it."
        )
    try:
        return _SUFFIXES[output.suffix.lower()]
    except KeyError:
        raise UsageError(
            f"{output}: its name must end in {', '.join(_SUFFIXES)}; --format says it otherwise."
        ) from None


def _figures_folder(output: Path | None) -> Path | None:
    """Return where the figures of a Markdown file go: a folder beside it."""
    return output and output.with_name(f"{output.stem}_files")


def _check(
    paths: Sequence[Path],
    output: Path | None,
    folder: Path | None,
    attach: Path | None,
    *,
    force: bool,
) -> None:
    """Refuse what must not be overwritten, before any work is done."""
    _files.check_free(output, paths, force=force)
    for place in (folder, attach):
        if place is not None:
            _files.check_folder_free(place, paths, force=force)


def _with_comparison(subject: Subject, gatherer: Gatherer) -> Subject:
    """Return the subject with how its runs differ, or with why that cannot be told."""
    try:
        return replace(subject, comparison=gatherer.comparison(subject.runs))
    except (UsageError, NothingToShowError) as error:
        return replace(subject, why_not={**subject.why_not, "comparison": str(error)})


def _with_grades(subject: Subject, file: Path, paths: Sequence[Path], *, cache: bool) -> Subject:
    """Return the subject with which targets its runs meet."""
    from tracelens import targets

    asked = targets.load(file)
    runs = _bench_compare.measured(paths, cache=cache)
    return replace(subject, grades=targets.report(asked, runs))


def _title(runs: Sequence[Run]) -> str:
    names = [run.manifest.name if run.manifest else run.label for run in runs]
    if len(runs) > 1 and len(set(names)) < len(names):
        names = [run.label for run in runs]
    return f"Performance of {' and '.join(names) if len(names) < 3 else f'{len(names)} runs'}"


def _write(document: Document, form: str, output: Path | None, folder: Path | None) -> None:
    """Write the report and what lies beside it, or print it."""
    from tracelens.reports.writers import writer

    written = writer(form)(document, folder.name if folder else "")
    if output is None:
        click.echo(written.text, nl=False)
        return
    if folder is not None and written.beside:
        _files.write_folder(folder, written.beside)
    _files.write(output, written.text)


COMMAND = report
