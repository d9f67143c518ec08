"""A workload inside a pass: built, warmed up, recorded step by step, and what came of it told.

Run as `python -m tracelens.capture.child`, alone or once per rank by torch.distributed.run. It
prints nothing of its own but the traceback of an error, to where the pass keeps its log. Exit
status: 0 done; 2 the options cannot be had here; 4 it failed, or was stopped.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import signal
import socket
import sys
import threading
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tracelens import registry, workload
from tracelens.capture import failures, gpu, job
from tracelens.capture.job import Failure, Job, Outcome
from tracelens.capture.window import Window
from tracelens.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tracelens.capture.recorder import Made, Session

_FAILED: Final = 4
_STATUS: Final = {"usage": 2}
_END: Final = "the end"
_TRACED: Final = ("error", "out of memory")
_SIGNALS: Final = ("SIGINT", "SIGTERM", "SIGHUP")
_PR_SET_PDEATHSIG: Final = 1
_PATIENCE_S: Final = 10.0
"""How long a signal may go unnoticed: a thread that waits for a GPU, or for another rank that is
gone, never comes back to Python."""


@dataclass
class Part:
    """What one process has to do of a pass, and how far it has come.

    Attributes:
        job: the pass.
        session: the recorder in this process.
        rank: of this process; None if it is alone.
        began_ns: when the program started, on the clock of `time.perf_counter_ns`.
        build_ns: how long it took to its first step.
    """

    job: Job
    session: Session
    rank: int | None
    began_ns: int
    build_ns: int | None = None
    window: Window = field(init=False)

    def __post_init__(self) -> None:
        self.window = Window(self.session, self.job.wanted)

    def run(self) -> None:
        """Build the workload and run the steps that are wanted."""
        chosen = _workload(self.job)
        device = _device(self.job, chosen.processes)
        self.session.open()
        if self.rank is not None:
            _join(device)
        _seed(self.job.seed)
        program = chosen.program(device)
        self.build_ns = time.perf_counter_ns() - self.began_ns
        while not self.window.is_done:
            self.window.begin_step()
            program.step()
            self.window.end_step()

    def close(self, error: BaseException | None) -> Outcome:
        """Close the session and return what came of this process, ended by `error` or not."""
        made: list[Made] = []
        try:
            made = self.session.close(error)
        except Exception as late:  # noqa: BLE001 (whatever it is, the outcome tells it)
            traceback.print_exception(late)
            return self.outcome(failures.failure(error or late, self.at if error else _END), made)
        return self.outcome(failures.failure(error, self.at) if error else None, made)

    def outcome(self, failure: Failure | None, made: list[Made]) -> Outcome:
        """Return what came of this process, as far as it has come."""
        window = self.window
        return Outcome(
            rank=self.rank,
            steps_ns=window.steps_ns,
            gpu_steps_ns=window.gpu_steps_ns,
            warmup_ns=window.warmup_ns,
            build_ns=self.build_ns,
            made=made,
            failure=failure,
            peak_bytes=gpu.peak_bytes(),
        )

    @property
    def at(self) -> str:
        """Where the program is."""
        if self.build_ns is None:
            return "build"
        return _END if self.window.is_done else f"step {self.window.step}"


def main() -> int:
    """Run this process's part of the pass that the environment names; return the exit status."""
    began_ns = time.perf_counter_ns()
    _end_with_parent()
    mine = job.load(Path(os.environ[job.JOB]))
    rank = int(os.environ["RANK"]) if int(os.environ.get("WORLD_SIZE", "1")) > 1 else None
    session: Session = registry.load("recorder", mine.recorder).session(mine.wanted, rank)
    part = Part(mine, session, rank, began_ns)
    error: BaseException | None = None
    with _watched(part) as busy:
        try:
            part.run()
        except BaseException as caught:  # noqa: BLE001 (what was recorded is kept in any case)
            busy()
            error = caught
        busy()
        outcome = part.close(error)
        job.answer(mine, outcome)
    if outcome.failure is None:
        _leave()
        if rank is not None and mine.torch_device == "cpu" and mine.recorder != "nsys":
            _exit(0)  # gloo's threads may abort the end of Python, in which nsys writes its report
        return 0
    if error is not None and outcome.failure.kind in _TRACED:
        traceback.print_exception(error)
    status = _STATUS.get(outcome.failure.kind, _FAILED)
    if rank is not None:
        _exit(status)  # the end of Python would wait for ranks that wait for this one
    return status


