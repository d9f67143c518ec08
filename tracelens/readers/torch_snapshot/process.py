"""Starting the child process that opens the file, and telling what came of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, Self

import tracelens
from tracelens import units
from tracelens.errors import UnreadableError
from tracelens.readers.torch_snapshot.handed import (
    REFUSED,
    STATUS_MEMORY,
    STATUS_REFUSED,
    shown,
)
from tracelens.trace.scratch import Scratch

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

LIMIT: Final = "TRACELENS_SNAPSHOT_LIMIT_BYTES"
"""Environment variable: memory that the child process may take."""
_LEAST_BYTES: Final = 2 << 30
_TIMES_FILE: Final = 12
PATIENCE_S: Final = 30
_BYTES_PER_S: Final = 4 << 20
"""The slowest machine that we wait for; this one reads 130 MB/s."""
_START: Final = (
    "import sys; sys.path.append(sys.argv.pop(1)); "
    "from tracelens.readers.torch_snapshot.child import main; main(sys.argv[1:])"
)


class Child:
    """The process that reads one file; it runs while its parent does something else.

    It sees no site-packages and no environment that changes Python (-I -S), and may take twelve
    times the file's size of memory, 2 GiB at least, and a time that grows with the file.
    """

    def __init__(self, path: Path) -> None:
        size = path.stat().st_size
        self._path = path
        self._memory = _allowed(os.environ) or max(_LEAST_BYTES, _TIMES_FILE * size)
        self._seconds = PATIENCE_S + size // _BYTES_PER_S
        self.scratch = Scratch()
        self._log = self.scratch.path / "log"
        root = Path(tracelens.__file__).absolute().parents[1]
        command = [
            sys.executable, "-I", "-S", "-B", "-X", "utf8", "-c", _START,
            str(root), str(path.absolute()), str(self.scratch.path),
            str(self._memory), str(self._seconds),
        ]  # fmt: skip
        with self._log.open("wb") as log:
            try:
                self._process = subprocess.Popen(  # noqa: S603
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    encoding="utf-8",
                )
            except OSError as error:
                raise UnreadableError(
                    f"No process could be started to read {path.name}: {error.strerror or error}."
                ) from error
        self._out: IO[str] = self._process.stdout  # type: ignore[assignment]
        self._is_late = False
        self._timer = threading.Timer(self._seconds, self._end_late)
        self._timer.daemon = True
        self._timer.start()

    def lines(self) -> Iterator[str]:
        """Give what the child says, line by line as it goes on.

        Raises:
            UnreadableError: it ended before all was said that is asked for: it refused the file,
                or had to be ended.
        """
        yield from self._out
        name, status = self._path.name, self._process.wait()
        if self._is_late:
            raise UnreadableError(
                f"{name} could not be read within {self._seconds} s: it is built to take for "
                "ever, or this machine is very busy. Try again, or record it again."
            )
        if status == STATUS_REFUSED:
            reason = (self.scratch.path / REFUSED).read_text(encoding="utf-8", errors="replace")
            raise UnreadableError(f"{name} {reason}")
        if status == STATUS_MEMORY:
            raise UnreadableError(
                f"{name} asks for more than {units.size(self._memory)} of memory, far more than a "
                "snapshot of its size needs: it is damaged, or built to do harm. If you trust it, "
                f"allow more: {LIMIT}={4 * self._memory}"
            )
        raise UnreadableError(f"{name} cannot be read: {_ended(status, self._log)}")

    def __enter__(self) -> Self:
        """Return the child."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the process if it still runs.

        The system takes 40 ms for its memory, which nothing here waits for.
        """
        self._timer.cancel()
        self._timer.join()
        self._process.kill()
        self._out.close()
        threading.Thread(target=self._process.wait).start()

    def _end_late(self) -> None:
        self._is_late = True
        self._process.kill()


def _allowed(environment: Mapping[str, str]) -> int:
    said = environment.get(LIMIT, "")
    return int(said) if said.isdecimal() else 0


def _ended(status: int, log: Path) -> str:
    """Return how the child ended that neither finished nor refused."""
    if status < 0:
        if hasattr(signal, "SIGXCPU") and -status == signal.SIGXCPU:
            return "it is built to take for ever. Record it again."
        name = signal.Signals(-status).name if -status in set(signal.Signals) else str(-status)
        return (
            f"the process that reads it was ended by {name}. It is damaged, or the machine "
            "ran out of memory. Record it again, or read it on a larger machine."
        )
    said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    reason = shown(said[-1]) if said else f"status {status}"
    return f"it is not shaped as a snapshot ({reason}). Record it again."
