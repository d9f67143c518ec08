"""Files that commands read and write: recordings in folders, output never half-written."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tracelens.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable


def recordings(paths: Iterable[Path]) -> list[Path]:
    """Return the recordings among the paths: files as they are, folders as what they hold.

    Raises:
        UnreadableError: a folder holds no recording, or its run.json cannot be understood.
    """
    from tracelens import run

    return [recording.path for place in run.found(paths) for recording in place.recordings]


def is_single(path: Path) -> bool:
    """Tell whether the path is one recording (or nothing at all), not a folder of some."""
    from tracelens.readers.open import is_recording

    return not _is_folder(path) or is_recording(path)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a name too long, say: opening it will tell
        return False


def check_free(output: Path | None, inputs: Iterable[Path], *, force: bool) -> None:
    """Refuse, before any work is done, to write over an input, or over a file without ``force``."""
    if output is None:
        return
    if any(path.exists() and output.exists() and path.samefile(output) for path in inputs):
        raise UsageError(f"{output} is the recording itself: write to another file.")
    if output.exists() and not force:
        raise UsageError(f"{output} exists already; --force overwrites it.")
    if not output.absolute().parent.is_dir():
        raise UsageError(
            f"There is no folder {output.absolute().parent} to write {output.name} to."
        )


def write(output: Path, text: str) -> None:
    """Write a text to a file whole or not at all."""
    write_bytes(output, text.encode("utf-8", "surrogateescape"))


def write_bytes(output: Path, content: bytes) -> None:
    """Write a file whole or not at all: beside its place, then renamed into it."""
    beside: Path | None = None
    try:
        handle, name = tempfile.mkstemp(prefix=f".{output.name}-", dir=output.absolute().parent)
        beside = Path(name)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        umask = os.umask(0)
        os.umask(umask)
        beside.chmod(0o666 & ~umask)
        beside.replace(output)
    except OSError as error:
        if beside:
            beside.unlink(missing_ok=True)
        raise UsageError(f"{output} cannot be written: {error.strerror or error}.") from error
