"""The tree of nn.Modules: GPU time of each one's forward and backward, and its memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import polars as pl

from tracelens.analyses import Analysis
from tracelens.errors import NothingToShowError
from tracelens.links.modules import DIRECTIONS, Modules, modules_of, work
from tracelens.trace.intervals import window

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tracelens.links.linked import Linked

INDENT: Final = "· "
_SUMS: Final = (
    "calls", "cpu_ns", "forward_kernels", "forward_ns", "backward_kernels", "backward_ns",
    "allocated_bytes", "kept_bytes",
)  # fmt: skip
_OWN: Final = ("calls", "cpu_ns")
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
    own = own_costs(linked, found)
    rows = list(_rows(found, own))
    return with_rest(linked, pl.DataFrame(rows, schema=SCHEMA))


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
    costs = [dict.fromkeys(_SUMS, 0) for _ in found.tree]
    for frame in (gpu, cpu, _memory(linked, found)):
        for row in frame.filter(pl.col("module").is_not_null()).iter_rows(named=True):
            costs[row.pop("module")].update(row)
    return costs


def with_rest(linked: Linked, frame: pl.DataFrame) -> pl.DataFrame:
    """Return the table with shares, and a row for the GPU work of no module, if there is any."""
    took = int((linked.ops["end_ns"] - linked.ops["start_ns"]).sum())
    tops = int(frame.filter(pl.col("depth") == 0)["gpu_time_ns"].sum())
    if rest := took - tops:
        row = {"gpu_time_ns": rest, "self_gpu_time_ns": rest, "depth": 0}
        frame = pl.concat([frame, pl.DataFrame([row], schema=frame.schema)])
    share = pl.col("gpu_time_ns") / took if took else pl.lit(0.0)
    return frame.with_columns(gpu_share=share)


def summed(parents: Sequence[int | None], own: Sequence[dict[str, int]]) -> list[dict[str, int]]:
    """Return the costs with those of the places inside added to all but calls and CPU time.

    A module's CPU time includes that of modules inside already. Parents come before children.
    """
    sums = [dict(cost) for cost in own]
    for place in range(len(sums) - 1, -1, -1):
        above = parents[place]
        if above is not None:
            for name in _SUMS:
                if name not in _OWN:
                    sums[above][name] += sums[place][name]
    return sums


def described(cost: dict[str, int], own: dict[str, int]) -> dict[str, Any]:
    """Return the columns that tell a place's costs."""
    return {
        **cost,
        "gpu_time_ns": cost["forward_ns"] + cost["backward_ns"],
        "self_gpu_time_ns": own["forward_ns"] + own["backward_ns"],
    }


def in_order(parents: Sequence[int | None]) -> Iterator[int]:
    """Give the places of a tree, each before those inside it, in the order of their numbers."""
    inside: dict[int | None, list[int]] = {}
    for place, parent in enumerate(parents):
        inside.setdefault(parent, []).append(place)
    waiting = inside.get(None, [])[::-1]
    while waiting:
        place = waiting.pop()
        yield place
        waiting += inside.get(place, [])[::-1]


def _rows(found: Modules, own: Sequence[dict[str, int]]) -> Iterator[dict[str, Any]]:
    parents = [module.parent for module in found.tree]
    sums = summed(parents, own)
    for place in in_order(parents):
        module = found.tree[place]
        yield {
            "module": INDENT * module.depth + module.name,
            "path": "/".join(found.path(place)),
            "depth": module.depth,
            **described(sums[place], own[place]),
        }


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
