"""Options that several commands share: names out of a room, and rules of the form NAME=REGEX."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
