"""Write a recording for other programs: tables, a timeline for Perfetto, or an nsys export."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from tracelens import registry
from tracelens.cli import _options, _progress

if TYPE_CHECKING:
    from tracelens.exports import Exporter
    from tracelens.links.linked import Cut

_EPILOG = """
\b
Examples:
  tracelens export run.sqlite --to perfetto
  tracelens export run.sqlite --to perfetto --step 3 -o step3.json.gz
  tracelens export run.sqlite --to parquet -o tables
  tracelens summarize tables
  tracelens export trace.json.gz --to nsys-sqlite -o run.sqlite
"""
_SUFFIXES: Final = (
    ".gz", ".zst", ".zip", ".sqlite", ".db", ".nsys-rep", ".qdrep", ".json", ".trace", ".pt",
    ".pickle", ".tracelens",
)  # fmt: skip


@click.command(epilog=_EPILOG)
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--to",
    "target",
    required=True,
    type=click.Choice([name.replace("_", "-") for name in registry.names("exporter")]),
    help="perfetto: a timeline to look at. parquet: a folder of tables to compute with. "
    "nsys-sqlite: what nsys itself would export, for whatever reads that.",
)
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    help="Write to this file or folder instead of one named after PATH in the current folder.",
)
@click.option("--force", is_flag=True, help="Overwrite the output.")
@_options.WITHIN
@_options.STEP
@_options.DEVICE
def export(  # noqa: PLR0917
    path: Path,
    target: str,
    output: Path | None,
    force: bool,
    within: str | None,
    step: int | None,
    device: int | None,
) -> None:
    """Write the recording PATH in a format that other programs open."""
    from tracelens import exports
    from tracelens.links.linked import Cut

    exporter: Exporter = registry.load("exporter", target)
    output = output or Path(_stem(path) + exporter.suffix)
    exports.check_free(exporter, output, path, force=force)
    _export(exporter, path, output, Cut(device=device, within=within, step=step))
    click.echo(f"Wrote {output} ({_size(output)}). {exporter.use.format(path=output)}")


def _export(exporter: Exporter, path: Path, output: Path, cut: Cut) -> None:
    from tracelens import exports
    from tracelens.links.linked import link
    from tracelens.readers.open import open_trace

    with _progress.shown(f"Exporting {path.name}") as progress:
        linked = link(open_trace(path, everything=True, progress=progress), cut)
        with exports.whole(exporter, output) as draft:
            exporter.write(linked, draft, progress=progress)


def _stem(path: Path) -> str:
    """Return the name of a recording without what only says how it is stored."""
    name = path.absolute().name
    while name.endswith(_SUFFIXES) and (shorter := Path(name).stem) != name:
        name = shorter
    return name


def _size(output: Path) -> str:
    from tracelens import units

    files = output.iterdir() if output.is_dir() else [output]
    return units.size(sum(file.stat().st_size for file in files))


COMMAND = export
