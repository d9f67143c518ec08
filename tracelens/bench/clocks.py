"""How calls are timed: on a blocked stream, from an idle device, or back to back.

Each clock takes a block of calls and returns its samples, in seconds of one call.
"""

from __future__ import annotations

import contextlib
import gc
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

from tracelens import tools
from tracelens.bench import statistics
from tracelens.errors import CaptureError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from tracelens.bench import cell
    from tracelens.bench.case import Target

    Call = Callable[[], object]

_CACHES: Final = 2
"""What overwrites the cache is that many times as large as the cache."""

_CPU_CACHE: Final = 32 << 20
_CPU_CACHES: Final = "sys/devices/system/cpu/cpu0/cache/index3/size"

_SHORTEST_S: Final = 300e-6
_LONGEST_S: Final = 1.0
_RESERVE: Final = 1.5
_ATTEMPTS: Final = 4
_NOTHING: Final = 20


class NotQueuedError(CaptureError):
    """Calls could not be queued behind a blocked stream: they wait for the GPU, or are too many."""


class Meter(Protocol):
    """What times calls."""

    @property
    def clock(self) -> cell.Clock:
        """How it does."""
        raise NotImplementedError

    def block(self, calls: Sequence[Call]) -> list[float]:
        """Make the calls, one after another; return the samples, in seconds of one call."""
        raise NotImplementedError


