"""PyTorch's ops: which one launched each GPU op, what lies inside which, and what each cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens.links.flops import FORMULAS, flops
from tracelens.links.nest import Nest, nest
from tracelens.trace.intervals import window
from tracelens.trace.schema import OPS

if TYPE_CHECKING:
    from tracelens.links.linked import Linked
    from tracelens.trace.model import Trace

BY: Final = ("nesting", "external_id")
"""How a GPU op is tied to its PyTorch op: its API call lies inside the op; or the call was not
recorded, or lies in no op, and the recorder itself names the op (External id)."""

_BY: Final = pl.Enum(BY)
_FACTS: Final = ("sequence", "forward", "dims", "types", "inputs", "strides")
_TOOK: Final = pl.col("end_ns") - pl.col("start_ns")
# What torch.autograd.profiler.emit_nvtx adds to the names of ops; record_function's ranges have
# the same, but are no calls of a C++ function.
_EMITTED: Final = r", op_id = \d+|, (?:stashed )?seq ?= ?\d+|, sizes = \["
_ADDED: Final = r", (?:(?:stashed )?seq|op_id) ?= ?\d+|, (?:sizes|input_op_ids) ?= ?\[.*\]"
_IS_OP: Final = r"^(?:\w+::)+\w+(?:\.\w+)?$|^autograd::|Backward\d*$|^detach_?$"
_IS_BACKWARD: Final = r"^autograd::|Backward\d*$"


@dataclass(frozen=True)
class TorchOps:
    """PyTorch's ops, nested among themselves.

    ``nest`` has, besides what ranges have, `sequence`, `dims`, `types`, `inputs` and `strides` as
    the table `ops` has them, and `forward`: the row of the op whose gradient an op computes.
    ``names`` has the text of each `name_id`.
    """

    nest: Nest
    names: pl.DataFrame


def torch_ops(trace: Trace) -> TorchOps | None:
    """Return the ops of a trace, or None where none were recorded.

    They are ranges of kind op, or those of torch.autograd's emit_nvtx, whose names tell what
    torch.profiler writes beside them.
    """
    ranges = trace.get("ranges")
    if ranges is None:
        return None
    found = _recorded(trace, ranges)
    if found.is_empty():
        found = _emitted(trace, ranges)
    if found.is_empty():
        return None
    named = (
        found.select("name_id")
        .unique()
        .join(
            trace["names"].with_columns(pl.col("name").str.replace_all(_ADDED, "")).collect(),
            on="name_id",
            how="left",
        )
    )
    tree = nest(found)
    row_of = tree.frame.select(forward="range_id", forward_row="row")
    frame = tree.frame.join(row_of, on="forward", how="left", maintain_order="left")
    frame = frame.drop("forward").rename({"forward_row": "forward"})
    return TorchOps(Nest(frame), named.with_columns(pl.col("name").fill_null("(unnamed)")))


def launchers(trace: Trace, work: pl.DataFrame, ops: TorchOps) -> pl.DataFrame:
    """Return of each GPU op the row of the PyTorch op that launched it, and `by` (`BY`).

    The op is the innermost one that is open on the launching thread when the API call begins. All
    kernels of a CUDA graph belong to the op that launched the graph.

    Args:
        trace: for the launchers that the recorder names.
        work: GPU ops with their launches.
        ops: the trace's.
    """
    called = pl.when(pl.col("launch_row").is_not_null()).then("launch_ns")
    moments = work.select("pid", tid="launch_tid", time_ns=called)
    by_nesting = ops.nest.innermost(moments)
    named = trace.get("launched_by")
    by_id = pl.repeat(None, work.height, dtype=pl.UInt32, eager=True)
    if named is not None and by_nesting.null_count():
        row_of = ops.nest.frame.select("range_id", "row").lazy()
        told = named.join(row_of, on="range_id").select("op_id", "row").unique("op_id", keep="any")
        by_id = work.select("op_id").join(
            told.collect(), on="op_id", how="left", maintain_order="left"
        )["row"]
    nested = by_nesting.is_not_null()
    return pl.select(
        row=pl.coalesce(by_nesting, by_id),
        by=pl.when(nested)
        .then(pl.lit("nesting", _BY))
        .when(by_id.is_not_null())
        .then(pl.lit("external_id", _BY)),
    )


def ops_of(linked: Linked) -> TorchOps | None:
    """Return the `torch_ops` of a linked trace."""
    return linked.once("torch_ops", lambda of: torch_ops(of.trace))


def launched(linked: Linked, ops: TorchOps) -> pl.DataFrame:
    """Return the `launchers` of a linked trace's GPU ops, in order."""
    return linked.once("launchers", lambda of: launchers(of.trace, of.ops, ops))


