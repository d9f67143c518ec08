"""Where a command's text goes, and what must be said where nothing could be shown."""

from __future__ import annotations

import os
import shutil
import sys
from typing import TYPE_CHECKING, Final

import click

from tracelens.cli import _files
from tracelens.errors import NothingToShowError, UsageError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    from tracelens.render import Options
    from tracelens.tables import Report

FIGURES: Final = (".html", ".svg", ".png")
_TABLES_ALONE = ("csv", "latex", "markdown")


def options(top: int | None, output: Path | None) -> Options:
    """Return what a renderer is told: rows, the terminal's width, and whether it has colours."""
    from tracelens.render import Options

    colour = output is None and sys.stdout.isatty() and "NO_COLOR" not in os.environ
    width = shutil.get_terminal_size((80, 24)).columns
    return Options(top=top or None, width=width, colour=colour)


def put(text: str, output: Path | None) -> None:
    """Print a text, or write it to a file."""
    if output is None:
        click.echo(text, nl=False)
    else:
        _files.write(output, text)


def check_figure(figure: Path | None) -> None:
    """Raise UsageError if a figure's name does not say in which of the known forms to draw it."""
    if figure is not None and figure.suffix not in FIGURES:
        raise UsageError(f"--figure {figure}: its name must end in {', '.join(FIGURES)}.")


def say_what_is_missing(reports: Sequence[Report], wanted: Collection[str], renderer: str) -> None:
    """Raise if nothing of the wanted tables could be shown.

    Formats that carry tables alone get warnings and reasons on standard error.
    """
    shown = [t for report in reports for t in report.tables if t.name in wanted]
    if all(table.frame.is_empty() for table in shown):
        reasons = dict.fromkeys(why for report in reports for why in report.left_out.values())
        paths = ", ".join(str(report.source["path"]) for report in reports)
        raise NothingToShowError(f"Nothing to show of {paths}: {'; '.join(reasons)}.")
    if renderer in _TABLES_ALONE:
        for report in reports:
            said = [*report.warnings, *(f"{n}: {why}" for n, why in report.left_out.items())]
            for text in said:
                click.echo(f"tracelens: {report.source['path']}: {text}", err=True)
