"""The head of every summary: what was captured, and how far to believe the numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from tracelens import units
from tracelens.analyses.families import by_name
from tracelens.analyses.kernels import kernels
from tracelens.analyses.totals import totals

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tracelens.links.linked import Linked

_HOW = {
    "own_thread": "own thread",
    "same_process": "by process",
    "inferred": "inferred",
    "ambiguous": "ambiguous",
    "none": "in no phase",
    "unlinked": "launch not recorded",
}


def headline(linked: Linked) -> str:
    """Return one line: file, recorder, GPUs, kernels and how busy the GPU was."""
    source = linked.trace.source
    sums = totals(linked).row(0, named=True)
    version = f"schema {source.schema_version}" if source.schema_version else "no schema version"
    parts = [
        source.path.name,
        f"{source.producer or source.format}, {version}",
        *named_gpus(gpus(linked)),
    ]
    if sums["kernels"] or sums["graph_launches"]:
        parts.append(f"{units.count(sums['kernels'])} kernel{'s' * (sums['kernels'] != 1)}")
    if sums["graph_launches"]:
        parts.append(f"{units.count(sums['graph_launches'])} graph launches")
    if is_one_at_a_time(linked):
        parts.append(f"measured one at a time, {units.time(sums['busy_ns'])} in all")
    elif sums["span_ns"]:
        busy, span = units.time(sums["busy_ns"]), units.time(sums["span_ns"])
        parts.append(
            f"GPU busy {busy} of {span} ({units.share(sums['busy_ns'] / sums['span_ns'])})"
        )
    return " · ".join(parts)


def is_one_at_a_time(linked: Linked) -> bool:
    """Tell whether kernels were measured apart from one another (Nsight Compute)."""
    source = linked.trace.source
    return source.facts.get("recorded_format", source.format) == "ncu"


def trust(linked: Linked) -> tuple[str, ...]:
    """Return lines on attribution, loss and what could not be told; shares are of GPU time."""
    lines = [_attribution(linked)] if linked.ops.height else []
    rest = [_lost(linked), *_unclassified(linked), *_steps_without_work(linked), *_overlap(linked)]
    lines.append(" · ".join(rest))
    return tuple(lines)


def gpus(linked: Linked) -> dict[str, int]:
    """Return how many GPUs of which name did the work, most first; empty where not recorded."""
    devices = linked.trace.get("devices")
    if devices is None:
        return {}
    used = linked.ops["device"].drop_nulls().unique().to_list()
    facts = devices.collect()
    seen = facts.filter(pl.col("device").is_in(used)) if used else facts
    # A GPU that several processes used is one GPU.
    counts = (
        seen.unique(["device", "gpu", "uuid"])
        .group_by(pl.col("name").fill_null("unknown GPU"))
        .len()
        .sort("len", "name", descending=[True, False])
    )
    return dict(counts.iter_rows())


def named_gpus(counts: Mapping[str, int]) -> list[str]:
    """Return GPUs as a headline names them: ``2 × NVIDIA H200``."""
    return [name if many == 1 else f"{many} × {name}" for name, many in counts.items()]


def _attribution(linked: Linked) -> str:
    rows = by_name(linked).group_by("how").agg(pl.col("time_ns").sum())
    times = {how: time for how, time in rows.iter_rows() if time}
    total = sum(times.values())
    if linked.phase_source == "none":
        return "no phases: no range names one, and nothing shows that this is training"
    if not total:
        return "no kernels"
    attributed = sum(times.get(how, 0) for how in ("own_thread", "same_process", "inferred"))
    parts = [
        f"{label} {units.share(times[how] / total)}" for how, label in _HOW.items() if how in times
    ]
    by = _inferred(linked) if linked.phase_source == "inferred" else ""
    by += " by when it ran" if linked.by_execution else ""
    return f"{units.share(attributed / total)} of GPU time attributed{by}: {', '.join(parts)}"


def _inferred(linked: Linked) -> str:
    said = "phases inferred: no range names one"
    if linked.whole and not (linked.ops["phase"] == "optimizer").any():
        said += "; an optimizer step, if there was one, counts as forward"
    return f" ({said})"


def _lost(linked: Linked) -> str:
    lost = [caveat for caveat in linked.trace.caveats if caveat.kind == "lost"]
    damaged = [caveat for caveat in linked.trace.caveats if caveat.kind == "damaged"]
    if damaged:
        return "the file is damaged: see the warnings"
    return "events may have been lost: see the warnings" if lost else "nothing reported lost"


def _unclassified(linked: Linked) -> list[str]:
    times = (
        kernels(linked).group_by(other=pl.col("family") == "other").agg(pl.col("total_ns").sum())
    )
    found = dict(times.iter_rows())
    total = sum(found.values())
    return [f"{units.share(found.get(True, 0) / total)} unclassified"] if total else []


def _steps_without_work(linked: Linked) -> list[str]:
    empty = 0
    for (pid,), steps in linked.steps.group_by("pid"):
        launched = linked.ops.lazy().filter(pl.col("pid") == pid).select("launch_ns")
        times = launched.collect()["launch_ns"].drop_nulls().sort()
        first = times.search_sorted(steps["start_ns"], side="left")
        last = times.search_sorted(steps["end_ns"], side="left")
        empty += int((first == last).sum())
    return [f"{empty} of {linked.steps.height} steps without GPU work"] if empty else []


def _overlap(linked: Linked) -> list[str]:
    """Say it where work overlaps: then sums of durations exceed the time that passed."""
    sums = totals(linked).row(0, named=True)
    summed = sum(sums[f"{kind}_time_ns"] for kind in ("kernel", "copy", "memset", "graph"))
    if not sums["busy_ns"] or summed <= sums["busy_ns"]:
        return []
    more = (summed - sums["busy_ns"]) / summed
    keys = ["device", "pid", "context", "stream"]
    places = linked.with_columns_of_ops("context", "stream").select(keys)
    streams = places.unique().collect().height
    where = f"{streams} streams" if streams > 1 else "one stream"
    return [f"work overlaps on {where} ({units.share(more)} of GPU time)"]
