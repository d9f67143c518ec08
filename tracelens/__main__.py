"""The command `tracelens`, also as `python -m tracelens`."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from tracelens import __version__, registry
from tracelens.errors import TracelensError

_EPILOG = """\b
Examples:
  tracelens summarize run.sqlite
  tracelens summarize run.sqlite --format markdown --table families
  tracelens list tables
"""


class Commands(click.Group):
    """The commands of the room `cli`: each file is imported when its command is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the commands' names, read from file names alone."""
        return [name.replace("_", "-") for name in registry.names("command")]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command; an unknown one raises a usage error naming the nearest."""
        known = registry.entries("command")
        stem = cmd_name.replace("-", "_")
        if stem not in known and ctx.resilient_parsing:
            return None  # the shell is completing what is typed so far
        if stem not in known:
            raise click.UsageError(registry.unknown("command", cmd_name, known), ctx)
        command: click.Command = known[stem].load()
        return command

    def format_commands(
        self,
        ctx: click.Context,  # noqa: ARG002
        formatter: click.HelpFormatter,
    ) -> None:
        """Write each command with its file's first sentence, importing none."""
        rows = [
            (entry.name.replace("_", "-"), entry.summary)
            for entry in registry.entries("command").values()
        ]
        with formatter.section("Commands"):
            formatter.write_dl(sorted(rows))


@click.command(
    cls=Commands, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(__version__, "--version", "-V", prog_name="tracelens")
def tracelens() -> None:
    """Tell where a GPU's time and memory go, phase by phase."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command and exit: 0 done, 2 usage, 3 unreadable, 4 nothing to show, 1 our bug."""
    sys.exit(run(arguments))


def run(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit status."""
    # polars' allocator keeps freed memory for ten seconds unless told otherwise before its
    # import: a quarter of our peak.
    os.environ.setdefault("_RJEM_MALLOC_CONF", "dirty_decay_ms:300,muzzy_decay_ms:0")
    try:
        result: Any = tracelens.main(arguments, prog_name="tracelens", standalone_mode=False)
    except click.exceptions.Abort:
        return _fail("Interrupted.", 130)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except TracelensError as error:
        if _debugging():
            raise
        return _fail(str(error), error.exit_status)
    except BrokenPipeError:
        # The reader of our output (`| head`) has left; nothing more can be written.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # panics of polars are no Exception
        if _debugging():
            raise
        return _fail(
            f"This is a bug in tracelens {__version__}: {type(error).__name__}: {error}\n"
            "Set TRACELENS_DEBUG=1 to see where, and please report it.",
            1,
        )
    return result if isinstance(result, int) else 0


def _fail(message: str, status: int) -> int:
    click.echo(f"tracelens: {message}", err=True)
    return status


def _debugging() -> bool:
    return bool(os.environ.get("TRACELENS_DEBUG"))


if __name__ == "__main__":
    main()
