"""Measure how often `tracelens bench` is wrong: intervals that miss, false verdicts, and power.

usage: python -m benchmarks.bench [--trials N] [--write]

A machine is made up whose calls take 1 ms and vary: by call, by block of calls (log-normal), by a
slow wandering of everything (each block goes on from the one before), and by calls that are much
slower. On it A, B and A again are measured in turns as `tracelens bench` does, once with B as fast
as A and once with B slower; 60 rounds at most, which is what the budget of 2 s allows. An interval
that misses is one that does not hold the true median.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from benchmarks.page import write
from tracelens.bench import pairs
from tracelens.bench.pairs import Block, Effort

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tracelens.bench.pairs import Taken

PAGE: Final = Path(__file__).parents[1] / "docs" / "measuring.md"
CALL_S: Final = 1e-3
SLOWER: Final = (1.003, 1.01)
EFFORT: Final = Effort(precision=0.005, budget_s=1.0, warmup_s=0.0, most=60)
_CALLS: Final = 10
_STAYS: Final = 0.95


@dataclass(frozen=True)
class Noise:
    """How calls vary, each as a share: by call, by block, by wandering, and how often slow."""

    call: float = 0.003
    block: float = 0.0
    wander: float = 0.0
    spikes: float = 0.0


NOISES: Final[Mapping[str, Noise]] = {
    "0.3 % by call": Noise(),
    "3 % by call": Noise(call=0.03),
    "0.3 % by call and 1 % by block": Noise(block=0.01),
    "0.3 % by call, 2 % wandering": Noise(wander=0.02),
    "0.3 % by call, every tenth call half slower": Noise(spikes=0.1),
    "all of these": Noise(0.03, 0.01, 0.02, 0.1),
}


class Machine:
    """Takes calls; time on it passes as the calls say, and not by a clock."""

    def __init__(self, noise: Noise, draw: np.random.Generator) -> None:
        self.noise, self.draw = noise, draw
        self.level = draw.normal(0, noise.wander)

    def of(self, factor: float) -> Callable[[int], Block]:
        """Return what takes calls that are slower by a factor."""

        def take(_calls: int) -> Block:
            noise, draw = self.noise, self.draw
            step = noise.wander * math.sqrt(1 - _STAYS**2)
            self.level = _STAYS * self.level + draw.normal(0, step)
            level = factor * CALL_S * math.exp(self.level + draw.normal(0, noise.block))
            calls = level * np.exp(draw.normal(0, noise.call, _CALLS))
            calls *= np.where(draw.random(_CALLS) < noise.spikes, 1.5, 1.0)
            return Block([float(x) for x in calls])

        return take


def truth(noise: Noise) -> float:
    """Return the median of all calls that there could be."""
    draw = np.random.default_rng(0)
    n = 2_000_000
    whole = draw.normal(0, math.hypot(noise.call, noise.block, noise.wander), n)
    return float(
        np.median(CALL_S * np.exp(whole) * np.where(draw.random(n) < noise.spikes, 1.5, 1))
    )


def measured(noise: Noise, slower: float, draw: np.random.Generator) -> dict[str, Taken]:
    """Return A, B and A again, measured in turns."""
    machine = Machine(noise, draw)
    those = {"A": machine.of(1), "B": machine.of(slower), "again": machine.of(1)}
    return pairs.in_turns(those, EFFORT)


def row(noise: Noise, trials: int) -> list[str]:
    """Return what comes of many cells."""
    draw = np.random.default_rng(20_261_120)
    right = truth(noise)
    missed = [0, 0]
    alarms = rounds = 0
    sure = dict.fromkeys(SLOWER, 0)
    for _ in range(trials):
        taken = measured(noise, 1.0, draw)
        found = taken["A"].summary()
        pair = _pair(taken)
        rounds += pair.rounds
        missed[0] += not (found.low or 0) <= right <= (found.high or math.inf)
        missed[1] += not (pair.low or 0) <= 1 <= (pair.high or math.inf)
        alarms += pair.verdict != "no difference"
        for slower in SLOWER:
            sure[slower] += _pair(measured(noise, slower, draw)).verdict == "slower"
    counts = [*missed, alarms, *sure.values()]
    return [*(f"{100 * count / trials:.1f} %" for count in counts), f"{rounds / trials:.0f}"]


def _pair(taken: Mapping[str, Taken]) -> pairs.Pair:
    floor = pairs.floor(taken["again"], taken["A"])
    return pairs.pair(taken["B"], taken["A"], "A", floor)


def table(trials: int) -> list[str]:
    """Return the lines of the table."""
    heads = [
        "calls vary", "median missed", "ratio missed", "false verdicts",
        *(f"{100 * (slower - 1):.2g} % slower found" for slower in SLOWER), "rounds",
    ]  # fmt: skip
    lines = [f"| {' | '.join(heads)} |", f"| --- |{' ---: |' * (len(heads) - 1)}"]
    for name, noise in NOISES.items():
        lines.append(f"| {' | '.join([name, *row(noise, trials)])} |")
        print(lines[-1], flush=True)
    return lines


def main() -> None:
    """Measure, print, and write if asked to."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench", description=__doc__)
    parser.add_argument("--trials", type=int, default=400)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    began = time.perf_counter()
    lines = table(options.trials)
    lines += ["", f"{options.trials} cells a row."]
    print("\n".join(lines))
    print(f"{time.perf_counter() - began:.0f} s")
    if options.write:
        write("python -m benchmarks.bench", lines, PAGE)


if __name__ == "__main__":
    main()
