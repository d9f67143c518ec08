"""Functions for other processes to call: what they do there is what a test asks for."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

from tracelens.errors import UnreadableError

if TYPE_CHECKING:
    from pathlib import Path


def doubled(number: int) -> int:
    """Return twice the number."""
    return 2 * number


def refused(number: int) -> int:
    """Return the number, but for 3."""
    if number == 3:
        raise UnreadableError("three is no file")
    return number


def broken(number: int) -> int:
    """Return the number, but for 3."""
    if number == 3:
        raise ZeroDivisionError("oops")
    return number


def killed_once(mark: Path) -> str:
    """End this process the hard way where nobody has done so before."""
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return mark.name


def killed_always(mark: Path) -> str:
    """End this process the hard way where the mark says so; other marks are returned."""
    if mark.name == "bad":
        os.kill(os.getpid(), signal.SIGKILL)
    return mark.name


def slept(mark: Path) -> int:
    """Write down this process's number, and sleep for long."""
    beside = mark.with_suffix(".part")
    beside.write_text(str(os.getpid()))
    beside.replace(mark)
    time.sleep(60)
    return os.getpid()


def process(_: int) -> int:
    """Return this process's number."""
    return os.getpid()
