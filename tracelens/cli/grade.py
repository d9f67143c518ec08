"""Hold measured runs against targets: passed or not, which letter, and what no GPU can do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tracelens import registry
from tracelens.cli import _bench_compare, _files, _options, _output
from tracelens.errors import NothingToShowError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tracelens.render import Renderer
    from tracelens.targets import Measured, Targets

_EPILOG = """
\b
Examples:
  tracelens grade runs/ --targets targets.toml
  tracelens grade results.json --targets targets.toml --format markdown
  tracelens grade runs/ results.json --targets targets.toml --gate
  tracelens grade --targets targets.toml        (which of them can be met at all?)
"""


@click.command(epilog=_EPILOG)
@click.argument("paths", nargs=-1, metavar="[PATH]...", type=click.Path(path_type=Path))
@click.option(
    "--targets",
    "file",
    required=True,
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="What has to be reached: TOML, or JSON of the same form.",
)
@click.option(
    "--gate",
    is_flag=True,
    help="Exit with 1 if a target failed, or one that is required was not measured.",
)
@_options.TOP
@_options.FORMAT
@_options.OUTPUT
@_options.FORCE
@_options.NO_CACHE
def grade(
    *,
    paths: tuple[Path, ...],
    file: Path,
    gate: bool,
    top: int | None,
    renderer: str,
    output: Path | None,
    force: bool,
    no_cache: bool,
) -> int:
    """Hold measured runs against a file of targets.

    PATH is a Run folder of `tracelens capture`, a recording, a folder of these, results of
    `tracelens bench`, or a JSON file with rows of other results. Without any, the targets
    themselves are held against what their GPUs can do.
    """
    from tracelens import targets

    chosen: Renderer = registry.load("renderer", renderer)
    _files.check_free(output, [*paths, file], force=force)
    asked = targets.load(file)
    runs = _bench_compare.measured(paths, cache=not no_cache)
    graded = targets.grade(asked, runs)
    if runs and not any(one.reading for one in graded.judged):
        raise NothingToShowError(_why_nothing(asked, runs))
    report = targets.of_graded(asked, runs, graded)
    _output.put(chosen.render([report], _output.options(top, output)), output)
    return int(gate and not targets.passes_gate(graded))


def _why_nothing(asked: Targets, runs: Sequence[Measured]) -> str:
    names = ", ".join(dict.fromkeys(one.name for one in runs[:3]))
    gpus = ", ".join(sorted({one.gpu or "no GPU" for one in runs}))
    wanted = ", ".join(sorted({one.gpu or "any" for one in asked.targets}))
    return (
        f"None of the {len(asked.targets)} targets of {asked.path.name} is for what was measured: "
        f"{names} on {gpus}. They are for GPU {wanted}, and for runs whose config they name."
    )


COMMAND = grade
