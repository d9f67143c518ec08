"""The process that measures one cell of kernels: `python -m tracelens.bench.kernel_child CELL`.

It answers by lines on its standard output (see `bench.cell`); its libraries' chatter goes to
standard error. No time is said of an implementation whose outputs were wrong, before or after.
"""

from __future__ import annotations

import itertools
import sys
import traceback
import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tracelens import hardware, kernel, tuned
from tracelens.bench import cell as cells
from tracelens.bench import (
    clocks,
    contenders,
    environment,
    gate,
    gpu_state,
    measuring,
    metering,
    pairs,
    profiling,
    roof,
)
from tracelens.bench.cell import Failure, Line, Row
from tracelens.bench.contenders import WrongError
from tracelens.bench.pairs import Effort
from tracelens.errors import TracelensError
from tracelens.workload import Work

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from tracelens.bench.case import Target
    from tracelens.bench.cell import L2, Cell, GpuState, Quantity, Stage
    from tracelens.bench.contenders import Contender, Subject
    from tracelens.bench.gpu_state import Gpu
    from tracelens.bench.metering import Timed
    from tracelens.bench.pairs import Taken
    from tracelens.hardware import Ceilings
    from tracelens.kernel import Tensors

    Say = Callable[[Line], object]

BROKEN: Final = 3
"""The exit status where CUDA was left unusable."""

_PROFILED: Final = 10
"""Calls that the profiler is asked of: it is a check, and not what is reported."""

_CACHES: Final = 2
_FRAMES: Final = 12
_LONGEST: Final = 4000
_MOST_BACK_TO_BACK: Final = 1000


class _BrokenError(Exception):
    """CUDA answers every call with an error from now on."""


def main() -> int:
    """Measure the cell that is asked for."""
    asked = cells.decode(sys.argv[1])
    with measuring.answers() as write:
        return measure(asked, lambda answer: write(cells.line(answer)))


def measure(cell: Cell, say: Say) -> int:
    """Measure a cell, saying what is found; return the exit status."""
    import torch

    target, name = measuring.target(torch, cell.device)
    _set_precision(torch, cell.dtype)
    facts = environment.facts(torch, target.device)
    say(Line(device=name, is_gpu=target.is_gpu, facts=facts))
    try:
        of = contenders.subject(cell, target)
        asked = contenders.contenders(of)
        against = hardware.ceilings(name, Path(cell.ceilings) if cell.ceilings else None)
        _Run(of, name, say, _gpu(torch, target), against).go(asked)
    except TracelensError as error:
        say(Line(failure=_failure("", "cannot", error)))
    except _BrokenError:
        return BROKEN
    say(Line(facts=environment.after(torch, target.device), over=True))
    return 0


