"""Phases where no range names them: what PyTorch's autograd threads and kernels give away."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens.links.how import how
from tracelens.trace.intervals import at, innermost

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from tracelens.trace.model import Trace

_AUTOGRAD_THREAD: Final = re.compile(r"^pt_autograd_\d+$")
# Foreach copies and norms also run outside of optimizers: CUDA graphs' inputs, clipping.
_NO_OPTIMIZER: Final = r"(?i)copy|norm"
_ENGINE: Final = "autograd::engine::evaluate_function"
_GRAPH_LAUNCH: Final = r"^(?:cuda|cu|hip)GraphLaunch"
_BACKWARD_KERNEL: Final = r"(?i)backward|bwd|_grad_|wgrad|dgrad"


def inferred(
    trace: Trace,
    ops: pl.DataFrame,
    names: pl.DataFrame,
    phases: Sequence[str],
    training: Collection[int] = (),
) -> pl.DataFrame:
    """Return the phase's `code` and `how` of each op, in processes that give evidence of training.

    Work launched by an autograd worker, or while the autograd engine evaluated a function, is
    backward, optimizer kernels are optimizer, and the rest of such a process is forward. A process
    without evidence has no phases: a solver of fluid dynamics has no forward. Nor can forward and
    backward be told apart in a CUDA graph, which one call launches.

    Args:
        trace: for the threads' names.
        ops: `gpu_ops` with launches.
        names: `op_names` of the ops.
        phases: the phases in code order, forward, backward and optimizer among them.
        training: processes that are known to train.
    """
    forward, backward, optimizer = (phases.index(p) for p in ("forward", "backward", "optimizer"))
    workers = _autograd_threads(trace, ops, names)
    tuned = names.filter(
        pl.col("family") == "optimizer", ~pl.col("name").str.contains(_NO_OPTIMIZER)
    )["name_id"]
    is_optimizer = pl.col("name_id").is_in(tuned.implode())
    by_worker = pl.struct("pid", "launch_tid").is_in(workers.implode())
    ops = ops.with_columns(evaluating=_evaluating(trace, ops))
    is_backward = by_worker | pl.col("evaluating")
    in_graph = pl.col("launch_row").is_in(_graph_launches(trace).implode())
    linked = pl.col("launch_ns").is_not_null()
    evidence = ops.lazy().filter(linked, is_optimizer | is_backward).select("pid").unique()
    known = linked & pl.col("pid").is_in([*evidence.collect()["pid"], *training])
    return ops.select(
        code=pl.when(known & is_optimizer)
        .then(optimizer)
        .when(known & is_backward)
        .then(backward)
        .when(known & ~in_graph)
        .then(forward)
        .cast(pl.Int8),
        how=pl.when(known & (~in_graph | is_optimizer | is_backward))
        .then(how("inferred"))
        .when(linked)
        .then(how("none"))
        .otherwise(how("unlinked")),
    )


def is_autograd_thread(name: str | None) -> bool:
    """Tell whether this is the name that PyTorch gives the autograd engine's workers."""
    return bool(_AUTOGRAD_THREAD.match(name or ""))


def _graph_launches(trace: Trace) -> pl.Series:
    """Return the rows in `api` of the calls that launch a CUDA graph."""
    api = trace.get("api")
    if api is None:
        return pl.Series([], dtype=pl.UInt32)
    named = trace["names"].filter(pl.col("name").str.contains(_GRAPH_LAUNCH)).select("name_id")
    calls = api.select("name_id").with_row_index("row").join(named, on="name_id", how="semi")
    return calls.select("row").collect()["row"]


def _evaluating(trace: Trace, ops: pl.DataFrame) -> pl.Series:
    """Tell of each op whether its thread launched it for PyTorch's autograd engine."""
    inside = pl.repeat(value=False, n=ops.height, eager=True)
    ranges = trace.get("ranges")
    if ranges is None:
        return inside
    named = trace["names"].filter(pl.col("name").str.starts_with(_ENGINE)).select("name_id")
    spans = ranges.join(named, on="name_id", how="semi").collect()
    for (pid, tid), evaluations in spans.group_by("pid", "tid"):
        timeline = innermost((s, e, 1) for s, e in evaluations[["start_ns", "end_ns"]].iter_rows())
        rows = ops.select(pl.arg_where((pl.col("pid") == pid) & (pl.col("launch_tid") == tid)))
        mine = rows.to_series()
        inside = inside.scatter(mine, at(*timeline, ops["launch_ns"].gather(mine)).is_not_null())
    return inside


def _autograd_threads(trace: Trace, ops: pl.DataFrame, names: pl.DataFrame) -> pl.Series:
    """Return the (pid, tid) of threads that run the autograd engine's work.

    PyTorch names them pt_autograd_N. Where a process has no thread names, a thread that launches
    backward kernels, and began to launch after another one, is taken for a worker.
    """
    threads = trace.get("threads")
    schema = {"pid": pl.Int32, "launch_tid": pl.Int32}
    rows = [] if threads is None else threads.collect().rows()
    named = [(pid, tid) for pid, tid, name in rows if is_autograd_thread(name)]
    has_names = {pid for pid, _, name in rows if name}
    backward = names.filter(
        pl.col("kind") == "kernel", pl.col("name").str.contains(_BACKWARD_KERNEL)
    )["name_id"]
    launching = (
        ops.lazy()
        .filter(pl.col("launch_ns").is_not_null(), pl.col("kind") == "kernel")
        .group_by("pid", "launch_tid")
        .agg(
            first=pl.col("launch_ns").min(),
            gradients=pl.col("name_id").is_in(backward.implode()).any(),
        )
        .collect()
    )
    later = pl.col("first") > pl.col("first").min().over("pid")
    unnamed = launching.filter(
        later, pl.col("gradients"), ~pl.col("pid").is_in(list(has_names))
    ).select("pid", "launch_tid")
    both = pl.concat([pl.DataFrame(named, schema=schema, orient="row"), unnamed])
    return both.unique(maintain_order=True).to_struct("thread")