def gradients(linked: Linked, ops: TorchOps) -> pl.DataFrame:
    """Return of each GPU op, in order, the gradient that it is computed for: rows of ``ops``.

    `by` is the innermost op around its launch that computes a gradient, `of` the op whose gradient
    that is; both are null for work of forward and optimizer.
    """
    tree = ops.nest
    computes = tree.frame.select(row=pl.when(pl.col("forward").is_not_null()).then("row"))
    by = tree.inherited(computes["row"]).gather(launched(linked, ops)["row"])
    return pl.DataFrame({"by": by, "of": tree["forward"].gather(by)})


def calls(linked: Linked, ops: TorchOps) -> pl.DataFrame:
    """Return one row per op and call, in order of `row`, with what it cost.

    Columns beside those of ``ops``:

    - `counts`: whether the call lies in the part of the trace that was asked for. Of a trace cut
      by phase or device those calls do whose work is left.
    - `once`: whether no op of the same name lies around it. Sums over a name that include what
      lies inside take these alone.
    - `cpu_ns`, `self_cpu_ns`: how long it took, and how long without the ops inside.
    - `gpu_time_ns`, `kernels`, `gpu_ops`: durations of the GPU work that it and the ops inside
      launched, how many kernels that were, and how many kernels, copies and memsets.
    - `self_gpu_time_ns`, `self_kernels`, `self_gpu_ops`, `by_external_id`: the same without the
      ops inside, and how many are tied to it by the recorder's External id alone.
    - `flops`: what it computes (`links.flops`); null where not known, or where an op inside
      computes it. Where GPU work was recorded, only calls that launched some count: an op may
      find nothing to do (torch.utils.checkpoint stops it), or run on the CPU.
    """
    return linked.once("calls", lambda of: _calls(of, ops))


def _calls(linked: Linked, ops: TorchOps) -> pl.DataFrame:
    tree = ops.nest
    frame = tree.frame.hstack(_own_work(linked, ops)).with_columns(
        _flops(ops), cpu_ns=_TOOK, once=tree.outermost("name_id")
    )
    children = frame.lazy().group_by(row="parent").agg(inner_ns=pl.col("cpu_ns").sum())
    frame = frame.lazy().join(children, on="row", how="left", maintain_order="left").collect()
    whole = {
        "gpu_time_ns": "self_gpu_time_ns",
        "kernels": "self_kernels",
        "gpu_ops": "self_gpu_ops",
    }
    sums = {name: tree.inside(frame[own]) for name, own in whole.items()}
    known = pl.Series(frame["flops"].is_not_null().cast(pl.Int64))
    ran = sums["gpu_ops"] > 0 if "gpu_ops" in linked.trace else pl.lit(value=True)
    frame = frame.with_columns(
        **sums,
        flops=pl.when((tree.inside(known) == known) & ran).then("flops"),
        self_cpu_ns=pl.col("cpu_ns") - pl.col("inner_ns").fill_null(0),
    )
    return frame.with_columns(counts=_counts(linked, frame)).drop("inner_ns")


def _own_work(linked: Linked, ops: TorchOps) -> pl.DataFrame:
    """Return what each op launched itself, in order of row."""
    facts = launched(linked, ops)
    own = (
        linked.ops.lazy()
        .select("kind", took=_TOOK)
        .with_columns(facts["row"], facts["by"])
        .group_by("row")
        .agg(
            self_gpu_time_ns=pl.col("took").sum(),
            self_kernels=(pl.col("kind") == "kernel").sum().cast(pl.Int64),
            self_gpu_ops=pl.len().cast(pl.Int64),
            by_external_id=(pl.col("by") == "external_id").sum().cast(pl.Int64),
        )
    )
    rows = ops.nest.frame.lazy().select("row")
    joined = rows.join(own, on="row", how="left", maintain_order="left")
    return joined.drop("row").with_columns(pl.all().fill_null(0)).collect()


