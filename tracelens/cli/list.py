"""List what tracelens knows: commands, workloads, recorders, readers, tables, exporters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tracelens import registry

if TYPE_CHECKING:
    from collections.abc import Iterator

_EPILOG = """
\b
Examples:
  tracelens list
  tracelens list tables
  tracelens list workloads
"""
_PLURALS = {
    kind: f"{kind.replace('_', ' ')}s".replace("analysiss", "analyses") for kind in registry.ROOMS
}


@click.command("list", epilog=_EPILOG)
@click.argument(
    "kind",
    required=False,
    metavar="[KIND]",
    shell_complete=lambda _ctx, _param, typed: [
        p for p in _PLURALS.values() if p.startswith(typed)
    ],
)
def list_things(kind: str | None) -> None:
    """List things of one KIND (tables, renderers, ...), or of all kinds."""
    kinds = [_kind(kind)] if kind else [k for k in registry.ROOMS if registry.entries(k)]
    for number, one in enumerate(kinds):
        if len(kinds) > 1:
            click.echo(("\n" if number else "") + _PLURALS[one])
        for line in _lines(one):
            click.echo(f"  {line}")


def _lines(kind: str) -> Iterator[str]:
    entries = registry.entries(kind)
    width = max(map(len, entries), default=0)
    for name, entry in sorted(entries.items()):
        shown = name.replace("_", "-") if kind == "workload" else name
        yield f"{shown:<{width}}  {entry.summary}"
        if kind == "workload" and (presets := entry.load().presets):
            yield f"{'':<{width}}  Presets: {', '.join(presets)}."


def _kind(asked: str) -> str:
    for kind, plural in _PLURALS.items():
        if asked.lower().replace("-", " ") in (kind, kind.replace("_", " "), plural):
            return kind
    raise click.UsageError(registry.unknown("kind", asked, dict.fromkeys(_PLURALS.values())))


COMMAND = list_things
