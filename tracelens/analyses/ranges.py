"""Named ranges: how often, how long on the CPU, and the GPU work launched inside them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens.analyses import Analysis
from tracelens.links.scopes import work_inside

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
    instances = work_inside(linked)
    outer = ~_inside_its_own_name(instances)
    named = instances.with_columns(outer=outer).join(
        linked.trace["names"].collect(), on="name_id", how="left"
    )
    once = pl.col("outer")
    name = pl.col("name").str.replace_all(_EMIT_NVTX, "")
    return (
        named.group_by(name, "domain")
        .agg(
            instances=pl.len().cast(pl.Int64),
            cpu_ns=(pl.col("end_ns") - pl.col("start_ns")).filter(once).sum(),
            kernels=pl.col("kernels").filter(once).sum().cast(pl.Int64),
            kernel_time_ns=pl.col("kernel_time_ns").filter(once).sum(),
            gpu_span_ns=(pl.col("last_ns") - pl.col("first_ns")).filter(once).sum(),
            start_ns=pl.col("start_ns").min(),
        )
        .sort("kernel_time_ns", "cpu_ns", "start_ns", "name", descending=[True, True, False, False])
        .drop("start_ns")
    )


def _inside_its_own_name(instances: pl.DataFrame) -> pl.Series:
    """Tell which ranges lie inside another one of the same name, walking up parent by parent."""
    same = ["name_id", "domain"]
    facts = instances.select("range_id", *same)
    parents = instances.select(above="range_id", next="parent")
    walk = instances.select("range_id", *same, above="parent")
    found = [pl.Series("range_id", [], dtype=pl.UInt32)]
    while (walk := walk.filter(pl.col("above").is_not_null())).height:
        hit = walk.join(facts, left_on=["above", *same], right_on=["range_id", *same], how="semi")
        found.append(hit["range_id"])
        walk = walk.join(hit, on="range_id", how="anti").join(parents, on="above")
        walk = walk.select("range_id", *same, above="next")
    return instances["range_id"].is_in(pl.concat(found).implode())


ANALYSIS = ranges
