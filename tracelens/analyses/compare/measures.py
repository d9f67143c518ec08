"""Single numbers of a run that two runs are judged by: step time, busy, idle, a phase, a kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens.analyses.compare import noise
from tracelens.analyses.compare.align import matched
from tracelens.analyses.compare.rows import NUMBERS, by_ops, by_work, samples

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tracelens.analyses.compare.noise import Difference
    from tracelens.analyses.compare.side import Side

TIMES: Final = ("total", "recorded", "busy", "idle", "kernels")
"""Step time (without profiler, where both sides timed such steps), the same of the recorded steps,
the union of GPU work inside steps, the rest of the steps, and the sum of kernel durations."""
NAMED: Final = ("phase", "family", "kernel", "range", "op")

Pair = tuple[list[float], list[float]]


def of(a: Side, b: Side, what: str, name: str | None = None) -> Pair | None:
    """Return the samples of both sides, one per step, in ns on one GPU; None: neither has it.

    Args:
        a: the baseline.
        b: the other side.
        what: one of `TIMES` or `NAMED`.
        name: of a thing of that kind.
    """
    if what in TIMES:
        return _time(a, b, what)
    if what == "kernel":
        return _kernel(a, b, name or "")
    key = (name or "",)
    if what == "range":
        both = [_range(side, key[0]) for side in (a, b)]
    else:
        by = by_ops if what == "op" or not (a.has_gpu_work or b.has_gpu_work) else by_work
        found = [by((what if what != "op" else "name",))(side) for side in (a, b)]
        both = [
            samples(s, f[key]) if key in f else None for s, f in zip((a, b), found, strict=True)
        ]
    if both == [None, None]:
        return None
    mine, other = both
    return mine or a.sampled(None), other or b.sampled(None)


def known(a: Side, b: Side, what: str) -> list[str]:
    """Return the names that `of` knows of a kind of thing."""
    columns = {"op": ("ops", "name"), "range": ("ranges", "name"), "kernel": ("work", "short_name")}
    frame, column = columns.get(what, ("work", what))
    if what == "phase" and not (a.has_gpu_work or b.has_gpu_work):
        frame = "ops"
    names = [n for side in (a, b) for n in getattr(side, frame)[column].drop_nulls().unique()]
    return sorted({*names})


def is_timed(a: Side, b: Side) -> bool:
    """Tell whether both sides timed steps without a profiler."""
    return bool(a.timed_ns and b.timed_ns)


def totals(a: Side, b: Side) -> pl.DataFrame:
    """Return a row for each single number that both sides have: `what` and `rows.NUMBERS`.

    The time of a step is judged by itself; the others share the level.
    """
    wanted = [w for w in TIMES if w != "recorded" or is_timed(a, b)]
    if not (a.has_time and b.has_time):
        wanted = ["total"]
    if not (a.has_gpu_work and b.has_gpu_work):
        wanted = [w for w in wanted if w in ("total", "recorded")]
    rows = []
    for what in wanted:
        mine, other = _time(a, b, what)
        level = noise.LEVEL if what == "total" else noise.LEVEL / (len(wanted) - 1)
        difference = noise.of_total(mine, other, level)
        rows.append((what, *_numbers(mine, other, difference)))
    schema = {"what": pl.String, **{n: t for n, t in NUMBERS.items() if n not in _LEFT_OUT}}
    return pl.DataFrame(rows, schema=schema, orient="row")


_LEFT_OUT: Final = ("a_calls", "b_calls", "a_total_ns", "b_total_ns")


def _numbers(
    mine: Sequence[float], other: Sequence[float], difference: Difference
) -> tuple[float | str | None, ...]:
    mean_a, mean_b = sum(mine) / len(mine), sum(other) / len(other)
    change = difference.value / mean_a if mean_a else None
    return (
        mean_a,
        mean_b,
        difference.value,
        change,
        difference.low,
        difference.high,
        difference.verdict,
    )


def _time(a: Side, b: Side, what: str) -> Pair:
    if what == "total" and is_timed(a, b):
        return [*map(float, a.timed_ns)], [*map(float, b.timed_ns)]
    make = {"total": _steps, "recorded": _steps, "busy": _busy, "idle": _idle, "kernels": _kernels}
    return make[what](a), make[what](b)


def _steps(side: Side) -> list[float]:
    counted = side.steps.filter(pl.col("left_out").is_null())
    return side.sampled(counted["duration_ns"].to_list())


def _busy(side: Side) -> list[float]:
    return _summed(side, side.work, "exposed_ns")


def _idle(side: Side) -> list[float]:
    return _summed(side, side.idle, "idle_ns")


def _kernels(side: Side) -> list[float]:
    return _summed(side, side.work.filter(pl.col("kind").is_in(["kernel", "graph"])), "time_ns")


def _range(side: Side, name: str) -> list[float] | None:
    found = side.ranges.filter(pl.col("name") == name)
    return _summed(side, found, "time_ns") if found.height else None


def _kernel(a: Side, b: Side, name: str) -> Pair | None:
    """Return the samples of a kernel, by full or short name, with what took its place."""
    short = {
        full: short
        for side in (a, b)
        for full, short in side.work.select("name", "short_name").unique().iter_rows()
    }
    fits = [
        match for match in matched(a, b)
        if any(name in (full, short[full]) for full in (*match.was, *match.now))
    ]  # fmt: skip
    if not fits:
        return None
    was = {full for match in fits for full in match.was}
    now = {full for match in fits for full in match.now}
    return (
        _summed(a, a.work.filter(pl.col("name").is_in(was)), "time_ns"),
        _summed(b, b.work.filter(pl.col("name").is_in(now)), "time_ns"),
    )


def _summed(side: Side, frame: pl.DataFrame, column: str) -> list[float]:
    sums = dict(frame.group_by("step").agg(pl.col(column).sum()).iter_rows())
    return side.sampled([sums.get(step, 0) for step in side.counted])
