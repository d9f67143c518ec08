"""Pageable copies: copies of host memory that is not pinned, which wait, and let others wait."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens import units
from tracelens.analyses.totals import totals
from tracelens.errors import NothingToShowError
from tracelens.findings import Evidence, Finding, Rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracelens.links.linked import Linked

_TELLS: Final = r"\(\w+ -> \w+\)"
"""Kineto's names of copies: `Memcpy HtoD (Pageable -> Device)`."""

_PAGEABLE: Final = r"(?i)\bpageable\b"
_SHARE: Final = 0.01
"""Of the span. Copies are few, and those that matter stand between two steps."""


def _find(linked: Linked) -> Iterator[Finding]:
    found = _copies(linked)
    if found.is_empty():
        return
    if not found["name"].str.contains(_TELLS).any():
        raise NothingToShowError(
            "which memory of the host was copied is read of torch.profiler's traces alone"
        )
    slow = found.filter(pl.col("name").str.contains(_PAGEABLE))
    time_ns = int(slow["time_ns"].sum())
    span_ns = int(totals(linked)["span_ns"][0])
    if not time_ns or time_ns < _SHARE * span_ns:
        return
    count, moved = int(slow["count"].sum()), int(slow["bytes"].sum())
    share = time_ns / span_ns
    yield Finding(
        rule="pageable_copies",
        says=(
            f"{units.count(count)} {'copies' if count > 1 else 'copy'} of pageable memory "
            f"take{'s' * (count == 1)} {units.time(time_ns)} ({units.share(share)}) for "
            f"{units.size(moved)}."
        ),
        evidence=(
            Evidence("copies", "time of copies of pageable memory", time_ns, "ns"),
            Evidence("copies", "bytes that they moved", moved, "bytes"),
            Evidence("totals", "of the span from first to last op", share, "share"),
        ),
        change="Pin it (pin_memory=True) and copy with non_blocking=True.",
        cost_ns=time_ns,
        gain_ns=time_ns,
        assumption="copies of pinned memory ran beside computation",
    )


def _copies(linked: Linked) -> pl.DataFrame:
    """Return name, count, time_ns and bytes of copies from and to the host."""
    took = pl.col("end_ns") - pl.col("start_ns")
    return (
        linked.with_columns_of_ops("bytes", "copy_kind")
        .filter(pl.col("kind") == "copy", pl.col("copy_kind").is_in(["HtoD", "DtoH"]))
        .group_by("name_id", "kind")
        .agg(count=pl.len(), time_ns=took.sum(), bytes=pl.col("bytes").sum())
        .join(linked.names.lazy(), on=["name_id", "kind"], how="left")
        .collect()
    )


FINDING = Rule(_find)
