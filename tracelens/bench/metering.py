"""Which clock times the calls of one contender, and how its blocks are taken."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from tracelens.bench import clocks
from tracelens.bench.pairs import Block

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from tracelens.bench.case import Target
    from tracelens.bench.cell import L2, GpuState, Quantity
    from tracelens.bench.clocks import Call, Flush, Meter
    from tracelens.bench.gpu_state import Gpu

_WAITS: Final = (
    "Its calls cannot be queued, since they wait for the GPU or launch too much: the host's part "
    "is in the time."
)


@dataclass
class Watch:
    """Keeps what a GPU said of itself while it worked off a block."""

    gpu: Gpu | None
    seen: GpuState | None = None

    def look(self) -> None:
        """Ask it."""
        self.seen = self.gpu.state() if self.gpu else None


@dataclass
class Timed:
    """The calls of one contender, and what times them.

    Attributes:
        meter: the clock.
        calls: one for each set of inputs; they take turns.
        watch: asks the GPU how it is.
        flush: what overwrites the cache; None: nothing does.
        force: lasts while calls are made.
        is_hot: whether a call that is not timed comes first, for the others to find its buffers.
        asks_after: whether the GPU is asked after a block, and not by the meter during it.
        note: what is to be known of the clock.
        overhead_s: what the clock gives for a call that does nothing.
    """

    meter: Meter
    calls: Sequence[Call]
    watch: Watch
    flush: Flush | None = None
    force: Callable[[], AbstractContextManager[None]] = field(kw_only=True)
    is_hot: bool = False
    asks_after: bool = True
    note: str = ""
    overhead_s: float = 0.0

    def __post_init__(self) -> None:
        """Begin with the first set of inputs."""
        self._turns: Iterator[Call] = itertools.cycle(self.calls)

    def take(self, count: int) -> Block:
        """Make a number of calls and return their samples."""
        calls = [next(self._turns) for _ in range(count)]
        with self.force():
            if self.is_hot:
                calls[0]()
            samples = self.meter.block(calls)
        if self.asks_after:
            self.watch.look()
        return Block(samples, self.watch.seen)


def timed(
    calls: Sequence[Call],
    quantity: Quantity,
    l2: L2,
    *,
    target: Target,
    gpu: Gpu | None,
    force: Callable[[], AbstractContextManager[None]],
) -> Timed:
    """Return what times the calls of a contender.

    Args:
        calls: one for each set of inputs.
        quantity: see `cell.Quantity`.
        l2: see `cell.L2`.
        target: the device.
        gpu: what it says of itself; None: nothing.
        force: lasts while calls are made.

    Raises:
        Exception: whatever a call raises.
    """
    is_hot = l2 == "hot"
    calls = calls[:1] if is_hot else calls
    flush = None if is_hot or quantity == "throughput" else clocks.Flush(target)
    watch = Watch(gpu)
    if quantity == "kernel_time" and target.is_gpu:
        with force():
            found = _queued(calls, target, watch, flush, force)
    elif quantity == "throughput":
        found = Timed(clocks.BackToBack(target), calls, watch, flush, force=force)
    else:
        found = Timed(clocks.Single(target, flush), calls, watch, flush, force=force)
    found.is_hot = is_hot
    found.overhead_s = clocks.overhead_s(found.meter)
    return found


def _queued(
    calls: Sequence[Call],
    target: Target,
    watch: Watch,
    flush: Flush | None,
    force: Callable[[], AbstractContextManager[None]],
) -> Timed:
    """Return what times calls on a blocked stream: as they are, or as a graph, if that can be."""
    blocked = clocks.Blocked(target, flush=flush, while_busy=watch.look)
    try:
        blocked.block(calls[:1])
    except clocks.NotQueuedError:
        pass
    else:
        return Timed(blocked, calls, watch, flush, force=force, asks_after=False)
    events = Timed(
        clocks.Events(target, flush, watch.look), calls, watch, flush,
        force=force, asks_after=False, note=_WAITS,
    )  # fmt: skip
    if clocks.waits(calls[0], target):
        return events
    try:
        replays = [clocks.captured(call, target) for call in calls]
        graph = clocks.Blocked(target, "CUDA graph", flush, watch.look)
        graph.block(replays[:1])
    except Exception:  # noqa: BLE001 (of torch or CUDA: it cannot be captured)
        return events
    return Timed(graph, replays, watch, flush, force=force, asks_after=False)
