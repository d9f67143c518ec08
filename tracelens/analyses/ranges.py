"""Named ranges: how often, how long on the CPU, and the GPU work launched inside them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens.analyses import Analysis
from tracelens.links.scopes import work_by_leaves, work_inside
from tracelens.trace.nesting import nested
from tracelens.trace.schema import NAMED_BY_USERS

if TYPE_CHECKING:
    from tracelens.links.linked import Linked

_EMIT_NVTX: Final = r", (?:(?:stashed )?seq|op_id) ?= ?\d+|, (?:sizes|input_op_ids) ?= ?\[.*\]"


@Analysis
def ranges(linked: Linked) -> pl.DataFrame:
    """Return one row per range name and domain, most kernel time first.

    Work of inner ranges and of worker threads (backward) is included. A range inside another of
    its own name counts as an instance, but its time is not added twice; and a kernel counts once
    for a name, in however many ranges of that name it lies. `gpu_span_ns` sums, per instance,
    first kernel start to last kernel end. The numbers that torch.autograd's emit_nvtx adds to
    every op's name (``aten::mm, seq = 12, op_id = 345``) are left off.
    """
    recorded = named_by_users(linked)
    by_leaves = work_by_leaves(linked, recorded)
    names = linked.trace["names"].with_columns(pl.col("name").str.replace_all(_EMIT_NVTX, ""))
    named = recorded.join(names.collect(), on="name_id", how="left").sort("range_id")
    paths = _Paths(named)
    work = work_inside(named, by_leaves).sort("range_id").with_columns(once=paths.outermost)
    table = work.group_by("name", "domain").agg(
        instances=pl.len().cast(pl.Int64),
        cpu_ns=(pl.col("end_ns") - pl.col("start_ns")).filter("once").sum(),
        gpu_span_ns=(pl.col("last_ns") - pl.col("first_ns")).filter("once").sum(),
        start_ns=pl.col("start_ns").min(),
    )
    return (
        table.join(paths.work_by_name(by_leaves), on=["name", "domain"], how="left")
        .with_columns(pl.col("kernels", "kernel_time_ns").fill_null(0))
        .sort(
            "kernel_time_ns", "cpu_ns", "start_ns", "name", "domain",
            descending=[True, True, False, False, False],
        )
        .drop("start_ns")
    )  # fmt: skip


def instances(linked: Linked) -> pl.DataFrame:
    """Return one row per range that users named, with the work that `ranges` adds up by name.

    Columns beside those of the table `ranges`: kernels, kernel_time_ns, first_ns and last_ns.
    """
    recorded = named_by_users(linked)
    return work_inside(recorded, work_by_leaves(linked, recorded))


def named_by_users(linked: Linked) -> pl.DataFrame:
    """Return the ranges without PyTorch's ops and Python's frames, nested among themselves."""
    named = pl.col("kind").is_in(NAMED_BY_USERS)
    recorded = linked.ranges().collect()
    if recorded.select(named.all()).item():
        return recorded
    return nested(recorded.filter(named).drop("range_id", "depth", "lane", "parent"))


class _Paths:
    """The set of names that a range lies in, its own included, shared by ranges alike.

    ``outermost`` tells of each range whether none around it has its name.
    """

    def __init__(self, named: pl.DataFrame) -> None:
        sets: list[frozenset[tuple[str, str]]] = [frozenset()]
        known: dict[tuple[int, tuple[str, str]], int] = {}
        path_of: dict[int | None, int] = {None: 0}
        outermost = []
        rows = named.select("range_id", "parent", "name", "domain").iter_rows()
        for range_id, parent, name, domain in rows:
            # Of a trace that was cut, the range around may be outside.
            above, key = path_of.get(parent, 0), (name, domain)
            outermost.append(key not in sets[above])
            if not outermost[-1]:
                path_of[range_id] = above
                continue
            if (above, key) not in known:
                known[above, key] = len(sets)
                sets.append(sets[above] | {key})
            path_of[range_id] = known[above, key]
        self.outermost = pl.Series(outermost, dtype=pl.Boolean)
        self._sets = sets
        self._path_of = path_of

    def work_by_name(self, by_leaves: pl.DataFrame) -> pl.DataFrame:
        """Return kernels and their time by name and domain, each kernel once for a name."""
        kernels: Counter[tuple[str, str]] = Counter()
        times: Counter[tuple[str, str]] = Counter()
        rows = by_leaves.select("leaves", "kernels", "kernel_time_ns").iter_rows()
        for leaves, count, took in rows:
            for key in frozenset().union(
                *(self._sets[self._path_of.get(leaf, 0)] for leaf in leaves)
            ):
                kernels[key] += count
                times[key] += took
        return pl.DataFrame(
            [(*key, count, times[key]) for key, count in kernels.items()],
            schema={
                "name": pl.String,
                "domain": pl.String,
                "kernels": pl.Int64,
                "kernel_time_ns": pl.Int64,
            },
            orient="row",
        )


ANALYSIS = ranges
