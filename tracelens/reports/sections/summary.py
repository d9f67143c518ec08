"""The answer first: how long a step takes, what the GPU does in it, and where to begin."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

import polars as pl

from tracelens import units
from tracelens.capture import noise
from tracelens.errors import NothingToShowError
from tracelens.reports import Paragraph, Point, Points, Section
from tracelens.reports.sections._step import profiled_ns, timed_ns

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracelens.reports import Block
    from tracelens.reports.subject import Run, Subject
    from tracelens.tables import Filled

_MOST_PHASES = 4
_MOST_FAMILIES = 4
_MOST_KERNELS = 8


def _make(subject: Subject) -> list[Block]:
    return [*subject.each(_of_run), *_compared(subject)]


def _of_run(run: Run) -> Iterator[Block]:
    yield from (Paragraph(report.headline) for report in run.reports())
    points = tuple(Point(said) for said in _sentences(run))
    if points:
        yield Points(points)
    elif run.is_empty:
        raise NothingToShowError(run.why_empty)


def _sentences(run: Run) -> Iterator[str]:
    yield from _step(run)
    if run.table("ranks") is None or run.linked is not None:
        yield from _busy(run)
        yield from _phases(run)
        yield from _families(run)
        yield from _kernel(run)
        yield from _roofline(run)
    yield from _peak(run)
    yield from run.bench.findings[:_MOST_KERNELS] if run.bench else ()
    yield from _first_finding(run)


def _step(run: Run) -> Iterator[str]:
    timed, profiled = timed_ns(run), profiled_ns(run)
    if timed:
        found = noise.of(timed)
        said = noise.sentence(found)
        yield f"A step takes {units.time(found.median_ns)} without a profiler ({said})."
    elif profiled:
        steps = "one step" if len(profiled) == 1 else f"median of {len(profiled)} steps"
        yield (
            f"A step takes {units.time(median(profiled))} on the CPU while it is recorded "
            f"({steps}; table steps). Without a profiler it was not timed."
        )


def _busy(run: Run) -> Iterator[str]:
    if (totals := run.table("totals")) is None:
        return
    row = totals.frame.row(0, named=True)
    if run.work is not None and run.work.source.get("format") == "ncu":
        yield (
            f"Single kernels, measured one at a time, take {units.time(row['busy_ns'])} in all "
            "(table totals). How busy the program keeps the GPU was not recorded."
        )
    elif row["span_ns"]:
        share = units.share(row["busy_ns"] / row["span_ns"])
        yield (
            f"The GPU works {units.time(row['busy_ns'])} of {units.time(row['span_ns'])} "
            f"({share}), and idles {units.time(row['idle_ns'])} (table totals)."
        )


def _phases(run: Run) -> Iterator[str]:
    if (overview := run.table("overview")) is None or run.work is None:
        return
    rows = overview.frame.filter(pl.col("share") > 0).sort(
        "share", "phase", descending=[True, False]
    )
    if run.work.phase_source == "none" or rows.height < 2:
        return
    parts = [
        f"{phase or units.NOTHING} {units.share(share)}"
        for phase, share in rows.select("phase", "share").head(_MOST_PHASES).iter_rows()
    ]
    yield f"Of the GPU time, by the phase that launched it: {', '.join(parts)} (table overview)."


def _families(run: Run) -> Iterator[str]:
    if (families := run.table("families")) is None:
        return
    times = pl.col("kernel_time_ns") + pl.col("graph_time_ns").fill_null(0)
    sums = families.frame.group_by("family").agg(time=times.sum())
    total = int(sums["time"].sum())
    if not total:
        return
    rows = sums.sort("time", "family", descending=[True, False]).head(_MOST_FAMILIES)
    parts = [f"{family} {units.share(time / total)}" for family, time in rows.iter_rows() if time]
    yield f"By kind of work: {', '.join(parts)} (table families)."


def _kernel(run: Run) -> Iterator[str]:
    kernels, graphs = run.table("kernels"), run.table("graphs")
    if kernels is None or (graphs and graphs.frame["total_ns"].sum() > _sum(kernels)):
        return  # most of the time is of kernels that were not recorded
    row = kernels.frame.row(0, named=True)
    calls = "1 call" if row["calls"] == 1 else f"{units.count(row['calls'])} calls"
    yield (
        f"The kernel that takes most time is {row['short_name']}: {units.time(row['total_ns'])} in "
        f"{calls}, {units.share(row['share'])} of all kernel time (table kernels)."
    )


def _sum(kernels: Filled) -> int:
    return int(kernels.frame["total_ns"].sum())


def _roofline(run: Run) -> Iterator[str]:
    if (totals := run.table("roofline_totals")) is None:
        return
    row = totals.frame.row(0, named=True)
    if row["mfu"] is None or row["mbu"] is None or row["impossible"]:
        return
    yield (
        f"While it works, the GPU reaches {units.share(row['mfu'])} of its rate for matrix "
        f"products (MFU) and {units.share(row['mbu'])} of its memory bandwidth (MBU), in what is "
        f"of known cost: {units.share(row['known_share'])} of its time (table roofline_totals)."
    )


def _peak(run: Run) -> Iterator[str]:
    if (devices := run.of_memory("devices")) is None:
        return
    row = devices.frame.sort("peak_active_bytes", descending=True).row(0, named=True)
    where = f", in {row['peak_phase']}" if row["peak_phase"] else ""
    step = "" if row["peak_step"] is None else f" of step {row['peak_step']}"
    yield (
        f"Memory peaks at {units.size(row['peak_active_bytes'])}{where}{step} "
        "(table devices of memory)."
    )


def _first_finding(run: Run) -> Iterator[str]:
    found = run.looked()
    if found.findings:
        first = found.findings[0]
        change = f" {first.change}" if first.change else ""
        yield f"Where to begin: {first.says}{change}"


def _compared(subject: Subject) -> Iterator[Block]:
    if subject.comparison is not None:
        yield Paragraph(subject.comparison.headline)


SECTION = Section("Summary", _make)
