"""Running one pass: the program under one recorder, to its end or to whatever ended it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, BinaryIO, Final

from tracelens.capture import job as jobs
from tracelens.capture import plan as plans
from tracelens.capture.folder import Pass
from tracelens.errors import CaptureError, TracelensError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from tracelens.capture.folder import State
    from tracelens.capture.job import Job, Outcome
    from tracelens.capture.plan import Plan, Planned, Request
    from tracelens.capture.recorder import Made, Recorder

_ENDING: Final = ("SIGTERM", "SIGHUP")
_GRACE_S: Final = 20.0
_POLL_S: Final = 0.05
_LOOK_S: Final = 1.0
_LATE_S: Final = 900.0
_TAIL_BYTES: Final = 20_000
_TELLING: Final = {"out of memory": 0, "stopped": 2}
"""Kinds of failures that tell more (less) than others: ranks are stopped as another one fails."""
_SHELL_SIGNALS: Final = 128  # what shells and launchers add to the number of a signal


@dataclass(frozen=True)
class _End:
    """How a program ended: by itself, `interrupted`, at its time `limit`, or since it `hangs`."""

    status: int
    by: str
    log: Path


class _Limits:
    """How long a pass may take: as long as was said, and a while after its program has answered.

    A profiler that hangs when the program is over would otherwise be waited for without end.
    """

    def __init__(self, limit_s: float | None, job: Job) -> None:
        self._deadline = None if limit_s is None else time.monotonic() + limit_s
        self._job = job
        self._looked = 0.0
        self._answered: float | None = None

    def passed(self) -> str:
        """Return which limit has been passed, if one has: `limit` or `hangs`."""
        now = time.monotonic()
        if self._deadline is not None and now > self._deadline:
            return "limit"
        if now - self._looked > _LOOK_S:
            self._looked = now
            processes = self._job.wanted.processes
            if self._answered is None and processes and len(jobs.outcomes(self._job)) == processes:
                self._answered = now
        late = self._answered is not None and now - self._answered > _LATE_S
        return "hangs" if late else ""


class Interrupted(Exception):  # noqa: N818 (it is what happened, no fault)
    """The user stopped the capture; carries what became of the pass."""

    def __init__(self, result: Pass, made: Sequence[Made]) -> None:
        super().__init__(result.recorder)
        self.result = result
        self.made = list(made)


class RefusedError(UsageError):
    """The workload's options cannot be had here, under whichever recorder."""

    def __init__(self, text: str, result: Pass) -> None:
        super().__init__(text)
        self.result = result


def run(
    planned: Planned,
    request: Request,
    plan: Plan,
    folder: Path,
    say: Callable[[str], None],
    *,
    limit_s: float | None = None,
    echo: bool = False,
) -> tuple[Pass, list[Made]]:
    """Run a program under a recorder; return what became of it and the files it left.

    Args:
        planned: the recorder and its options.
        request: what is run.
        plan: where.
        folder: the Run folder.
        say: takes lines for the user.
        limit_s: end the program after this time.
        echo: show what the program prints, too.

    Raises:
        Interrupted: by Ctrl-C; what was recorded until then has been kept.
        RefusedError: the workload's options cannot be had on this device.
    """
    wanted = plans.with_options(plans.wanted_by(request, plan.device, folder), planned.options)
    job = jobs.Job(
        recorder=planned.name,
        wanted=wanted,
        workload=request.module,
        options=request.workload.options() if request.workload else {},
        torch_device=plan.device,
        seed=request.seed,
        stop=request.stop,
    )
    jobs.forget(job)
    job_file = jobs.save(job)
    command = planned.recorder.command(plans.program(request), wanted)
    variables = plans.environment(request, planned, job_file, os.environ)
    variables |= planned.recorder.environment(wanted) | {jobs.PARENT: str(os.getpid())}
    log = folder / "logs" / f"{planned.name}.log"
    log.parent.mkdir(exist_ok=True)
    began = time.perf_counter()
    end = _run(command, variables, log, _Limits(limit_s, job), echo=echo)
    done = Pass(
        recorder=planned.name,
        options=dict(planned.options),
        command=command,
        exit_status=end.status,
        seconds=round(time.perf_counter() - began, 3),
        log=str(log.relative_to(folder)),
    )
    result, made = _judged(done, planned.recorder, job, end, say)
    if end.by == "interrupted":
        raise Interrupted(result, made)
    if refusal := _refusal(job):
        raise RefusedError(refusal, result)
    return result, made


def _refusal(job: Job) -> str | None:
    """Return why the options of a workload cannot be had on this device."""
    failures = [outcome.failure for outcome in jobs.outcomes(job) if outcome.failure]
    return next((failure.text for failure in failures if failure.kind == "usage"), None)


def _run(
    command: Sequence[str],
    variables: dict[str, str],
    log: Path,
    limits: _Limits,
    *,
    echo: bool,
) -> _End:
    with log.open("wb") as out:
        try:
            process = subprocess.Popen(  # noqa: S603
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=variables,
                start_new_session=True,
            )
        except OSError as error:
            reason = error.strerror or error
            raise CaptureError(f"{command[0]} cannot be run: {reason}.") from error
    with process, log.open("rb") as written:
        ended = ""
        try:
            with _as_interrupts():
                ended = _watched(process, written, limits, echo=echo)
        except KeyboardInterrupt:
            ended = "interrupted"
        if ended:
            _end(process)
        _shown(written, echo=echo)
        return _End(process.wait(), ended, log)


