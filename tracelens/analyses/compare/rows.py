"""The rows of a comparison: each thing of both runs per step, its difference and the verdict."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens.analyses.compare import noise
from tracelens.analyses.compare.align import matched

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from polars._typing import PolarsDataType

    from tracelens.analyses.compare.noise import Difference
    from tracelens.analyses.compare.side import Side

Key = tuple[str, ...]

NUMBERS: Final[dict[str, PolarsDataType]] = {
    "a_calls": pl.Float64,
    "b_calls": pl.Float64,
    "a_ns": pl.Float64,
    "b_ns": pl.Float64,
    "difference_ns": pl.Float64,
    "change": pl.Float64,
    "low_ns": pl.Float64,
    "high_ns": pl.Float64,
    "verdict": pl.String,
    "a_total_ns": pl.Int64,
    "b_total_ns": pl.Int64,
}
"""What every row of two sides has. Times and calls are those of one step on one GPU; the totals
are the integers that they are made of: sums over the steps that count, and over all GPUs."""


@dataclass(frozen=True)
class Sums:
    """What one side spent on one thing: nanoseconds and calls in each step that counts."""

    times: tuple[int, ...]
    calls: tuple[int, ...]


def of_phases(a: Side, b: Side) -> pl.DataFrame:
    """Return a row per phase: `phase` and `NUMBERS`, by GPU time, or CPU time without GPU work."""
    sums = by_work(("phase",)) if a.has_gpu_work or b.has_gpu_work else by_ops(("phase",))
    return compared(a, b, ("phase",), sums(a), sums(b))


def of_families(a: Side, b: Side) -> pl.DataFrame:
    """Return a row per phase and family of GPU work: `phase`, `family` and `NUMBERS`."""
    sums = by_work(("phase", "family"))
    return compared(a, b, ("phase", "family"), sums(a), sums(b))


def of_ranges(a: Side, b: Side) -> pl.DataFrame:
    """Return a row per named range by its time on the CPU: `name` and `NUMBERS`.

    A range inside another one counts in both.
    """
    return compared(a, b, ("name",), _sums(a, a.ranges, ("name",)), _sums(b, b.ranges, ("name",)))


def of_ops(a: Side, b: Side) -> pl.DataFrame:
    """Return a row per op of PyTorch: `name` and `NUMBERS`.

    Times are those of the GPU work that it launched itself, or on the CPU, without the ops
    inside, where neither side has GPU work.
    """
    sums = by_ops(("name",))
    return compared(a, b, ("name",), sums(a), sums(b))


def of_kernels(a: Side, b: Side) -> pl.DataFrame:
    """Return a row per kernel, or per group of kernels that took others' place.

    Columns: family, was and now (lists of names), matched (how; empty without counterpart) and
    `NUMBERS`.
    """
    sums = by_work(("name",))
    mine, other = sums(a), sums(b)
    found = matched(a, b)
    keys: list[Key] = [(str(i),) for i in range(len(found))]
    left = {
        k: _added(a, [mine[n,] for n in m.was]) for k, m in zip(keys, found, strict=True) if m.was
    }
    right = {
        k: _added(b, [other[n,] for n in m.now]) for k, m in zip(keys, found, strict=True) if m.now
    }
    named = pl.DataFrame(
        {
            "key": [str(i) for i in range(len(found))],
            "family": [m.family for m in found],
            "was": pl.Series([list(m.was) for m in found], dtype=pl.List(pl.String)),
            "now": pl.Series([list(m.now) for m in found], dtype=pl.List(pl.String)),
            "matched": [m.how for m in found],
        },
        schema_overrides={"key": pl.String, "family": pl.String, "matched": pl.String},
    )
    rows = compared(a, b, ("key",), left, right)
    return rows.join(named, on="key", how="left", maintain_order="left").select(
        *named.columns[1:], *NUMBERS
    )


def of_steps(a: Side, b: Side) -> pl.DataFrame:
    """Return a row per step, by its place: step, both durations, and why one does not count."""
    facts = [
        side.steps.select(
            "step",
            pl.col("name").alias(f"{mark}_name"),
            (pl.col("duration_ns") / side.lanes).alias(f"{mark}_ns"),
            pl.col("left_out").alias(f"{mark}_left_out"),
        )
        for mark, side in (("a", a), ("b", b))
    ]
    both = facts[0].join(facts[1], on="step", how="full", coalesce=True).sort("step")
    difference = pl.col("b_ns") - pl.col("a_ns")
    return both.with_columns(difference_ns=difference, change=difference / pl.col("a_ns"))


def by_work(key: Sequence[str]) -> Callable[[Side], dict[Key, Sums]]:
    """Return what gives the GPU time of a side by some of the columns of `side.WORK`."""
    return lambda side: _sums(side, side.work, key)


def by_ops(key: Sequence[str]) -> Callable[[Side], dict[Key, Sums]]:
    """Return what gives the time of PyTorch's ops by some of the columns of `side.OPS`."""

    def sums(side: Side) -> dict[Key, Sums]:
        column = "gpu_time_ns" if side.has_gpu_work else "cpu_ns"
        return _sums(side, side.ops.with_columns(time_ns=column), key)

    return sums


