"""Named ranges: how often, how long on the CPU, and the GPU work launched inside them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens.analyses import Analysis
from tracelens.links.scopes import work_by_leaves, work_inside

if TYPE_CHECKING:
    from tracelens.links.linked import Linked

_EMIT_NVTX: Final = r", (?:(?:stashed )?seq|op_id) ?= ?\d+|, (?:sizes|input_op_ids) ?= ?\[.*\]"


@Analysis
def ranges(linked: Linked) -> pl.DataFrame:
    """Return one row per range name and domain, most kernel time first.

    Work of inner ranges and of worker threads (backward) is included. A range inside another of
    its own name counts as an instance, but its time is not added twice. `gpu_span_ns` sums, per
    instance, first kernel start to last kernel end. The numbers that torch.autograd's emit_nvtx
    adds to every op's name (``aten::mm, seq = 12, op_id = 345``) are left off.
    """
    recorded = linked.ranges().collect()
    by_leaves = work_by_leaves(linked, recorded)
    names = linked.trace["names"].with_columns(pl.col("name").str.replace_all(_EMIT_NVTX, ""))
    named = recorded.join(names.collect(), on="name_id", how="left", maintain_order="left")
    instances = work_inside(named, by_leaves)
    once = ~_inside_its_own_name(named, instances["range_id"])
    spans = (
        instances.with_columns(once=once)
        .group_by("name", "domain")
        .agg(
            instances=pl.len().cast(pl.Int64),
            cpu_ns=(pl.col("end_ns") - pl.col("start_ns")).filter("once").sum(),
            gpu_span_ns=(pl.col("last_ns") - pl.col("first_ns")).filter("once").sum(),
            start_ns=pl.col("start_ns").min(),
        )
    )
    return (
        spans.join(_work_by_name(named, by_leaves), on=["name", "domain"], how="left")
        .with_columns(pl.col("kernels", "kernel_time_ns").fill_null(0))
        .sort(
            "kernel_time_ns", "cpu_ns", "start_ns", "name", "domain",
            descending=[True, True, False, False, False],
        )
        .drop("start_ns")
    )  # fmt: skip


def _work_by_name(named: pl.DataFrame, by_leaves: pl.DataFrame) -> pl.DataFrame:
    """Return kernels and their time by name and domain, each kernel once for a name.

    A kernel may lie in two ranges of one name: one inside the other, on two threads, or both open
    without nesting.
    """
    work = by_leaves.select("leaves", "kernels", "kernel_time_ns").with_row_index("work")
    leaves = work.select("work", range_id="leaves").explode("range_id", empty_as_null=True)
    names = _names_around(named, leaves["range_id"].unique())
    inside = leaves.join(names, on="range_id").select("work", "name", "domain").unique()
    return (
        inside.join(work, on="work")
        .group_by("name", "domain")
        .agg(pl.col("kernels").sum().cast(pl.Int64), pl.col("kernel_time_ns").sum())
    )


def _names_around(named: pl.DataFrame, ids: pl.Series) -> pl.DataFrame:
    """Return range_id with the name and domain of the range and of each one around it."""
    facts = named.select("name", "domain", "parent", around="range_id")
    walk = pl.DataFrame({"range_id": ids, "around": ids})
    found = []
    while walk.height:
        walk = walk.join(facts, on="around")
        found.append(walk.select("range_id", "name", "domain"))
        walk = walk.filter(pl.col("parent").is_not_null()).select("range_id", around="parent")
    if not found:
        return facts.clear().select(range_id="around", name="name", domain="domain")
    return pl.concat(found).unique()


def _inside_its_own_name(named: pl.DataFrame, ids: pl.Series) -> pl.Series:
    """Tell which ranges lie inside another one of their name, walking up parent by parent."""
    same = ["name", "domain"]
    facts = named.select("range_id", *same)
    parents = named.select(above="range_id", next="parent")
    walk = named.select("range_id", *same, above="parent")
    found = [pl.Series("range_id", [], dtype=pl.UInt32)]
    while (walk := walk.filter(pl.col("above").is_not_null())).height:
        hit = walk.join(facts, left_on=["above", *same], right_on=["range_id", *same], how="semi")
        found.append(hit["range_id"])
        walk = walk.join(hit, on="range_id", how="anti").join(parents, on="above")
        walk = walk.select("range_id", *same, above="next")
    return ids.is_in(pl.concat(found).implode())


ANALYSIS = ranges