@contextlib.contextmanager
def _as_interrupts() -> Iterator[None]:
    """Let what would end this process at once be a Ctrl-C: the program is to end with it."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    ours = [getattr(signal, name) for name in _ENDING if hasattr(signal, name)]
    if threading.current_thread() is not threading.main_thread():
        ours = []  # which alone may say what a signal does
    ours = [which for which in ours if signal.getsignal(which) is signal.SIG_DFL]
    for which in ours:
        signal.signal(which, interrupt)
    try:
        yield
    finally:
        for which in ours:
            signal.signal(which, signal.SIG_DFL)


def _watched(
    process: subprocess.Popen[bytes], written: BinaryIO, limits: _Limits, *, echo: bool
) -> str:
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_POLL_S)
            return ""
        _shown(written, echo=echo)
        if passed := limits.passed():
            return passed


def _shown(written: BinaryIO, *, echo: bool) -> None:
    """Show what a program has printed since it was last looked at."""
    if echo:
        sys.stderr.write(written.read().decode("utf-8", "replace"))
        sys.stderr.flush()


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask a program and all that it started to stop; make it, if it does not."""
    for wish, patience_s in ((signal.SIGINT, _GRACE_S), (signal.SIGTERM, _GRACE_S / 4)):
        _signal(process, wish)
        try:
            process.wait(patience_s)
        except subprocess.TimeoutExpired:
            continue
        except KeyboardInterrupt:
            break
        return
    _signal(process, getattr(signal, "SIGKILL", signal.SIGTERM))


def _signal(process: subprocess.Popen[bytes], which: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, which)
        else:
            process.send_signal(which)


def _judged(
    done: Pass, recorder: Recorder, job: Job, end: _End, say: Callable[[str], None]
) -> tuple[Pass, list[Made]]:
    """Return what became of a pass, once the recorder has finished what it left."""
    outcomes = jobs.outcomes(job)
    made = [file for outcome in outcomes for file in outcome.made]
    notes: list[str] = []
    problem = ""
    try:
        made += recorder.finish(job.wanted, notes.append)
    except TracelensError as error:
        problem = str(error)
    for note in notes:
        say(f"      {note}")
    state, why = _state(outcomes, job, end, problem)
    if state == "done" and not made:
        state, why = "failed", f"it left no recording; see {done.log}"
    peaks = [outcome.peak_bytes for outcome in outcomes if outcome.peak_bytes is not None]
    result = replace(
        done,
        state=state,
        why=why,
        notes=notes,
        files=sorted({file.path for file in made}),
        steps_ns=_slowest([outcome.steps_ns for outcome in outcomes]),
        gpu_steps_ns=_slowest([outcome.gpu_steps_ns for outcome in outcomes]),
        warmup_ns=_slowest([outcome.warmup_ns for outcome in outcomes]),
        peak_bytes=max(peaks, default=None),
    )
    return result, made


def _state(outcomes: Sequence[Outcome], job: Job, end: _End, problem: str) -> tuple[State, str]:
    if end.by == "interrupted":
        return "interrupted", "stopped by the user"
    if end.by == "limit":
        return "killed", "it ran longer than --timeout allows"
    if end.by == "hangs" and problem:
        return "killed", f"the program was over, and its recorder did not end; {problem}"
    failures = [outcome.failure for outcome in outcomes if outcome.failure]
    if failures:
        worst = min(failures, key=lambda failure: _TELLING.get(failure.kind, 1))
        state: State = "out of memory" if worst.kind == "out of memory" else "failed"
        at = "while it was built" if worst.at == "build" else f"in {worst.at}"
        return state, f"{_first_line(worst.text)} ({at})"
    has_steps = any(outcome.steps_ns for outcome in outcomes)
    if (number := _signal_number(end.status)) and not has_steps:
        return "killed", _killed_by(number)
    if not has_steps and (end.status or job.wanted.steps is not None):
        also = problem if end.status else ""
        return "failed", "; ".join(filter(None, [_no_steps(job, end), also]))
    if problem:
        return "failed", problem
    return "done", f"the program ended with status {end.status}" if end.status else ""


def _no_steps(job: Job, end: _End) -> str:
    if end.status:
        return f"the program ended with status {end.status}: {_last_line(end.log)}"
    if job.workload is not None:
        return f"the workload ended without a word: {_last_line(end.log)}"
    if trouble := jobs.trouble(job):
        return (
            f"the hooks could not be loaded ({trouble}); tracelens has to be installed in the "
            "Python that runs the program"
        )
    return (
        "no step was seen. Call tracelens.step() at the start of each, or record the whole "
        "program with --whole"
    )


def _signal_number(status: int) -> int:
    if status < 0:
        return -status
    with contextlib.suppress(ValueError):
        return signal.Signals(status - _SHELL_SIGNALS).value
    return 0


def _killed_by(number: int) -> str:
    name = signal.Signals(number).name
    if name == "SIGKILL":
        return "killed by SIGKILL: the system may have run out of memory"
    return f"killed by {name}"


def _slowest(ranks: Sequence[Sequence[int]]) -> list[int]:
    """Return the longest time of each step over the ranks, as far as all of them came."""
    return [max(times) for times in zip(*(times for times in ranks if times), strict=False)]


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]


def _last_line(log: Path) -> str:
    """Return the last line that a program printed, which in Python names the error."""
    with contextlib.suppress(OSError), log.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _TAIL_BYTES))
        lines = file.read().decode("utf-8", "replace").splitlines()
        return next((line.strip() for line in reversed(lines) if line.strip()), "no output")
    return "no output"
