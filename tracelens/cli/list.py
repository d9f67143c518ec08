"""List what tracelens knows: commands, workloads, kernels, recorders, readers, tables, GPUs."""

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
  tracelens list kernels
  tracelens list hardware
"""
_PLURALS = {
    kind: f"{kind.replace('_', ' ')}s".replace("analysiss", "analyses") for kind in registry.ROOMS
}
_HARDWARE = "hardware"
_DASHED = ("workload", "kernel")
"""Kinds whose things are typed with dashes."""


@click.command("list", epilog=_EPILOG)
@click.argument(
    "kind",
    required=False,
    metavar="[KIND]",
    shell_complete=lambda _ctx, _param, typed: [
        p for p in (*_PLURALS.values(), _HARDWARE) if p.startswith(typed)
    ],
)
def list_things(kind: str | None) -> None:
    """List things of one KIND (tables, renderers, ...), or of all kinds; or the GPUs it knows."""
    if kind and kind.lower() == _HARDWARE:
        click.echo("\n".join(_gpus()))
        return
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
        shown = name.replace("_", "-") if kind in _DASHED else name
        yield f"{shown:<{width}}  {entry.summary}"
        if kind == "workload" and (presets := entry.load().presets):
            yield f"{'':<{width}}  Presets: {', '.join(presets)}."


def _gpus() -> Iterator[str]:
    from tracelens import hardware, units

    known = hardware.devices()
    width = max(len(one.name) for one in known)
    for one in known:
        rates = {dtype: one.matmul_flops_per_s.get(dtype) for dtype in ("fp32", "bf16", "fp16")}
        dtype = "bf16" if rates["bf16"] else "fp16"
        told = [f"{units.rate(one.bandwidth_bytes_per_s)}"]
        told += [
            f"{name} {units.column('flops_per_s', [rate])[0]}"
            for name, rate in rates.items()
            if rate and name in ("fp32", dtype)
        ]
        yield f"  {one.name:<{width}}  {one.architecture} {one.capability}, {', '.join(told)}"


def _kind(asked: str) -> str:
    for kind, plural in _PLURALS.items():
        if asked.lower().replace("-", " ") in (kind, kind.replace("_", " "), plural):
            return kind
    raise click.UsageError(
        registry.unknown("kind", asked, dict.fromkeys([*_PLURALS.values(), _HARDWARE]))
    )


COMMAND = list_things
