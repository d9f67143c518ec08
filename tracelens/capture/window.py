"""The window of steps that a pass records: counts steps, times them, and tells the session."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tracelens.capture import gpu

if TYPE_CHECKING:
    from collections.abc import Callable

    from tracelens.capture.gpu import Event
    from tracelens.capture.recorder import Session, Wanted


class Window:
    """Counts the steps of one thread of one process.

    Args:
        session: what records.
        wanted: how many steps come first, and how many are recorded.
        wait: returns once the device has done all its work.
        mark: returns a moment on the device; None: it has no clock of its own.

    Attributes:
        steps_ns: wall-clock time of each recorded step, the device's work included.
        gpu_steps_ns: the same between two moments on the device; empty where it has none.
        warmup_ns: wall-clock time of each step before the recorded ones.
    """

    def __init__(
        self,
        session: Session,
        wanted: Wanted,
        wait: Callable[[], None] = gpu.wait,
        mark: Callable[[], Event | None] = gpu.mark,
    ) -> None:
        self.steps_ns: list[int] = []
        self.gpu_steps_ns: list[int] = []
        self.warmup_ns: list[int] = []
        self._session = session
        self._wanted = wanted
        self._wait = wait
        self._mark = mark
        self._began: tuple[int, Event | None] | None = None
        self._is_recording = False
        self._has_ended = False

    @property
    def is_done(self) -> bool:
        """Whether nothing more will be recorded: all that is wanted has been, or it was ended."""
        return self._has_ended

    @property
    def step(self) -> int:
        """The number of steps that have ended."""
        return len(self.warmup_ns) + len(self.steps_ns)

    def begin_step(self) -> None:
        """A step begins; one that began before and has not ended is not counted."""
        if self._has_ended:
            return
        if not self._is_recording:
            self._approach()
        self._began = (time.perf_counter_ns(), self._mark())

    def end_step(self) -> None:
        """The step that began last ends, the device's work included."""
        if self._began is None:
            return
        (began_ns, first), last = self._began, self._mark()
        self._wait()
        took_ns = time.perf_counter_ns() - began_ns
        self._began = None
        if not self._is_recording:
            self.warmup_ns.append(took_ns)
            return
        self.steps_ns.append(took_ns)
        if first is not None and last is not None:
            self.gpu_steps_ns.append(round(first.elapsed_time(last) * 1e6))
        self._session.stepped()
        if self._is_enough():
            self.end()

    def end(self) -> None:
        """End the recording here, however many steps it has; none comes after."""
        self._began = None
        self._has_ended = True
        if self._is_recording:
            self._is_recording = False
            self._wait()
            self._session.end()

    def _approach(self) -> None:
        """Tell the session how near the first recorded step is, with the device at rest."""
        left = self._wanted.warmup - self.step
        if left <= 0:
            self._wait()
            self._session.begin()
            self._is_recording = True
        elif left == 1:
            self._session.warm()

    def _is_enough(self) -> bool:
        wanted = self._wanted.steps
        if wanted is None or len(self.steps_ns) < wanted:
            return False
        return self._session.is_enough(self.steps_ns)
