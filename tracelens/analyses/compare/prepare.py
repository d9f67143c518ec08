"""From a linked trace to a side of a comparison: what each step did, and when the GPU idled."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens import units
from tracelens.analyses.compare.counted import left_out
from tracelens.analyses.compare.side import (
    HELD,
    IDLE,
    OPS,
    PEAKS,
    RANGES,
    STEPS,
    WORK,
    Memory,
    Side,
)
from tracelens.analyses.memory.devices import devices
from tracelens.analyses.memory.live import live
from tracelens.analyses.ranges import instances
from tracelens.analyses.steps import with_step
from tracelens.errors import NothingToShowError
from tracelens.links.idle import idle
from tracelens.links.linked import NO_PHASE
from tracelens.links.memory import Ask, remember
from tracelens.links.op_inputs import shapes
from tracelens.links.ops import calls, launched, ops_of
from tracelens.links.phases import phase_at
from tracelens.trace.intervals import at, innermost

if TYPE_CHECKING:
    from collections.abc import Mapping

    from polars._typing import PolarsDataType

    from tracelens.links.linked import Linked
    from tracelens.trace.model import Trace

OUTSIDE: Final = "no_work_yet"
"""The time of a step before the GPU's first work, or after its last."""

_LANE: Final = ["pid", "device"]
_KEY: Final = ["step", "phase", "family", "kind", "name", "short_name", "op", "shapes", "grid"]
_TOOK: Final = pl.col("end_ns") - pl.col("start_ns")


def prepared(linked: Linked, label: str, gpus: Mapping[str, int]) -> Side:
    """Return a recording made ready to be compared.

    Args:
        linked: the recording, whole.
        label: how it is called in tables.
        gpus: how many GPUs of which name it used.

    Raises:
        NothingToShowError: it holds neither GPU work nor PyTorch's ops nor steps.
    """
    linked = _stepped(linked)
    windows = _windows(linked)
    if windows.is_empty():
        raise NothingToShowError(
            f"{linked.trace.source.path.name} holds no GPU work, no steps and no ops of PyTorch: "
            "there is nothing to compare."
        )
    pieces = _exposed(linked, windows)
    source = linked.trace.source
    return Side(
        label=label,
        path=str(source.path),
        format=source.format,
        producer=source.producer,
        gpus=gpus,
        lanes=windows.select(_LANE).n_unique(),
        is_stepped=not linked.steps.is_empty(),
        steps=_steps(linked, windows),
        work=_work(linked, windows, pieces),
        idle=_idle(linked, windows, pieces),
        ranges=_ranges(linked, windows),
        ops=_ops(linked, windows),
        memory=memory_of(linked.trace, linked.cut.phase_rules),
        caveats=_caveats(linked, windows),
    )


def memory_of(trace: Trace, phase_rules: Mapping[str, str] | None = None) -> Memory | None:
    """Return the peaks of a trace's memory and what was live then; None where none is recorded."""
    if "memory" in trace.on_request:
        return None
    try:
        memory = remember(trace, Ask(phase_rules=phase_rules or {}))
    except NothingToShowError:
        return None
    return Memory(
        devices(memory).select(pl.col(name).cast(of) for name, of in PEAKS.items()),
        live(memory).select(pl.col(name).cast(of) for name, of in HELD.items()),
        memory.kind,
        trace.source.path.name,
    )


def _stepped(linked: Linked) -> Linked:
    """Return the recording with steps that last until the next where launches alone tell them.

    The CPU is done with such a step long before the GPU is. The last one ends with the work that
    it launched. One such step alone is none.
    """
    steps = linked.steps
    if steps.is_empty() or (steps["source"] != "launches").any():
        return linked
    if steps.height < 2 * steps["pid"].n_unique():
        return replace(linked, steps=steps.clear())
    ends = with_step(linked).group_by("pid", "step").agg(work_ns=pl.col("end_ns").max())
    ends = steps.join(ends, on=["pid", "step"], how="left", maintain_order="left")
    following = pl.col("start_ns").shift(-1).over("pid")
    end = pl.coalesce(following, pl.max_horizontal("end_ns", "work_ns"))
    return replace(linked, steps=ends.with_columns(end_ns=end).drop("work_ns"))


