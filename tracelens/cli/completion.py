"""Print the lines that make a shell complete tracelens's commands, options and names."""

from __future__ import annotations

import os
import sys
from pathlib import PurePath
from typing import Final

import click

_EPILOG = """
\b
Examples:
  echo 'eval "$(tracelens completion bash)"' >> ~/.bashrc
  echo 'eval "$(tracelens completion zsh)"' >> ~/.zshrc
  tracelens completion fish > ~/.config/fish/completions/tracelens.fish
"""
_SHELLS: Final = ("bash", "zsh", "fish")
_WHERE: Final = {
    "bash": """echo 'eval "$(tracelens completion bash)"' >> ~/.bashrc""",
    "zsh": """echo 'eval "$(tracelens completion zsh)"' >> ~/.zshrc""",
    "fish": "tracelens completion fish > ~/.config/fish/completions/tracelens.fish",
}


@click.command(epilog=_EPILOG)
@click.argument("shell", required=False, type=click.Choice(_SHELLS), metavar="[bash|zsh|fish]")
@click.pass_context
def completion(context: click.Context, shell: str | None) -> None:
    """Print what makes your shell complete commands, options and table names on TAB.

    Without a name it is for the shell in the environment variable SHELL.
    """
    from click.shell_completion import get_completion_class

    shell = shell or _current()
    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"This version of click cannot complete in {shell}.", context)
    program = context.find_root()
    name = program.info_name or "tracelens"
    variable = f"_{name.upper().replace('-', '_')}_COMPLETE"
    click.echo(kind(program.command, {}, name, variable).source())
    if sys.stdout.isatty():
        click.echo(f"# To have it in every new {shell}, type:\n#   {_WHERE[shell]}", err=True)


def _current() -> str:
    shell = PurePath(os.environ.get("SHELL", "")).name
    if shell in _SHELLS:
        return shell
    raise click.UsageError(f"Which shell? Name one: tracelens completion {'|'.join(_SHELLS)}")


COMMAND = completion
