"""Measure how often `tracelens compare` is wrong: false alarms of runs that are alike, and power.

usage: python -m benchmarks.compare [--trials N] [--write]

Steps are drawn anew from one of our recordings: every kernel of every step takes its mean times
two factors, one of the step and one of its own (log-normal, 1 % each), and idle time times another
(5 %); of one kind of noise every tenth step is 10 % slower, as on a machine that others use. Two
such runs are compared as the command does. The rate of false alarms is the share of comparisons
in which a table holds any verdict `slower` or `faster`, of runs that differ in nothing; power is
the share in which a run that was made 3 % slower is called slower.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from benchmarks.page import write
from tracelens.analyses.compare import explain, measures, noise, rows
from tracelens.tables.compare.reading import Task, read

if TYPE_CHECKING:
    from tracelens.analyses.compare.side import Side

SAMPLE: Final = Path(__file__).parents[1] / "samples" / "gpt2-xl-ctx256-h200" / "run.sqlite.gz"
PAGE: Final = Path(__file__).parents[1] / "docs" / "commands" / "compare.md"
NOISE: Final = 0.01
IDLE_NOISE: Final = 0.05
SPIKE: Final = 1.1
SPIKES: Final = 0.1
SLOWER: Final = 1.03
_SURE: Final = ("slower", "faster")


@dataclass(frozen=True)
class Rates:
    """Shares of trials: false alarms by table, and of runs made slower those that were called so.

    ``whole`` is where every kernel takes 3 % more, ``kernel`` where the largest one alone does.
    """

    alarms: dict[str, float]
    whole: float
    kernel: float
    trials: int


def base() -> Side:
    """Return the recording that runs are drawn from."""
    side = read(Task(SAMPLE)).side
    if side is None:
        raise RuntimeError(f"{SAMPLE} is no trace")
    return side


def drawn(
    side: Side,
    steps: int,
    draw: np.random.Generator,
    *,
    spikes: bool = False,
    slower: float = 1.0,
    only: str | None = None,
) -> Side:
    """Return a run of so many steps, drawn from the means of a side.

    Args:
        side: what to draw from.
        steps: how many.
        draw: random numbers.
        spikes: whether some steps are slower.
        slower: by what the times of GPU work are multiplied.
        only: the name of the only kernel that is slower; None: all.
    """
    of_step = np.exp(draw.normal(0, NOISE, steps))
    if spikes:
        of_step *= np.where(draw.random(steps) < SPIKES, SPIKE, 1.0)
    work, means = _repeated(side.work, side.divisor, ("calls", "time_ns"), of_step, (draw, NOISE))
    chosen = pl.lit(value=True) if only is None else pl.col("name") == only
    work = work.with_columns(
        time_ns=pl.when(chosen).then(means["time_ns"] * slower).otherwise(means["time_ns"])
        .round().cast(pl.Int64)
    ).with_columns(exposed_ns="time_ns")  # fmt: skip
    idle, waits = _repeated(side.idle, side.divisor, ("idle_ns",), of_step, (draw, IDLE_NOISE))
    idle = idle.with_columns(idle_ns=waits["idle_ns"].round().cast(pl.Int64))
    whole = pl.concat([work.select("step", ns="time_ns"), idle.select("step", ns="idle_ns")])
    durations = whole.group_by("step").agg(duration_ns=pl.col("ns").sum()).sort("step")
    table = durations.with_columns(
        name=pl.lit(None, pl.String),
        kernels=pl.lit(0, pl.Int64),
        left_out=pl.lit(None, pl.String),
        turn=pl.lit(0, pl.Int32),
    ).select(side.steps.columns)
    return replace(side, steps=table, work=work, idle=idle, ops=side.ops.clear(), memory=None)


def _repeated(
    frame: pl.DataFrame,
    divisor: int,
    sums: tuple[str, ...],
    of_step: np.ndarray,
    noises: tuple[np.random.Generator, float],
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the mean step of a frame, repeated, and its last sum with noise."""
    keys = [c for c in frame.columns if c not in ("step", "exposed_ns", *sums)]
    mean = frame.group_by(keys, maintain_order=True).agg(pl.col(sums).sum() / divisor)
    count, steps = mean.height, len(of_step)
    draw, spread = noises
    frames = [mean.with_columns(step=pl.lit(i, pl.Int32)) for i in range(steps)]
    whole = pl.concat(frames)
    factors = np.repeat(of_step, count) * np.exp(draw.normal(0, spread, count * steps))
    noisy = whole.select(pl.col(sums[-1]) * pl.Series(factors))
    typed = whole.with_columns(pl.col(sums).round().cast(pl.Int64))
    columns = [c for c in frame.columns if c != "exposed_ns"]
    return typed.select(columns), noisy


