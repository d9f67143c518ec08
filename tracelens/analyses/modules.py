"""The tree of nn.Modules: GPU time of each one's forward and backward, and its memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens.analyses import Analysis
from tracelens.errors import NothingToShowError
from tracelens.links.modules import DIRECTIONS, modules_of, work
from tracelens.trace.intervals import window

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tracelens.links.linked import Linked
    from tracelens.links.modules import Modules, Tree

_INDENT: Final = "· "
_DEEPEST: Final = 64
_INCLUSIVE: Final = (
    "forward_kernels", "forward_ns", "backward_kernels", "backward_ns", "allocated_bytes",
    "kept_bytes",
)  # fmt: skip
COSTS: Final = ("calls", "cpu_ns", *_INCLUSIVE)
SCHEMA: Final = {
    "module": pl.String,
    "path": pl.String,
    "depth": pl.Int64,
    "calls": pl.Int64,
    "gpu_time_ns": pl.Int64,
    "gpu_share": pl.Float64,
    "self_gpu_time_ns": pl.Int64,
    "forward_kernels": pl.Int64,
    "forward_ns": pl.Int64,
    "backward_kernels": pl.Int64,
    "backward_ns": pl.Int64,
    "cpu_ns": pl.Int64,
    "allocated_bytes": pl.Int64,
    "kept_bytes": pl.Int64,
}


@Analysis
def modules(linked: Linked) -> pl.DataFrame:
    """Return one row per place in the tree of modules, each before those inside it.

    All but `calls` and `self_gpu_time_ns` includes the modules inside; a last row without a name
    holds the GPU work of no module, so that the modules of depth 0 and this row add up to all.
    `gpu_share` is of all GPU time, 0..1. `allocated_bytes` is what forward allocated on GPUs, and
    `kept_bytes` what of that it did not free again: what it keeps for backward, and its result.

    Raises:
        NothingToShowError: no calls of modules were recorded.
    """
    found = modules_of(linked)
    if found is None:
        raise NothingToShowError(
            "calls of nn.Modules were not recorded: torch.profiler.profile(with_stack=True) "
            "records them (with_modules=True does so for TorchScript only)"
        )
    return table(linked, found.tree, own_costs(linked, found)).select(list(SCHEMA))


def own_costs(linked: Linked, found: Modules) -> list[dict[str, int]]:
    """Return what each place of the tree cost without the modules inside it."""
    took = pl.col("end_ns") - pl.col("start_ns")
    is_kernel = pl.col("kind") == "kernel"
    done = linked.ops.lazy().select("kind", took=took).collect().hstack(work(linked, found))
    fits = {name: pl.col("direction") == name for name in DIRECTIONS}
    gpu = done.group_by("module").agg(
        **{f"{way}_ns": pl.col("took").filter(fits[way]).sum() for way in DIRECTIONS},
        **{f"{way}_kernels": (is_kernel & fits[way]).sum().cast(pl.Int64) for way in DIRECTIONS},
    )
    made = found.calls.frame
    if linked.spans is not None:
        made = window(made, "start_ns", linked.spans)
    cpu = made.group_by("module").agg(calls=pl.len().cast(pl.Int64), cpu_ns=took.sum())
    costs: list[dict[str, int]] = [dict.fromkeys(COSTS, 0) for _ in found.tree.places]
    for frame in (gpu, cpu, _memory(linked, found)):
        for row in frame.filter(pl.col("module").is_not_null()).iter_rows(named=True):
            costs[row.pop("module")].update(row)
    return costs


def table(linked: Linked, tree: Tree, own: Sequence[dict[str, int]]) -> pl.DataFrame:
    """Return the table of a tree, given what each of its places cost by itself."""
    sums = _summed(tree, own)
    rows = [
        {
            **sums[number],
            "module": _INDENT * min(tree.places[number].depth, _DEEPEST) + tree.places[number].name,
            "path": "/".join(tree.path(number)),
            "depth": tree.places[number].depth,
            "gpu_time_ns": sums[number]["forward_ns"] + sums[number]["backward_ns"],
            "self_gpu_time_ns": own[number]["forward_ns"] + own[number]["backward_ns"],
        }
        for number in tree.in_order()
    ]
    frame = pl.DataFrame(rows, schema={**SCHEMA, "instances": pl.Int64})
    took = int((linked.ops["end_ns"] - linked.ops["start_ns"]).sum())
    tops = int(frame.filter(pl.col("depth") == 0)["gpu_time_ns"].sum())
    if rest := took - tops:
        row = {"gpu_time_ns": rest, "self_gpu_time_ns": rest, "depth": 0}
        frame = pl.concat([frame, pl.DataFrame([row], schema=frame.schema)])
    share = pl.col("gpu_time_ns") / took if took else pl.lit(0.0)
    return frame.with_columns(gpu_share=share)


def _summed(tree: Tree, own: Sequence[dict[str, int]]) -> list[dict[str, int]]:
    """Return the costs with those of the places inside added to all but calls and CPU time.

    A module's CPU time includes that of modules inside already.
    """
    sums = [dict(cost) for cost in own]
    for number in range(len(sums) - 1, -1, -1):
        above = tree.places[number].parent
        if above is not None:
            for name in _INCLUSIVE:
                sums[above][name] += sums[number][name]
    return sums


def _memory(linked: Linked, found: Modules) -> pl.DataFrame:
    """Return what the forward of each place allocated on GPUs, and what it kept of that."""
    table = linked.trace.get("memory")
    schema = {"module": pl.UInt32, "allocated_bytes": pl.Int64, "kept_bytes": pl.Int64}
    if table is None:
        return pl.DataFrame(schema=schema)
    events = table.filter(pl.col("memory_kind") == "device", pl.col("size_bytes") > 0).collect()
    if linked.spans is not None:
        events = window(events, "time_ns", linked.spans)
    call = found.calls.innermost(events)
    size, action = pl.col("size_bytes"), pl.col("action")
    allocated = size.filter(action == "alloc").sum()
    return (
        events.with_columns(module=found.calls["module"].gather(call))
        .group_by("module")
        .agg(allocated_bytes=allocated, kept_bytes=allocated - size.filter(action == "free").sum())
    )


ANALYSIS = modules
