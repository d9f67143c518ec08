"""Leaks: a line that leaves memory behind, step after step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens import units
from tracelens.analyses.memory.leaks import leaks
from tracelens.findings import Evidence, Finding, Rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracelens.links.memory import Memory

_LEAST_BYTES: Final = 1 << 20
"""A step: a thousand steps of less are no gigabyte."""


def _find(memory: Memory) -> Iterator[Finding]:
    growing = leaks(memory).filter(pl.col("grows"), pl.col("bytes_per_step") >= _LEAST_BYTES)
    if growing.is_empty():
        return
    row = growing.row(0, named=True)
    more = f" (and {growing.height - 1} more lines)" if growing.height > 1 else ""
    held = int(growing["bytes"].sum())
    yield Finding(
        rule="leaks",
        says=(
            f"{row['site'] or 'A line without frames'} leaves "
            f"{units.size(row['bytes_per_step'])} a step behind, in {row['steps']} of "
            f"{row['steps_watched']} steps{more}."
        ),
        evidence=(
            Evidence("leaks", "left behind a step by that line", row["bytes_per_step"], "bytes"),
            Evidence("leaks", "steps that left it", row["steps"], "count"),
            Evidence("leaks", "left behind by all such lines", held, "bytes"),
        ),
        change="Keep no tensor of a step: .detach() it.",
        cost_bytes=held,
        gain_bytes=held,
        assumption="nothing of it is needed after its step",
        subject=row["site"],
    )


FINDING = Rule(_find, about="memory")
