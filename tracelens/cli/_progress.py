"""A progress bar on standard error, for reading that takes more than a second on a terminal."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_PATIENCE_S: Final = 1.0


@contextmanager
def shown(label: str) -> Iterator[Callable[[str, int, int], None]]:
    """Give a function to call with (what, parts done, parts in all); the bar appears late."""
    if not sys.stderr.isatty():
        yield lambda _what, _done, _total: None
        return
    bar = _Bar(label)
    try:
        yield bar.advance
    finally:
        bar.close()


class _Bar:
    def __init__(self, label: str) -> None:
        self._label = label
        self._since = time.monotonic()
        self._bar: Any = None
        self._tasks: dict[str, Any] = {}

    def advance(self, what: str, done: int, total: int) -> None:
        if self._bar is None:
            if time.monotonic() - self._since < _PATIENCE_S:
                return
            self._bar = _made()
            self._bar.start()
        if what not in self._tasks:
            self._tasks[what] = self._bar.add_task(f"{self._label}: {what}", total=total)
        self._bar.update(self._tasks[what], completed=done)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()


def _made() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    )
