"""Processes that measure: their lines as they are heard, how they ended, what they last said."""

from __future__ import annotations

import os
import queue
import re
import signal
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Final

from tracelens import tools

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

_PATIENCE_S: Final = 20.0
"""What a process that was killed may take to be gone; a GPU that hangs holds it for ever."""


_ERROR: Final = re.compile(r"[\w.]*(Error|Exception|Exit)\b(: |$)")
"""How Python's own last line begins; what follows it may be advice."""

_LIVE: Final[set[subprocess.Popen[bytes]]] = set()


@dataclass
class Heard:
    """How a process ended.

    Attributes:
        error: a word for it: `SIGABRT`, `Timeout`, `Exit`; "" if all was well.
        why: what it last said, or how it was ended.
        gone: whether it is.
        status: its exit status; negative: the signal.
    """

    error: str = ""
    why: str = ""
    gone: bool = True
    status: int | None = None


@dataclass(frozen=True)
class Program:
    """A program of ours in a process group of its own, which ends when this process does.

    Attributes:
        module: what `python -m` runs.
        arguments: its command line.
        variables: of its environment, beside those of this process.
        silence_s: it is ended when nothing was heard of it for so long.
    """

    module: str
    arguments: Sequence[str]
    silence_s: float
    variables: Mapping[str, str] = field(default_factory=dict)

    def lines(self, heard: Heard) -> Generator[bytes, None, None]:
        """Run it and give its lines; ``heard`` is filled in when there are no more."""
        command = [sys.executable, "-m", "tracelens.bench.alone", self.module, *self.arguments]
        with tempfile.TemporaryFile() as chatter:
            process = subprocess.Popen(  # noqa: S603 (our own program)
                command,
                stdin=subprocess.PIPE,  # which it watches: it ends with us
                stdout=subprocess.PIPE,
                stderr=chatter,
                start_new_session=True,
                env={**os.environ, **self.variables},
            )
            _LIVE.add(process)
            try:
                late = yield from self._until_quiet(process)
            finally:
                heard.gone = _gone(process)
                _LIVE.discard(process)
                for stream in (process.stdin, process.stdout):
                    if stream is not None and heard.gone:
                        stream.close()
            heard.status = process.returncode
            if late:
                heard.error, heard.why = "Timeout", f"nothing was heard for {self.silence_s:g} s"
            elif process.returncode:
                heard.error = _word(process.returncode)
                heard.why = last_words(chatter, process.returncode)

    def _until_quiet(self, process: subprocess.Popen[bytes]) -> Generator[bytes, None, bool]:
        """Give lines until there are no more; return whether it fell silent."""
        said: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        threading.Thread(target=_read, args=(process.stdout, said), daemon=True).start()
        while True:
            try:
                line = said.get(timeout=self.silence_s)
            except queue.Empty:
                return True
            if line is None:
                break
            yield line
        try:
            process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            return True
        return False


def end_all() -> None:
    """End every process that is being heard by any thread."""
    for process in list(_LIVE):
        end(process)


def last_words(chatter: IO[bytes], status: int) -> str:
    """Return the last line that looks like an error, or the exit status."""
    chatter.seek(0)
    lines = [tools.plain(line) for line in chatter.read().decode(errors="replace").splitlines()]
    named = [line for line in lines if _ERROR.match(line)]
    errors = [line for line in lines if "Error" in line and not line.startswith("File ")]
    said = next(reversed(named or errors or [line for line in lines if line]), "")
    return said or (f"it was ended by signal {-status}" if status < 0 else f"exit status {status}")


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process with what it started."""
    tools.end(process.pid)
    process.kill()


def _gone(process: subprocess.Popen[bytes]) -> bool:
    """End a process if it still runs; return whether that could be done."""
    end(process)  # also what it may have started, which could go on using the GPU
    try:
        process.wait(_PATIENCE_S)
    except subprocess.TimeoutExpired:
        return False
    return True


def _read(stream: IO[bytes] | None, said: queue.SimpleQueue[bytes | None]) -> None:
    try:
        for line in stream or ():
            said.put(line)
    except ValueError:
        pass  # closed, since nobody listens any more
    said.put(None)


def _word(status: int) -> str:
    if status >= 0:
        return "Exit"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"Signal {-status}"