def _windows(linked: Linked) -> pl.DataFrame:
    """Return the time of each step on each lane: pid, device, step, name, start_ns, end_ns.

    Without steps it is one from the first to the last work of a lane (or op of PyTorch).
    """
    lanes = linked.ops.select(_LANE).unique().sort(_LANE)
    if linked.steps.is_empty():
        begun = linked.ops if linked.ops.height else _torch_ops(linked)
        return begun.group_by(_LANE, maintain_order=True).agg(
            step=pl.lit(0, pl.Int32),
            name=pl.lit(None, pl.String),
            start_ns=pl.col("start_ns").min(),
            end_ns=pl.col("end_ns").max(),
        )
    return (
        linked.steps.join(lanes, on="pid", how="left")
        .select(*_LANE, "step", "name", "start_ns", "end_ns")
        .sort(*_LANE, "start_ns")
    )


def _torch_ops(linked: Linked) -> pl.DataFrame:
    found = ops_of(linked)
    empty = pl.DataFrame(schema={"pid": pl.Int32, "start_ns": pl.Int64, "end_ns": pl.Int64})
    frame = empty if found is None else found.nest.frame.select(empty.columns)
    return frame.with_columns(device=pl.lit(None, pl.Int32))


def _steps(linked: Linked, windows: pl.DataFrame) -> pl.DataFrame:
    """Return `STEPS`: sums over the lanes, for the steps that all lanes have."""
    kernels = (
        _with_step(linked, windows)
        .filter(pl.col("kind").cast(pl.String).is_in(["kernel", "graph"]))
        .group_by("step")
        .agg(kernels=pl.len().cast(pl.Int64))
    )
    lanes = windows.select(_LANE).n_unique()
    steps = (
        windows.group_by("step")
        .agg(pl.col("name").first(), duration_ns=_TOOK.sum(), lanes=pl.len())
        .filter(pl.col("lanes") == lanes)
        .join(kernels, on="step", how="left")
        .with_columns(pl.col("kernels").fill_null(0))
        .sort("step")
    )
    facts = (steps[name].to_list() for name in ("name", "duration_ns", "kernels"))
    reasons = pl.Series("left_out", left_out(*facts), dtype=pl.String)
    return steps.with_columns(reasons, turn=pl.lit(0, pl.Int32)).select(
        pl.col(n).cast(t) for n, t in STEPS.items()
    )


def _with_step(linked: Linked, windows: pl.DataFrame) -> pl.DataFrame:
    """Return the ops with the step that launched them; those outside of all steps are left out."""
    if linked.steps.is_empty():
        return linked.ops.with_columns(step=pl.lit(windows["step"][0], pl.Int32))
    return with_step(linked).filter(pl.col("step").is_not_null())


def _exposed(linked: Linked, windows: pl.DataFrame) -> pl.DataFrame:
    """Return every stretch of a lane's time, work and idle, cut at the edges of its steps.

    Columns: step, op_id, idle (whether it is the idle time before the op) and length_ns. A moment
    in which several ops run belongs to the one that began first, so that the stretches of work
    are the union of all ops, and no two stretches overlap.
    """
    parts = [
        _empty({"step": pl.Int32, "op_id": pl.UInt32, "idle": pl.Boolean, "length_ns": pl.Int64})
    ]
    for (pid, device), of_lane in windows.group_by(_LANE, maintain_order=True):
        mine = linked.ops.filter(
            pl.col("pid").eq_missing(pl.lit(pid, pl.Int32)),
            pl.col("device").eq_missing(pl.lit(device, pl.Int32)),
        )
        ordered = mine.select("op_id", "start_ns", "end_ns", "launch_ns").sort(
            "start_ns", "launch_ns", "end_ns", "op_id"
        )
        begin, end = pl.col("start_ns"), pl.col("end_ns")
        reached = ordered.with_columns(reached=end.cum_max().shift())
        idle_time = reached.filter(pl.col("reached") < begin).select(
            "op_id", idle=pl.lit(value=True), start_ns="reached", end_ns=begin
        )
        work = reached.select(
            "op_id",
            idle=pl.lit(value=False),
            start_ns=pl.max_horizontal(begin, "reached"),
            end_ns=end,
        ).filter(end > begin)
        parts.append(_cut(pl.concat([idle_time, work]), of_lane))
    return pl.concat(parts)


def _cut(stretches: pl.DataFrame, windows: pl.DataFrame) -> pl.DataFrame:
    """Return the parts of stretches that lie inside windows, which do not overlap."""
    table = (
        windows.sort("start_ns")
        .select("step", from_ns="start_ns", to_ns="end_ns")
        .with_row_index("window")
    )
    first = table["to_ns"].search_sorted(stretches["start_ns"], side="right")
    last = table["from_ns"].search_sorted(stretches["end_ns"], side="left")
    # Most lie inside one window: only those that do not are taken apart.
    reach = stretches.with_columns(first=first, last=last).filter(pl.col("first") < pl.col("last"))
    several = reach.with_columns(window=pl.int_ranges("first", "last", dtype=pl.UInt32)).explode(
        "window", empty_as_null=True
    )
    inside = several.join(table, on="window", how="left", maintain_order="left")
    length = pl.min_horizontal("end_ns", "to_ns") - pl.max_horizontal("start_ns", "from_ns")
    return inside.select("step", "op_id", "idle", length_ns=length)


