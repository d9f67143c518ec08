"""A comparison in words: the verdict, the sides, what limits it, and what stands out."""

from __future__ import annotations

from statistics import mean
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from tracelens import units
from tracelens.analyses.compare import explain, measures, memory, noise
from tracelens.tables.trust import named_gpus

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tracelens.analyses.compare.align import Match
    from tracelens.analyses.compare.gate import Judged
    from tracelens.analyses.compare.noise import Difference
    from tracelens.analyses.compare.side import Side

CAUSES: Final = {
    "launch_bound": "idle: slow launching",
    "synchronising": "idle: in a blocking call",
    "no_api_call": "idle: CPU busy elsewhere",
    "queued": "idle: launched, waiting",
    "unknown": "idle: cause not known",
    "no_work_yet": "idle: outside of all work",
}
_REASONS: Final = {
    "slower_ns": ("slower kernels", "faster kernels"),
    "calls_ns": ("more calls", "fewer calls"),
    "replaced_ns": ("other kernels", "other kernels"),
    "hidden_ns": ("less overlap", "more overlap"),
}
_MOST_PARTS: Final = 3
_SLOWED: Final = 1.25
"""Steps that a profiler lengthens more than so tell as much of it as of the program."""
_LEAST_SHARE: Final = 0.01
_CANCELS: Final = 10
"""Times the whole difference: of parts so large it is what they leave over."""
_MOST_NAMES: Final = 1
"""Names of kernels that one row says; the JSON of a table has all."""


def verdict(a: Side, b: Side) -> str:
    """Return the answer in one line: how much slower a step of B is, and how sure that is."""
    mine, other = measures.of(a, b, "total") or ([], [])
    found = noise.of_total(mine, other)
    mean_a, mean_b = (sum(samples) / len(samples) for samples in (mine, other))
    what = "per step" if a.is_stepped and b.is_stepped else "in all"
    if measures.is_timed(a, b):
        what += " without a profiler"
    if found.is_sure:
        more = units.time(abs(found.value))
        return (
            f"{b.label} is {more} ({_percent(found, mean_a)}) {found.verdict} {what} than "
            f"{a.label}: {_against(mean_a, mean_b)}"
        )
    said = f"{b.label} takes {units.time(mean_b)} {what}, {a.label} {units.time(mean_a)}"
    change = units.column("change", [found.value / mean_a if mean_a else None])[0]
    if found.verdict == "too few steps":
        if not (a.is_stepped and b.is_stepped):
            return f"Not known whether they differ: {said} ({change}); the noise is not known"
        count = f"{len(mine)} and {len(other)} steps"
        return f"Not enough steps to tell: {said} ({change}), of {count}"
    return f"No difference above the noise: {said} ({change}, {interval(found, mean_a)})"


def memory_verdict(a: Side, b: Side) -> str:
    """Return the answer where memory alone is known of a run: which peak is higher."""
    one, two = memory.highest(a), memory.highest(b)
    if one is None or two is None:
        missing = " and ".join(s.label for s, peak in ((a, one), (b, two)) if peak is None)
        return f"Nothing to compare {a.label} and {b.label} by: no memory is known of {missing}"
    now, was = units.column("bytes", [two, one])
    if one == two:
        return f"No difference: {b.label} and {a.label} peak at {now} of active memory"
    change = units.column("share", [abs(two - one) / one if one else None])[0]
    more = "more" if two > one else "less"
    return (
        f"{b.label} peaks {units.size(abs(two - one))} ({change}) {more} than {a.label}: "
        f"{now} of active memory against {was}"
    )


def memory_side(mark: str, of: Side) -> str:
    """Return a line on a side whose memory is compared."""
    source = f"memory by {of.memory.source}" if of.memory else "no memory"
    return f"{mark}: {of.label} · {source}"


def interval(found: Difference, of: float) -> str:
    """Return an interval as text, in percent of a baseline; without one, in time."""
    if found.low is None or found.high is None:
        return units.ABSENT
    bounds = [found.low, found.high]
    if of:
        texts = units.column("change", [bound / of for bound in bounds])
    else:
        texts = units.column("more_ns", bounds)
    unit = " " + texts[1].rpartition(" ")[2]
    return f"{texts[0].removesuffix(unit)} to {texts[1]}"


