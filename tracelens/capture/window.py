"""The window of steps that a pass records: counts steps, times them, and tells the session."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from tracelens.capture.recorder import Session, Wanted


class Window:
    """Counts the steps of one thread of one process.

    Args:
        session: what records.
        wanted: how many steps come first, and how many are recorded.
        wait: returns once the device has done all its work.
    """

    def __init__(self, session: Session, wanted: Wanted, wait: Callable[[], None]) -> None:
        self.steps_ns: list[int] = []
        self.warmup_ns: list[int] = []
        self._session = session
        self._wanted = wanted
        self._wait = wait
        self._began_ns: int | None = None
        self._is_recording = False

    @property
    def is_done(self) -> bool:
        """Whether all the wanted steps have been recorded."""
        return self._wanted.steps is not None and len(self.steps_ns) >= self._wanted.steps

    @property
    def step(self) -> int:
        """The number of steps that have ended."""
        return len(self.warmup_ns) + len(self.steps_ns)

    def begin_step(self) -> None:
        """A step begins."""
        if self.is_done:
            return
        if not self._is_recording and self.step == self._wanted.warmup:
            self._wait()
            self._is_recording = True
            self._session.begin()
        elif self.step == self._wanted.warmup - 1:
            self._session.warm()
        self._began_ns = time.perf_counter_ns()

    def end_step(self) -> None:
        """The step that began last ends, the device's work included."""
        if self._began_ns is None:
            return
        self._wait()
        took = time.perf_counter_ns() - self._began_ns
        self._began_ns = None
        if not self._is_recording:
            self.warmup_ns.append(took)
            return
        self.steps_ns.append(took)
        self._session.stepped()
        if self.is_done:
            self.end()

    def end(self) -> None:
        """End the recording here, if it goes on, however many steps it has."""
        if self._is_recording:
            self._is_recording = False
            self._wait()
            self._session.end()