def _work(linked: Linked, windows: pl.DataFrame, pieces: pl.DataFrame) -> pl.DataFrame:
    """Return `WORK`: sums of durations by the step of the launch, and what of them was exposed."""
    facts, uses = _facts(linked)
    none = pl.lit(0, pl.Int64)
    launched_in = _with_step(linked, windows).lazy().select(
        "op_id", "step", calls=pl.lit(1, pl.Int64), time_ns=_TOOK, exposed_ns=none
    )  # fmt: skip
    ran_in = (
        pieces.lazy()
        .filter(~pl.col("idle"))
        .select("op_id", "step", calls=none, time_ns=none, exposed_ns="length_ns")
    )
    sums = (
        pl.concat([launched_in, ran_in])
        .join(facts.lazy(), on="op_id", how="left")
        .group_by("step", *facts.columns[1:])
        .agg(pl.col("calls", "time_ns", "exposed_ns").sum())
        .collect()
    )
    # Few rows are left: only now come the texts.
    named = (
        sums.join(linked.names, on=["name_id", "kind"], how="left")
        .join(uses, on="use", how="left")
        .with_columns(
            pl.col("phase").cast(pl.String).fill_null(NO_PHASE), pl.col("kind").cast(pl.String)
        )
        # Every recorder has names of its own for copies.
        .with_columns(pl.coalesce(_copy_name(), "name").alias("name"))
        .with_columns(short_name=pl.coalesce(_copy_name(), "short_name"))
    )
    return (
        named.group_by(_KEY)
        .agg(pl.col("calls", "time_ns", "exposed_ns").sum())
        .select(pl.col(name).cast(of) for name, of in WORK.items())
        .sort(pl.all())
    )


