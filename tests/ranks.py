"""Traces of the ranks of one job, by hand: what each computes, and when it reaches a collective."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.kineto import Profile

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

STEP_NS = 100_000


def of_rank(
    rank: int,
    durations: Sequence[Sequence[int]],
    *,
    world_size: int = 2,
    elements: int = 1_000,
    clock_ns: int = 0,
    after: bool = False,
) -> Profile:
    """Return a rank's trace: steps of a kernel of 10 µs and, beside and after it, allreduces.

    ``durations`` are those of the allreduces in ns, step by step; ``clock_ns`` is how late this
    host's clock is.
    """
    trace = Profile()
    trace.start_ns += clock_ns
    trace.device(rank)
    trace.distributed(rank, world_size, after=after)
    main = trace.thread("python3", pid=100 + rank)
    for number, of_step in enumerate(durations):
        begun = number * STEP_NS
        main.annotation(f"ProfilerStep#{number + 3}", begun, begun + STEP_NS - 1_000)
        main.annotation("forward", begun + 500, begun + 5_000)
        main.kernel("gemm", at=begun + 1_000, run=(begun + 2_000, begun + 12_000), device=rank)
        start = begun + 4_000
        for place, took in enumerate(of_step):
            at = begun + 6_000 + 3_000 * place
            run = (start, start + took)
            ranks = tuple(range(world_size))
            main.collective("allreduce", elements, run=run, ranks=ranks, at=at, device=rank)
            start += took + 100
    return trace


def write_ranks(
    folder: Path, durations: Sequence[Sequence[Sequence[int]]], names: str = "rank{}.json"
) -> Path:
    """Write the traces of ranks with these durations of allreduces, and return their folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for rank, of_steps in enumerate(durations):
        trace = of_rank(rank, of_steps, world_size=len(durations), clock_ns=rank * 7_777_777)
        trace.write(folder / names.format(rank))
    return folder
