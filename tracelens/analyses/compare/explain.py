"""What a difference of step times is made of, largest first, adding up to the nanosecond.

The time of a step is the union of its GPU work and the idle time between. Each moment of work
belongs to one op, the one that began first, so that a step is the exposed time of every phase and
family plus the idle time of every cause. All numbers are exact fractions (sums in integer
nanoseconds over the number of steps and GPUs), rounded to whole nanoseconds only in the end and so
that the rounded parts add up to the rounded whole.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens.analyses.compare import noise
from tracelens.analyses.compare.align import matched

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from polars._typing import PolarsDataType

    from tracelens.analyses.compare.side import Side

WORK, IDLE, CPU, REST = "GPU work", "idle", "CPU", "rest"
SPLIT: Final = ("slower_ns", "calls_ns", "replaced_ns", "hidden_ns", "idle_ns")
_TOO_SMALL: Final = 100
SCHEMA: Final[dict[str, PolarsDataType]] = {
    "part": pl.String,
    "phase": pl.String,
    "family": pl.String,
    "a_ns": pl.Float64,
    "b_ns": pl.Float64,
    "difference_ns": pl.Int64,
    "share": pl.Float64,
    **dict.fromkeys(SPLIT, pl.Int64),
    "verdict": pl.String,
}


@dataclass(frozen=True)
class Part:
    """One part of a difference, in exact nanoseconds per step and GPU.

    The first four are of GPU work: the ``slower`` calls of the same kernels, ``calls`` that are
    more, kernels ``replaced`` by others (or new, or gone), and what more is ``hidden`` behind
    other work or runs outside of the step (then negative).
    """

    part: str
    phase: str
    family: str
    a: Fraction
    b: Fraction
    slower: Fraction = Fraction(0)
    calls: Fraction = Fraction(0)
    replaced: Fraction = Fraction(0)
    hidden: Fraction = Fraction(0)
    idle: Fraction = Fraction(0)
    verdict: str = ""

    @property
    def difference(self) -> Fraction:
        """How much more the part takes in B."""
        return self.b - self.a

    @property
    def split(self) -> tuple[Fraction, ...]:
        """The difference taken apart, in the order of `SPLIT`."""
        return (self.slower, self.calls, self.replaced, self.hidden, self.idle)


def whole(side: Side) -> Fraction:
    """Return the time of a step on one GPU: the mean of the steps that count."""
    counted = side.steps.filter(pl.col("left_out").is_null())
    return Fraction(int(counted["duration_ns"].sum()), side.divisor)


def parts(a: Side, b: Side) -> list[Part]:
    """Return the parts of the difference of step times; they add up to it exactly.

    Without GPU work on both sides they are the time on the CPU in ops of PyTorch by phase, and
    the rest, which is negative where several threads work at once.
    """
    on_gpu = a.has_gpu_work and b.has_gpu_work
    judged = [*_work(a, b), *_idle(a, b)] if on_gpu else [*_on_cpu(a, b)]
    verdicts = noise.of_rows([(a.sampled(mine), b.sampled(other)) for _, mine, other in judged])
    found = [
        replace(part, verdict=difference.verdict)
        for (part, _, _), difference in zip(judged, verdicts, strict=True)
    ]
    rest = [whole(side) for side in (a, b)]
    rest[0] -= sum((p.a for p in found), Fraction(0))
    rest[1] -= sum((p.b for p in found), Fraction(0))
    if any(rest):
        found.append(Part(REST, "", "", rest[0], rest[1], idle=rest[1] - rest[0]))
    return sorted(found, key=lambda p: (-abs(p.difference), p.part, p.phase, p.family))


def explained(a: Side, b: Side) -> pl.DataFrame:
    """Return the parts as a frame: `SCHEMA`, the largest difference first.

    `difference_ns` adds up to the rounded difference of the step times, and the columns `SPLIT` of
    each row to its difference. `share` is of the whole difference; null where the parts cancel
    out, so that it is but a hundredth of what they add up to without their signs.
    """
    found = parts(a, b)
    total = whole(b) - whole(a)
    is_whole = abs(total) * _TOO_SMALL > sum(abs(p.difference) for p in found)
    rounded = apportioned([p.difference for p in found])
    rows = [
        (
            p.part,
            p.phase,
            p.family,
            float(p.a),
            float(p.b),
            difference,
            float(p.difference / total) if is_whole else None,
            *apportioned(p.split, difference),
            p.verdict,
        )
        for p, difference in zip(found, rounded, strict=True)
    ]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def apportioned(values: Sequence[Fraction], whole: int | None = None) -> list[int]:
    """Return the values as integers that add up to their rounded sum.

    Each is rounded down, and those with the largest remainders up (Hamilton's method).

    Args:
        values: what is rounded.
        whole: what they are to add up to instead: their sum, rounded down or up.
    """
    floors = [math.floor(value) for value in values]
    missing = (round(sum(values, Fraction(0))) if whole is None else whole) - sum(floors)
    order = sorted(range(len(values)), key=lambda i: (floors[i] - values[i], i))
    for i in order[:missing]:
        floors[i] += 1
    return floors


@dataclass
class _Sum:
    """Of a kernel in a phase and family: sums over the steps that count."""

    calls: int = 0
    time: int = 0
    exposed: int = 0


Times = Sequence[int] | None
"""Of each step that counts; None: nothing in any."""


def _work(a: Side, b: Side) -> Iterator[tuple[Part, Times, Times]]:
    """Give a part per phase and family of GPU work, with its time in each step of both sides."""
    known = {name: match for match in matched(a, b) for name in match.now}
    one = _kernels(a, {})
    two = _kernels(b, {n: m.was[0] for n, m in known.items() if m.is_same})
    by_group: dict[tuple[str, str], list[str]] = defaultdict(list)
    for phase, family, name in sorted({*one, *two}):
        by_group[phase, family].append(name)
    mine, other = (_by_step(s, s.work, ("phase", "family"), "exposed_ns") for s in (a, b))
    for group, names in by_group.items():
        pairs = [(one.get((*group, name)), two.get((*group, name))) for name in names]
        part = _of_group(group, pairs, (a.divisor, b.divisor))
        yield part, mine.get(group), other.get(group)


def _of_group(
    key: tuple[str, str],
    pairs: Sequence[tuple[_Sum | None, _Sum | None]],
    divisors: tuple[int, int],
) -> Part:
    """Return the part of one phase and family: ``pairs`` are its kernels on both sides."""
    slower = calls = replaced = hidden = shown_a = shown_b = Fraction(0)
    for mine, other in pairs:
        was, now = mine or _Sum(), other or _Sum()
        calls_a, calls_b = (Fraction(s.calls, d) for s, d in zip((was, now), divisors, strict=True))
        time_a, time_b = (Fraction(s.time, d) for s, d in zip((was, now), divisors, strict=True))
        exposed_a, exposed_b = (
            Fraction(s.exposed, d) for s, d in zip((was, now), divisors, strict=True)
        )
        if was.calls and now.calls:
            more = (calls_b - calls_a) * time_a / calls_a
            calls += more
            slower += time_b - time_a - more
        else:
            replaced += time_b - time_a
        hidden += (exposed_b - time_b) - (exposed_a - time_a)
        shown_a += exposed_a
        shown_b += exposed_b
    phase, family = key
    return Part(WORK, phase, family, shown_a, shown_b, slower, calls, replaced, hidden)


def _kernels(side: Side, same: Mapping[str, str]) -> dict[tuple[str, str, str], _Sum]:
    """Return sums by phase, family and name; ``same`` gives names of B as A has them."""
    counted = side.work.filter(pl.col("step").is_in(side.counted))
    grouped = counted.group_by("phase", "family", "name").agg(
        pl.col("calls", "time_ns", "exposed_ns").sum()
    )
    found: dict[tuple[str, str, str], _Sum] = defaultdict(_Sum)
    for phase, family, name, calls, time, exposed in grouped.iter_rows():
        sums = found[phase, family, str(same.get(name, name))]
        sums.calls += calls
        sums.time += time
        sums.exposed += exposed
    return found


def _idle(a: Side, b: Side) -> Iterator[tuple[Part, Times, Times]]:
    """Give a part per cause of idle time."""
    one, two = (_by_step(side, side.idle, ("cause",), "idle_ns") for side in (a, b))
    for key in sorted({*one, *two}):
        was, now = _mean(a, one.get(key)), _mean(b, two.get(key))
        yield Part(IDLE, "", key[0], was, now, idle=now - was), one.get(key), two.get(key)


def _on_cpu(a: Side, b: Side) -> Iterator[tuple[Part, Times, Times]]:
    """Give a part per phase of PyTorch's ops on the CPU."""
    one, two = (_by_step(side, side.ops, ("phase",), "cpu_ns") for side in (a, b))
    for key in sorted({*one, *two}):
        was, now = _mean(a, one.get(key)), _mean(b, two.get(key))
        yield Part(CPU, key[0], "", was, now, slower=now - was), one.get(key), two.get(key)


def _mean(side: Side, times: Times) -> Fraction:
    return Fraction(sum(times or ()), side.divisor)


def _by_step(
    side: Side, frame: pl.DataFrame, key: Sequence[str], column: str
) -> dict[tuple[str, ...], list[int]]:
    """Return a sum for each step that counts, by key."""
    place = {step: i for i, step in enumerate(side.counted)}
    grouped = frame.filter(pl.col("step").is_in(list(place))).group_by(*key, "step")
    found: dict[tuple[str, ...], list[int]] = defaultdict(lambda: [0] * len(place))
    for *parts_, step, value in grouped.agg(pl.col(column).sum()).iter_rows():
        found[tuple(parts_)][place[step]] = value
    return found
