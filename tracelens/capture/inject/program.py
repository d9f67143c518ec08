"""The user's own program under a recorder: its session, its window of steps, its answer.

Only a process that builds a model, or makes steps, takes part: launchers, workers that load data
or compile, and whatever else the program starts, run as they would.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tracelens.capture.imports import when_imported

if TYPE_CHECKING:
    from collections.abc import Callable

    from tracelens.capture.child import Part
    from tracelens.capture.job import Job

_JOB: Final = "TRACELENS_JOB"
_LAUNCHERS: Final = frozenset({"torchrun", "accelerate", "deepspeed", "lightning", "composer"})
_MODULES: Final = ("torch.distributed.", "accelerate.", "deepspeed.launcher")
_LAST: Final = 100
"""Priority at which a child process of `multiprocessing` closes the session: before all else."""


class Recorded(SystemExit):
    """Ends the program: all that was wanted of it has been recorded."""


def watch() -> None:
    """Take part in the pass that the environment names, once torch has been imported."""
    began_ns = time.perf_counter_ns()
    file = Path(os.environ[_JOB])
    when_imported("torch", lambda: _begin(file, began_ns))


def _begin(file: Path, began_ns: int) -> None:
    try:
        from tracelens.capture import job

        mine = job.load(file)
        if mine.workload is None:
            Program(mine, began_ns).begin()
    except Exception as error:  # noqa: BLE001 (the program is to import torch all the same)
        _note(file, error)


class Program:
    """This process of the program, and how far its recording has come.

    Args:
        mine: the pass.
        began_ns: when the process started, on the clock of `time.perf_counter_ns`.
    """

    def __init__(self, mine: Job, began_ns: int) -> None:
        self._job = mine
        self._began_ns = began_ns
        self._part: Part | None = None
        self._thread: int | None = None
        self._is_over = False
        self._is_exiting = False
        self._pid = os.getpid()
        self._stop_listening: Callable[[], None] = _nothing
        self._hooks: Any = None

    def begin(self) -> None:
        """Put the hooks on; without a window of steps, record from here on."""
        from tracelens.capture.inject.hooks import Hooks
        from tracelens.marks import on_step

        self._hooks = Hooks(self._open)
        self._stop_listening = on_step(self._step_begins, self._step_ends)
        os.register_at_fork(after_in_child=self._forked)
        if self._job.wanted.steps is None and not _is_helper():
            self._open()

    def _open(self) -> None:
        """Open the session: from now on, this process takes part."""
        if self._part is not None or self._is_over:
            return
        self._part = part = self._made()
        self._when_it_ends()
        self._guarded(part.session.open)
        if part.job.wanted.steps is None:
            self._guarded(part.window.begin_step)  # that begins the recording; nothing ends it

    def _made(self) -> Part:
        from tracelens import registry
        from tracelens.capture.child import Part

        rank, processes = _ranks()
        wanted = replace(self._job.wanted, processes=processes)
        if wanted.steps is None:
            wanted = replace(wanted, warmup=0)
        session = registry.load("recorder", self._job.recorder).session(wanted, rank)
        return Part(replace(self._job, wanted=wanted), session, rank, self._began_ns)

    def _step_begins(self) -> None:
        if not self._is_mine():
            return
        if self._is_over:
            self._leave()
            return
        self._open()
        part = self._part
        if part is None or self._is_over or part.job.wanted.steps is None:
            return
        if part.build_ns is None:
            part.build_ns = time.perf_counter_ns() - self._began_ns
        self._guarded(part.window.begin_step)
        from tracelens.marks.ranges import RECORDING
        from tracelens.marks.steps import is_marked

        if RECORDING not in os.environ and (is_marked() or self._hooks.steps.optimizers):
            self._hooks.no_calls()  # what tells the steps is known; nothing is marked

    def _step_ends(self) -> None:
        part = self._part
        if part is None or self._is_over or not self._is_mine() or part.job.wanted.steps is None:
            return
        self._guarded(part.window.end_step)
        if part.window.is_done:
            self.close(None)
            self._leave()

    def _is_mine(self) -> bool:
        """Whether this thread is the one whose steps count: the first that makes any."""
        here = threading.get_ident()
        if self._thread is None:
            self._thread = here
        return self._thread == here and self._pid == os.getpid()

    def _guarded(self, tell: Callable[[], None]) -> None:
        """Tell the window something; a recorder that fails is no business of the program."""
        try:
            tell()
        except Exception as error:  # noqa: BLE001 (the answer says what it is)
            self.close(error)
            self._leave()

    def _leave(self) -> None:
        if self._job.stop and not self._is_exiting:
            raise Recorded(0)

    def close(self, error: BaseException | None) -> None:
        """Close the session and answer what came of this process; once."""
        if self._is_over or self._part is None or self._pid != os.getpid():
            return
        self._is_over = True
        from tracelens.capture import job

        self._hooks.remove()
        outcome = self._part.close(error)
        window = self._part.window
        if window.step or outcome.made or (outcome.failure and not _is_child()):
            job.answer(self._part.job, outcome)

    # How it may end

    def _when_it_ends(self) -> None:
        import multiprocessing.util

        atexit.register(self._exits)
        if _is_child():
            multiprocessing.util.Finalize(None, self._exits, exitpriority=_LAST)
        is_main = threading.current_thread() is threading.main_thread()
        if is_main and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, self._terminated)

    def _exits(self) -> None:
        """The program comes to its end, by an error or without one."""
        from tracelens.marks import steps

        if self._pid != os.getpid():
            return
        self._is_exiting = True
        error = getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)
        if error is None and (steps.is_marked() or not self._hooks.steps.optimizers):
            steps.end()  # what an optimizer's step ends has nothing in it after the last
        self.close(error)

    def _terminated(self, number: int, _frame: Any) -> None:
        from tracelens.capture import failures

        self.close(failures.Stopped(f"ended by {signal.Signals(number).name}"))
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    def _forked(self) -> None:
        """This is a fork: it takes part by itself if what it is a fork of did not yet."""
        self._pid = os.getpid()
        self._thread = None
        if self._part is not None:
            self._part = None
            self._is_over = True
            self._stop_listening()
            self._hooks.remove()


def _ranks() -> tuple[int | None, int | None]:
    """Return this process's rank and how many there are, where there is more than one."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        rank, processes = distributed.get_rank(), distributed.get_world_size()
    else:
        rank = int(os.environ.get("RANK", "0"))
        processes = int(os.environ.get("WORLD_SIZE", "1"))
    return (rank, processes) if processes > 1 else (None, None)


def _is_helper() -> bool:
    """Whether this process only starts or serves those that work."""
    if "RANK" in os.environ:
        return False
    words = sys.orig_argv[1:]
    named = {Path(word).name for word in words}
    starts = any(word.startswith(_MODULES) for word in words) or bool(named & _LAUNCHERS)
    serves = any("compile_worker" in word for word in words)
    return starts or serves or _is_child()


def _is_child() -> bool:
    """Whether `multiprocessing` has started this process."""
    import multiprocessing.process

    return multiprocessing.process.parent_process() is not None


def _note(file: Path, error: Exception) -> None:
    """Leave a line for whoever started the capture, beside the job."""
    try:
        with file.with_suffix(".trouble.txt").open("a", encoding="utf-8") as out:
            out.write(f"{sys.executable}: {type(error).__name__}: {error}\n")
    except OSError:
        pass


def _nothing() -> None:
    pass
