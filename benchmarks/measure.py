"""Running a command and weighing it: seconds, and its largest memory."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


@dataclass(frozen=True)
class Cost:
    """Median seconds of several runs, the fastest and slowest, and the most memory of any."""

    seconds: float
    fastest: float
    slowest: float
    mebibytes: float
    finished: bool = True


def cost(
    command: Sequence[str],
    *,
    runs: int,
    before: Callable[[], None] | None = None,
    environment: Mapping[str, str] | None = None,
    timeout_s: float = 900,
) -> Cost:
    """Run a command several times.

    Args:
        command: what to run; its output is thrown away.
        runs: how often.
        before: called before each run, outside of the time.
        environment: added to ours.
        timeout_s: a run that takes longer is stopped, and counts as not finished.
    """
    seconds, memory = [], []
    for _ in range(runs):
        if before:
            before()
        took, kibibytes, finished = _once(command, environment or {}, timeout_s)
        seconds.append(took)
        memory.append(kibibytes / 1024)
        if not finished:
            return Cost(took, took, took, max(memory), finished=False)
    return Cost(statistics.median(seconds), min(seconds), max(seconds), max(memory))


def _once(
    command: Sequence[str], environment: Mapping[str, str], timeout_s: float
) -> tuple[float, int, bool]:
    started = time.perf_counter()
    process = subprocess.Popen(
        command,
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        took = time.perf_counter() - started
        if pid:
            break
        if took > timeout_s:
            os.killpg(process.pid, 9)
            os.wait4(process.pid, 0)
            return took, 0, False
        time.sleep(0.002)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        said = process.stderr.read().decode(errors="replace") if process.stderr else ""
        sys.exit(f"{' '.join(command)}\nended with {process.returncode}: {said}")
    return took, usage.ru_maxrss, True
