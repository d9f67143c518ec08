"""From what ncu measured to the tables of a trace.

ncu runs one kernel at a time, many times over, and does not say when. Launches are laid end to
end here, in the order in which they were made: durations are measured, starts are not.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens.trace.model import Caveat, Source, Trace
from tracelens.trace.schema import DEVICES, GPU_OPS, OP_COUNTERS

if TYPE_CHECKING:
    from pathlib import Path

    from tracelens.readers.ncu.sheet import Sheet

_DURATION: Final = ("gpu__time_duration.sum", "gpu__time_duration.avg", "gpu__time_active.sum")
_MOST_NS: Final = 10**15
"""Longer than any kernel; a duration like that is damaged."""
_AXES: Final = "xyz"
_ONLY_NUMBERS: Final = r"(\d+)"
_LONGEST: Final = 200
_ATTRIBUTE: Final = "device__attribute_"
_CLOCKS: Final = (
    "Measured by Nsight Compute: each kernel ran alone, several times over, and by default with "
    "flushed caches and a locked clock. Durations are of such runs, not of the program; starts "
    "are not known, and kernels stand one after the other in the order of their launches."
)


def trace_of(path: Path, sheet: Sheet, *, everything: bool) -> Trace:
    """Return what was measured as a trace."""
    wide = _Metrics(sheet.counters)
    took, said = _durations(sheet, wide)
    launches = sheet.launches.with_columns(took)
    names = launches["Kernel Name"].fill_null("").unique(maintain_order=True)
    name_ids = pl.DataFrame({"Kernel Name": names}).with_row_index("name_id")
    ops = _ops(launches, wide, name_ids, everything=everything)
    counters = sheet.counters.rename({"launch": "op_id"}).select(list(OP_COUNTERS.schema()))
    tables = {
        "gpu_ops": ops,
        "op_counters": counters.cast(dict(OP_COUNTERS.schema())),  # type: ignore[arg-type]
        "devices": _devices(sheet, ops, wide),
        "names": name_ids.select(pl.col("name_id").cast(pl.Int32), name="Kernel Name"),
    }
    present = {name: frame.lazy() for name, frame in tables.items() if frame is not None}
    caveats = [Caveat("note", _CLOCKS), *(Caveat(kind, text) for kind, text in sheet.said), *said]
    # Metrics that are words, such as a scheduling policy, are no counters.
    words = {name[:_LONGEST]: text[:_LONGEST] for name, text in sheet.words.items()}
    source = Source(path, "ncu", "Nsight Compute", sheet.version, words)
    return Trace(source, present, tuple(caveats))


class _Metrics:
    """Metrics by launch."""

    def __init__(self, counters: pl.DataFrame) -> None:
        self._by_name = counters.partition_by("name", as_dict=True)

    def of(self, name: str, height: int) -> pl.Series:
        """Return a metric of every launch, null where it was not measured."""
        empty = pl.repeat(None, height, dtype=pl.Float64, eager=True)
        found = self._by_name.get((name,))
        return empty if found is None else empty.scatter(found["launch"], found["value"])

    def first(self, name: str) -> float | None:
        """Return the first value of a metric."""
        found = self._by_name.get((name,))
        return None if found is None or found.is_empty() else float(found["value"][0])


def _durations(sheet: Sheet, wide: _Metrics) -> tuple[pl.Series, list[Caveat]]:
    """Return how long each launch took, in whole ns; 0 where that is not known."""
    height = sheet.launches.height
    found = [wide.of(name, height) for name in _DURATION]
    took = pl.select(took=pl.coalesce(found))["took"]
    sound = took.is_between(0, _MOST_NS) & took.is_not_nan()
    bad = height - int(sound.fill_null(value=False).sum())
    said = []
    if bad:
        what = "any launch" if bad == height else f"{bad:,} launches"
        said.append(
            Caveat(
                "missing",
                f"The duration of {what} was not measured ({_DURATION[0]}): it counts as 0 ns.",
            )
        )
    known = pl.select(pl.when(sound).then(took).otherwise(0.0).alias("took_ns"))["took_ns"]
    return known.fill_null(0.0).round().cast(pl.Int64), said


def _ops(
    launches: pl.DataFrame, wide: _Metrics, name_ids: pl.DataFrame, *, everything: bool
) -> pl.DataFrame:
    height = launches.height
    end = pl.col("took_ns").cum_sum()
    named = launches.with_columns(pl.col("Kernel Name").fill_null("")).join(
        name_ids, on="Kernel Name", how="left", maintain_order="left"
    )
    placed = named.with_row_index("op_id").with_columns(
        start_ns=end - pl.col("took_ns"),
        end_ns=end,
        kind=pl.lit("kernel"),
        device=_number("Device"),
        stream=_number("Stream"),
        context=_number("Context"),
        pid=_number("Process ID").fill_null(0),
    )
    if everything:
        shapes = [
            *(_sizes("Grid Size", "grid")),
            *(_sizes("Block Size", "block")),
        ]
        placed = placed.with_columns(shapes).with_columns(
            registers=wide.of("launch__registers_per_thread", height),
            shared_bytes=wide.of("launch__shared_mem_per_block", height),
        )
        placed = placed.with_columns(
            pl.coalesce(f"{what}_{axis}", wide.of(f"launch__{what}_dim_{axis}", height)).alias(
                f"{what}_{axis}"
            )
            for what in ("grid", "block")
            for axis in _AXES
        )
    schema = dict(GPU_OPS.schema(everything=everything))
    lacking = [pl.lit(None).alias(name) for name in schema if name not in placed.columns]
    return placed.with_columns(lacking).select(list(schema)).cast(schema, strict=False)  # type: ignore[arg-type]


def _number(name: str) -> pl.Expr:
    """Return a column of numbers, which ncu may group by thousands, as it does values."""
    return pl.col(name).str.replace_all(r"[^\d-]", "").cast(pl.Int32, strict=False)


def _sizes(column: str, what: str) -> list[pl.Expr]:
    """Return the three sizes in a text such as (256, 1, 1)."""
    parts = pl.col(column).str.extract_all(_ONLY_NUMBERS)
    return [
        pl.when(parts.list.len() == len(_AXES))
        .then(parts.list.get(place, null_on_oob=True))
        .cast(pl.Int32, strict=False)
        .alias(f"{what}_{axis}")
        for place, axis in enumerate(_AXES)
    ]


def _devices(sheet: Sheet, ops: pl.DataFrame, wide: _Metrics) -> pl.DataFrame | None:
    """Return the GPUs that launches ran on, as far as the table tells.

    ncu writes attributes with each launch; of several GPUs of different kinds in one table the
    first one's would be taken for all, so that they are left out.
    """
    used = ops["device"].drop_nulls().unique().sort()
    capabilities = sheet.launches["CC"].drop_nulls().unique()
    if used.is_empty() or len(capabilities) > 1:
        return None
    clock, width = (
        wide.first(f"{_ATTRIBUTE}memory_clock_rate"),
        wide.first(f"{_ATTRIBUTE}global_memory_bus_width"),
    )
    name = sheet.words.get(f"{_ATTRIBUTE}display_name")
    rows = {
        "device": used,
        "name": None if name is None else re.sub(r"[^\x20-\x7e]", "", name)[:80] or None,
        "sm_count": _whole(wide.first(f"{_ATTRIBUTE}multiprocessor_count")),
        "capability": capabilities[0] if len(capabilities) else None,
        "memory_bytes": _whole(wide.first(f"{_ATTRIBUTE}total_memory")),
        # Both edges of a clock in kHz, over a bus in bits.
        "bandwidth_bytes_per_s": None if not clock or not width else round(clock * 250 * width),
    }
    schema = dict(DEVICES.schema())
    frame = pl.DataFrame({"device": used}).with_columns(
        pl.lit(rows.get(name)).alias(name) for name in schema if name != "device"
    )
    return frame.select(list(schema)).cast(schema, strict=False)  # type: ignore[arg-type]


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)
