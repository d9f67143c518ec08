"""The process that measures one device: `python -m tracelens.bench.child JOB`.

It answers by lines on its standard output, and its libraries' chatter goes to standard error.
What kills it, or leaves CUDA unusable, costs one case: another process goes on behind it.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from tracelens import registry
from tracelens.bench import environment, job, measuring, timing
from tracelens.bench.job import Line
from tracelens.hardware.measured import Failed, Result

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tracelens.bench.case import Case, Measure, Target
    from tracelens.bench.job import Job

    Say = Callable[[Line], object]

_ROOM: Final = 0.8
_QUEUED_WARMUP_S: Final = 0.01
_QUEUED_BUDGET_S: Final = 0.1  # the GPU is kept busy for 20 times as long


def main() -> int:
    """Measure what is asked."""
    asked = job.decode(sys.argv[1])
    with measuring.answers() as write:
        return measure(asked, lambda answer: write(job.line(answer)))


def measure(asked: Job, say: Say) -> int:
    """Measure every case that is not to be skipped; return the exit status.

    After an error of CUDA the process ends, with the status 3, since nothing works in it any more.
    """
    import torch

    target, name = _target(torch, asked)
    first = environment.facts(torch, target.device)
    say(Line(device=name, is_gpu=target.is_gpu, facts=first))
    rates: dict[str, float] = {}
    for number, case in enumerate(cases(target)):
        if number < asked.skip:
            continue
        say(Line(begun=case.name))
        if _is_too_long(case, rates, target) or not _fits(case, target):
            say(Line())
            continue
        try:
            found = one(case, target)
        except Exception as error:  # noqa: BLE001 (what one case cannot do leaves the others)
            say(Line(failed=Failed(case.name, _why(error))))
            if measuring.is_broken(target):
                return 3
        else:
            rates[case.name] = found.value
            say(Line(result=found))
        if target.is_gpu:
            torch.cuda.empty_cache()
    say(Line(facts=environment.after(torch, target.device), over=True))
    return 0


def cases(target: Target) -> Iterator[Case]:
    """Give every case of every measure, in the same order each time."""
    for name in sorted(registry.entries("measure")):
        measure: Measure = registry.load("measure", name)
        yield from measure.cases(target)


def one(case: Case, target: Target) -> Result:
    """Measure one case."""
    wanted = timing.effort(target)
    if case.clock == "queued":
        wanted = replace(wanted, warmup_s=_QUEUED_WARMUP_S, budget_s=_QUEUED_BUDGET_S)
    run, most_calls = timing.runner(case.build(target), target, case.clock)
    found = timing.sampled(run, wanted, most_calls)
    by_events = target.is_gpu and case.clock in ("device", "queued")
    median = found.median_s
    return Result(
        name=case.name,
        unit=case.unit,
        value=case.work / median if case.work else median,
        median_s=median,
        mad_s=found.mad_s,
        samples_s=found.samples_s,
        size=case.size,
        clock="CUDA events" if by_events else "wall clock",
        settled=found.settled,
        note=case.note,
    )


def _target(torch: Any, asked: Job) -> tuple[Target, str]:
    """Return the device, and its name."""
    return measuring.target(torch, asked.device, quick=asked.quick)


def _is_too_long(case: Case, rates: dict[str, float], target: Target) -> bool:
    rate = rates.get(case.name)
    return bool(rate and case.work / rate > timing.effort(target).longest_s)


def _fits(case: Case, target: Target) -> bool:
    return case.needs_bytes <= _ROOM * target.free_bytes


def _why(error: Exception) -> str:
    text = next((line for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {text.strip()[:200]}"


if __name__ == "__main__":
    sys.exit(main())