def samples(side: Side, sums: Sums | None) -> list[float]:
    """Return the samples of one thing's time; without it, zeros."""
    return side.sampled(None if sums is None else sums.times)


def compared(
    a: Side,
    b: Side,
    names: Sequence[str],
    mine: Mapping[Key, Sums],
    other: Mapping[Key, Sums],
) -> pl.DataFrame:
    """Return a row per key of either side, the largest difference first.

    Args:
        a: the baseline.
        b: the other side.
        names: what the parts of a key are called.
        mine: of the baseline.
        other: of the other side.
    """
    keys = sorted({**mine, **other})
    pairs = [(samples(a, mine.get(key)), samples(b, other.get(key))) for key in keys]
    differences = noise.of_rows(pairs)
    rows = [
        (*key, *_numbers(a, b, mine.get(key), other.get(key), difference))
        for key, difference in zip(keys, differences, strict=True)
    ]
    schema = {**dict.fromkeys(names, pl.String), **NUMBERS}
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    return frame.sort(
        pl.col("difference_ns").abs(), *names, descending=[True, *[False] * len(names)]
    )


def _numbers(
    a: Side, b: Side, mine: Sums | None, other: Sums | None, difference: Difference
) -> tuple[float | int | str | None, ...]:
    """Return `NUMBERS` of one row."""
    totals = [sum(sums.times) if sums else 0 for sums in (mine, other)]
    times = [total / side.divisor for total, side in zip(totals, (a, b), strict=True)]
    calls = [
        sum(sums.calls) / side.divisor if sums else 0.0 for sums, side in ((mine, a), (other, b))
    ]
    verdict = "only in B" if not _is_there(mine) else difference.verdict
    verdict = "only in A" if not _is_there(other) else verdict
    return (
        *calls,
        *times,
        difference.value,
        difference.value / times[0] if times[0] else None,
        difference.low,
        difference.high,
        verdict,
        *totals,
    )


def _is_there(sums: Sums | None) -> bool:
    return sums is not None and bool(any(sums.calls) or any(sums.times))


def _sums(side: Side, frame: pl.DataFrame, key: Sequence[str]) -> dict[Key, Sums]:
    """Return times and calls in each step that counts, by key."""
    place = {step: i for i, step in enumerate(side.counted)}
    grouped = (
        frame.filter(pl.col("step").is_in(list(place)))
        .group_by(*key, "step")
        .agg(pl.col("time_ns", "calls").sum())
    )
    times: dict[Key, list[int]] = defaultdict(lambda: [0] * len(place))
    calls: dict[Key, list[int]] = defaultdict(lambda: [0] * len(place))
    for *parts, step, time, count in grouped.iter_rows():
        of = tuple(parts)
        times[of][place[step]] = time
        calls[of][place[step]] = count
    return {of: Sums(tuple(times[of]), tuple(calls[of])) for of in times}


def _added(side: Side, parts: Iterable[Sums]) -> Sums:
    zeros = (0,) * len(side.counted)
    listed = list(parts)
    return Sums(
        tuple(map(sum, zip(zeros, *(p.times for p in listed), strict=True))),
        tuple(map(sum, zip(zeros, *(p.calls for p in listed), strict=True))),
    )