def _percent(found: Difference, of: float) -> str:
    """Return a sure difference and its interval in percent, without signs."""
    if not of:
        return "from nothing"
    low, high = sorted((abs(found.low or 0.0) / of, abs(found.high or 0.0) / of))
    middle, low_text, high_text = units.column("share", [abs(found.value) / of, low, high])
    return f"{middle}, {low_text.removesuffix(' %')} to {high_text}"


def _against(a: float, b: float) -> str:
    now, was = units.column("ns", [b, a])
    return f"{now} against {was}"


def side(mark: str, of: Side) -> str:
    """Return a line on one side: what, recorded by whom, where, and which steps count."""
    by = [of.producer or of.format] if of.has_time else []
    parts = [f"{mark}: {of.label}", *by, *named_gpus(of.gpus)]
    if not of.gpus:
        parts.append("GPU not recorded" if of.has_gpu_work else "CPU")
    if not of.has_time:
        parts.append("nothing recorded")
    elif of.is_stepped:
        count, out = len(of.counted), of.steps.height - len(of.counted)
        steps = f"{count} step{'s' * (count != 1)}"
        parts.append(f"{steps}, without {_left_out(of)}" if out else steps)
    else:
        parts.append("no steps: compared as a whole")
    if of.lanes > 1:
        parts.append(f"mean of {of.lanes} GPUs" if of.has_gpu_work else f"{of.lanes} processes")
    if of.timed_ns:
        parts.append(f"{len(of.timed_ns)} steps timed without a profiler")
    return " · ".join(parts)


def _left_out(of: Side) -> str:
    """Return which steps are left out and why, those for one reason together."""
    steps: dict[str, list[str]] = {}
    rows = of.steps.filter(pl.col("left_out").is_not_null()).select("step", "left_out")
    for step, why in rows.iter_rows():
        steps.setdefault(why, []).append(str(step))
    return "; ".join(
        f"step{'s' * (len(which) > 1)} {', '.join(which)} ({why})" for why, which in steps.items()
    )


def caveats(a: Side, b: Side) -> Iterator[str]:
    """Give what limits the comparison of two sides."""
    if a.gpus and b.gpus and {*a.gpus} != {*b.gpus}:
        one, two = (" and ".join(named_gpus(s.gpus)) for s in (a, b))
        yield f"The GPUs differ: A ran on {one}, B on {two}. What differs may be the GPU."
    if a.lanes != b.lanes:
        count = f"{a.lanes} GPU{'s' * (a.lanes != 1)}"
        yield f"A has {count}, B {b.lanes}: means over GPUs are compared."
    one, two = (s.format.partition("-")[0] for s in (a, b))
    if one != two and a.has_time and b.has_time:
        yield (
            f"The recorders differ ({a.format} and {b.format}): they slow launches down "
            "differently, so that idle time and step time may differ for that alone."
        )
    if a.is_stepped != b.is_stepped:
        yield "One run marks its steps and the other does not: totals are not of the same thing."
    both = [text for text in a.caveats if text in b.caveats]
    yield from (f"A and B: {text}" for text in both)
    for mark, of, place in (("A", a, 0), ("B", b, 1)):
        yield from (f"{mark}: {text}" for text in of.caveats if text not in both)
        yield from (f"{mark}: {text}" for text in _slowed(a, b, place))
        pair = measures.of(a, b, "total")
        if pair and noise.is_dependent(pair[place]):
            yield (
                f"{mark}: each step is like the one before (autocorrelation "
                f"{noise.autocorrelation(pair[place]):.1f}): the run drifts, and intervals are too "
                "narrow."
            )
    if why := memory.why_unlike(a, b):
        yield why[0].upper() + why[1:] + "."


def _slowed(a: Side, b: Side, place: int) -> Iterator[str]:
    """Give what the profiler did to one side's steps, if much."""
    recorded = measures.of(a, b, "recorded") if measures.is_timed(a, b) else None
    timed = measures.of(a, b, "total")
    if recorded is None or timed is None or not recorded[place]:
        return
    with_, without = (mean(pair[place]) for pair in (recorded, timed))
    if with_ > _SLOWED * without:
        yield (
            f"under the profiler a step takes {units.time(round(with_))} instead of "
            f"{units.time(round(without))}: idle time is mostly the profiler's doing."
        )


