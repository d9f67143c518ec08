"""Exposed communication: collectives that run while nothing is computed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tracelens import units
from tracelens.findings import Evidence, Finding, Rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracelens.findings import Ranks

_SHARE: Final = 0.1
"""Of the span: the last bucket of gradients cannot hide, and a few percent are its."""


def _find(ranks: Ranks) -> Iterator[Finding]:
    if ranks.collectives.is_empty():
        return
    row = ranks.table.sort("exposed_share", descending=True).row(0, named=True)
    if not row["exposed_share"] or row["exposed_share"] <= _SHARE:
        return
    rank = "" if row["rank"] is None or ranks.table.height < 2 else f", most on rank {row['rank']}"
    shares = ranks.table["exposed_share"]
    least, most = (units.share(float(x)) for x in (shares.min(), shares.max()))  # type: ignore[arg-type]
    of = most if least == most else f"{least.removesuffix(' %')} to {most}"
    yield Finding(
        rule="exposed_communication",
        says=f"Communication that no computation hides takes {of} of the time{rank}.",
        evidence=(
            Evidence("ranks", "exposed communication of that rank", row["comm_exposed_ns"], "ns"),
            Evidence("ranks", "of its span", row["exposed_share"], "share"),
        ),
        change="Overlap it (DDP buckets, FSDP prefetch), or send less.",
        cost_ns=row["comm_exposed_ns"],
        gain_ns=row["comm_exposed_ns"],
        assumption="all of it ran beside computation, which it did not slow down",
        subject=None if row["rank"] is None else str(row["rank"]),
    )


FINDING = Rule(_find, about="ranks")
