"""One run made ready to be compared: sums per step of everything that two runs are compared by."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from polars._typing import PolarsDataType

Schema = dict[str, "PolarsDataType"]

STEPS: Final[Schema] = {
    "step": pl.Int32,
    "name": pl.String,
    "duration_ns": pl.Int64,
    "kernels": pl.Int64,
    "left_out": pl.String,
    "turn": pl.Int32,
}
WORK: Final[Schema] = {
    "step": pl.Int32,
    "phase": pl.String,
    "family": pl.String,
    "kind": pl.String,
    "name": pl.String,
    "short_name": pl.String,
    "op": pl.String,
    "shapes": pl.String,
    "grid": pl.Int64,
    "calls": pl.Int64,
    "time_ns": pl.Int64,
    "exposed_ns": pl.Int64,
}
IDLE: Final[Schema] = {"step": pl.Int32, "cause": pl.String, "idle_ns": pl.Int64}
RANGES: Final[Schema] = {
    "step": pl.Int32,
    "name": pl.String,
    "calls": pl.Int64,
    "time_ns": pl.Int64,
    "kernel_time_ns": pl.Int64,
}
OPS: Final[Schema] = {
    "step": pl.Int32,
    "phase": pl.String,
    "name": pl.String,
    "calls": pl.Int64,
    "gpu_time_ns": pl.Int64,
    "cpu_ns": pl.Int64,
}
PEAKS: Final[Schema] = {
    "device": pl.Int32,
    "peak_active_bytes": pl.Int64,
    "peak_reserved_bytes": pl.Int64,
    "peak_phase": pl.String,
}
HELD: Final[Schema] = {
    "device": pl.Int32,
    "category": pl.String,
    "site": pl.String,
    "bytes": pl.Int64,
}


@dataclass(frozen=True)
class Memory:
    """The memory of a run: ``peaks`` (`PEAKS`) of each device, and what was live then (`HELD`).

    ``kind`` says what is counted (`links.memory.Memory.kind`), ``source`` which file told it.
    """

    peaks: pl.DataFrame
    held: pl.DataFrame
    kind: str
    source: str


@dataclass(frozen=True)
class Side:
    """One of the runs that are compared.

    Sums are those of a step over all ``lanes`` (a process on a GPU; or a process that uses none),
    so that a mean is the sum over the steps that count divided by their number and by ``lanes``.
    A recording without steps is one step that lasts from its first to its last GPU work, and
    ``is_stepped`` is False.

    Attributes:
        label: how the run is called in tables.
        path: where it lies.
        format: of the recording.
        producer: who recorded it.
        gpus: how many GPUs of which name.
        lanes: by how many a sum is divided to be that of one process on one GPU.
        steps: `STEPS`; ``left_out`` says why a step does not count, null where it does, and
            ``turn`` which recording it is of, where the same was recorded several times.
        work: GPU work by step, phase, family, kind (kernel, copy, memset, graph), name, launching
            op, its shapes and the number of thread blocks. ``calls`` and ``time_ns`` are of what
            the step launched. ``exposed_ns`` is the part of the step's own time in which this
            work ran and no work that began before it: with `idle` it adds up to the steps.
        idle: the rest of the steps' time, by cause.
        ranges: named ranges: instances, time on the CPU, and kernel time launched inside.
        ops: PyTorch's ops: calls, and GPU and CPU time without the ops inside.
        timed_ns: times of steps without any profiler, where the run has them.
        memory: peaks, where memory was recorded.
        caveats: what limits the comparison with this run.
        by_turn: whether samples are means of turns instead of steps.
    """

    label: str
    path: str
    format: str
    producer: str | None
    gpus: Mapping[str, int]
    lanes: int
    is_stepped: bool
    steps: pl.DataFrame
    work: pl.DataFrame
    idle: pl.DataFrame
    ranges: pl.DataFrame
    ops: pl.DataFrame
    timed_ns: tuple[int, ...] = ()
    memory: Memory | None = None
    caveats: tuple[str, ...] = ()
    by_turn: bool = False

    @property
    def counted(self) -> tuple[int, ...]:
        """The steps that count, in order."""
        return tuple(self.steps.filter(pl.col("left_out").is_null())["step"])

    @property
    def turns(self) -> int:
        """How many recordings of the same it is made of."""
        return int(self.steps["turn"].n_unique())

    @property
    def has_time(self) -> bool:
        """Whether it is more than memory."""
        return bool(self.steps.height)

    @property
    def divisor(self) -> int:
        """By what a sum over the steps that count is divided to be that of one step and GPU."""
        return len(self.counted) * self.lanes

    def sampled(self, times: Sequence[int] | None) -> list[float]:
        """Return the samples that noise is told by, on one GPU, of a time in each step that counts.

        They are the steps, or with ``by_turn`` the means of the turns; no times are zeros.
        """
        counted = self.steps.filter(pl.col("left_out").is_null())
        values = [time / self.lanes for time in times or [0] * counted.height]
        if not self.by_turn:
            return values
        means = counted.select("turn", value=pl.Series(values, dtype=pl.Float64))
        return (
            means.group_by("turn", maintain_order=True)
            .agg(pl.col("value").mean())["value"]
            .to_list()
        )

    @property
    def has_gpu_work(self) -> bool:
        """Whether it recorded any kernel, copy, memset or graph."""
        return bool(self.work.height)


def merged(parts: Sequence[Side]) -> Side:
    """Return the ranks of one job as one side: sums over the ranks, for the steps that all have.

    Args:
        parts: at least one; the first one gives label and path.
    """
    first = parts[0]
    if len(parts) == 1:
        return first
    common = set.intersection(*(set(part.steps["step"]) for part in parts))
    steps = pl.concat(part.steps for part in parts).filter(pl.col("step").is_in(sorted(common)))
    gpus: dict[str, int] = {}
    for part in parts:
        for name, count in part.gpus.items():
            gpus[name] = gpus.get(name, 0) + count
    merged_steps = steps.group_by("step", maintain_order=True).agg(
        pl.col("name").first(),
        pl.col("duration_ns", "kernels").sum(),
        pl.col("left_out").drop_nulls().first(),
        pl.col("turn").first(),
    )
    return replace(
        _stacked(parts, [0] * len(parts)),
        gpus=gpus,
        lanes=sum(part.lanes for part in parts),
        is_stepped=all(part.is_stepped for part in parts),
        steps=merged_steps,
        memory=_memory([part.memory for part in parts if part.memory]),
    )


def repeated(turns: Sequence[Side]) -> Side:
    """Return several recordings of the same as one side: their steps, one after the other.

    Recorded in turns with the other side (A B B A), a slow drift of the machine meets both alike.

    Args:
        turns: at least one, in the order in which they were recorded; the first gives the label.
    """
    if len(turns) == 1:
        return turns[0]
    heights = [side.steps["step"].len() and int(side.steps["step"].max()) + 1 for side in turns]  # type: ignore[arg-type]
    offsets = [sum(heights[:turn]) for turn in range(len(turns))]
    steps = [
        side.steps.with_columns(
            step=(pl.col("step") + offset).cast(pl.Int32), turn=pl.lit(turn, pl.Int32)
        )
        for turn, (side, offset) in enumerate(zip(turns, offsets, strict=True))
    ]
    return replace(
        _stacked(turns, offsets),
        path=" ".join(side.path for side in turns),
        steps=pl.concat(steps),
        timed_ns=tuple(time for side in turns for time in side.timed_ns),
    )


def _stacked(sides: Sequence[Side], offsets: Sequence[int]) -> Side:
    """Return the first side with the tables of all, their steps numbered from the offsets."""

    def table(name: str) -> pl.DataFrame:
        frames: list[pl.DataFrame] = [getattr(side, name) for side in sides]
        return pl.concat(
            frame.with_columns(step=(pl.col("step") + offset).cast(pl.Int32))
            for frame, offset in zip(frames, offsets, strict=True)
        )

    return replace(
        sides[0],
        work=table("work"),
        idle=table("idle"),
        ranges=table("ranges"),
        ops=table("ops"),
        caveats=tuple(dict.fromkeys(text for side in sides for text in side.caveats)),
    )


def _memory(parts: Sequence[Memory]) -> Memory | None:
    """Return the memory of several ranks; devices get numbers of their own."""
    if not parts:
        return None
    peaks = [part.peaks.with_columns(device=pl.lit(i, pl.Int32)) for i, part in enumerate(parts)]
    held = [part.held.with_columns(device=pl.lit(i, pl.Int32)) for i, part in enumerate(parts)]
    return replace(parts[0], peaks=pl.concat(peaks), held=pl.concat(held))
