"""Check the numbers of a benchmark report: what must follow from what, and what no GPU can do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from tracelens import registry
from tracelens.cli import _files, _options, _output
from tracelens.errors import NothingToShowError, UsageError

if TYPE_CHECKING:
    from tracelens.audit.judge import Judged
    from tracelens.audit.mapping import Guide
    from tracelens.audit.sheets import Audited
    from tracelens.render import Renderer

_EPILOG = """
\b
Examples:
  tracelens audit RESULTS.md
  tracelens audit results.csv --gpu 'H100 SXM' --all
  tracelens audit RESULTS.md --map results.toml --format markdown -o audit.md
  tracelens audit results.json --format json | jq '.tables.checks[] | select(.margin > 0.05)'
  tracelens audit RESULTS.md --gate
"""

_GATE: Final = 1
_TOP_OF_TEXT: Final = 40
_COMPLETE: Final = ("json", "csv")


@click.command(epilog=_EPILOG)
@click.argument("path", metavar="FILE", type=click.Path(path_type=Path))
@click.option(
    "--map",
    "mapping",
    type=click.Path(path_type=Path),
    metavar="MAPPING.toml",
    help="Says what columns are, what rows do, and which formulas claims must meet.",
)
@click.option(
    "--gpu",
    default="",
    metavar="NAME",
    help="What it was measured on, such as 'H100 SXM'; headings and cells that name one win.",
)
@click.option("--all", "everything", is_flag=True, help="Show what holds, too.")
@click.option("--gate", is_flag=True, help="Exit with status 1 if any claim does not hold.")
@_options.TOP
@_options.FORMAT
@_options.OUTPUT
@_options.FORCE
def audit(  # noqa: PLR0917 (click passes them by keyword)
    path: Path,
    mapping: Path | None,
    gpu: str,
    everything: bool,
    gate: bool,
    top: int | None,
    renderer: str,
    output: Path | None,
    force: bool,
) -> int:
    """Recompute what must follow from the numbers of a report, and mark each row.

    FILE is Markdown, CSV or JSON with tables of benchmark results: latencies, throughputs, FLOP/s,
    bandwidths, speed-ups, memory, shapes. Rows are consistent, inconsistent, physically impossible,
    or cannot be checked; the arithmetic is shown.
    """
    from tracelens.audit import report as reports

    chosen: Renderer = registry.load("renderer", renderer)
    _check_gpu(gpu)
    _files.check_free(output, [p for p in (path, mapping) if p], force=force)
    audited, judged, warnings = _judged(path, mapping, gpu)
    limit = top if top is not None else (_TOP_OF_TEXT if renderer == "text" else None)
    wanted = reports.Wanted(
        everything=everything or renderer in _COMPLETE,
        sentences=renderer == "text",
        narrow=renderer == "latex",
        top=limit or None,
    )
    report = reports.report(audited, judged, wanted, warnings)
    if renderer == "csv":
        report = reports.checks_alone(report)
    _output.put(chosen.render([report], _output.options(limit or 0, output)), output)
    if not judged.rows:
        raise NothingToShowError(f"There is no table in {path}, and no number that can be checked.")
    return _GATE if gate and reports.fails(judged) else 0


def _judged(path: Path, mapping: Path | None, gpu: str) -> tuple[Audited, Judged, tuple[str, ...]]:
    from tracelens.audit import judge, reading, sheets

    guide = _guide(mapping)
    document = reading.read(path)
    audited = sheets.understood(document, guide, gpu)
    return audited, judge.judged(audited), (*document.warnings, *audited.warnings)


def _guide(mapping: Path | None) -> Guide:
    from tracelens.audit import mapping as mappings

    return mappings.load(mapping) if mapping else mappings.NOTHING


def _check_gpu(name: str) -> None:
    from tracelens.audit import gpus
    from tracelens.audit.mapping import all_gpus

    if name and not gpus.found(name):
        raise UsageError(f"--gpu {name!r} is not known. Known: {', '.join(all_gpus())}.")


COMMAND = audit
