"""Collectives by process group and kind: bytes, time, bandwidth, and waiting for other ranks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens.analyses import Analysis
from tracelens.links.collectives import collectives as ops_of
from tracelens.links.collectives import matched

if TYPE_CHECKING:
    from tracelens.links.linked import Linked

GROUP: Final = ["group", "description", "group_ranks", "group_size"]
_FACTORS: Final = {
    "all_reduce": (2, -2),
    "all_gather": (1, -1),
    "reduce_scatter": (1, -1),
    "all_to_all": (1, -1),
    "broadcast": (1, 0),
    "reduce": (1, 0),
    "send": (1, 0),
    "recv": (1, 0),
    "send_recv": (1, 0),
}
"""Bus bandwidth over algorithm bandwidth is a + b / n for n ranks (doc/PERFORMANCE.md of
nccl-tests): what a link moves for a collective, whichever algorithm moves it."""


@Analysis
def collectives(linked: Linked) -> pl.DataFrame:
    """Return one row per process group, kind and rank: see `by_group`."""
    return by_group(matched(linked.once("collectives", ops_of)))


def by_group(found: pl.DataFrame) -> pl.DataFrame:
    """Return one row per process group, kind and rank, the group and kind of most time first.

    `bytes` are of the whole buffers, the larger of what each rank puts in and gets out. Bandwidths
    are of the calls whose bytes are known: `algorithm_bandwidth` is bytes over time, and
    `bus_bandwidth` that times the factor of the kind; the transfer's is over the time less
    waiting. `arrives_last` counts the calls at which this rank was the last to come; `slow_rank`
    is the rank of the group for which that is most. Both are null where no call could be matched
    with those of other ranks.

    Args:
        found: the rows of `links.collectives.matched`.
    """
    kind = [*GROUP, "kind"]
    known = pl.col("bytes").is_not_null()
    both = known & pl.col("transfer_ns").is_not_null()
    rows = (
        found.group_by(*kind, "rank", "process")
        .agg(
            calls=pl.len().cast(pl.Int64),
            bytes=_sum("bytes"),
            total_ns=pl.col("duration_ns").sum(),
            matched_calls=pl.col("transfer_ns").count().cast(pl.Int64),
            transfer_ns=_sum("transfer_ns"),
            waiting_ns=_sum("waiting_ns"),
            arrives_last=pl.when(pl.col("transfer_ns").count() > 0).then(
                pl.col("is_last").sum().cast(pl.Int64)
            ),
            known_ns=pl.col("duration_ns").filter(known).sum(),
            matched_bytes=pl.col("bytes").filter(both).sum(),
            matched_ns=pl.col("transfer_ns").filter(both).sum(),
        )
        .with_columns(_slow_rank(kind), whole_ns=pl.col("total_ns").sum().over(kind))
    )
    bus = _factor()
    return rows.with_columns(
        algorithm_bandwidth_bytes_per_s=_per_second("bytes", "known_ns"),
        bus_bandwidth_bytes_per_s=_per_second("bytes", "known_ns") * bus,
        transfer_bus_bandwidth_bytes_per_s=_per_second("matched_bytes", "matched_ns") * bus,
    ).sort(
        "whole_ns", *kind, "rank", "process",
        descending=[True, *[False] * (len(kind) + 2)],
    )  # fmt: skip


def _sum(column: str) -> pl.Expr:
    """Return a column's sum, null where nothing of it is known."""
    return pl.when(pl.col(column).count() > 0).then(pl.col(column).sum())


def _per_second(amount: str, time_ns: str) -> pl.Expr:
    """Return an amount by time; null where there was none."""
    return pl.when(pl.col(time_ns) > 0).then(pl.col(amount) * 1e9 / pl.col(time_ns))


def _factor() -> pl.Expr:
    base, per_rank = (
        pl.col("kind").replace_strict(
            {kind: factor[i] for kind, factor in _FACTORS.items()},
            default=None,
            return_dtype=pl.Float64,
        )
        for i in range(2)
    )
    shared = per_rank / pl.col("group_size")
    return base + pl.when(per_rank == 0).then(0.0).otherwise(shared)


def _slow_rank(kind: list[str]) -> pl.Expr:
    """Return the rank that came last most often; of several, the one that waited least."""
    order = (
        pl.struct(often=-pl.col("arrives_last"), waited="waiting_ns", first="rank")
        .rank("ordinal")
        .over(kind)
    )
    anybody = (pl.col("arrives_last") > 0).any().over(kind)
    slowest = pl.col("rank").filter(order == 1).first().over(kind)
    return pl.when(anybody).then(slowest).alias("slow_rank")


ANALYSIS = collectives