def verdicts(a: Side, b: Side) -> dict[str, list[str]]:
    """Return the verdicts of each table of a comparison."""
    total = noise.of_total(*(measures.of(a, b, "total") or ([], [])))
    return {
        "the step's time": [total.verdict],
        "by phase": rows.of_phases(a, b)["verdict"].to_list(),
        "by phase and family": rows.of_families(a, b)["verdict"].to_list(),
        "by kernel": rows.of_kernels(a, b)["verdict"].to_list(),
        "the explanation": explain.explained(a, b)["verdict"].to_list(),
    }


def rates(side: Side, steps: int, trials: int, *, spikes: bool = False, seed: int = 0) -> Rates:
    """Return what comes of many comparisons."""
    draw = np.random.default_rng(seed)
    alarms: dict[str, int] = {}
    whole = kernel = 0
    largest = str(
        side.work.group_by("name").agg(pl.col("time_ns").sum()).sort("time_ns")["name"][-1]
    )
    for _ in range(trials):
        a, b = (drawn(side, steps, draw, spikes=spikes) for _ in range(2))
        for table, found in verdicts(a, b).items():
            alarms[table] = alarms.get(table, 0) + any(v in _SURE for v in found)
        slow = drawn(side, steps, draw, spikes=spikes, slower=SLOWER)
        whole += noise.of_total(*(measures.of(a, slow, "busy") or ([], []))).verdict == "slower"
        one = drawn(side, steps, draw, spikes=spikes, slower=SLOWER, only=largest)
        kernels = rows.of_kernels(a, one)
        mine = kernels.filter(pl.col("was").list.contains(largest))
        kernel += mine["verdict"][0] == "slower"
    return Rates(
        {t: n / trials for t, n in alarms.items()}, whole / trials, kernel / trials, trials
    )


def table(side: Side, trials: int) -> list[str]:
    """Return the lines of a table: a row per number of steps and kind of noise."""
    lines: list[str] = []
    for spikes in (False, True):
        for steps in (3, 5, 10, 30):
            found = rates(side, steps, trials, spikes=spikes, seed=steps)
            if not lines:
                heads = [f"false alarms: {name}" for name in found.alarms]
                heads = [
                    "noise",
                    "steps",
                    *heads,
                    "3 % slower found",
                    "one kernel 3 % slower found",
                ]
                lines = [f"| {' | '.join(heads)} |", f"| --- |{' ---: |' * (len(heads) - 1)}"]
            what = "1 %, and slow steps" if spikes else "1 %"
            numbers = [*found.alarms.values(), found.whole, found.kernel]
            cells = [what, f"{steps} and {steps}", *(f"{100 * x:.1f} %" for x in numbers)]
            lines.append(f"| {' | '.join(cells)} |")
            print(lines[-1], flush=True)
    return lines


def main() -> None:
    """Measure, print, and write if asked to."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__)
    parser.add_argument("--trials", type=int, default=400)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    began = time.perf_counter()
    lines = table(base(), options.trials)
    said = (
        f"{options.trials} comparisons a row; a false alarm is any verdict but `no difference` in "
        "the table, of runs that differ in nothing, and is promised in at most 1 % of cases."
    )
    lines += ["", said]
    print("\n".join(lines))
    print(f"{time.perf_counter() - began:.0f} s")
    if options.write:
        write("python -m benchmarks.compare", lines, PAGE)


if __name__ == "__main__":
    main()
