"""No profiler at all: wall-clock and CUDA-event times of steps, with the noise stated."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

import msgspec

from tracelens.capture import job, noise
from tracelens.capture.recorder import Made, Recorder, Session

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tracelens.capture.job import Outcome
    from tracelens.capture.recorder import Wanted

LEAST: Final = 10
"""Steps that are timed at least, if `LONGEST_NS` allows."""
MOST: Final = 200
"""Steps that are timed at most, unless more are wanted."""
PRECISION: Final = 0.01
"""Steps are timed until the median is known this well, as a share: see `noise.Statistics`."""
LONGEST_NS: Final = 10 * 10**9
"""No step begins beyond those that are wanted once the recorded ones have taken so long."""


class Timer(Recorder):
    """Times steps; it puts nothing into the program, not even its marks."""

    name = "timer"
    listens = False
    options: Mapping[str, str] = {
        "exact": "Time as many steps as --steps says. Otherwise a single process goes on to at "
        f"least {LEAST}, until the median is known to {PRECISION:.0%} or "
        f"{LONGEST_NS // 10**9} seconds have passed; several processes always time --steps.",
    }

    def files(self, wanted: Wanted) -> list[str]:
        """Return the names of the files with the times."""
        if (wanted.processes or 1) == 1:
            return ["timer.json"]
        return [_name(rank) for rank in range(wanted.processes or 1)]

    def session(self, wanted: Wanted, rank: int | None) -> Session:
        """Return what decides how many steps are enough."""
        # Ranks that stopped by their own clocks would wait for one another.
        is_exact = rank is not None or wanted.is_on("exact")
        return Session() if is_exact else _Adaptive()

    def finish(
        self,
        wanted: Wanted,
        say: Callable[[str], None],  # noqa: ARG002 (recorders are called alike)
    ) -> list[Made]:
        """Write the times that the processes have answered, and their statistics."""
        answers = [one for one in job.outcomes(job.Job(self.name, wanted)) if one.steps_ns]
        for one in answers:
            beside = wanted.folder / f".{_name(one.rank)}"
            beside.write_bytes(msgspec.json.format(msgspec.json.encode(_told(one))) + b"\n")
            os.replace(beside, wanted.folder / _name(one.rank))  # noqa: PTH105
        return [Made(_name(one.rank), one.rank, is_recording=False) for one in answers]


def is_enough(steps_ns: Sequence[int]) -> bool:
    """Return whether more steps would tell little more of their time, or take too long.

    The statistics are looked at when the number of steps is `LEAST` times a power of 2, since
    looking each time would find the median precise by chance too soon.
    """
    n = len(steps_ns)
    if n >= MOST or sum(steps_ns) >= LONGEST_NS:
        return True
    times = n / LEAST
    if times < 1 or n % LEAST or int(times) & (int(times) - 1):
        return False
    return noise.of(steps_ns).precision <= PRECISION


class _Adaptive(Session):
    def is_enough(self, steps_ns: Sequence[int]) -> bool:
        return is_enough(steps_ns)


def _name(rank: int | None) -> str:
    return "timer.json" if rank is None else f"timer.rank{rank}.json"


def _told(outcome: Outcome) -> dict[str, Any]:
    wall = noise.of(outcome.steps_ns)
    on_gpu = noise.of(outcome.gpu_steps_ns) if outcome.gpu_steps_ns else None
    return {
        "rank": outcome.rank,
        "noise": noise.sentence(wall),
        "wall": asdict(wall),
        "gpu": asdict(on_gpu) if on_gpu else None,
        "steps_ns": outcome.steps_ns,
        "gpu_steps_ns": outcome.gpu_steps_ns,
        "warmup_ns": outcome.warmup_ns,
        "build_ns": outcome.build_ns,
    }


RECORDER = Timer()