@dataclass
class _Run:
    """One cell being measured.

    Attributes:
        of: what is measured.
        device: its name.
        say: takes the answers.
        gpu: says how the GPU is; None: nothing does.
        ceilings: of the device; None: not known.
        those: contenders that have not failed.
        sets: inputs that take turns.
        rows: findings, held back until the outputs are checked again.
        work: of one call.
        twin: the first one once more, which tells how far it is from itself.
    """

    of: Subject
    device: str
    say: Say
    gpu: Gpu | None
    ceilings: Ceilings | None
    those: list[Contender] = field(default_factory=list)
    sets: list[Tensors] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    work: Work = field(default=Work(""), init=False)
    twin: Contender | None = None

    def go(self, asked: Sequence[Contender]) -> None:
        """Check, time, check again, and say the rows.

        Raises:
            _BrokenError: CUDA was left unusable.
        """
        self.those = [one for one in asked if self._can(one)]
        if not self.those or not self._check_first():
            return
        if not self._build() or not self.those:
            return
        cell = self.of.cell
        for quantity in cell.quantities:
            for l2 in cell.l2:
                self._time(quantity, l2)
        self._check_again()
        if cell.profile and self.of.target.is_gpu:
            self.rows = [self._profiled(row) for row in self.rows]
        for row in self.rows:
            self.say(Line(row=row))

    def _can(self, one: Contender) -> bool:
        cell = self.of.cell
        try:
            why = one.implementation.why_not(cell.shape, cell.dtype)
        except Exception as error:  # noqa: BLE001 (whatever it raises is why)
            self._failed(one.name, "cannot", error)
            return False
        if why:
            self.say(Line(failure=Failure(implementation=one.name, stage="cannot", message=why)))
        return not why

    def _check_first(self) -> bool:
        """Build and check everyone on inputs of the check; return whether anyone is left."""
        self.say(Line(begun="", stage="inputs"))
        cell = self.of.cell
        try:
            self.work = self.of.operation.work(cell.shape, cell.dtype)
            pristine, right = contenders.first_check(self.of)
        except Exception as error:  # noqa: BLE001 (likewise)
            self._failed("", "inputs", error)
            return False
        for one in list(self.those):
            self.say(Line(begun=one.name, stage="build"))
            self._tried(one, "build", contenders.check_first, pristine, right)
        return bool(self.those)

    def _build(self) -> bool:
        """Build what is timed, on sets of inputs that take turns."""
        self.of.free()
        self.say(Line(begun="", stage="inputs"))
        try:
            self.sets = contenders.input_sets(self.of)
        except Exception as error:  # noqa: BLE001 (likewise)
            self._failed("", "inputs", error)
            return False
        for one in list(self.those):
            self.say(Line(begun=one.name, stage="build"))
            self._tried(one, "build", contenders.build, self.sets)
        return True

    def _check_again(self) -> None:
        """Check the timed calls on the timed buffers; who is wrong has no rows."""
        if not self.those:
            return
        self.say(Line(begun="", stage="inputs"))
        try:
            pristine = self.of.inputs(self.of.cell.seed)
            right = contenders.right(self.of, pristine)
        except Exception as error:  # noqa: BLE001 (likewise)
            self._failed("", "inputs", error)
            self.rows.clear()
            return
        for one in list(self.those):
            self.say(Line(begun=one.name, stage="check"))
            self._tried(one, "check", contenders.check_again, pristine, right)
        right_ones = {one.name: one for one in self.those}
        self.rows = [
            _with_errors(row, right_ones) for row in self.rows if row.implementation in right_ones
        ]

    def _time(self, quantity: Quantity, l2: L2) -> None:
        """Measure one quantity in one state of the cache of everyone, in turns."""
        cell = self.of.cell
        those: dict[str, Timed] = {}
        for one in list(self.those):
            self.say(Line(begun=one.name, stage="time"))
            self._tried(one, "time", self._choose, quantity, l2, those)
        while self.those:
            first = self.those[0]
            if cell.floor and _again(first.name) not in those:
                self.say(Line(begun=first.name, stage="time"))
                self._tried(first, "time", self._choose_twin, quantity, l2, those)
                continue
            self.say(Line(begun="", stage="time"))
            before = self.gpu.whole_state() if self.gpu else None
            try:
                taken = self._in_turns(those, quantity)
            except pairs.FailedError as error:
                self._drop(error.name, "time", error.__cause__ or error)
                continue
            after = self.gpu.whole_state() if self.gpu else None
            for one in self.those:
                row = self._row(one, quantity, l2, those[one.name], taken)
                notes = (*row.notes, *_shared(before, after))
                self.rows.append(replace(row, before=before, after=after, notes=notes))
            return

    def _choose(
        self, of: Subject, one: Contender, quantity: Quantity, l2: L2, those: dict[str, Timed]
    ) -> None:
        those[one.name] = metering.timed(
            one.calls, quantity, l2, target=of.target, gpu=self.gpu, force=one.force
        )

    def _choose_twin(
        self, of: Subject, one: Contender, quantity: Quantity, l2: L2, those: dict[str, Timed]
    ) -> None:
        name = _again(one.name)
        if self.twin is None or self.twin.name != name:
            self.twin = contenders.twin(of, one, name, self.sets)
        self._choose(of, self.twin, quantity, l2, those)

    def _in_turns(self, those: Mapping[str, Timed], quantity: Quantity) -> dict[str, Taken]:
        """Measure everyone who is left, and the first once more.

        Raises:
            FailedError: one of them failed.
        """
        takes = {one.name: those[one.name].take for one in self.those}
        first = self.those[0].name
        if self.of.cell.floor:
            takes[_again(first)] = those[_again(first)].take
        cell = self.of.cell
        effort = Effort(cell.precision, cell.budget_s, cell.warmup_s)
        if quantity == "throughput":
            effort = replace(effort, most_calls=_MOST_BACK_TO_BACK)
        try:
            with clocks.undisturbed():
                return pairs.in_turns(takes, effort, self._clock_hz)
        except pairs.FailedError as error:
            raise pairs.FailedError(first if error.name == _again(first) else error.name) from (
                error.__cause__
            )

    def _row(
        self, one: Contender, quantity: Quantity, l2: L2, timed: Timed, taken: Mapping[str, Taken]
    ) -> Row:
        cell, of = self.of.cell, self.of
        first = self.those[0].name
        mine, found = taken[one.name], taken[one.name].summary()
        again = taken.get(_again(first))
        floor = pairs.floor(again, taken[first]) if again else None
        in_cache = l2 == "hot" or (quantity == "throughput" and self._fits())
        held = roof.roof(self.work, found.median, self.ceilings, in_cache=in_cache)
        is_first = one.name == first
        return Row(
            kernel=cell.kernel,
            operation=of.name,
            shape=cell.shape,
            dtype=cell.dtype,
            implementation=one.name,
            summary=one.implementation.summary,
            config=one.config or self._config(one),
            device=self.device,
            quantity=quantity,
            l2=l2,
            clock=timed.meter.clock,
            n=found.n,
            calls=mine.calls if quantity == "throughput" else 1,
            samples_s=tuple(mine.samples),
            median_s=found.median,
            low_s=found.low,
            high_s=found.high,
            mad_s=found.mad,
            p5_s=found.p5,
            p95_s=found.p95,
            p99_s=found.p99,
            autocorrelation=found.autocorrelation,
            settled=found.precision <= cell.precision,
            pair=None if is_first else pairs.pair(mine, taken[first], first, floor),
            floor=floor if is_first else None,
            missing=one.missing,
            build_s=one.build_s,
            compile_s=one.compile_s,
            compiled=one.compiled,
            flops=self.work.flops,
            bytes=self.work.bytes,
            bound_s=held.bound_s,
            limited_by=held.limited_by,
            ceiling=held.origin,
            share=held.share,
            flag=held.flag,
            input_bytes=gate.size_bytes(self.sets[0]),
            sets=len(timed.calls),
            flushed_bytes=timed.flush.bytes if timed.flush else 0,
            overhead_s=timed.overhead_s,
            throttled=mine.throttled,
            during=gpu_state.merged(mine.states),
            seed=cell.seed,
            notes=tuple(self._notes(one, quantity, l2, timed)),
        )

    def _profiled(self, row: Row) -> Row:
        """Return a row of kernel times with what the profiler says of such calls."""
        if row.quantity != "kernel_time":
            return row
        one = next(one for one in self.those if one.name == row.implementation)
        self.say(Line(begun=one.name, stage="time"))
        target, is_cold = self.of.target, row.l2 == "cold"
        turns = one.turns() if is_cold else itertools.cycle(one.calls[:1])
        flush = clocks.Flush(target) if is_cold else None
        with one.force():
            found = profiling.profiled(list(itertools.islice(turns, _PROFILED)), flush, target)
        if found is None:
            return row
        return replace(
            row, profiler_s=found.median_s, launches=found.launches, kernels=found.kernels
        )

    def _notes(self, one: Contender, quantity: Quantity, l2: L2, timed: Timed) -> Iterator[str]:
        if timed.note:
            yield timed.note
        if one.missing:
            yield f"It does not give {', '.join(one.missing)}."
        if quantity == "throughput" and l2 == "cold" and self._fits():
            yield "The inputs that take turns may be in the cache, in part or all."
        if self.of.operation.in_place:
            yield "Inputs that it overwrites are random in the first call on them alone."

    def _fits(self) -> bool:
        """Tell whether what takes turns may be found in the cache again, in part."""
        return sum(map(gate.size_bytes, self.sets)) < _CACHES * self.of.target.l2_bytes

    def _config(self, one: Contender) -> dict[str, int]:
        """Return what ours is compiled with, where that was not forced by name."""
        cell, of = self.of.cell, self.of
        tuning = of.kernel.tuning.get(of.name)
        if tuning is None or one.name != kernel.OURS:
            return {}
        default = tuning.default(cell.shape, cell.dtype)
        stem = cell.kernel.replace("-", "_")
        with one.force():
            key = tuning.key(cell.shape, cell.dtype)
            return dict(tuned.chosen(stem, of.name, key, default))

    def _clock_hz(self) -> float | None:
        return self.gpu.clock_hz() if self.gpu else None

    def _tried(
        self, one: Contender, stage: Stage, act: Callable[..., object], *given: object
    ) -> None:
        """Do something with one; if it fails, say so and go on without it."""
        try:
            act(self.of, one, *given)
        except WrongError as error:
            self._drop(one.name, "check", error)
        except Exception as error:  # noqa: BLE001 (what one cannot do leaves the others)
            self._drop(one.name, stage, error)

    def _drop(self, name: str, stage: Stage, error: BaseException) -> None:
        for one in self.those:
            if one.name == name:
                one.calls.clear()
        self.those = [one for one in self.those if one.name != name]
        self.rows = [row for row in self.rows if row.implementation != name]
        self._failed(name, stage, error)
        error.__traceback__ = None  # its frames hold tensors
        self.of.free()

    def _failed(self, name: str, stage: Stage, error: BaseException) -> None:
        self.say(Line(failure=_failure(name, stage, error)))
        if measuring.is_broken(self.of.target):
            raise _BrokenError


