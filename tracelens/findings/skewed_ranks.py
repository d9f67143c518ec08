"""Skewed ranks: one rank comes late to collectives, and the others wait for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import polars as pl

from tracelens import units
from tracelens.errors import NothingToShowError
from tracelens.findings import Evidence, Finding, Rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracelens.findings import Ranks

_SHARE: Final = 0.05
"""Of communication: ranks never come quite together."""


def slow(ranks: Ranks) -> dict[str, Any] | None:
    """Return the row of the rank that others wait for, if they wait for one worth a word."""
    known = ranks.table.filter(pl.col("arrives_last").is_not_null())
    waiting, comm = int(known["waiting_ns"].sum()), int(known["comm_time_ns"].sum())
    if known.height < 2 or not waiting or waiting < _SHARE * comm:
        return None
    ordered = known.sort("arrives_last", "waiting_ns", descending=[True, False])
    first, second = (ordered.row(place, named=True) for place in range(2))
    return first if first["arrives_last"] > second["arrives_last"] else None


def _find(ranks: Ranks) -> Iterator[Finding]:
    if ranks.collectives.is_empty():
        return
    known = ranks.table.filter(pl.col("arrives_last").is_not_null())
    if known.height < 2:
        raise NothingToShowError("fewer than two ranks were recorded whose collectives match")
    row = slow(ranks)
    if row is None:
        return
    waiting, comm = int(known["waiting_ns"].sum()), int(known["comm_time_ns"].sum())
    most = int(known["waiting_ns"].max())  # type: ignore[arg-type]
    calls = int(ranks.collectives.filter(rank=row["rank"])["transfer_ns"].count())
    yield Finding(
        rule="skewed_ranks",
        says=(
            f"Rank {row['rank']} is the slow one: last at {units.count(row['arrives_last'])} of "
            f"{units.count(calls)} collectives. Ranks wait {units.time(waiting)}, "
            f"{units.share(waiting / comm)} of communication."
        ),
        evidence=(
            Evidence("collectives", "waiting for other ranks, of all ranks", waiting, "ns"),
            Evidence("collectives", "communication, of all ranks", comm, "ns"),
            Evidence(
                "ranks", "collectives at which that rank was last", row["arrives_last"], "count"
            ),
            Evidence("ranks", "the most that one rank waited", most, "ns"),
        ),
        change="Give all ranks equal work.",
        cost_ns=most,
        gain_ns=most,
        assumption="all ranks came to each collective together, as the quickest does now",
        subject=str(row["rank"]),
    )


FINDING = Rule(_find, about="ranks")