def _flops(ops: TorchOps) -> pl.Series:
    """Return what each op computes, by distinct name and inputs."""
    known = ops.names.filter(pl.col("name").is_in(list(FORMULAS)))
    key = ["name_id", "dims", "inputs"]
    frame = ops.nest.frame.lazy().select("row", *key)
    distinct = frame.join(known.lazy(), on="name_id").select(*key, "name").unique().collect()
    found = [flops(*facts) for facts in distinct.select("name", "dims", "inputs").iter_rows()]
    counted = distinct.select(*key).with_columns(flops=pl.Series(found, dtype=pl.Int64))
    joined = frame.join(counted.lazy(), on=key, how="left", nulls_equal=True, maintain_order="left")
    return joined.select("flops").collect()["flops"]


def _counts(linked: Linked, frame: pl.DataFrame) -> pl.Expr:
    inside = pl.lit(value=True)
    if linked.spans is not None:
        kept = window(frame.select("row", "pid", "start_ns"), "start_ns", linked.spans)["row"]
        inside = pl.col("row").is_in(kept.implode())
    if linked.cut.phases or linked.cut.device is not None:
        inside &= pl.col("gpu_ops") > 0
    return inside


def _recorded(trace: Trace, ranges: pl.LazyFrame) -> pl.DataFrame:
    """Return the ranges of kind op with their facts; `forward` is a range_id."""
    facts = trace.get("ops")
    told = OPS.empty().lazy() if facts is None else facts
    return (
        ranges.filter(pl.col("kind") == "op")
        .select("range_id", "start_ns", "end_ns", "pid", "tid", "name_id")
        .join(told.select("range_id", *_FACTS), on="range_id", how="left", maintain_order="left")
        .collect()
    )


def _emitted(trace: Trace, ranges: pl.LazyFrame) -> pl.DataFrame:
    """Return the same of NVTX ranges that emit_nvtx made."""
    text = pl.col("name")
    names = (
        trace["names"]
        .filter(text.str.contains(_EMITTED))
        .with_columns(
            op=text.str.replace_all(_ADDED, ""),
            sequence=text.str.extract(r"seq ?= ?(\d+)").cast(pl.Int64, strict=False),
            dims=text.str.extract(r", sizes = (\[.*?\])(?:, input_op_ids|$)"),
        )
    )
    ops = names.filter(pl.col("op").str.contains(_IS_OP)).with_columns(
        # One name_id for all that are called the same.
        first_id=pl.col("name_id").min().over("op"),
        backward=pl.col("op").str.contains(_IS_BACKWARD),
    )
    found = (
        ranges.filter(pl.col("kind") == "push_pop")
        .join(ops.collect().lazy(), on="name_id", maintain_order="left")
        .select(
            "range_id", "start_ns", "end_ns", "pid", "tid", "sequence", "dims", "backward", "depth",
            name_id="first_id",
            **dict.fromkeys(("types", "inputs", "strides"), pl.lit(None, pl.String)),
        )
        .collect()
    )  # fmt: skip
    return found.with_columns(forward=_by_number(found)).drop("backward", "depth")


def _by_number(ops: pl.DataFrame) -> pl.Series:
    """Return of each backward op the range_id of the forward op that drew its sequence number.

    Every op is shown the number that is drawn next: it was the last of them that drew it.
    """
    drew = (
        ops.filter(pl.col("sequence").is_not_null() & ~pl.col("backward"))
        .sort("start_ns", "depth")
        .unique(["pid", "sequence"], keep="last")
        .select("pid", "sequence", forward="range_id")
    )
    tied = ops.join(drew, on=["pid", "sequence"], how="left", maintain_order="left")
    return tied.select(forward=pl.when("backward").then("forward"))["forward"]
