"""Unclassified: kernels whose names say nothing of their kind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens import units
from tracelens.findings import Evidence, Finding, Rule
from tracelens.findings._work import kernels, time_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracelens.links.linked import Linked

_SHARE: Final = 0.05
"""Of kernel time: the families of a phase are then not quite told."""


def _find(linked: Linked) -> Iterator[Finding]:
    found = kernels(linked)
    others = found.filter(pl.col("family") == "other")
    time_ns, whole_ns = time_of(others), time_of(found)
    if not whole_ns or time_ns / whole_ns <= _SHARE:
        return
    top = others.group_by("name", "short_name").agg(pl.col("time_ns").sum())
    name = top.sort("time_ns", "name", descending=[True, False]).row(0, named=True)
    yield Finding(
        rule="unclassified",
        says=(
            f"{units.share(time_ns / whole_ns)} of kernel time is of kernels whose names say "
            f"nothing of their kind (family other), most of {name['short_name']}."
        ),
        evidence=(
            Evidence("families", "time of the family other", time_ns, "ns"),
            Evidence("families", "of kernel time", time_ns / whole_ns, "share"),
        ),
        subject=str(name["name"]),
    )


FINDING = Rule(_find)
