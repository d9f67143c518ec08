"""GPU work and memory side by side, by phase and step, also of two recordings of one run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens.analyses import Analysis
from tracelens.analyses.memory.phases import phases
from tracelens.analyses.steps import with_step
from tracelens.errors import NothingToShowError
from tracelens.links.collectives import rank_of
from tracelens.links.memory import Ask, remember
from tracelens.links.memory_phases import INFERRED
from tracelens.links.phases import DEFAULT_PHASES

if TYPE_CHECKING:
    from polars._typing import PolarsDataType

    from tracelens.links.linked import Linked
    from tracelens.links.memory import Memory

_KEY: Final = ["device", "phase", "step", "step_name"]
WORK: Final[dict[str, PolarsDataType]] = {
    "device": pl.Int32,
    "phase": pl.String,
    "step": pl.Int32,
    "step_name": pl.String,
    "kernels": pl.Int64,
    "kernel_time_ns": pl.Int64,
}
HELD: Final[dict[str, PolarsDataType]] = {
    **{name: WORK[name] for name in _KEY},
    "peak_active_bytes": pl.Int64,
    "end_active_bytes": pl.Int64,
}
SCHEMA: Final[dict[str, PolarsDataType]] = {"rank": pl.Int32, **WORK, **HELD}


@Analysis
def memory_by_phase(linked: Linked) -> pl.DataFrame:
    """Return one row per phase and step of a recording that holds GPU work and memory events.

    Raises:
        NothingToShowError: it holds no memory events.
    """
    if "memory" not in linked.trace or "memory" in linked.trace.on_request:
        raise NothingToShowError(
            "no memory was recorded: torch.profiler.profile(profile_memory=True) records it, and "
            "a folder that holds a trace and a memory snapshot of one run is joined"
        )
    asked = {name: linked.rules.patterns[name].pattern for name in linked.rules.asked}
    memory = remember(linked.trace, Ask(phase_rules=asked))
    return joined(work(linked), held(memory), rank_of(linked), whole=linked.whole)


def work(linked: Linked) -> pl.DataFrame:
    """Return the kernels of each device, phase and step: `WORK`."""
    took = pl.col("end_ns") - pl.col("start_ns")
    names = linked.steps.select("pid", "step", step_name="name")
    return (
        with_step(linked)
        .lazy()
        .filter(pl.col("kind") == "kernel")
        .join(names.lazy(), on=["pid", "step"], how="left")
        .group_by(_KEY)
        .agg(kernels=pl.len().cast(pl.Int64), kernel_time_ns=took.sum())
        .with_columns(pl.col("phase").cast(pl.String))
        .select(list(WORK))
        .cast(WORK)  # type: ignore[arg-type]
        .collect()
    )


def held(memory: Memory) -> pl.DataFrame:
    """Return what each device held in each phase and step: `HELD`."""
    names = memory.steps.select("step", step_name="name").unique("step")
    return (
        phases(memory)
        .with_columns(pl.col("phase").replace(INFERRED, "backward"))
        .join(names, on="step", how="left")
        .group_by(_KEY, maintain_order=True)
        .agg(pl.col("peak_active_bytes").max(), pl.col("end_active_bytes").last())
        .select(list(HELD))
        .cast(HELD)  # type: ignore[arg-type]
    )


def joined(
    work: pl.DataFrame, held: pl.DataFrame, rank: int | None, *, whole: bool
) -> pl.DataFrame:
    """Return work and memory side by side: `SCHEMA`, in order of steps and phases.

    Steps are the same where their names are, or, without common names, their numbers; no clock is
    compared. Devices are told apart where both recordings have several. Work that is not
    ``whole`` was cut: what was held beside it is left out.
    """
    held = _renumbered(work, held)
    key = ["device", "phase", "step"]
    if min(work["device"].n_unique(), held["device"].n_unique()) < 2:
        used = work["device"].unique()
        mine = held.filter(pl.col("device").is_in(used.implode()))
        held = (mine if mine.height else held).drop("device")
        key = ["phase", "step"]
    both = work.join(
        held,
        on=key,
        how="full" if whole else "left",
        coalesce=True,
        nulls_equal=True,
        suffix="_held",
    )
    order = pl.col("phase").replace_strict(
        {phase: place for place, phase in enumerate(DEFAULT_PHASES)},
        default=len(DEFAULT_PHASES),
        return_dtype=pl.Int32,
    )
    device = work["device"].drop_nulls().unique().to_list()
    return (
        both.with_columns(
            rank=pl.lit(rank, pl.Int32),
            device=pl.coalesce("device", pl.lit(device[0] if len(device) == 1 else None, pl.Int32)),
            step_name=pl.coalesce("step_name", "step_name_held"),
            order=order,
        )
        .sort("device", "step", "order", "phase", nulls_last=True)
        .select(list(SCHEMA))
    )


def _renumbered(work: pl.DataFrame, held: pl.DataFrame) -> pl.DataFrame:
    """Return what was held with the steps' numbers of the work, where names tell them.

    Where all steps have one name, the last ones of both recordings are the same step: warm-up
    steps that only one of them has come before.
    """
    steps, others = (
        frame.select("step_name", "step").drop_nulls().unique() for frame in (work, held)
    )
    numbers = dict(steps.iter_rows())
    if not set(numbers) & set(others["step_name"]):
        return held
    if max(len(numbers), others["step_name"].n_unique()) == 1:
        last, other = (numbered.select(pl.col("step").max()).item() for numbered in (steps, others))
        shifted = held.with_columns(pl.col("step") + (last - other))
        return shifted.filter(pl.col("step").is_null() | (pl.col("step") >= 0))
    step = pl.col("step_name").replace_strict(numbers, default=None, return_dtype=pl.Int32)
    return held.with_columns(
        step=pl.when(pl.col("step_name").is_null()).then("step").otherwise(step)
    )


ANALYSIS = memory_by_phase
