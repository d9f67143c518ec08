"""A cell: one kernel, operation, shape and format, with what is asked of it and what is found.

`python -m tracelens.bench.kernel_child CELL` measures one and answers by lines of its standard
output, one JSON object each. Everything is in base units: seconds, bytes, FLOP, W, °C, Hz.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Literal

import msgspec

Quantity = Literal["kernel_time", "call_latency", "throughput"]
"""What is measured; the three are never mixed.

`kernel_time`: what one call takes of the GPU, the host taken out: the stream is blocked until all
calls of a block are queued. `call_latency`: from an idle GPU by the wall clock, host and device,
each call waited for. `throughput`: calls back to back by the wall clock, waited for at the end of
each block; the time is that of one call. On the CPU all three are the wall clock's, and
`kernel_time` is that of single calls.
"""

L2 = Literal["cold", "hot"]
"""The state of the cache before a call.

`cold`: other buffers than the call before, and (but for `throughput`, whose calls follow one
another) a cache that was overwritten just before. `hot`: the same buffers as the call before.
"""

Clock = Literal["blocked stream", "CUDA graph", "CUDA events", "wall clock"]
"""How a row was timed; `CUDA events` of a call that waits for the GPU hold the host's time too."""

Stage = Literal["cannot", "inputs", "build", "check", "time", "process"]
"""Where it ended: the implementation says that it cannot; inputs or reference could not be made;
building or the first call (compiling) failed; the outputs were wrong, before or after the timing;
a later call failed; the process died."""

Against = Literal["faster", "slower", "no difference", "too few rounds"]

