"""A workload's formulas below the roofline: each phase's least time, beside what was measured.

What a step computes and moves follows from the workload's options, so that this needs no shapes:
it works for every recording of a Run folder, those of Nsight Systems, too.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final

import msgspec
import polars as pl

from tracelens import hardware
from tracelens.hardware import BANDWIDTH, MATMUL, VECTOR
from tracelens.workload import Work

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tracelens.hardware import Ceilings

STEP: Final = "(step)"
"""The row of the whole step."""

_MOST: Final = 2**62
_PARTS: Final = {
    "phase": pl.String,
    "part": pl.String,
    "dtype": pl.String,
    "flops": pl.Int64,
    "bytes": pl.Int64,
    "intensity": pl.Float64,
    "ceiling": pl.String,
    "bound_ns": pl.Float64,
    "share": pl.Float64,
}
_PHASES: Final = {
    "phase": pl.String,
    "flops": pl.Int64,
    "bytes": pl.Int64,
    "intensity": pl.Float64,
    "time_ns": pl.Float64,
    "measured_by": pl.String,
    "mfu": pl.Float64,
    "mbu": pl.Float64,
    "bound_ns": pl.Float64,
    "bound": pl.String,
    "share_of_bound": pl.Float64,
    "verdict": pl.String,
}


@dataclass(frozen=True)
class Measured:
    """How long a step took.

    Attributes:
        busy_ns: phase -> time that the GPU was busy with it, in one step of one process.
        step_ns: a whole step on the wall clock, without a profiler; None: not timed.
    """

    busy_ns: Mapping[str, float]
    step_ns: float | None = None


Parts = dict[str, tuple[Work, ...]]


def parts_of(cost: Mapping[str, Any]) -> Parts | None:
    """Return the parts of each phase, of what run.json says a step costs; None without any."""
    known = {field.name for field in fields(Work)}
    said = cost.get("phases")
    if not isinstance(said, dict) or not said:
        return None
    found: Parts = {}
    for phase, parts in said.items():
        try:
            works = [
                msgspec.convert({k: v for k, v in part.items() if k in known}, Work)
                for part in parts
            ]
        except (msgspec.ValidationError, AttributeError, TypeError):
            return None
        if not all(0 <= work.flops < _MOST and 0 <= work.bytes < _MOST for work in works):
            return None
        found[str(phase)] = tuple(works)
    return found


def by_part(parts: Parts, on: Ceilings | None) -> pl.DataFrame:
    """Return one row per phase and part of one step, by phase, the longest first.

    `bound_ns` is the least time below the ceilings, `ceiling` the one that holds it there,
    `share` its share of the phase's least time.
    """
    rows = [
        row
        for phase, works in parts.items()
        for row in sorted(
            (_part(phase, work, on) for work in works),
            key=lambda row: (-(row["bound_ns"] or 0), row["part"]),
        )
    ]
    table = pl.DataFrame(rows, schema={n: t for n, t in _PARTS.items() if n != "share"})
    share = (pl.col("bound_ns") / pl.col("bound_ns").sum().over("phase")).fill_nan(None)
    return table.with_columns(share=share).select(list(_PARTS))


def by_phase(parts: Parts, took: Measured, on: Ceilings | None) -> pl.DataFrame:
    """Return one row per phase of one step, and one of the step.

    `time_ns` is what was measured: of a phase how long the GPU was busy with it, of the step the
    wall clock's. `mfu` and `mbu` are shares of it: the least time of the matrix products, and of
    the bytes. `share_of_bound` is the least time of everything as a share of it. `verdict`:
    `impossible` where that is more than the GPU can do, `from cache` where bytes alone are.
    """
    rows = [
        _phase(phase, works, took.busy_ns.get(phase), "GPU busy", on)
        for phase, works in parts.items()
    ]
    everything = [work for works in parts.values() for work in works]
    rows.append(_phase(STEP, everything, took.step_ns, "timer", on))
    return pl.DataFrame(rows, schema=_PHASES)


def _part(phase: str, work: Work, on: Ceilings | None) -> dict[str, Any]:
    bound = None if on is None else hardware.bound([work], on)
    compute = f"{MATMUL}{work.dtype}" if work.matmul else VECTOR
    return {
        "phase": phase,
        "part": work.part,
        "dtype": work.dtype,
        "flops": work.flops,
        "bytes": work.bytes,
        "intensity": work.flops / work.bytes if work.bytes else None,
        "ceiling": bound and (compute if bound.limited_by == "compute" else BANDWIDTH),
        "bound_ns": bound and bound.seconds * 1e9,
    }


def _phase(
    phase: str, works: Sequence[Work], time_ns: float | None, by: str, on: Ceilings | None
) -> dict[str, Any]:
    bound = None if on is None else hardware.bound(works, on)
    flops, size = (sum(getattr(work, name) for work in works) for name in ("flops", "bytes"))
    row = {
        "phase": phase,
        "flops": min(flops, _MOST),
        "bytes": min(size, _MOST),
        "intensity": flops / size if size else None,
        "time_ns": time_ns,
        "measured_by": by if time_ns else None,
        "bound_ns": bound and bound.seconds * 1e9,
        "bound": bound and bound.limited_by,
        "verdict": "",
    }
    if on is None or bound is None or not time_ns:
        return row
    verdict = _verdict(works, size, time_ns, on)
    if verdict == "impossible":
        return {**row, "verdict": verdict}
    products = hardware.bound([_products(work) for work in works], on)
    bandwidth = on.bandwidth_bytes_per_s
    return {
        **row,
        "mfu": products and products.seconds * 1e9 / time_ns,
        "mbu": size * 1e9 / bandwidth / time_ns if bandwidth else None,
        "share_of_bound": bound.seconds * 1e9 / time_ns,
        "verdict": verdict,
    }


def _products(work: Work) -> Work:
    """Return the matrix products of a part alone."""
    return Work(work.part, flops=work.flops if work.matmul else 0, dtype=work.dtype)


def _verdict(works: Sequence[Work], size: int, time_ns: float, on: Ceilings) -> str:
    """Say what is odd of doing this in the time: one format's products alone, or the bytes."""
    flops: dict[str, int] = {}
    for work in works:
        if work.matmul:
            flops[work.dtype] = flops.get(work.dtype, 0) + work.flops
    odd = [on.verdict(f"{MATMUL}{name}", n * 1e9 / time_ns) for name, n in flops.items()]
    if "impossible" in odd:
        return "impossible"
    # What one kernel writes the next may read from the cache, however much that is in all.
    return "from cache" if on.verdict(BANDWIDTH, size * 1e9 / time_ns) else max(odd, default="")