def _facts(linked: Linked) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return what each op is, without texts, and the texts of what it was launched for.

    Returns:
        op_id, name_id, kind, phase, copy_kind, grid and use; and use, op and shapes.
    """
    columns = ("op_id", "name_id", "kind", "phase", "copy_kind")
    ops = linked.with_columns_of_ops("copy_kind").select(columns).collect()
    ops = ops.with_columns(_blocks(linked))
    found = ops_of(linked)
    if found is None or not found.nest.frame.height:
        texts = {"use": pl.UInt32, "op": pl.String, "shapes": pl.String}
        return ops.with_columns(use=pl.lit(None, pl.UInt32)), _empty(texts)
    key = ["name_id", "dims"]
    frame = found.nest.frame.select(key)
    distinct = frame.unique(maintain_order=True).with_row_index("use")
    use = frame.join(distinct, on=key, how="left", nulls_equal=True, maintain_order="left")["use"]
    texts_of = distinct.join(found.names, on="name_id", how="left", maintain_order="left").select(
        "use", op="name", shapes=shapes(distinct["dims"])
    )
    return ops.with_columns(use.gather(launched(linked, found)["row"])), texts_of


def _copy_name() -> pl.Expr:
    """Return what copies and memsets are called; null for other work."""
    copies = pl.lit("copy ") + pl.col("copy_kind").cast(pl.String).fill_null("unknown")
    kind = pl.col("kind")
    return pl.when(kind == "copy").then(copies).when(kind == "memset").then(pl.lit("memset"))


def _blocks(linked: Linked) -> pl.Series:
    """Return how many thread blocks each op had, in order; null where not recorded."""
    try:
        grid = linked.with_columns_of_ops("grid_x", "grid_y", "grid_z").collect()
    except pl.exceptions.ColumnNotFoundError:
        return pl.repeat(None, linked.ops.height, dtype=pl.Int64, eager=True).alias("grid")
    sides = [pl.col(f"grid_{axis}").cast(pl.Int64) for axis in "xyz"]
    return grid.select(grid=sides[0] * sides[1] * sides[2])["grid"]


def _idle(linked: Linked, windows: pl.DataFrame, pieces: pl.DataFrame) -> pl.DataFrame:
    """Return `IDLE`: idle times by cause, and what of the steps lies outside of all GPU work."""
    if linked.ops.is_empty():
        return _empty(IDLE)
    causes = [
        part.select(op_id="after", cause=pl.col("cause").cast(pl.String)) for part in idle(linked)
    ]
    known = pl.concat([_empty({"op_id": pl.UInt32, "cause": pl.String}), *causes])
    within = (
        pieces.filter("idle")
        .join(known, on="op_id", how="left")
        .group_by("step", pl.col("cause").fill_null("unknown"))
        .agg(idle_ns=pl.col("length_ns").sum())
    )
    filled = pieces.group_by("step").agg(pl.col("length_ns").sum())
    outside = (
        windows.group_by("step")
        .agg(whole_ns=_TOOK.sum())
        .join(filled, on="step", how="left")
        .select(
            "step",
            cause=pl.lit(OUTSIDE),
            idle_ns=pl.col("whole_ns") - pl.col("length_ns").fill_null(0),
        )
        .filter(pl.col("idle_ns") != 0)
    )
    return _typed(pl.concat([within.select(outside.columns), outside]), IDLE).sort(pl.all())


def _ranges(linked: Linked, windows: pl.DataFrame) -> pl.DataFrame:
    """Return `RANGES`: the ranges that began in each step, without the steps themselves."""
    if "ranges" not in linked.trace:
        return _empty(RANGES)
    names = linked.trace["names"].collect()
    found = instances(linked).join(names, on="name_id", how="left")
    own = linked.steps.select("pid", "start_ns", "end_ns", "name")
    found = found.join(own, on=own.columns, how="anti", nulls_equal=True)
    placed = found.with_columns(step=_step_at(found, windows)).filter(pl.col("step").is_not_null())
    sums = placed.group_by("step", pl.col("name").fill_null("(unnamed)")).agg(
        calls=pl.len(), time_ns=_TOOK.sum(), kernel_time_ns=pl.col("kernel_time_ns").sum()
    )
    return _typed(sums, RANGES).sort(pl.all())


def _ops(linked: Linked, windows: pl.DataFrame) -> pl.DataFrame:
    """Return `OPS`: PyTorch's ops that were called in each step, by phase and name."""
    found = ops_of(linked)
    if found is None:
        return _empty(OPS)
    frame = calls(linked, found)
    moments = frame.select("pid", "tid", time_ns="start_ns")
    phase = phase_at(linked.trace, moments, linked.rules).cast(pl.String).alias("phase")
    placed = frame.with_columns(phase, step=_step_at(frame, windows))
    sums = (
        placed.filter(pl.col("step").is_not_null())
        .join(found.names, on="name_id", how="left")
        .group_by("step", pl.col("phase").fill_null(NO_PHASE), "name")
        .agg(
            calls=pl.len(),
            gpu_time_ns=pl.col("self_gpu_time_ns").sum(),
            cpu_ns=pl.col("self_cpu_ns").sum(),
        )
    )
    return _typed(sums, OPS).sort(pl.all())


def _step_at(frame: pl.DataFrame, windows: pl.DataFrame) -> pl.Series:
    """Return the step of its process in which each row begins, null outside of all."""
    step = pl.repeat(None, frame.height, dtype=pl.Int32, eager=True).alias("step")
    for (pid,), mine in windows.unique(["pid", "step"]).group_by("pid"):
        rows = mine.select("start_ns", "end_ns", "step").iter_rows()
        found = at(*innermost(rows), frame["start_ns"]).cast(pl.Int32)
        step = _where(frame["pid"], pid, found, step)
    return step


def _where(pids: pl.Series, pid: object, found: pl.Series, other: pl.Series) -> pl.Series:
    both = pl.DataFrame({"pid": pids, "found": found, "other": other})
    mine = pl.col("pid").eq_missing(pl.lit(pid, pl.Int32))
    return both.select(step=pl.when(mine).then("found").otherwise("other"))["step"]


def _caveats(linked: Linked, windows: pl.DataFrame) -> tuple[str, ...]:
    """Return what limits a comparison with this recording."""
    said = [c.text for c in linked.trace.caveats if c.kind in ("lost", "damaged")]
    if linked.steps.is_empty():
        return (*said, "marks no steps: it is one sample, from its first to its last GPU work")
    outside = linked.ops.height - _with_step(linked, windows).height
    if outside:
        share = units.share(outside / linked.ops.height)
        said.append(
            f"{outside:,} of {linked.ops.height:,} GPU ops ({share}) were launched outside of all "
            "steps and are not compared"
        )
    return tuple(said)


def _empty(schema: Mapping[str, PolarsDataType]) -> pl.DataFrame:
    return pl.DataFrame(schema=dict(schema))


def _typed(frame: pl.DataFrame, schema: Mapping[str, PolarsDataType]) -> pl.DataFrame:
    return frame.select(pl.col(name).cast(of) for name, of in schema.items())
