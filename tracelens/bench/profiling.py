"""What NVIDIA's profiler says of the calls that were timed: a second clock, and what was launched.

Two events around a call hold some 3 µs besides its kernels; the profiler's times are those of the
kernels alone, from the begin of the first to the end of the last. It is asked when all else is
measured, since it slows launches down.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from tracelens.bench.case import Target
    from tracelens.bench.clocks import Call

_MARK: Final = "spin_kernel"
_WAIT_CYCLES: Final = 10_000_000
_MOST_NAMES: Final = 12
_LONGEST_NAME: Final = 200


@dataclass(frozen=True)
class Profile:
    """What the profiler says.

    Attributes:
        median_s: of calls, from the begin of its first kernel to the end of its last.
        launches: kernels and copies of one call.
        kernels: their names, each once, in their order; not more than twelve.
    """

    median_s: float
    launches: int
    kernels: tuple[str, ...]


@dataclass(frozen=True)
class Work:
    """A piece of work on the GPU, as it was recorded."""

    name: str
    start_ns: float
    end_ns: float


def profiled(calls: Sequence[Call], flush: Call | None, target: Target) -> Profile | None:
    """Return what the profiler says of calls; None: it cannot be used here, or saw nothing."""
    torch = target.torch
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            recorded = _recorded(torch, lambda: _marked(torch, calls, flush))
    except Exception:  # noqa: BLE001 (another profiler may hold the GPU, or CUPTI is missing)
        return None
    return found(recorded, len(calls), is_flushed=flush is not None)


def found(recorded: Iterable[Work], calls: int, *, is_flushed: bool) -> Profile | None:
    """Return what work says that is parted by marks.

    Args:
        recorded: all work; before each call (and before its flush) there is a mark.
        calls: how many there were.
        is_flushed: whether each call had a flush before it.
    """
    parts: list[list[Work]] = []
    for work in sorted(recorded, key=lambda one: one.start_ns):
        if _MARK in work.name:
            parts.append([])
        elif parts:
            parts[-1].append(work)
    made = parts[2::2] if is_flushed else parts[1:]  # the first mark is what blocks the stream
    if len(made) != calls or not all(made):
        return None
    names = dict.fromkeys(work.name[:_LONGEST_NAME] for work in made[-1])
    return Profile(
        median(max(one.end_ns for one in part) - part[0].start_ns for part in made) / 1e9,
        len(made[-1]),
        tuple(names)[:_MOST_NAMES],
    )


def _marked(torch: Any, calls: Sequence[Call], flush: Call | None) -> None:
    sleep = torch.cuda._sleep  # noqa: SLF001 (has no public name)
    sleep(_WAIT_CYCLES)
    for call in calls:
        if flush:
            sleep(1)
            flush()
        sleep(1)
        call()


def _recorded(torch: Any, act: Callable[[], None]) -> list[Work]:
    kinds = torch.profiler.ProfilerActivity
    with torch.profiler.profile(activities=[kinds.CUDA]) as profile:
        act()
        torch.cuda.synchronize()
    return [
        Work(one.name, 1e3 * one.time_range.start, 1e3 * one.time_range.end)
        for one in profile.events()
        if one.device_type == torch.autograd.DeviceType.CUDA
    ]
