"""Explore recordings in the browser: overview, timeline, kernels, memory."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import click

from tracelens.errors import UsageError

_EPILOG = """
\b
Examples:
  tracelens explore runs/
  tracelens explore run.sqlite --port 8123 --no-browser
"""


@click.command(epilog=_EPILOG)
@click.argument(
    "paths", nargs=-1, required=True, metavar="PATH...", type=click.Path(path_type=Path)
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    metavar="ADDRESS",
    help="Where to listen. Other addresses let others read the recordings, by a token.",
)
@click.option(
    "--port", type=click.IntRange(1, 65535), metavar="N", help="Otherwise the first free one."
)
@click.option("--no-browser", is_flag=True, help="Print the address, and open nothing.")
def explore(paths: tuple[Path, ...], host: str, port: int | None, no_browser: bool) -> None:
    """Show recordings in the browser, from this machine and nowhere else.

    PATH is a recording, a Run folder, or a folder of them; nothing beside them can be asked for.
    """
    if importlib.util.find_spec("dash") is None:
        raise UsageError("The explorer needs dash: pip install 'tracelens-gpu[explore]'.")
    from tracelens_dashboards.serve import serve

    serve(
        paths,
        host=host,
        port=port,
        browser=not no_browser,
        say=lambda line: click.echo(line, err=True),
    )


COMMAND = explore
