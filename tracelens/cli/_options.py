"""Options that several commands share: names out of a room, rules, and where output goes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from tracelens import registry
from tracelens.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence


class Names(click.ParamType[str]):
    """A name out of a room, completed by the shell."""

    name = "name"

    def __init__(self, kind: str, *more: str) -> None:
        self.kind = kind
        self.more = more

    def shell_complete(self, ctx: Any, param: Any, incomplete: str) -> list[Any]:  # noqa: ARG002
        from click.shell_completion import CompletionItem

        names = (*registry.names(self.kind), *self.more)
        return [CompletionItem(n) for n in names if n.startswith(incomplete)]


PHASE_RULES: Final = click.option(
    "--phases",
    "phase_rules",
    multiple=True,
    metavar="NAME=REGEX",
    help="Ranges that match are this phase; comes before the built-in rules.",
)
TOP: Final = click.option(
    "--top",
    type=click.IntRange(min=0),
    default=None,
    metavar="N",
    help="Rows to show of each table; 0 for all. JSON and CSV always hold all.",
)
FORMAT: Final = click.option(
    "--format",
    "-f",
    "renderer",
    default="text",
    show_default=True,
    metavar="FORMAT",
    type=Names("renderer"),
    help="text, json, csv, markdown, latex or html.",
)
OUTPUT: Final = click.option(
    "--output", "-o", type=click.Path(path_type=Path), help="Write to this file."
)
FORCE: Final = click.option("--force", is_flag=True, help="Overwrite the output file.")
NO_CACHE: Final = click.option(
    "--no-cache", is_flag=True, help="Read the recording itself, and leave no cache."
)
PHASE: Final = click.option(
    "--phase",
    "phases",
    multiple=True,
    metavar="NAME",
    help="Only work of this phase; `(none)` for work in none.",
)
WITHIN: Final = click.option(
    "--within",
    metavar="RANGE[#N]",
    help="Only work launched inside this range, or its instance N (from 0).",
)
STEP: Final = click.option(
    "--step", type=int, metavar="N", help="Only work launched in step N (from 0)."
)
DEVICE: Final = click.option(
    "--device", type=int, metavar="N", help="Only work of this CUDA device."
)
RANK: Final = click.option(
    "--rank",
    type=click.IntRange(min=0),
    metavar="N",
    help="Only the recording of this rank, of a folder that holds those of several.",
)


def rules(option: str, asked: Sequence[str], example: str = "loss=^loss$") -> dict[str, str]:
    """Return name -> regular expression of an option that was given as NAME=REGEX.

    Raises:
        UsageError: it was given in another form.
    """
    found = {}
    for text in asked:
        name, _, rule = text.partition("=")
        found[name] = rule
        if not name or not rule:
            raise UsageError(f"{option} {name}={rule}: write NAME=REGEX, as in {example!r}.")
    return found