def part(row: Mapping[str, Any]) -> str:
    """Return what a row of the explanation is about."""
    if row["part"] == explain.IDLE:
        return CAUSES.get(str(row["family"]), f"idle: {row['family']}")
    if row["part"] == explain.REST:
        return "rest of the step"
    return " · ".join(str(row[name]) for name in ("phase", "family") if row[name])


def explanation(frame: pl.DataFrame, total: float) -> str:
    """Return the largest parts of a difference in a sentence; empty where there is none."""
    if not total:
        return ""
    rows = [
        row for row in frame.head(_MOST_PARTS).iter_rows(named=True)
        if abs(row["difference_ns"]) >= _LEAST_SHARE * abs(total)
    ]  # fmt: skip
    more = units.column("more_ns", [row["difference_ns"] for row in rows])
    said = []
    for row, text in zip(rows, more, strict=True):
        why = mostly(row)
        said.append(f"{part(row)} {text} ({why})" if why else f"{part(row)} {text}")
    if not said:
        return ""
    whole = units.column("more_ns", [total])[0]
    cancels = abs(rows[0]["difference_ns"]) > _CANCELS * abs(total)
    lead = f"Parts cancel each other (in all {whole})" if cancels else f"Of {whole}"
    return f"{lead}: {'; '.join(said)}."


def mostly(row: Mapping[str, Any]) -> str:
    """Return which of the four reasons accounts for most of a part of GPU work; or nothing."""
    if row["part"] != explain.WORK or not any(row[name] for name in _REASONS):
        return ""
    most = max(_REASONS, key=lambda name: abs(row[name]))
    return _REASONS[most][row[most] < 0]


def kernel(match: Match, short: dict[str, str]) -> str:
    """Return the short names of a row of kernels: one name, or was → is."""
    was, now = (_some([short[name] for name in names]) for names in (match.was, match.now))
    if not was or not now or match.is_same:
        return was or now
    return f"{was} → {now}"


def _some(names: Sequence[str]) -> str:
    """Return names in one line: the first of them, and how many more there are."""
    more = len(names) - _MOST_NAMES
    return " + ".join([*names[:_MOST_NAMES], *([f"{more} more"] if more > 0 else [])])


def gate(found: Judged) -> str:
    """Return what was measured for a gate."""
    unit = "bytes" if found.gate.is_memory else "ns"
    now, was = units.column(unit, [found.b, found.a])
    change = None if not found.a or found.b is None else (found.b - found.a) / found.a
    said = f"{now} against {was} ({units.column('change', [change])[0]}"
    if found.difference is None or found.a is None:
        return f"{said})"
    return f"{said}, {interval(found.difference, found.a)})"


def findings(a: Side, b: Side, kernels: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Give what stands out beside the time: kernels that took others' place, and memory."""
    replaced = [row for row in kernels if row["matched"] not in ("name", "spelling", "")]
    if replaced:
        largest = max(replaced, key=lambda row: abs(row["difference_ns"]))
        count = units.count(len(replaced))
        change = units.column("more_ns", [largest["difference_ns"]])[0]
        what = "kernels take" if len(replaced) > 1 else "kernel takes"
        yield (
            f"{count} {what} the place of others; the largest change, by {largest['matched']}: "
            f"{largest['kernel']} ({change} a step)."
        )
    lone = [row for row in kernels if row["matched"] == ""]
    if lone:
        in_a = sum(row["verdict"] == "only in A" for row in lone)
        yield f"Kernels without counterpart: {in_a} only in A, {len(lone) - in_a} only in B."
    one, two = memory.highest(a), memory.highest(b)
    if one and two is not None and one != two:
        more = units.column("more_bytes", [two - one])[0]
        change = units.column("change", [(two - one) / one])[0]
        yield (
            f"The peak of active memory: {units.size(two)} against {units.size(one)} "
            f"({more}, {change})."
        )