QUANTITIES: Final[tuple[Quantity, ...]] = ("kernel_time", "call_latency", "throughput")
STATES: Final[tuple[L2, ...]] = ("cold", "hot")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What is asked of one process.

    Attributes:
        kernel: its name: `softmax`.
        operation: one of its operations; "": the first.
        shape: size of each axis.
        dtype: format of the inputs.
        implementations: which to measure, beside one another; ours, where it is among them, is
            what the others are held against, else the first is. () for all there are.
        candidates: configurations of ours by a name of their own, each measured as though it were
            an implementation of that name; for tuning.
        config: `tuned`: whatever the kernel chooses for itself; `default`: that of `Tuning`.
        device: `auto` (the first GPU, or else the CPU), `cpu`, or the number of a GPU.
        seed: of the inputs; those of the checks have others, made from it.
        quantities: which to measure.
        l2: in which states of the cache.
        precision: samples end when the 95 % interval of every median is at most this much to
            either side of it, as a share.
        budget_s: or when they have taken this long for each implementation, quantity and state.
        warmup_s: work before the first sample, at least; more until the clock is steady.
        floor: whether the first implementation is measured against itself, too.
        profile: whether the profiler is asked of kernel times when all is measured.
        ceilings: file of measured ceilings; "": the user's own, or the data sheet.
    """

    kernel: str
    operation: str = ""
    shape: dict[str, int]
    dtype: str
    implementations: tuple[str, ...] = ()
    candidates: dict[str, dict[str, int]] = field(default_factory=dict)
    config: Literal["tuned", "default"] = "tuned"
    device: str = "auto"
    seed: int = 0
    quantities: tuple[Quantity, ...] = ("kernel_time",)
    l2: tuple[L2, ...] = ("cold",)
    precision: float = 0.005
    budget_s: float = 2.0
    warmup_s: float = 0.2
    floor: bool = True
    profile: bool = True
    ceilings: str = ""


@dataclass(frozen=True, kw_only=True)
class GpuState:
    """What a GPU said of itself at one moment, or the median and the worst of several.

    Attributes:
        sm_hz: clock of its multiprocessors.
        mem_hz: clock of its memory.
        power_w: what it draws.
        temperature_c: of the chip.
        programs: how many compute on it, ours among them; asked before and after alone.
        throttled: why its clock is held down, in words; empty where it is not.
    """

    sm_hz: float | None = None
    mem_hz: float | None = None
    power_w: float | None = None
    temperature_c: float | None = None
    programs: int | None = None
    throttled: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Pair:
    """How the time of one implementation is to that of another, measured in turns.

    Attributes:
        other: the other implementation.
        ratio: its time is 1, this one's is that: the median over the rounds.
        low: where the 95 % interval of the ratio begins; None: too few rounds.
        high: where it ends.
        floor: how far from 1 the other one is from itself, measured in the same turns on copies
            of its inputs: the interval's far end; None: not measured.
        rounds: how many; each holds every implementation twice, in the order A B … B A.
        verdict: `no difference` where the interval holds 1 or the ratio is within the floor;
            else whether this implementation is `faster` or `slower` than the other.
    """

    other: str
    ratio: float
    low: float | None
    high: float | None
    floor: float | None
    rounds: int
    verdict: Against


@dataclass(frozen=True, kw_only=True)
class Row:
    """One implementation of a cell, in one quantity and state of the cache.

    Attributes:
        kernel: as in the cell, and so are `operation`, `shape`, `dtype` and `seed`.
        implementation: its name, or that of a candidate.
        summary: what it is in a few words.
        config: what ours is compiled with; empty of others.
        device: what CUDA calls the GPU; the processor's name on the CPU.
        quantity: see `Quantity`.
        l2: see `L2`.
        clock: how it was timed.
        n: how many samples.
        calls: how many calls were timed together in one sample.
        samples_s: each in seconds of one call, in their order.
        median_s: the typical time of one call.
        low_s: where the 95 % interval of the median begins; None: too few samples.
        high_s: where it ends.
        mad_s: median absolute deviation of the samples from the median, not scaled.
        p5_s: 5 % of the samples are below; quantiles are interpolated (Hyndman and Fan, type 7).
        p95_s: 95 % are below.
        p99_s: 99 % are below.
        autocorrelation: how much each sample is like the one before it, -1 to 1; None: too few.
        settled: whether the wanted precision was reached within the budget.
        pair: against ours; None for ours itself.
        floor: of ours itself: how far from 1 it was against itself; None: not measured.
        errors: by output: ‖out − reference‖ / ‖reference‖ after the timing; 0.0 of an exact one.
        allowed: by output: how much that may be.
        missing: outputs of the reference that this implementation does not give.
        build_s: building it, until the end of the first call.
        compile_s: by how much that is more than the typical call, which is compiling and loading.
        compiled: what was compiled and what came from a cache, where that can be told.
        flops: of one call, by formula; `bytes` likewise.
        bytes: read and written at the least.
        bound_s: the least time by the ceilings; None: not known, or hot and bound by memory.
        limited_by: `compute` or `memory`; "": not known.
        ceiling: where the ceiling is from: `data sheet`, `measured 2026-11-20 on …`.
        share: bound over median; None: no bound.
        flag: "", `above the measured ceiling`, `above the data sheet` or `impossible`.
        input_bytes: of one set of inputs.
        sets: how many of these took turns.
        flushed_bytes: overwritten before each call; 0: nothing was.
        overhead_s: what the same clock gives for a call that does nothing; part of every sample.
            An event before and one after a kernel hold about 1.7 µs more.
        profiler_s: of `kernel_time` on a GPU, what CUPTI says of some such calls: from the begin
            of the first kernel to the end of the last; None: not asked, or no answer.
        launches: kernels and copies of one call, likewise.
        kernels: their names, each once.
        throttled: how many samples were taken while the clock was held down.
        before: the GPU before the first sample of the quantity; None: not known.
        during: between the samples: medians, and every reason of throttling.
        after: after the last one.
        seed: of the inputs.
        notes: what else is to be known, in sentences.
    """

    kernel: str
    operation: str
    shape: dict[str, int]
    dtype: str
    implementation: str
    summary: str = ""
    config: dict[str, int] = field(default_factory=dict)
    device: str
    quantity: Quantity
    l2: L2
    clock: Clock
    n: int
    calls: int = 1
    samples_s: tuple[float, ...]
    median_s: float
    low_s: float | None
    high_s: float | None
    mad_s: float
    p5_s: float
    p95_s: float
    p99_s: float
    autocorrelation: float | None = None
    settled: bool
    pair: Pair | None = None
    floor: float | None = None
    errors: dict[str, float] = field(default_factory=dict)
    allowed: dict[str, float] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    build_s: float = 0.0
    compile_s: float = 0.0
    compiled: str = ""
    flops: int = 0
    bytes: int = 0
    bound_s: float | None = None
    limited_by: str = ""
    ceiling: str = ""
    share: float | None = None
    flag: str = ""
    input_bytes: int = 0
    sets: int = 1
    flushed_bytes: int = 0
    overhead_s: float | None = None
    profiler_s: float | None = None
    launches: int | None = None
    kernels: tuple[str, ...] = ()
    throttled: int = 0
    before: GpuState | None = None
    during: GpuState | None = None
    after: GpuState | None = None
    seed: int = 0
    notes: tuple[str, ...] = ()

    @property
    def precision(self) -> float | None:
        """Half the interval of the median, as a share of the median; None: too few samples."""
        if self.low_s is None or self.high_s is None or not self.median_s:
            return None
        return (self.high_s - self.low_s) / 2 / self.median_s


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why an implementation of a cell has no rows, or not all of them.

    Attributes:
        implementation: its name, or that of a candidate; "": all of them.
        stage: where it ended.
        error: class of the exception; `WrongError` where outputs were; "" of one that cannot.
        message: what it says; of wrong outputs, which, by how much, and how much may be.
        traceback: the last frames, where there are any.
    """

    implementation: str
    stage: Stage
    error: str = ""
    message: str = ""
    traceback: str = ""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One answer of the process; one of these is said.

    Attributes:
        device: what is measured; said once, first, with `facts`.
        facts: circumstances, see `bench.environment`; said first and last.
        is_gpu: whether it is no CPU.
        begun: the implementation that is next to be built, checked or timed ("": all in turns);
            what to blame where the process dies.
        stage: what is next to be done with it.
        row: a finding.
        failure: why there is none.
        over: whether this is the last line. The exit status is 0 then; it is 3 where CUDA was
            left unusable, so that what had not its turn must be asked of another process.
    """

    device: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    is_gpu: bool = False
    begun: str | None = None
    stage: Stage | None = None
    row: Row | None = None
    failure: Failure | None = None
    over: bool = False


def encode(cell: Cell) -> str:
    """Return a cell as one argument of a command line."""
    return msgspec.json.encode(cell).decode()


def decode(text: str) -> Cell:
    """Return the cell of an argument.

    Raises:
        msgspec.ValidationError: it is none.
    """
    return msgspec.json.decode(text, type=Cell)


def line(answer: Line) -> bytes:
    """Return an answer as a line."""
    return msgspec.json.encode(answer) + b"\n"


def said(text: bytes) -> Line:
    """Return the answer of a line."""
    return msgspec.json.decode(text, type=Line)
