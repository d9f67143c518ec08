"""Implementations measured in turns, A B … B A, and whether one is faster than another.

What changes while they are measured (clocks, heat, other programs) meets all of them alike: what
drifts evenly cancels within each round, and ratios are made within rounds.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from statistics import fmean, median
from typing import TYPE_CHECKING, Final

from tracelens.bench import statistics
from tracelens.bench.cell import Pair

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tracelens.bench.cell import Against, GpuState

_GROWTH: Final = 1.3
"""Each look whether it is enough comes after so many times the rounds of the look before."""


@dataclass(frozen=True)
class Block:
    """Samples that were taken one right after another, and the GPU while they were."""

    samples: Sequence[float]
    state: GpuState | None = None


@dataclass(frozen=True)
class Effort:
    """How much is done.

    Attributes:
        precision: it ends when half of every interval is at most this share of its middle, those
            of medians and those of ratios.
        budget_s: or when it has taken this long for each of those that take turns.
        warmup_s: turns before the first that counts.
        longest_warmup_s: at most, where the clock is not steady before.
        block_s: how long one block is to take.
        most_calls: in one block.
        least: rounds, at least, within the budget.
        most: rounds, at most.
    """

    precision: float = 0.005
    budget_s: float = 2.0
    warmup_s: float = 0.2
    longest_warmup_s: float = 1.0
    block_s: float = 0.01
    most_calls: int = 50
    least: int = 8
    most: int = 400


@dataclass
class Taken:
    """What was measured of one of them: its blocks in the order of time, two of each round."""

    calls: int = 1
    blocks: list[Block] = field(default_factory=list)

    @property
    def samples(self) -> list[float]:
        """Every sample, in their order."""
        return [sample for block in self.blocks for sample in block.samples]

    @property
    def states(self) -> list[GpuState]:
        """What the GPU said, block by block."""
        return [block.state for block in self.blocks if block.state is not None]

    @property
    def throttled(self) -> int:
        """How many samples were taken while the GPU's clock was held down."""
        return sum(
            len(block.samples) for block in self.blocks if block.state and block.state.throttled
        )

    def summary(self) -> statistics.Summary:
        """Return what the samples tell."""
        return statistics.of([block.samples for block in self.blocks])

    def levels(self) -> list[float]:
        """Return the time of each round: the mean of its two blocks' medians."""
        levels = [median(block.samples) for block in self.blocks]
        return [fmean(pair) for pair in zip(levels[::2], levels[1::2], strict=False)]


class FailedError(Exception):
    """A call failed while it was measured; the cause says why."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


def in_turns(
    those: Mapping[str, Callable[[int], Block]],
    effort: Effort,
    clock_hz: Callable[[], float | None] = lambda: None,
) -> dict[str, Taken]:
    """Measure several in turns until their medians and ratios are known well enough.

    Args:
        those: by name, what makes a number of calls and returns their samples.
        effort: how much is done.
        clock_hz: the GPU's clock; the first round waits until it is steady.

    Raises:
        FailedError: one of them raised.
    """
    taken = {name: Taken() for name in those}
    _warm_up(those, taken, effort, clock_hz)
    names, budget = tuple(those), effort.budget_s * len(those)
    begin, rounds, look = time.perf_counter(), 0, effort.least
    while True:
        for name in (*names, *reversed(names)):
            taken[name].blocks.append(_take(those, name, taken[name].calls))
        rounds += 1
        spent = time.perf_counter() - begin
        if rounds >= look:
            if is_settled(taken, effort.precision):
                return taken
            look = math.ceil(_GROWTH * rounds)
        if spent * (rounds + 1) / rounds > budget or rounds >= effort.most:
            return taken


def is_settled(taken: Mapping[str, Taken], precision: float) -> bool:
    """Tell whether every median is known to the precision, and every ratio to the first."""
    if any(one.summary().precision > precision for one in taken.values()):
        return False
    first, *others = taken.values()
    return all(ratios(one, first).precision <= precision for one in others)


def ratios(one: Taken, other: Taken) -> statistics.Summary:
    """Return what the rounds tell of the time of one as a multiple of the other's."""
    pairs = zip(one.levels(), other.levels(), strict=True)
    return statistics.of([[a / b] for a, b in pairs])


def floor(again: Taken, first: Taken) -> float | None:
    """Return how far from 1 the ratio of one to itself may be; None: too few rounds."""
    found = ratios(again, first)
    if found.low is None or found.high is None:
        return None
    return max(abs(found.low - 1), abs(found.high - 1))


def pair(one: Taken, other: Taken, name: str, noise: float | None = None) -> Pair:
    """Return how one is to the other.

    Args:
        one: of which it is told.
        other: what it is held against.
        name: of the other.
        noise: how far from 1 the other is from itself, see `floor`.
    """
    found = ratios(one, other)
    return Pair(
        other=name,
        ratio=found.median,
        low=found.low,
        high=found.high,
        floor=noise,
        rounds=found.n,
        verdict=_verdict(found, noise or 0.0),
    )


def _verdict(found: statistics.Summary, noise: float) -> Against:
    if found.low is None or found.high is None:
        return "too few rounds"
    if found.low <= 1 <= found.high or abs(found.median - 1) <= noise:
        return "no difference"
    return "slower" if found.median > 1 else "faster"


def _warm_up(
    those: Mapping[str, Callable[[int], Block]],
    taken: Mapping[str, Taken],
    effort: Effort,
    clock_hz: Callable[[], float | None],
) -> None:
    """Take turns until enough time has passed and the clock is steady; learn sizes of blocks."""
    begin = time.perf_counter()
    clocks: list[float | None] = []
    while True:
        for name, one in taken.items():
            before = time.perf_counter()
            _take(those, name, one.calls)
            took = (time.perf_counter() - before) / one.calls
            one.calls = max(1, min(effort.most_calls, int(effort.block_s / max(took, 1e-9))))
        clocks.append(clock_hz())
        spent = time.perf_counter() - begin
        if spent >= effort.longest_warmup_s or (spent >= effort.warmup_s and _is_steady(clocks)):
            return


def _is_steady(clocks: Sequence[float | None]) -> bool:
    last = [clock for clock in clocks[-3:] if clock]
    if len(last) < min(3, len(clocks)):
        return True  # nothing is known of the clock
    return len(clocks) >= 3 and max(last) <= 1.02 * min(last)


def _take(those: Mapping[str, Callable[[int], Block]], name: str, calls: int) -> Block:
    try:
        return those[name](calls)
    except Exception as error:
        raise FailedError(name) from error
