"""The report of `tracelens roofline`: its tables, and in sentences what is lost where."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from tracelens import hardware, units
from tracelens.analyses.roofline_formulas import Measured, by_part, by_phase
from tracelens.findings import Looked
from tracelens.tables import Column, Filled, Report, Table
from tracelens.tables.build import filled

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tracelens.analyses.roofline_formulas import Parts
    from tracelens.hardware import Ceilings

OF_SHAPES: Final = ("roofline_totals", "roofline_phases", "roofline")
OF_FORMULAS: Final = ("roofline_formulas", "roofline_parts")
TABLES: Final = (*OF_SHAPES, *OF_FORMULAS)
MEASURED: Final = ("phases", "steps")
"""The tables that formulas are held against."""

_LATENCY: Final = "latency"
_MOST: Final = 3
_WORTH: Final = 0.01
"""What loses a smaller share of the time is not worth a sentence."""
_ALL: Final = 0.995
"""Of GPU time: where so much is known, the rest is not worth its names."""

_SHAPED: Final = {
    "roofline_formulas": Table(
        analysis="roofline_formulas",
        title="Roofline of a step by formula",
        columns=(
            Column("phase", "phase", "text"),
            Column("time_ns", "measured", "ns"),
            Column("bound_ns", "at least", "ns", optional=True),
            Column("share_of_bound", "bound ÷ measured", "share", optional=True),
            Column("mfu", "MFU", "share", optional=True),
            Column("mbu", "MBU", "share", optional=True),
            Column("flops", "FLOP", "flops"),
            Column("bytes", "bytes", "bytes"),
            Column("intensity", "FLOP/byte", "flops_per_byte"),
            Column("bound", "bound by", "text", optional=True),
            Column("verdict", "note", "text", optional=True),
            Column("measured_by", "measured by", "text", optional=True),
        ),
        note=(
            "FLOP and bytes of one step in one process, by the workload's formulas. Measured: how "
            "long the GPU was busy with the phase, and of the step the wall clock without a "
            "profiler."
        ),
    ),
    "roofline_parts": Table(
        analysis="roofline_parts",
        title="Parts of a step by formula",
        columns=(
            Column("phase", "phase", "text"),
            Column("part", "part", "text"),
            Column("bound_ns", "at least", "ns", optional=True),
            Column("share", "of phase", "share", optional=True),
            Column("flops", "FLOP", "flops"),
            Column("bytes", "bytes", "bytes"),
            Column("intensity", "FLOP/byte", "flops_per_byte"),
            Column("ceiling", "ceiling", "text", optional=True),
            Column("dtype", "format", "text"),
        ),
        note="The least time of each part at the ceilings, in one step of one process.",
    ),
}


def shown(
    report: Report, names: Sequence[str], parts: Parts | None, step_ns: float | None
) -> Report:
    """Return the report of a recording as `tracelens roofline` shows it.

    Args:
        report: with the tables of `OF_SHAPES` and `MEASURED`.
        names: the tables to show.
        parts: what a step of the workload costs by formula; None: there are no formulas.
        step_ns: a step on the wall clock, where it was timed.
    """
    made = {table.name: table for table in report.tables}
    left_out = {name: why for name, why in report.left_out.items() if name in OF_SHAPES}
    if parts is not None:
        on = ceilings_of(report)
        took = Measured(_busy(made), step_ns)
        frames = {
            "roofline_formulas": by_phase(parts, took, on),
            "roofline_parts": by_part(parts, on),
        }
        noted = _origin(on)
        for name, frame in frames.items():
            table = _SHAPED[name]
            made[name] = filled(name, replace(table, note=f"{table.note} {noted}"), frame)
    else:
        why = "there are no formulas: they come with the Run folder that captures a workload"
        left_out |= dict.fromkeys(OF_FORMULAS, why)
    return replace(
        report,
        tables=tuple(made[name] for name in names if name in made),
        left_out={name: why for name, why in left_out.items() if name in names},
        findings=tuple(_sentences(made)),
        found=Looked(),
        hints=tuple(f"--table {name}" for name in TABLES if name in made and name not in names),
        courses=(),
    )


def ceilings_of(report: Report) -> Ceilings | None:
    """Return the ceilings of the GPU that a report is of; None if it is not one that is known."""
    names = {str(device["name"]) for device in report.devices if device.get("name")}
    return hardware.ceilings(names.pop()) if len(names) == 1 else None


def _origin(on: Ceilings | None) -> str:
    if on is None:
        return "The ceilings of the GPU are not known."
    name = on.device.name if on.device else on.name
    return " ".join((f"Ceilings: {name}, {on.origin}.", *on.caveats))


def _busy(made: dict[str, Filled]) -> dict[str, float]:
    """Return how long the GPU was busy with each phase of a step; of several ranks the mean."""
    phases, steps = made.get("phases"), made.get("steps")
    if phases is None or steps is None or steps.frame.is_empty():
        return {}
    count = steps.frame.height
    sums = phases.frame.drop_nulls("phase").group_by("phase").agg(pl.col("busy_ns").sum())
    return {phase: busy / count for phase, busy in sums.iter_rows()}


def _sentences(made: dict[str, Filled]) -> Iterator[str]:
    if "roofline_totals" in made and "roofline" in made:
        first, of_rank = _of_first_rank(made["roofline_totals"].frame)
        ops, _ = _of_first_rank(made["roofline"].frame)
        said = [text for row in first.to_dicts() for text in _of_all(row)]
        yield from (of_rank + text for text in (*said, *_of_ops(ops)))
    if "roofline_formulas" in made:
        yield from _of_step(made["roofline_formulas"].frame.to_dicts())


def _of_first_rank(frame: pl.DataFrame) -> tuple[pl.DataFrame, str]:
    """Return the rows of the first of several ranks, and what a sentence on it begins with."""
    if "rank" not in frame.columns or frame.is_empty():
        return frame, ""
    rank = frame["rank"][0]
    return frame.filter(pl.col("rank").eq_missing(pl.lit(rank))), f"Rank {rank}: "


def _of_all(row: dict[str, Any]) -> Iterator[str]:
    is_all = row["known_share"] >= _ALL
    rest = f" Not known: {row['unknown']}." if row["unknown"] and not is_all else ""
    yield f"Roofline knows the cost of {units.share(row['known_share'])} of GPU time.{rest}"
    if row["mfu"] is not None:
        yield (
            f"MFU is {units.share(row['mfu'])} while the GPU is busy and "
            f"{units.share(row['mfu_of_span'])} with idle time; MBU {units.share(row['mbu'])} and "
            f"{units.share(row['mbu_of_span'])}."
        )
    if row["impossible"]:
        kinds = "kind of call claims" if row["impossible"] == 1 else "kinds of calls claim"
        yield (
            f"{row['impossible']} {kinds} more than the GPU can do. Its bytes or operations are "
            "counted wrongly, or its time: --table roofline marks it impossible."
        )


def _of_ops(frame: pl.DataFrame) -> Iterator[str]:
    """Give the ceilings below which most time is lost, of those that lose a share worth a word."""
    total = int(frame["time_ns"].sum()) or 1
    bounded = frame.drop_nulls("bound").with_columns(
        of=pl.when(pl.col("bound") == _LATENCY).then(pl.lit(_LATENCY)).otherwise("ceiling")
    )
    groups = bounded.partition_by("of", maintain_order=True)
    for rows in sorted(groups, key=_lost, reverse=True)[:_MOST]:
        if _lost(rows) >= _WORTH * total:
            yield _of_ceiling(rows, total)


def _of_ceiling(rows: pl.DataFrame, total: int) -> str:
    """Return what the calls that one ceiling bounds lose, and which of them loses most."""
    took, lost = int(rows["time_ns"].sum()), _lost(rows)
    first = rows.row(0, named=True)
    name = f"{first['name']} of {first['shapes']}" if first["shapes"] else first["name"]
    loses = f"{units.time(lost)}, {units.share(lost / total)} of GPU time"
    reached = units.share((took - lost) / took)
    is_latency = first["of"] == _LATENCY
    mean = units.time(took / int(rows["kernels"].sum()))
    if rows.height == 1:
        why = (
            f"its kernels last {mean}, too short to fill the GPU"
            if is_latency
            else f"it reaches {reached} of its ceiling ({first['ceiling']})"
        )
        return f"{name} loses {loses}: {why}."
    most = f"{name} loses most, {units.time(first['lost_ns'])}"
    if is_latency:
        return f"Kernels of {mean} on average, too short to fill the GPU, lose {loses}; {most}."
    at = units.share(first["share_of_ceiling"])
    return f"What {first['of']} bounds reaches {reached} of it and loses {loses}; {most} at {at}."


def _lost(rows: pl.DataFrame) -> int:
    return int(rows["lost_ns"].sum())


def _of_step(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    step = rows[-1]
    if step["share_of_bound"] is not None:
        yield (
            f"By formula a step takes {units.time(step['bound_ns'])} at least; it takes "
            f"{units.time(step['time_ns'])}: {units.share(step['share_of_bound'])} of the bound, "
            f"MFU {units.share(step['mfu'])}."
        )