def _with_errors(row: Row, right: Mapping[str, Contender]) -> Row:
    """Return a row with the errors of the last check; a pair with one who was wrong is none."""
    one = right[row.implementation]
    kept = row.pair if row.pair and row.pair.other in right else None
    return replace(row, errors=one.errors, allowed=one.allowed, pair=kept)


def _failure(name: str, stage: Stage, error: BaseException) -> Failure:
    frames = "".join(traceback.format_exception(error, limit=-_FRAMES))
    wrong = isinstance(error, (WrongError, TracelensError))
    return Failure(
        implementation=name,
        stage=stage,
        error=type(error).__name__,
        message=str(error).strip()[:_LONGEST],
        traceback="" if wrong else frames[-_LONGEST:],
    )


def _shared(*states: GpuState | None) -> tuple[str, ...]:
    """Return a note if others use the GPU: programs take turns on it, of some ms each."""
    programs = max((one.programs or 0 for one in states if one), default=0)
    if programs < 2:
        return ()
    others = "Another program" if programs == 2 else f"{programs - 1} other programs"
    return (f"{others} had the GPU open, too: work of theirs delays ours by milliseconds.",)


def _again(name: str) -> str:
    return f"{name} again"


def _gpu(torch: Any, target: Target) -> Gpu | None:
    if not target.is_gpu:
        return None
    about = torch.cuda.get_device_properties(target.device)
    return gpu_state.find(getattr(about, "uuid", None))


def _set_precision(torch: Any, dtype: str) -> None:
    """Let torch multiply fp32 matrices as tf32 where that is what is measured, else not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of names that torch 2.9 wanted to replace
        torch.set_float32_matmul_precision("high" if dtype == "tf32" else "highest")


if __name__ == "__main__":
    sys.exit(main())
