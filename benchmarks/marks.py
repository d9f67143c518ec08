"""Measure what marks cost a program, with nothing recording and with torch.profiler.

usage: python -m benchmarks.marks [--repeats N]

Prints a table: nanoseconds a range, and microseconds a training step of a small GPT, which is
docs/examples/train.py with nothing around it, instrumented, and instrumented under a profiler.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from typing import TYPE_CHECKING, Any

import torch

import tracelens
from docs.examples import train

if TYPE_CHECKING:
    from collections.abc import Callable

_RANGES = 20_000
_STEPS = 40


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, Python {platform.python_version()}, one thread of a CPU;")
    print(f"medians of {repeats} (fastest to slowest)\n\n| what | time |\n| --- | --- |")
    for what, (middle, low, high), unit in [*ranges(repeats), *steps(repeats)]:
        print(f"| {what} | {middle:,.0f} {unit} ({low:,.0f} to {high:,.0f}) |")


def ranges(repeats: int) -> list[tuple[str, tuple[float, float, float], str]]:
    """Return the time of one range."""
    mark = tracelens.span("attention")
    profiler = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU])

    def span() -> None:
        with mark:
            pass

    def new_span() -> None:
        with tracelens.span("attention"):
            pass

    def record() -> None:
        with torch.profiler.record_function("attention"):
            pass

    rows = [
        ("`with span:` of a span made before", span),
        ("`with tracelens.span(name):`", new_span),
        ("`tracelens.step()`", tracelens.step),
        ("beside it, torch's `record_function`", record),
    ]
    found = [(f"{what}, nothing records", _each(call, repeats), "ns") for what, call in rows]
    with profiler:
        found += [
            ("`with span:` under torch.profiler", _each(span, repeats), "ns"),
            ("beside it, torch's `record_function`", _each(record, repeats), "ns"),
        ]
    return found


def _each(call: Callable[[], Any], repeats: int) -> tuple[float, float, float]:
    times = []
    for _ in range(repeats):
        began = time.perf_counter_ns()
        for _ in range(_RANGES):
            call()
        times.append((time.perf_counter_ns() - began) / _RANGES)
    return statistics.median(times), min(times), max(times)


def steps(repeats: int) -> list[tuple[str, tuple[float, float, float], str]]:
    """Return the time of one training step, in turns so that drift meets all alike."""
    model = train.GPT(30)
    optimizer = torch.optim.AdamW(model.parameters())
    x = torch.randint(30, (1, 8))
    modules = sum(1 for _ in model.modules())

    def step() -> None:
        _, loss = model(x, x)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    def plain() -> None:
        for _ in range(_STEPS):
            step()

    def instrumented() -> None:
        with tracelens.instrument(model, optimizer):
            plain()

    def profiled(work: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]):
                step()
                began[0] = time.perf_counter_ns()
                work()
                ended[0] = time.perf_counter_ns()

        return run

    began, ended = [0], [0]
    rows = {
        f"a step of a GPT of {modules} modules, plain": (plain, False),
        "the same, instrumented, nothing records": (instrumented, False),
        "the same, plain, under torch.profiler": (profiled(plain), True),
        "the same, instrumented, under torch.profiler": (profiled(instrumented), True),
    }
    times: dict[str, list[float]] = {what: [] for what in rows}
    plain()
    for _ in range(repeats):
        for what, (work, is_timed) in rows.items():
            start = time.perf_counter_ns()
            work()
            took = ended[0] - began[0] if is_timed else time.perf_counter_ns() - start
            times[what].append(took / _STEPS / 1000)
    return [(w, (statistics.median(t), min(t), max(t)), "µs") for w, t in times.items()]


if __name__ == "__main__":
    main()