class Flush:
    """Overwrites the last level of cache, by more than fits into it.

    It writes, so that the cache is left full of lines that have yet to go to memory, as it is left
    by any program; whatever comes next has to evict as many as it brings in.
    """

    def __init__(self, target: Target) -> None:
        size = _CACHES * (target.l2_bytes if target.is_gpu else cpu_cache_bytes())
        torch = target.torch
        self.bytes = size or _CACHES * _CPU_CACHE
        self._buffer: Any = torch.empty(self.bytes // 4, dtype=torch.int32, device=target.device)

    def __call__(self) -> None:
        """Overwrite it; on a GPU, in the current stream."""
        self._buffer.zero_()


def cpu_cache_bytes(root: Path = tools.ROOT) -> int:
    """Return the size of the processor's last cache; 32 MiB where it is not told."""
    text = (tools.read(root / _CPU_CACHES) or "").strip()
    return int(text[:-1]) << 10 if text[:-1].isdecimal() and text.endswith("K") else _CPU_CACHE


@dataclass
class Blocked:
    """Device time of single calls: two events around each, all queued before the first one runs.

    A kernel that does nothing but wait holds the stream while the host queues the calls; that it
    still waits when the last one is queued is looked at each time, and where it did not, the block
    is thrown away and made anew behind a longer wait.

    Attributes:
        target: the GPU.
        clock: `CUDA graph` where the calls replay one.
        flush: made before each call, outside of the events; None: nothing is.
        while_busy: called when all is queued and the GPU works it off.
    """

    target: Target
    clock: cell.Clock = "blocked stream"
    flush: Call | None = None
    while_busy: Call | None = None
    _wait_s: float = field(default=_SHORTEST_S, init=False)
    _cycles_per_s: float = field(default=0.0, init=False)

    def block(self, calls: Sequence[Call]) -> list[float]:
        """Return the seconds of each call.

        Raises:
            NotQueuedError: the calls cannot be queued: one waits for the GPU, or they hold more
                launches than fit into its queue (1,024).
        """
        cuda: Any = self.target.torch.cuda
        if not self._cycles_per_s:
            self._calibrate()
        for _ in range(_ATTEMPTS):
            events = [(_event(cuda), _event(cuda)) for _ in calls]
            held = _event(cuda)
            cuda.synchronize(self.target.device)
            cuda._sleep(int(self._wait_s * self._cycles_per_s))  # noqa: SLF001 (has no public name)
            held.record()
            begin = time.perf_counter()
            _queue(calls, events, self.flush)
            took = time.perf_counter() - begin
            was_held = not held.query()
            if self.while_busy:
                self.while_busy()
            cuda.synchronize(self.target.device)
            wait = max(_SHORTEST_S, _RESERVE * took)
            if was_held:
                self._wait_s = max(wait, 0.9 * self._wait_s)
                return [float(start.elapsed_time(end)) / 1e3 for start, end in events]
            if wait > _LONGEST_S:
                break
            self._wait_s = 2 * wait
        self._wait_s = _SHORTEST_S
        raise NotQueuedError(f"{len(calls)} calls could not be queued behind a blocked stream.")

    def _calibrate(self) -> None:
        """Learn how many cycles last how long, at the clock that the GPU has now."""
        cuda: Any = self.target.torch.cuda
        cycles = 1_000_000
        start, end = _event(cuda), _event(cuda)
        start.record()
        cuda._sleep(cycles)  # noqa: SLF001
        end.record()
        end.synchronize()
        self._cycles_per_s = cycles / max(1e-6, start.elapsed_time(end) / 1e3)


@dataclass
class Events:
    """Time between two events around single calls, the host not taken out: of those that wait."""

    target: Target
    flush: Call | None = None
    while_busy: Call | None = None
    clock: cell.Clock = "CUDA events"

    def block(self, calls: Sequence[Call]) -> list[float]:
        """Return the seconds of each call."""
        cuda: Any = self.target.torch.cuda
        events = [(_event(cuda), _event(cuda)) for _ in calls]
        cuda.synchronize(self.target.device)
        _queue(calls, events, self.flush)
        if self.while_busy:
            self.while_busy()
        cuda.synchronize(self.target.device)
        return [float(start.elapsed_time(end)) / 1e3 for start, end in events]


@dataclass
class Single:
    """Wall clock of single calls, each begun on an idle device and waited for."""

    target: Target
    flush: Call | None = None
    clock: cell.Clock = "wall clock"

    def block(self, calls: Sequence[Call]) -> list[float]:
        """Return the seconds of each call."""
        taken = []
        wait = _waiting(self.target)
        for call in calls:
            if self.flush:
                self.flush()
            wait()
            begin = time.perf_counter_ns()
            call()
            wait()
            taken.append(max(1, time.perf_counter_ns() - begin) / 1e9)
        return taken


@dataclass
class BackToBack:
    """Wall clock of calls that follow one another, waited for at the end: one sample of a block."""

    target: Target
    clock: cell.Clock = "wall clock"

    def block(self, calls: Sequence[Call]) -> list[float]:
        """Return the seconds of one call, a single sample."""
        wait = _waiting(self.target)
        wait()
        begin = time.perf_counter_ns()
        for call in calls:
            call()
        wait()
        return [max(1, time.perf_counter_ns() - begin) / 1e9 / len(calls)]


def overhead_s(meter: Meter) -> float:
    """Return what a clock gives for a call that does nothing."""
    return statistics.of([[sample] for sample in meter.block([_nothing] * _NOTHING)]).median


def waits(call: Call, target: Target) -> bool:
    """Tell whether a call waits for the GPU, as far as torch can see it."""
    cuda: Any = target.torch.cuda
    was = cuda.get_sync_debug_mode()
    cuda.set_sync_debug_mode("error")
    try:
        call()
    except RuntimeError as error:
        if "synchronizing" not in str(error):
            raise
        return True
    finally:
        cuda.set_sync_debug_mode(was)
    return False


def captured(call: Call, target: Target) -> Call:
    """Return what replays a call's launches from a CUDA graph, and its outputs.

    Raises:
        Exception: (of torch) it does what a graph cannot hold.
    """
    cuda: Any = target.torch.cuda
    side = cuda.Stream(target.device)
    side.wait_stream(cuda.current_stream(target.device))
    with cuda.stream(side):
        call()
    cuda.current_stream(target.device).wait_stream(side)
    try:
        graph, outputs = _graph(call, cuda)
    except Exception:
        # Torch's random numbers stay as in a capture until there is one that succeeds.
        tiny = target.torch.zeros(1, device=target.device)
        _graph(lambda: tiny.add_(1), cuda)
        raise

    def replay() -> object:
        graph.replay()
        return outputs

    return replay


def _graph(call: Call, cuda: Any) -> tuple[Any, object]:
    graph = cuda.CUDAGraph()
    with cuda.graph(graph):
        outputs = call()
    return graph, outputs


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Keep Python from collecting garbage while calls are timed."""
    was = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _queue(calls: Sequence[Call], events: Sequence[tuple[Any, Any]], flush: Call | None) -> None:
    for call, (start, end) in zip(calls, events, strict=True):
        if flush:
            flush()
        start.record()
        call()
        end.record()


def _event(cuda: Any) -> Any:
    return cuda.Event(enable_timing=True)


def _nothing() -> None:
    pass


def _waiting(target: Target) -> Callable[[], object]:
    """Return what waits for the device; the processor is never behind."""
    if not target.is_gpu:
        return _nothing
    torch = target.torch
    return lambda: torch.cuda.synchronize(target.device)