def _end_with_parent() -> None:
    """Let Linux end this process with the capture that started it, should that be killed.

    Steps that nobody waits for would keep the GPU. Of a profiler's own children the profiler takes
    care. (prctl(2), PR_SET_PDEATHSIG)
    """
    if sys.platform == "linux" and os.environ.get(job.PARENT) == str(os.getppid()):
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def _workload(mine: Job) -> workload.Workload:
    if mine.workload is None or mine.wanted.steps is None:
        raise UsageError("A workload is recorded for a number of steps.")
    return workload.make(registry.load("workload", mine.workload), mine.options)


def _device(mine: Job, processes: int) -> str:
    """Return this process's device, and make it the current one.

    Raises:
        UsageError: there is no such device here.
    """
    if mine.torch_device == "cpu":
        return "cpu"
    import torch

    there = torch.cuda.device_count()
    number = int(os.environ.get("LOCAL_RANK", "0"))
    if number >= there:
        needs = f"{processes} GPUs" if processes > 1 else "a GPU"
        raise UsageError(f"This needs {needs}; torch {torch.__version__} sees {there} here.")
    torch.cuda.set_device(number)
    return f"cuda:{number}" if processes > 1 else mine.torch_device


def _join(device: str) -> None:
    """Make the process group of all ranks."""
    import torch
    import torch.distributed as dist

    if device == "cpu":
        dist.init_process_group("gloo")
    else:
        dist.init_process_group("nccl", device_id=torch.device(device))


def _leave() -> None:
    """Leave the process group, if there is one, in good order."""
    if "torch.distributed" in sys.modules:
        import torch.distributed as dist

        if dist.is_available() and dist.is_initialized():
            dist.destroy_process_group()


def _seed(seed: int) -> None:
    import torch

    random.seed(seed)
    torch.manual_seed(seed)


@contextlib.contextmanager
def _watched(part: Part) -> Iterator[Callable[[], None]]:
    """Turn a signal to end into an error, so that what was recorded is kept.

    Gives what is to be called when the program is over: signals have no effect from then on.

    Python sees to a signal only between two of its own instructions. Where the thread does not
    come back to them, another one tells what has come of the process, and ends it.
    """
    over = threading.Event()

    def handle(number: int, _frame: Any) -> None:
        if not over.is_set():
            over.set()
            raise failures.Stopped(f"ended by {signal.Signals(number).name}")

    def watch() -> None:
        if (said := hears.recv(1)) and not over.wait(_PATIENCE_S):
            name = signal.Signals(said[0]).name
            text = f"ended by {name} while it was waiting for the device or another process"
            job.answer(part.job, part.outcome(Failure("stopped", text, part.at), []))
            _exit(_FAILED)

    hears, tells = socket.socketpair()
    with hears, tells:
        tells.setblocking(False)
        signal.set_wakeup_fd(tells.fileno(), warn_on_full_buffer=False)
        for name in _SIGNALS:
            if number := getattr(signal, name, None):
                signal.signal(number, handle)
        watcher = threading.Thread(target=watch, name="tracelens-signals", daemon=True)
        watcher.start()
        try:
            yield over.set
        finally:
            signal.set_wakeup_fd(-1)
            tells.shutdown(socket.SHUT_WR)
            watcher.join()


def _exit(status: int) -> None:
    """End the process without waiting for anything."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)


if __name__ == "__main__":
    sys.exit(main())
