"""Measure what this machine can reach: bandwidth, matrix products, launches, all-reduce."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from tracelens import registry
from tracelens.cli._options import FORCE, FORMAT
from tracelens.errors import UsageError

if TYPE_CHECKING:
    from tracelens.tables import Report

_EPILOG = """
\b
Examples:
  tracelens bench ceilings
  tracelens bench ceilings --quick -o h200.json
  tracelens bench ceilings --show
  TRACELENS_CEILINGS=h200.json tracelens capture gpt2-xl --ctx 256
"""
_HERE: Final = "-"
_KNOWN: Final = ("ceilings",)


@click.command(epilog=_EPILOG)
@click.argument(
    "what", nargs=-1, required=True, metavar="WHAT...",
    shell_complete=lambda _ctx, _param, typed: [w for w in _KNOWN if w.startswith(typed)],
)  # fmt: skip
@click.option(
    "--device", default="auto", show_default=True, metavar="auto|cpu|N",
    help="What to measure: the first GPU or else the processor, the processor, or GPU number N.",
)  # fmt: skip
@click.option("--quick", is_flag=True, help="Fewer sizes and less time: about a minute.")
@click.option(
    "--ranks", type=click.IntRange(min=1), metavar="N",
    help="Processes of the all-reduce; otherwise as many as there are GPUs, if more than one.",
)  # fmt: skip
@click.option(
    "--output", "-o", type=click.Path(path_type=Path), metavar="FILE",
    help="Write to this file. Otherwise to your own file of this GPU, which is replaced.",
)  # fmt: skip
@FORCE
@click.option(
    "--show", is_flag=False, flag_value=_HERE, metavar="[FILE]",
    help="Measure nothing; print what is known of the GPUs here, or what a file says.",
)  # fmt: skip
@FORMAT
def bench(what: tuple[str, ...], renderer: str, show: str | None, **given: Any) -> int:
    """Measure WHAT: `ceilings`, what this machine can reach at most.

    The figures take the place of the data sheet's wherever tracelens holds work against a
    ceiling. They are kept in your data folder, one file for each kind of GPU;
    TRACELENS_CEILINGS names another file.
    """
    for word in what:
        if word not in _KNOWN:
            raise UsageError(registry.unknown("thing to measure", word, dict.fromkeys(_KNOWN)))
    render: Any = registry.load("renderer", renderer).render
    if show is not None:
        reports = _known(None if show == _HERE else Path(show), given["output"])
    else:
        reports = [_measured(**given)]
    from tracelens.cli import _output

    _output.put(render(reports, _output.options(0, None)), None)
    return 0


def _known(file: Path | None, output: Path | None) -> list[Report]:
    from tracelens.bench import here, shown

    if output is not None:
        raise UsageError("--show measures nothing that could be written to a file: leave -o out.")
    return [shown.known(one) for one in here.known(file)]


def _measured(
    *, device: str, quick: bool, ranks: int | None, output: Path | None, force: bool
) -> Report:
    from tracelens.bench import ceilings, shown
    from tracelens.cli import _files
    from tracelens.hardware import measured

    if device not in ("auto", "cpu") and not device.isdecimal():
        raise UsageError(f"--device {device}: write auto, cpu, or the number of a GPU.")
    _files.check_free(output, (), force=force)
    found = ceilings.measure(device, _say, quick=quick, ranks=ranks)
    place = output or measured.place(found.device)
    if output is None:
        _make(place.parent)
    _files.write(place, measured.encode(found))
    _say(f"Written to {place}")
    return shown.measured(found, place)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"{folder} cannot be made: {error.strerror or error}. Choose a file with -o."
        ) from error


def _say(line: str) -> None:
    click.echo(line, err=True)


COMMAND = bench
